"""Networks: shapes, memory format, names of parts, and refusals."""

from __future__ import annotations

import pytest
import torch
from small_patients import small_plan
from test_classifiers import SMALL as CLASSIFYING
from torch import nn

from medseg.core.errors import MedsegError
from medseg.learning.networks import NETWORKS, build_network
from medseg.learning.unet import ChannelNorm, UNet, nearest_targets

SEGMENTING = ["unet", "residual_unet", "monai_unet", "segresnet", "dynunet"]


@pytest.mark.parametrize("patch", [(16, 16, 8), (16, 16, 1)])
@pytest.mark.parametrize("name", SEGMENTING)
def test_a_segmentation_network_gives_logits_for_every_voxel(name, patch):
    plan = small_plan(patch, network=name, network_arguments={})
    if name in ("unet", "residual_unet"):
        plan = small_plan(patch, network=name)
    network = build_network(plan).eval()
    assert network(torch.zeros(2, 1, *patch)).shape == (2, 3, *patch)


@pytest.mark.parametrize("patch", [(64, 32, 32), (64, 32, 1)])
def test_a_swin_unetr_gives_logits_for_every_voxel(patch):
    small = {"feature_size": 12, "depths": [1, 1, 1, 1], "num_heads": [2, 2, 2, 2]}
    network = build_network(small_plan(patch, network="swinunetr", network_arguments=small)).eval()
    assert network(torch.zeros(1, 1, *patch)).shape == (1, 3, *patch)


def test_every_network_is_covered_by_a_test():
    assert set(NETWORKS) == {*SEGMENTING, *CLASSIFYING, "joint_unet", "swinunetr"}


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
