"""Networks: shapes, memory format, names of parts, and refusals."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from small_patients import balls, small_plan
from test_classifiers import SMALL as CLASSIFYING
from torch import nn

from medseg.core.errors import MedsegError
from medseg.learning.model import Model
from medseg.learning.nested_unet import Gate
from medseg.learning.networks import NETWORKS, build_network
from medseg.learning.parts import PARTS, places
from medseg.learning.segmenters import Fitted
from medseg.learning.settings import Prediction, Training
from medseg.learning.training import train_model
from medseg.learning.unet import ChannelNorm, UNet, nearest_targets

OURS = ["unet", "residual_unet", "attention_unet", "unetpp"]
THEIRS = {
    "monai_unet": {"channels": [4, 8, 8], "strides": [2, 2]},
    "segresnet": {"init_filters": 8, "blocks_down": [1, 1]},
    "dynunet": {"filters": [4, 8, 8], "supervised": 1},
    "mednext": {"init_filters": 4, "blocks_down": [1, 1], "supervised": 1},
    "unetr": {"hidden_size": 12, "feature_size": 4, "num_heads": 2},
    "swinunetr": {"feature_size": 12, "depths": [1, 1, 1, 1], "num_heads": [2, 2, 2, 2]},
}
SUPERVISED = {"dynunet": 2, "mednext": 3}


def _plan(name, patch):
    return small_plan(patch, network=name, **({} if name in OURS else {"network_arguments": THEIRS[name]}))


@pytest.mark.parametrize("patch", [(18, 22, 10), (18, 22, 1), (16, 32, 16)], ids=str)
@pytest.mark.parametrize("name", [*OURS, *THEIRS])
def test_a_segmentation_network_gives_logits_for_every_voxel_of_any_patch(name, patch):
    torch.manual_seed(0)
    network, x = build_network(_plan(name, patch)), torch.randn(2, 1, *patch)
    given = network.train()(x)
    several = given if isinstance(given, list) else [given]
    assert len(several) == SUPERVISED.get(name, 1)
    assert several[0].shape == network.eval()(x).shape == (2, 3, *patch)
    sum(y.square().mean() for y in several).backward()
    unused = [
        n for n, p in network.named_parameters() if p.grad is None and not re.search("dummy|cross_attn", n)
    ]
    assert unused == []


@pytest.mark.parametrize("name", [*OURS, *THEIRS])
def test_every_segmentation_network_has_stem_encoder_decoder_and_head(name):
    found = places(build_network(_plan(name, (16, 16, 16))).state_dict(), name)
    assert {place.part for place in found.values()} == set(PARTS)


def test_what_was_padded_is_cut_off_where_it_was_added():
    class Same(nn.Module):
        def forward(self, x):
            assert x.shape[2:] == (8, 8)
            return [x, x[..., ::2, ::2]]

    x = torch.arange(30.0).reshape(1, 1, 5, 6, 1)
    whole, coarse = Fitted(Same(), [8, 8])(x)
    torch.testing.assert_close(whole, x)
    assert coarse.shape == x.shape
    torch.testing.assert_close(Fitted(Same(), [8, 8]).eval()(x), x)


@pytest.mark.parametrize("name", ["attention_unet", "unetpp"])
def test_variations_of_our_u_net_supervise_their_decoders(name):
    plan = small_plan()
    arguments = {"widths": [4, 8, 8], "strides": [[1] * 3, [2] * 3, [2] * 3], "kernels": [[3] * 3] * 3}
    network = build_network(plan.but(network=name, network_arguments={**arguments, "supervised": 1}))
    sizes = {"attention_unet": (8, 8, 4), "unetpp": (16, 16, 8)}  # all of U-Net++'s are of full size
    given = network.train()(torch.randn(2, 1, 16, 16, 8))
    assert [tuple(y.shape[2:]) for y in given] == [(16, 16, 8), sizes[name]]


def test_a_closed_gate_lets_nothing_through():
    gate = Gate(2, 4, "batch").eval()
    nn.init.constant_(gate.open.bias, -1e3)
    nn.init.zeros_(gate.open.weight)
    assert gate(torch.randn(1, 4, 3, 3), torch.randn(1, 4, 3, 3)).abs().max() == 0


def test_every_network_is_covered_by_a_test():
    assert set(NETWORKS) == {*OURS, *THEIRS, *CLASSIFYING, "joint_unet"}


def test_a_dotted_name_is_a_network_too():
    plan = small_plan(network="medseg.learning.networks:unet")
    assert isinstance(build_network(plan), UNet)


def test_an_unknown_network_or_argument_is_refused_with_the_nearest_name():
    with pytest.raises(MedsegError, match="did you mean 'unet'"):
        build_network(small_plan(network="unte"))
    plan = small_plan()
    wrong = plan.but(network_arguments={**plan.network_arguments, "nrom": "batch"})
    with pytest.raises(MedsegError, match="did you mean 'norm'"):
        build_network(wrong)


def test_the_parts_are_named_for_transfer():
    parts = {key.split(".")[0] for key in build_network(small_plan()).state_dict()}
    assert parts == {"encoder", "decoder", "head"}


@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_the_u_net_never_leaves_channels_last_memory(norm):
    torch.set_num_threads(2)  # with one, torch takes another way through 1 x 1 x 1 convolutions
    plan = small_plan()
    network = build_network(plan.but(network_arguments={**plan.network_arguments, "norm": norm}))
    seen = []
    for part in network.modules():
        if isinstance(part, nn.Conv3d | nn.ConvTranspose3d):
            part.register_forward_hook(lambda _m, x, y: seen.append((x[0], y)))
    network(torch.randn(2, 1, 16, 16, 8).contiguous(memory_format=torch.channels_last_3d))
    inner = [t for pair in seen for t in pair if t.shape[1] > 1]
    assert inner
    assert all(t.is_contiguous(memory_format=torch.channels_last_3d) for t in inner)


def test_our_instance_norm_equals_torch_s():
    x = torch.randn(2, 3, 5, 6, 7)
    torch.testing.assert_close(ChannelNorm(3)(x), nn.InstanceNorm3d(3)(x), atol=1e-5, rtol=1e-5)


def test_deep_supervision_gives_coarser_logits_while_training_only():
    plan = small_plan()
    arguments = {"widths": [4, 8, 8], "strides": [[1] * 3, [2] * 3, [2] * 3], "kernels": [[3] * 3] * 3}
    network = build_network(plan.but(network_arguments={**arguments, "supervised": 2}))
    x = torch.zeros(2, 1, 16, 16, 8)
    assert [tuple(y.shape[2:]) for y in network.train()(x)] == [(16, 16, 8), (8, 8, 4)]
    assert network.eval()(x).shape == (2, 3, 16, 16, 8)


def test_targets_of_coarser_logits_take_the_nearest_voxel():
    target = torch.arange(8).reshape(1, 8, 1, 1)
    assert nearest_targets(target, torch.zeros(1, 2, 4, 1, 1)).ravel().tolist() == [1, 3, 5, 7]


@pytest.mark.parametrize("patch", [(18, 22, 10), (18, 22, 1)], ids=str)
@pytest.mark.parametrize("name", [*OURS[1:], *THEIRS])
def test_every_segmentation_network_is_trained_kept_and_used_window_by_window(name, patch, cases, tmp_path):
    plan = _plan(name, patch).but(batch=2)
    short = Training(epochs=1, steps_per_epoch=2, monitor=0.0, precision="float32")
    train_model(cases[:2], plan, short, out=tmp_path, device=torch.device("cpu"), quiet=True)
    image, _ = balls(20, (24, 24, 12))
    mask = Model.load(tmp_path / "model", "cpu").segment(image, Prediction(overlap=0.0))
    assert mask.grid.matches(image.grid)
    assert set(np.unique(mask.array)) <= {0, 1, 2}
