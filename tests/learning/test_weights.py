"""Every published form of weights: written as others write it, opened, placed parameter by parameter."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
from pathlib import Path

import layouts
import pytest
import torch
from safetensors.torch import save_file
from small_patients import SPACING, small_plan
from torch.nn import functional

from medseg.core.errors import MedsegError
from medseg.data.plan import Intensity, Plan
from medseg.learning.model import save_model
from medseg.learning.networks import build_network
from medseg.learning.settings import Transfer
from medseg.learning.transfer import fit
from medseg.learning.weights import Weights, load_weights, save_weights, saved_weights


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def class_plan(network: str, patch=(32, 32, 32), channels=("MR",), **arguments) -> Plan:
    return Plan(
        task="classification", channels=channels, classes=("a", "b"), spacing_mm=SPACING, patch=patch,
        batch=2, intensity={name: Intensity(name="zscore") for name in channels}, network=network,
        network_arguments=arguments,
    )  # fmt: skip


def planned(weights: Weights, **changes) -> Plan:
    """A plan with the network that the weights tell."""
    return class_plan(weights.facts["network"], **changes, **weights.facts["network_arguments"])


def account(weights: Weights, plan: Plan, **transfer):
    network = build_network(plan)
    return network, fit(network, plan, weights, Transfer(**transfer))


def whole(found, *parts: str) -> bool:
    """Whether every parameter of these parts was carried as it is."""
    return all(found.account.parts[p].exact == found.account.parts[p].total for p in parts)


def saved(file: Path, content) -> Path:
    torch.save(content, file)
    return file


# --- medical images


@pytest.mark.parametrize("depth", [10, 18])
def test_medicalnet_fills_a_resnet_but_for_its_head(tmp_path, depth):
    file = saved(tmp_path / f"resnet_{depth}_23dataset.pth", layouts.medicalnet(depth))
    found = load_weights(file)
    assert found.format == "medicalnet"
    assert found.facts["network_arguments"]["depth"] == depth
    _, done = account(found, planned(found))
    assert whole(done, "stem", "encoder")
    assert done.account.parts["head"].exact == 0
    assert torch.equal(done.values["bn1.running_var"], found.tensors["bn1.running_var"])


def test_swin_weights_fill_the_transformer_of_a_swinunetr(tmp_path):
    heads, depths = (2, 2, 2, 2), (1, 1, 1, 1)
    for again in (False, True):
        found = load_weights(saved(tmp_path / "swin.pt", layouts.swin(12, depths, heads, again=again)))
        assert found.format == "swinunetr"
        assert found.dropped
        plan = small_plan(
            (32, 32, 32), network="swinunetr", network_arguments=found.facts["network_arguments"]
        )
        assert found.facts["network_arguments"]["feature_size"] == 12
        _, done = account(found, plan)
        assert whole(done, "stem", "encoder")
        assert done.account.parts["decoder"].exact == 0
        assert not any("relative_position_index" in name for name in done.values)


def test_swin_weights_go_where_monai_s_own_loader_puts_them(tmp_path):
    from monai.networks.nets.swin_unetr import SwinUNETR

    content = layouts.swin(12, (1, 1, 1, 1), (2, 2, 2, 2))
    found = load_weights(saved(tmp_path / "swin.pt", content))
    theirs = SwinUNETR(1, 2, feature_size=12, depths=(1, 1, 1, 1), num_heads=(2, 2, 2, 2))
    theirs.load_from(content)
    for name, tensor in theirs.swinViT.state_dict().items():
        if not name.endswith("relative_position_index"):
            assert torch.equal(found.tensors[f"swinViT.{name}"], tensor), name


def test_a_smaller_window_gets_interpolated_biases(tmp_path):
    found = load_weights(saved(tmp_path / "swin.pt", layouts.swin(12, (1, 1, 1, 1), (2, 2, 2, 2), window=5)))
    arguments = found.facts["network_arguments"] | {"window_size": 4}
    plan = small_plan((32, 32, 32), network="swinunetr", network_arguments=arguments)
    _, done = account(found, plan)
    assert [r.said for r in done.account.adapted] == ["window biases interpolated from 5 to 4 voxels"]


# --- photographs


def test_a_resnet_of_photographs_fills_a_flat_one_and_a_grey_one_and_a_deep_one(tmp_path):
    file = saved(tmp_path / "resnet18.pth", layouts.resnet([2, 2, 2, 2]))
    found = load_weights(file)
    assert found.format == "imagenet"
    _, colour = account(found, planned(found, patch=(32, 32, 1), channels=("r", "g", "b")))
    assert whole(colour, "stem", "encoder")
    _, grey = account(found, planned(found, patch=(32, 32, 1)))
    assert whole(grey, "encoder")
    assert [r.said for r in grey.account.adapted] == ["3 input channels to 1, their sum kept"]
    _, deep = account(found, planned(found, patch=(32, 32, 32)))
    assert deep.account.share == 1
    assert deep.account.parts["encoder"].adapted > deep.account.parts["encoder"].exact > 0


def test_kernels_are_turned_as_pictures_are(tmp_path):
    """A picture in our axes (columns first, both backwards) is answered to by the turned answer."""
    from medseg.learning.weights_imagenet import turned

    kernel, picture = torch.randn(2, 3, 3, 3), torch.randn(1, 3, 8, 10)
    theirs = functional.conv2d(picture, kernel, padding=1)
    ours = functional.conv2d(picture.transpose(2, 3).flip(2, 3), turned(kernel), padding=1)
    assert torch.allclose(ours, theirs.transpose(2, 3).flip(2, 3), atol=1e-5)


@pytest.mark.parametrize("old_names", [False, True])
def test_a_densenet_fills_whole(tmp_path, old_names):
    found = load_weights(saved(tmp_path / "densenet121.pth", layouts.densenet121(old_names)))
    assert found.facts["network_arguments"] == {"depth": 121}
    _, done = account(found, planned(found, patch=(32, 32, 1), channels=("r", "g", "b")))
    assert whole(done, "stem", "encoder")


@pytest.mark.parametrize("timm", [False, True])
def test_an_efficientnet_fills_whole_by_both_kinds_of_names(tmp_path, timm):
    tensors = layouts.efficientnet_b0(timm)
    found = load_weights(saved(tmp_path / "b0.pth", tensors))
    assert found.facts["network_arguments"] == {"variant": "b0"}
    _, done = account(found, planned(found, patch=(32, 32, 1), channels=("r", "g", "b")))
    assert whole(done, "stem", "encoder")
    if timm:  # the fourth block is the first of the third stage; norms count from the expansion
        assert torch.equal(found.tensors["_blocks.2.3._bn0.bias"], tensors["blocks.2.0.bn1.bias"])
        assert torch.equal(found.tensors["_blocks.2.3._bn2.bias"], tensors["blocks.2.0.bn3.bias"])
        assert torch.equal(found.tensors["_blocks.0.0._bn2.bias"], tensors["blocks.0.0.bn2.bias"])


def test_a_squeeze_and_excitation_resnet_fills_whole(tmp_path):
    found = load_weights(saved(tmp_path / "se_resnet50.pth", layouts.se_resnet50()))
    assert found.facts["network_arguments"] == {"depth": 50}
    _, done = account(found, planned(found, patch=(32, 32, 1), channels=("r", "g", "b")))
    assert whole(done, "stem", "encoder")


def test_a_vision_transformer_is_filled_at_another_size_of_picture(tmp_path):
    tensors = layouts.vit_tiny()
    found = load_weights(saved(tmp_path / "vit.pth", tensors))
    _, same = account(found, planned(found, patch=(224, 224, 1), channels=("r", "g", "b")))
    assert torch.allclose(
        same.values["network.network.cls_token"], tensors["cls_token"] + tensors["pos_embed"][:, :1]
    )
    left = [r for r in same.account.left if r.part != "head"]
    assert {r.example.rpartition(".")[0].rpartition(".")[2] for r in left} <= {"norm_cross_attn"}
    _, small = account(found, planned(found, patch=(96, 96, 1), channels=("r", "g", "b")))
    assert "positions interpolated from 14 to 6 x 6" in [r.said for r in small.account.adapted]
    assert small.account.share > 0.99


def test_the_flat_resnet_inside_a_network_of_slices_is_filled(tmp_path):
    found = load_weights(saved(tmp_path / "resnet18.pth", layouts.resnet([2, 2, 2, 2])))
    plan = class_plan("slices_lstm", (32, 32, 8), depth=18, widen_factor=1.0)
    _, done = account(found, plan)
    assert done.account.share > 0.99  # but for the biases of shortcuts, which torchvision's have not
    assert done.account.parts["decoder"].exact == 0


# --- nnU-Net


WIDTHS, STRIDES = [4, 8, 8], [[1, 1, 1], [2, 1, 2], [2, 2, 2]]
KERNELS = [[3, 1, 3], [3, 3, 3], [3, 3, 3]]


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (2, 0, 1)])
def test_an_nnunet_checkpoint_computes_in_our_network_what_it_computed(tmp_path, order):
    theirs = layouts.PlainConvUNet(1, 3, WIDTHS, STRIDES, KERNELS).eval()
    file = saved(tmp_path / "checkpoint_final.pth", layouts.nnunet(theirs, order=order))
    found = load_weights(file, "nnunet")
    plan = small_plan(network="unet", network_arguments=found.facts["network_arguments"])
    network, done = account(found, plan)
    assert whole(done, "stem", "encoder", "decoder", "head")
    network.load_state_dict(dict(done.values), strict=False)
    image = torch.randn(1, 1, 16, 16, 8)  # I, J, K
    arrays = image.permute(0, 1, 4, 3, 2)  # nnU-Net reads K, J, I
    arrays = arrays.permute(0, 1, *(n + 2 for n in order))
    back = [2 + order.index(n) for n in (2, 1, 0)]
    with torch.inference_mode():
        wanted = theirs(arrays).permute(0, 1, *back)
        assert torch.allclose(network.eval()(image), wanted, atol=1e-4)


@pytest.mark.parametrize("flat", [False, True])
def test_a_residual_nnunet_checkpoint_computes_in_our_residual_network_what_it_computed(tmp_path, flat):
    cut = [s[1:] for s in STRIDES], [k[1:] for k in KERNELS]
    steps = cut if flat else (STRIDES, KERNELS)
    theirs = layouts.ResidualEncoderUNet(1, 3, WIDTHS, *steps, [1, 3, 2]).eval()
    content = layouts.nnunet(theirs, patch=(16, 16) if flat else (8, 16, 16))
    found = load_weights(saved(tmp_path / "checkpoint_final.pth", content), "nnunet")
    assert found.facts["network_arguments"]["blocks"] == [1, 3, 2]
    plan = small_plan(
        (16, 16, 1 if flat else 8), network="residual_unet",
        network_arguments=found.facts["network_arguments"],
    )  # fmt: skip
    network, done = account(found, plan)
    assert whole(done, "stem", "encoder", "decoder", "head")
    assert not done.account.unused or {r.said for r in done.account.unused} == set(found.dropped)
    network.load_state_dict(dict(done.values), strict=False)
    image = torch.randn(1, 1, *plan.patch)
    with torch.inference_mode():
        if flat:
            wanted = theirs(image[..., 0].transpose(2, 3)).transpose(2, 3)[..., None]
        else:
            wanted = theirs(image.permute(0, 1, 4, 3, 2)).permute(0, 1, 4, 3, 2)
        assert torch.allclose(network.eval()(image), wanted, atol=1e-4)
    assert len(network.train()(torch.randn(2, 1, *plan.patch))) == 2, "trained with deep supervision"


def test_a_flat_nnunet_checkpoint_too(tmp_path):
    flat = [s[1:] for s in STRIDES], [k[1:] for k in KERNELS]
    theirs = layouts.PlainConvUNet(1, 3, WIDTHS, *flat).eval()
    file = saved(tmp_path / "checkpoint_final.pth", layouts.nnunet(theirs, patch=(16, 16)))
    found = load_weights(file, "nnunet")
    plan = small_plan((16, 16, 1), network="unet", network_arguments=found.facts["network_arguments"])
    network, done = account(found, plan)
    assert whole(done, "stem", "encoder", "decoder", "head")
    network.load_state_dict(dict(done.values), strict=False)
    image = torch.randn(1, 1, 16, 16, 1)
    with torch.inference_mode():
        wanted = theirs(image[..., 0].transpose(2, 3)).transpose(2, 3)[..., None]
        assert torch.allclose(network.eval()(image), wanted, atol=1e-4)


def test_what_nnunet_tells_of_itself_is_kept(tmp_path):
    theirs = layouts.PlainConvUNet(1, 3, WIDTHS, STRIDES, KERNELS)
    content = layouts.nnunet(theirs, patch=(8, 16, 24))
    found = load_weights(saved(tmp_path / "checkpoint_final.pth", content), "nnunet")
    assert found.facts["outputs"] == ["background", "large", "small"]
    assert found.facts["channels"] == ["MR"]
    assert found.facts["patch"] == [24, 16, 8]
    assert found.facts["spacing_mm"] == [1.0, 1.5, 3.0]
    assert list(found.dropped) == ["without effect: biases before an instance norm"]


def test_nnunet_is_opened_only_by_its_name_and_plans_may_lie_beside_it(tmp_path):
    theirs = layouts.PlainConvUNet(1, 3, WIDTHS, STRIDES, KERNELS)
    content = layouts.nnunet(theirs, order=(2, 1, 0))
    plans = content["init_args"].pop("plans")
    folder = tmp_path / "trained"
    (folder / "fold_0").mkdir(parents=True)
    saved(folder / "fold_0" / "checkpoint_final.pth", content)
    (folder / "plans.json").write_text(json.dumps(plans))
    with pytest.raises(MedsegError, match="import-weights"):
        load_weights(folder)
    found = load_weights(folder, "nnunet")
    turned = theirs.state_dict()["encoder.stages.1.0.convs.0.conv.weight"]
    assert torch.equal(found.tensors["encoder.levels.1.0.0.weight"], turned)  # order K, J, I turned twice


def test_an_old_nnunet_is_named_as_such(tmp_path):
    old = {"conv_blocks_context.0.blocks.0.conv.weight": torch.zeros(1)}
    with pytest.raises(MedsegError, match="nnU-Net v1"):
        load_weights(saved(tmp_path / "o.pth", {"state_dict": old}), "nnunet")


# --- our own, bundles, anything


def _model(folder: Path, plan: Plan) -> dict[str, torch.Tensor]:
    weights = build_network(plan).state_dict()
    save_model(folder, plan, weights, {"name": "a"})
    return weights


def test_a_model_of_ours_fills_its_like_whole(tmp_path):
    plan = small_plan()
    weights = _model(tmp_path / "model", plan)
    found = load_weights(tmp_path / "model")
    assert found.format == "medseg"
    assert found.facts["outputs"] == ["background", "large", "small"]
    _, done = account(found, plan)
    assert whole(done, "stem", "encoder", "decoder", "head")
    assert torch.equal(done.values["head.0.weight"], weights["head.0.weight"])


def test_a_run_with_one_model_stands_for_it_and_several_are_asked_about(tmp_path):
    _model(tmp_path / "train" / "fold0" / "model", small_plan())
    assert load_weights(tmp_path).format == "medseg"
    _model(tmp_path / "train" / "fold1" / "model", small_plan())
    with pytest.raises(MedsegError, match="several models") as caught:
        load_weights(tmp_path)
    assert "fold0, fold1" in str(caught.value)


def test_a_flat_model_of_ours_fills_a_deep_one(tmp_path):
    flat = small_plan((16, 16, 1))
    _model(tmp_path / "model", flat)
    _, done = account(load_weights(tmp_path / "model"), small_plan((16, 16, 8)))
    assert done.account.parts["stem"].adapted == 36 * 3
    assert done.account.share == 1


def test_a_bundle_is_opened_as_monai_writes_it(tmp_path):
    from medseg.learning.bundle import write_bundle
    from medseg.learning.model import Model

    plan = small_plan()
    weights = _model(tmp_path / "model", plan)
    write_bundle(Model.load(tmp_path / "model", "cpu"), tmp_path / "bundle")
    found = load_weights(tmp_path / "bundle")
    assert found.format == "bundle"
    assert found.facts["network_arguments"] == plan.network_arguments
    assert found.facts["outputs"] == ["background", "large", "small"]
    _, done = account(found, plan)
    assert whole(done, "stem", "encoder", "decoder", "head")
    (tmp_path / "bundle" / "models" / "model.pt").unlink()
    save_file({k: v.contiguous() for k, v in weights.items()}, tmp_path / "bundle/models/model.safetensors")
    assert load_weights(tmp_path / "bundle").format == "bundle"


def test_a_bundle_tells_monai_s_network_unless_that_had_to_be_executed(tmp_path):
    network = {
        "_target_": "SegResNet", "spatial_dims": 3, "in_channels": 1, "out_channels": 3, "init_filters": 8,
        "blocks_down": [1, 2],
    }  # fmt: skip
    folder = tmp_path / "bundle"
    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    saved(folder / "models" / "model.pt", {"a.b": torch.zeros(1)})
    (folder / "configs" / "metadata.json").write_text(json.dumps({"monai_version": "1.4.0"}))
    for arguments, told in ((network, True), (network | {"init_filters": "$__import__('os')"}, False)):
        (folder / "configs" / "inference.json").write_text(json.dumps({"network_def": arguments}))
        facts = load_weights(folder).facts
        assert ("network" in facts) == told
        if told:
            assert facts["network"] == "segresnet"
            assert facts["network_arguments"] == {"init_filters": 8, "blocks_down": [1, 2]}


@pytest.mark.parametrize("wrapped", ["state_dict", "model", "model_state_dict", ""])
def test_any_state_dict_goes_by_a_prefix_map(tmp_path, wrapped):
    plan = small_plan()
    state = {f"module.backbone.{k}": v for k, v in build_network(plan).state_dict().items()}
    content = {wrapped: state, "epoch": 3} if wrapped else state
    found = load_weights(saved(tmp_path / "any.pth", content), prefix={"backbone.": ""})
    assert found.format == "state"
    _, done = account(found, plan)
    assert whole(done, "stem", "encoder", "decoder", "head")


def test_a_prefix_that_nothing_begins_with_is_an_error(tmp_path):
    file = saved(tmp_path / "any.pth", {"a.b": torch.zeros(1)})
    with pytest.raises(MedsegError, match="no weight's name begins with 'x'"):
        load_weights(file, prefix={"x": ""})
    with pytest.raises(MedsegError, match="two weights would be named 'c'"):
        load_weights(saved(file, {"a": torch.zeros(1), "b": torch.zeros(1)}), prefix={"a": "c", "b": "c"})


def test_what_was_written_opens_again_with_its_origin(tmp_path):
    found = load_weights(saved(tmp_path / "m.pth", layouts.medicalnet()))
    save_weights(tmp_path / "kept", found)
    for again in (saved_weights(tmp_path / "kept"), load_weights(tmp_path / "kept")):
        assert (again.format, again.sha256, again.facts) == (found.format, found.sha256, found.facts)
        assert set(again.tensors) == set(found.tensors)
    assert found.sha256 == hashlib.sha256((tmp_path / "m.pth").read_bytes()).hexdigest()


# --- what is wrong is named


@pytest.mark.parametrize(
    ("content", "asked", "said"),
    [
        (layouts.resnet([2, 2, 2, 2], classes=0), "medicalnet", r"\(64, 3, 7, 7\).*\n.*format=imagenet"),
        ({"state_dict": {"a": torch.zeros(1)}}, "imagenet", "names such as a"),
        ({"a.b": torch.zeros(1)}, "swinunetr", "no patch_embed.proj.weight"),
        ({"a.b": torch.zeros(1)}, "nnunet", "no encoder.stages.0.0.convs.0.conv.weight"),
        ({"a.b": torch.zeros(1)}, "bundle", "no configs/metadata.json"),
        ({"a.b": torch.zeros(1)}, "medsge", "did you mean 'medseg'"),
    ],
)
def test_a_wrong_file_is_named_as_such(tmp_path, content, asked, said):
    with pytest.raises(MedsegError, match=said):
        load_weights(saved(tmp_path / "w.pth", content), asked)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("w.safetensors", b"not at all", "not safetensors"),
        ("w.pth", b"not at all", "neither safetensors nor a torch file"),
        ("w.pth", b"", "neither safetensors nor a torch file"),
    ],
)
def test_a_damaged_file_is_named_as_such(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(MedsegError, match=said):
        load_weights(tmp_path / name)


def test_a_file_without_tensors_is_named_as_such(tmp_path):
    with pytest.raises(MedsegError, match=r"no tensors by name(.|\n)*dictionary of int"):
        load_weights(saved(tmp_path / "w.pth", {"epoch": 3}))
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "readme.txt").touch()
    with pytest.raises(MedsegError, match=r"no weights we know(.|\n)*readme\.txt"):
        load_weights(tmp_path / "empty")


class _Bomb:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("format", ["auto", "nnunet", "state"])
@pytest.mark.parametrize("how", ["torch", "pickle"])
def test_a_pickle_that_does_something_is_refused_and_does_nothing(tmp_path, format, how):
    mark, file = tmp_path / "done", tmp_path / "bomb.pth"
    content = {"state_dict": {"a": torch.zeros(1)}, "extra": _Bomb(mark)}
    if how == "torch":
        torch.save(content, file)
    else:
        file.write_bytes(pickle.dumps(content))
    with pytest.raises(MedsegError, match=r"would run code(.|\n)*save_file") as caught:
        load_weights(file, format)
    assert how == "pickle" or "mkdir" in str(caught.value)
    assert not mark.exists()
    torch.load(file, weights_only=False) if how == "torch" else pickle.loads(file.read_bytes())
    assert mark.exists(), "the bomb of this test is none"


def test_numpy_objects_are_no_part_of_what_nnunet_may_bring(tmp_path):
    import numpy as np

    theirs = layouts.PlainConvUNet(1, 3, WIDTHS, STRIDES, KERNELS)
    content = layouts.nnunet(theirs) | {"array": np.zeros(3)}
    with pytest.raises(MedsegError, match="numpy"):
        load_weights(saved(tmp_path / "c.pth", content), "nnunet")


def test_another_sha256_is_refused(tmp_path):
    file = saved(tmp_path / "m.pth", {"a.b": torch.zeros(1)})
    with pytest.raises(MedsegError, match="not the file that was pinned"):
        load_weights(file, sha256="0" * 64)
    load_weights(file, sha256=hashlib.sha256(file.read_bytes()).hexdigest())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_no_numbers_are_refused(tmp_path, value):
    file = saved(tmp_path / "m.pth", {"a.b": torch.zeros(2), "c.d": torch.tensor([1.0, value])})
    with pytest.raises(MedsegError, match=r"not numbers(.|\n)*1 of 2 tensors, such as c\.d"):
        load_weights(file)


def test_the_network_of_an_older_bundle_is_built_without_the_size_of_its_images(tmp_path):
    """As published for BTCV: the size of the patch was an argument of SwinUNETR then."""
    network = {
        "_target_": "SwinUNETR", "spatial_dims": 3, "img_size": 96, "in_channels": 1, "out_channels": 14,
        "feature_size": 12, "use_checkpoint": False,
    }  # fmt: skip
    folder = tmp_path / "bundle"
    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    saved(folder / "models" / "model.pt", {"a.b": torch.zeros(1)})
    (folder / "configs" / "metadata.json").write_text(json.dumps({"monai_version": "1.4.0"}))
    (folder / "configs" / "inference.json").write_text(json.dumps({"network_def": network}))
    facts = load_weights(folder).facts
    plan = small_plan().but(network=facts["network"], network_arguments=facts["network_arguments"])
    assert "swinViT.patch_embed.proj.weight" in build_network(plan.but(patch=(64, 32, 32))).state_dict()
