"""Maps lie where the reasons are known to lie, on the source's grid; empty ones are told apart."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from explaining_nets import SHAPE, Corner, ball, bright, halves, model_of, plan_for, segmenting
from scipy import ndimage
from torch import nn

from medseg.core.errors import MedsegError
from medseg.data.plan import Plan
from medseg.imaging.grid import Grid
from medseg.imaging.image import Image
from medseg.learning.explain import Explanation, explain
from medseg.learning.explain_check import alike, block_ids, faithfulness
from medseg.learning.explain_maps import Question, answers, displacement, filling, layer_of, occluded, raw_map
from medseg.learning.networks import NETWORKS, build_network
from medseg.learning.settings import Explaining

FLAT = (24, 20, 1)
METHODS = ("gradcam", "gradcam++", "occlusion")


def settings(**changes: object) -> Explaining:
    return Explaining(**({"draws": 6, "steps": 6} | changes))  # type: ignore[arg-type]


def peak(found: Explanation) -> tuple[int, ...]:
    array = found.map.array[0]
    return tuple(int(i) for i in np.unravel_index(array.argmax(), array.shape))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("shape", [SHAPE, FLAT])
def test_the_map_of_a_classifier_peaks_in_the_ball_it_decides_by(method, side, shape):
    plan = plan_for("explaining_nets:fresh_halves", shape)
    image, inside = ball(side, 1, shape)
    (found,) = explain(model_of(plan, halves(plan)), image, settings(method=method))
    assert found.target == side
    assert found.map.grid.matches(image.grid)
    assert found.map.array.dtype == np.float32
    assert inside[peak(found)]
    assert found.map.array[0][inside].mean() > 5 * found.map.array[0][~inside].mean()
    assert found.facts["faithfulness"]["faithful"], found.facts["faithfulness"]["reason"]
    assert not any("random" in warning for warning in found.facts["warnings"])
    assert 0.9 < found.map.array.max() <= 1


@pytest.mark.parametrize("method", METHODS)
def test_the_class_that_nothing_speaks_for_has_an_empty_map_with_a_warning(method):
    plan = plan_for("explaining_nets:fresh_halves")
    image, _ = ball("left", 2)
    (found,) = explain(model_of(plan, halves(plan)), image, settings(method=method, targets=("right",)))
    assert found.facts["probability"] < 0.1
    assert found.facts["raw_max"] < 1e-3
    assert not found.facts["faithfulness"]["faithful"]
    assert "not better than random" in found.facts["warnings"][0]
    assert method == "occlusion" or found.map.array.max() == 0


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("patch", [SHAPE, FLAT])
def test_the_map_of_a_segmenter_lies_on_the_label_asked_about(method, patch):
    plan = segmenting("explaining_nets:bright", patch)
    image, inside = ball("right", 3)
    image.array[0, 2:8, 2:8, 3:7] -= 100  # a dark block in the other half
    found = {e.target: e for e in explain(model_of(plan, bright(plan)), image, settings(method=method))}
    assert list(found) == ["bright", "dark"]
    assert inside[peak(found["bright"])]
    assert not inside[peak(found["dark"])]
    assert found["dark"].map.array[0, 2:8, 2:8, 3:7].max() == found["dark"].map.array.max()
    assert all(e.facts["faithfulness"]["faithful"] for e in found.values())
    slices = (found["bright"].map.array[0] > 0).any((0, 1)).sum()
    assert slices == 1 if patch == FLAT else slices > 1
    assert (found["bright"].facts["region_share"] < 1) == (patch == FLAT)


@pytest.mark.parametrize("method", ["gradcam", "occlusion"])
def test_maps_come_back_in_the_axis_order_of_the_source(method):
    """The same tissue stored with its axes in another order, and finer than the plan, has the same map."""
    plan = plan_for("explaining_nets:fresh_halves")
    models = model_of(plan, halves(plan))
    turned = np.array([[0, 0, -1.0, 23], [-1.2, 0, 0, 19 * 1.2], [0, 2.4, 0, 0], [0, 0, 0, 1]])
    plain, inside = ball("left", 4)
    stored = Image(plain.array.transpose(0, 2, 3, 1)[:, ::-1, :, ::-1].copy(), Grid((20, 10, 24), turned))
    first, second = (explain(models, image, settings(method=method))[0] for image in (plain, stored))
    assert second.map.grid.matches(stored.grid)
    back = second.map.array[0][::-1, :, ::-1].transpose(2, 0, 1)
    np.testing.assert_allclose(back, first.map.array[0], atol=1e-5)
    assert inside[np.unravel_index(back.argmax(), back.shape)]


def test_a_map_on_a_finer_source_lies_in_the_same_millimetres():
    plan = plan_for("explaining_nets:fresh_halves")
    fine = np.diag([0.5, 0.6, 1.2, 1.0])
    image, inside = ball("right", 5, (48, 40, 20), fine)
    (found,) = explain(model_of(plan, halves(plan)), image, settings())
    assert found.map.grid.matches(image.grid)
    assert inside[peak(found)]


def test_what_the_network_did_not_look_at_is_zero():
    plan = plan_for(
        "explaining_nets:fresh_halves", (12, 10, 6)
    )  # patches of 12 voxels: the image is shrunk to fit
    image, _ = ball("left", 6, (24, 20, 30))
    (found,) = explain(model_of(plan, halves(plan)), image, settings())
    assert found.facts["window"]["shape"] == [12, 10, 6]
    plan = segmenting("explaining_nets:bright", (8, 8, 4))
    image, inside = ball("left", 6)
    (found,) = explain(model_of(plan, bright(plan)), image, settings(targets=("bright",)))
    assert 0 < found.facts["region_share"] < 1
    where = np.argwhere(found.map.array[0] > 0)
    assert (np.ptp(where, axis=0) < [8, 8, 4]).all()
    assert inside[peak(found)]


def _question(network: nn.Module, array: np.ndarray, **changes: object) -> Question:
    window = torch.from_numpy(array.astype(np.float32))[None]
    return Question(network, window, filling(window, "mean"), **({"target": 0} | changes))  # type: ignore[arg-type]


def test_occlusion_equals_its_closed_form_on_a_network_that_sees_one_corner():
    array = np.zeros((1, 12, 12, 8))
    array[0, :4, :4, :4] = 1
    question = _question(Corner(), array)
    question = Question(question.network, question.window, torch.zeros_like(question.window), 0)
    found = occluded([question], (4, 4, 4), 0.0, 5)
    expected = np.zeros((12, 12, 8))
    expected[:4, :4, :4] = 1 / (1 + np.exp(-4)) - 0.5  # logits 2 and -2 become equal
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_grad_cam_equals_its_closed_form():
    """Weights of Grad-CAM are the mean gradients: here those of the head over the number of features."""
    image, _ = ball("left", 7)
    array = image.array / 30
    network = halves(plan_for("x"))
    found = raw_map(_question(network, array), "gradcam", "halves")
    features = network.halves(network.smooth(torch.from_numpy(array)[None]))[0].detach().numpy()
    expected = np.maximum(40 * (features[0] - features[1]) / features[0].size, 0)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "expected"),
    [(3, 2, 1, -0.5), (2, 2, 0, 0.0), (7, 4, 3, -1.5), (3, 1, 1, 0.0)],
)
def test_features_lie_where_their_convolution_looks(kernel, stride, padding, expected):
    torch.manual_seed(1)
    network = nn.Sequential(nn.Conv3d(1, 32, kernel, stride, padding), nn.ReLU())
    question = _question(network, np.zeros((1, 32, 24, 16)))
    assert displacement(question, "1") == pytest.approx([expected] * 3, abs=0.3)


def test_random_weights_are_reported_as_not_faithful():
    shape = (32, 32, 16)
    for flat in (False, True):
        patch = (32, 32, 1) if flat else shape
        for seed in range(3):
            plan = plan_for("resnet", patch, network_arguments={"widen_factor": 0.125})
            torch.manual_seed(seed)
            image, _ = ball("left", seed, patch)
            (found,) = explain(model_of(plan, build_network(plan)), image, settings())
            assert not found.facts["faithfulness"]["faithful"]
            assert "not better than random" in found.facts["warnings"][0]


class Small(nn.Module):
    """Three convolutions with batch norm, a mean and a head: to be trained in a second."""

    def __init__(self) -> None:
        super().__init__()
        parts: list[nn.Module] = []
        for inputs, outputs, stride in ((1, 8, 1), (8, 16, 2), (16, 16, 2)):
            parts += [nn.Conv2d(inputs, outputs, 3, stride, 1), nn.BatchNorm2d(outputs), nn.ReLU(True)]
        self.body = nn.Sequential(*parts)
        self.head = nn.Linear(16, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x.squeeze(-1)).mean((2, 3)))


def small(plan: Plan) -> nn.Module:
    return Small()


def _lit(side: str, bright: bool, seed: int) -> tuple[Image, np.ndarray]:
    """A ball in one of two places that is bright or dark: the class is its brightness."""
    image, inside = ball(side, seed, FLAT)
    return (image if bright else image.but(-image.array)), inside


@pytest.fixture(scope="module")
def trained() -> nn.Module:
    torch.manual_seed(0)
    network = Small()
    optimiser = torch.optim.Adam(network.parameters(), 3e-3)
    kinds = [(side, bright) for side in ("left", "right") for bright in (True, False)] * 2
    for step in range(60):
        batch = [_lit(side, bright, 100 + 8 * step + n)[0].array for n, (side, bright) in enumerate(kinds)]
        logits = network(torch.from_numpy(np.stack(batch)) / 30)
        optimiser.zero_grad()
        nn.functional.cross_entropy(logits, torch.tensor([int(not bright) for _, bright in kinds])).backward()
        optimiser.step()
    optimiser.zero_grad()
    return network


@pytest.mark.parametrize("method", METHODS)
def test_a_trained_network_is_explained_by_the_ball_and_stays_as_it_was(trained, method):
    models = model_of(plan_for("test_explain:small", FLAT, classes=("bright", "dark")), trained)
    before = copy.deepcopy(trained.state_dict())
    for n, (side, lit) in enumerate((s, b) for s in ("left", "right") for b in (True, False)):
        image, inside = _lit(side, lit, n)
        (found,) = explain(models, image, settings(method=method))
        assert found.target == ("bright" if lit else "dark")
        near = ndimage.binary_dilation(inside, iterations=2)  # features lie four pixels apart
        assert near[peak(found)]
        assert found.facts["faithfulness"]["faithful"]
        assert abs(found.facts["weights_drawn_anew"]["everything"] or 0) < 1
    assert all(torch.equal(before[key], value) for key, value in trained.state_dict().items())


def test_a_wrong_map_is_told_from_a_right_one():
    """The same model, the same image: only the map that marks the ball passes the check."""
    plan = plan_for("explaining_nets:fresh_halves")
    image, inside = ball("left", 8)
    question = _question(halves(plan), image.array / 30)
    sides = [24.0, 24.0, 24.0]
    right = faithfulness([question], inside.astype(np.float32), sides, settings())
    wrong = faithfulness([question], inside[::-1].astype(np.float32), sides, settings())
    assert right["faithful"]
    assert right["gain_interval"][0] > 0
    assert right["insertion_gain"] > 0.02
    assert not wrong["faithful"]
    assert wrong["gain"] < right["gain"] / 2


def test_an_answer_that_nothing_changes_has_no_explanation():
    image, inside = ball("left", 8)
    network = halves(plan_for("x"))
    torch.nn.init.zeros_(network.head.weight)
    question = _question(network, image.array / 30)
    check = faithfulness([question], inside.astype(np.float32), [24.0] * 3, settings())
    assert not check["faithful"]
    assert check["reason"] == "hiding any part of the image hardly changes the answer"


def test_hiding_everything_gives_the_answer_of_the_fill_value():
    image, _ = ball("left", 9)
    question = _question(halves(plan_for("x")), image.array / 30)
    both = np.stack([np.zeros(SHAPE, bool), np.ones(SHAPE, bool)])
    whole, empty = answers([question], both)
    assert whole > 0.9
    assert empty == pytest.approx(0.5)


@pytest.mark.parametrize("kind", ["mean", "background", "blur"])
def test_hidden_voxels_take_the_value_asked_for(kind):
    window = torch.zeros(1, 2, 9, 9, 1)
    window[:, :, 3:6, 3:6] = 9
    window[:, 1] += 5
    fill = filling(window, kind)
    assert fill.shape == window.shape
    first, second = fill[0, 0, 4, 4, 0].item(), fill[0, 1, 4, 4, 0].item()
    assert second - first == pytest.approx(5, abs=1e-4)
    assert {"mean": first == 1, "background": first == 0, "blur": 1 < first < 9}[kind]


def test_blocks_are_cubes_of_tissue_on_anisotropic_voxels():
    ids = block_ids((32, 32, 8), (32.0, 32.0, 32.0), 4)
    assert ids.max() + 1 == 64
    assert (np.bincount(ids.ravel()) == 8 * 8 * 2).all()
    assert block_ids((32, 32, 1), (32.0, 32.0, 5.0), 8).max() + 1 == 64


def test_rank_correlation_knows_equal_opposite_and_constant():
    values = np.arange(10.0) ** 3
    assert alike(values, np.exp(values / 100)) == 1
    assert alike(values, -values) == -1
    assert alike(values, np.zeros(10)) is None


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_every_network_has_a_layer_and_gives_a_map(name, dimensions):
    patch = (64, 64, 1) if dimensions == 2 else (32, 32, 32)
    made = _network(name, patch)
    if made is None:
        pytest.skip(f"{name} is not made for {dimensions}-D patches")
    plan, network = made
    region = None
    if plan.task == "segmentation":
        region = torch.zeros(patch, dtype=torch.bool)
        region[4:20, 4:20] = True
    before = copy.deepcopy(network.state_dict())
    window = torch.randn(1, 1, *patch)
    question = Question(network.eval(), window, torch.zeros_like(window), 1, region)
    for method in ("gradcam", "gradcam++"):
        found = raw_map(question, method, layer_of(question))
        assert found.ndim == 3
        assert 4 <= max(found.shape) <= 32
        assert (found >= 0).all()
    after = network.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert not any(module._forward_hooks or module._backward_hooks for module in network.modules())
    assert all(p.grad is None for p in network.parameters())


def _network(name: str, patch: tuple[int, int, int]):
    """A network of the table with plan, for whichever task it is; None where it cannot be so."""
    for plan in (segmenting(name, patch), plan_for(name, patch)):
        arguments = {}
        if name == "unet":
            step = [2, 2, 1] if patch[2] == 1 else [2, 2, 2]
            kernel = [3, 3, 1] if patch[2] == 1 else [3, 3, 3]
            arguments = {"widths": [4, 8, 8], "strides": [[1] * 3, step, step], "kernels": [kernel] * 3}
        plan = plan.but(network_arguments=arguments)
        try:
            network = build_network(plan).eval()
            with torch.no_grad():
                y = network(torch.zeros(1, 1, *patch))
        except (TypeError, ValueError, RuntimeError, MedsegError):
            continue
        if isinstance(y, torch.Tensor) and y.ndim == (5 if plan.task == "segmentation" else 2):
            return plan, network
    return None


def test_a_layer_can_be_chosen_by_name_and_a_wrong_name_is_answered():
    plan = plan_for("densenet", (64, 64, 1))
    network = build_network(plan)
    window = torch.zeros(1, 1, 64, 64, 1)
    question = Question(network, window, window, 0)
    assert layer_of(question, "features.denseblock4") == "network.features.denseblock4"
    with pytest.raises(MedsegError, match="no module") as told:
        layer_of(question, "features.denseblok4")
    assert "denseblock" in str(told.value.mend)


def test_an_unknown_target_is_answered_with_the_nearest():
    plan = plan_for("explaining_nets:fresh_halves")
    with pytest.raises(MedsegError, match="knows no 'lefft'") as told:
        explain(model_of(plan, halves(plan)), ball("left")[0], settings(targets=("lefft",)))
    assert "'left'" in str(told.value.mend)


def test_the_same_seed_gives_the_same_bytes_and_batches_change_nothing():
    plan = plan_for("explaining_nets:fresh_halves")
    image, _ = ball("right", 10)
    one, two, other = (
        explain(model_of(plan, halves(plan)), image, settings(batch=batch, seed=seed))[0]
        for batch, seed in ((8, 0), (3, 0), (8, 1))
    )
    np.testing.assert_array_equal(one.map.array, two.map.array)
    assert one.facts == two.facts
    assert one.facts["faithfulness"]["random_mean"] != other.facts["faithfulness"]["random_mean"]


def test_several_networks_are_asked_together():
    plan = plan_for("explaining_nets:fresh_halves")
    one = model_of(plan, halves(plan))
    image, _ = ball("left", 11)
    both = type(one)((one.members[0], one.members[0]))
    alone, together = (explain(m, image, settings())[0] for m in (one, both))
    np.testing.assert_allclose(alone.map.array, together.map.array, atol=1e-6)
    assert together.facts["networks"] == 2
    assert together.facts["probability"] == alone.facts["probability"]


def test_file_names_hold_no_strange_letters(tmp_path: Path):
    plan = plan_for("explaining_nets:fresh_halves", classes=("a/b", "c d"))
    image, _ = ball("left", 12)
    (found,) = explain(model_of(plan, halves(plan)), image, settings(method="gradcam++"))
    assert found.file == "gradcampp_a_b.nii.gz"


class Coloured(nn.Module):
    """A joint network: bright voxels are the label, and how bright they are is the class."""

    def __init__(self) -> None:
        super().__init__()
        self.features, self.head = nn.Conv3d(1, 1, 1), nn.Conv3d(1, 2, 1)
        self.class_head = nn.Linear(1, 2)
        values = [[1.0], [-1.0], [-20.0, 20.0], [2.0, -2.0], [-10.0, 10.0], [1.0, -1.0]]
        with torch.no_grad():
            for parameter, value in zip(self.parameters(), values, strict=True):
                parameter.copy_(torch.tensor(value).reshape(parameter.shape))

    def forward(self, x):
        return self.head(torch.relu(self.features(x)))

    def class_logits(self, x):
        return self.class_head(torch.relu(self.features(x)).mean((2, 3, 4)))


def joint_models(monkeypatch, patch=(12, 12, 6)):
    monkeypatch.setattr("medseg.learning.explain_check.build_network", lambda plan: Coloured())
    plan = segmenting("explaining_nets:bright", patch)
    plan = plan.but(labels=plan.labels[:1], classes=("dull", "shining"), network="joint_unet")
    plan = plan.but(network_arguments={"strides": [[1, 1, 1]]})
    return model_of(plan, Coloured().eval())


@pytest.mark.parametrize("method", ["gradcam", "occlusion"])
def test_of_a_joint_model_the_class_is_explained_beside_the_label(method, monkeypatch):
    image, inside = ball("right", 3)
    found = {e.target: e for e in explain(joint_models(monkeypatch), image, settings(method=method))}
    assert list(found) == ["bright", "shining"]
    assert [e.facts["of"] for e in found.values()] == ["label", "class"]
    shining = found["shining"]
    assert shining.facts["probability"] > 0.9 and shining.facts["faithfulness"]["faithful"]
    assert inside[peak(shining)]
    assert shining.map.array[0][inside].mean() > 5 * shining.map.array[0][~inside].mean()
    assert shining.facts["window"]["shape"] == [12, 12, 6]


def test_of_a_joint_model_a_class_can_be_asked_for_and_an_empty_mask_has_one(monkeypatch):
    models = joint_models(monkeypatch)
    image, _ = ball("right", 3)
    (found,) = explain(models, image, settings(targets=("dull",)))
    assert found.target == "dull" and found.facts["probability"] < 0.1
    empty = image.but(np.zeros_like(image.array))
    region = image.but(np.zeros(image.array.shape, np.uint8))
    monkeypatch.setattr("medseg.learning.explain_view.prepare", lambda image, *_: image)
    assert [e.target for e in explain(models, empty, settings(), region=region)] == ["dull"]
    with pytest.raises(MedsegError, match="bright, dull, shining"):
        explain(models, image, settings(targets=("red",)))
