"""Regions that overlap and voxels nobody knows: trained, kept, used, handed on."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_patients import balls, ingested, small_plan

from medseg.core.stage import artifact_of
from medseg.data.plan import Plan
from medseg.data.prepare import IGNORED, foreground_voxels, prepare_mask
from medseg.evaluation.pairs import score_pair
from medseg.evaluation.policy import Scoring
from medseg.imaging.image import Image
from medseg.imaging.labels import named_labels
from medseg.learning.bundle import write_bundle
from medseg.learning.bundle_config import postprocessing_of
from medseg.learning.confidence import segment_with_confidence
from medseg.learning.inference import class_indices
from medseg.learning.losses import loss_of
from medseg.learning.model import Model, Models
from medseg.learning.monitor import dice_of
from medseg.learning.pseudo import sure_labels
from medseg.learning.sampling import PreparedCase, Sampler
from medseg.learning.settings import Training
from medseg.learning.training import train_model
from medseg.stages.prepare import prepare

CPU = torch.device("cpu")
BOTH = named_labels({"both": [1, 2], "small": [2]})
HIDDEN = 9
SHORT = Training(epochs=1, steps_per_epoch=3, monitor=0.25, precision="float32")


@pytest.fixture(scope="module")
def plan() -> Plan:
    return small_plan(labels=BOTH)


@pytest.fixture(scope="module")
def model(cases, plan, tmp_path_factory) -> Model:
    out = tmp_path_factory.mktemp("regions")
    train_model(cases, plan, SHORT, out=out, device=CPU, quiet=True)
    return Model.load(out / "model", CPU)


@pytest.fixture
def partly(tmp_path) -> PreparedCase:
    """A case of which the lower half of the first axis is not known."""
    image, mask = balls(0)
    array = mask.array.copy()
    array[:, : array.shape[1] // 2] = HIDDEN
    raw = ingested(tmp_path / "raw", 0, "c0", "p0", image, mask.but(array))
    out = tmp_path / "prepared"
    out.mkdir()
    prepare(artifact_of(raw), preparation=small_plan(ignore=HIDDEN).preparation(), out=out)
    return PreparedCase("c0", out)


# -- regions ------------------------------------------------------------------------------------------


def test_a_model_of_regions_has_an_output_for_each_and_none_for_background(plan):
    assert plan.outputs == 2
    assert plan.membership().tolist() == [[False, False], [True, False], [True, True]]
    assert small_plan().outputs == 3


def test_a_trained_model_of_regions_says_so_and_segments(model, cases):
    assert [label["region"] for label in model.about["labels"]] == [[1, 2], [2]]
    assert set(model.about["monitor"]) == {"dice", "dice_both", "dice_small"}
    image, _ = balls(20)
    mask = model.segment(image)
    assert mask.grid.matches(image.grid)
    assert set(np.unique(mask.array)) <= {0, 1, 2}
    found, grid = model.probabilities(image)
    assert found.shape == (2, *grid.shape)
    assert 0 <= found.min() <= found.max() <= 1
    assert (found.sum(0) > 1).any() or (found.sum(0) < 1).any(), "each has a probability of its own"


def test_the_monitor_s_dice_is_that_of_whole_regions(plan, cases):
    class Right(torch.nn.Module):
        """Knows the large ball only, and calls all of it both regions."""

        def forward(self, x):
            there = (x > 1).float() * 2 - 1
            return torch.cat([there, there], 1) * 20

    found = dice_of(Right(), plan, cases[:1], CPU)
    inside = np.asarray(cases[0].image[0], np.float32) > 1
    whole, small = (np.isin(cases[0].reference, v) for v in ((1, 2), (2,)))
    for name, there in (("both", whole), ("small", small)):
        wanted = 2 * (inside & there).sum() / (inside.sum() + there.sum())
        assert found[f"dice_{name}"] == pytest.approx(wanted, abs=0.02)


def test_a_bundle_of_regions_paints_as_we_do(model, tmp_path):
    assert write_bundle(model, tmp_path)["largest_difference"] < 1e-3
    steps = postprocessing_of(model.plan)
    assert {"_target_": "Activationsd", "keys": "pred", "sigmoid": True} in steps
    code = next(s["func"] for s in steps if s.get("keys") == "pred" and s["_target_"] == "Lambdad")
    said = torch.rand(2, 5, 6, 7)
    ours = np.array([0, 1, 2])[class_indices(said.numpy(), BOTH)]
    theirs = eval(code.removeprefix("$"), {"torch": torch})(said)  # our own text
    np.testing.assert_array_equal(theirs[0].numpy(), ours)


def test_how_sure_a_model_is_of_each_region(model):
    _, quality, candidates = segment_with_confidence(Models((model,)), balls(3)[0])
    assert set(quality["by_label"]) == set(candidates) == {"both", "small"}


def test_a_pupil_learns_where_every_region_is_sure():
    soft = np.array([[0.95, 0.95, 0.6, 0.02], [0.97, 0.04, 0.97, 0.01]], np.float32).reshape(2, 4, 1, 1)
    assert sure_labels(soft, 0.9, BOTH).ravel().tolist() == [2, 1, IGNORED, 0]


def test_regions_are_measured_as_they_overlap():
    _, mask = balls(0)
    rows = score_pair(mask, mask, BOTH, Scoring(), "c", "p")
    volumes = {r["label"]: r["value"] for r in rows if r["metric"] == "volume_ref"}
    voxel = mask.grid.voxel_ml
    assert volumes["both"] == pytest.approx((mask.array > 0).sum() * voxel)
    assert volumes["small"] == pytest.approx((mask.array == 2).sum() * voxel)


# -- voxels nobody knows ------------------------------------------------------------------------------


def test_a_prepared_reference_marks_what_is_not_known(partly):
    there = np.asarray(partly.reference)
    half = there.shape[0] // 2
    assert (there[:half] == IGNORED).all()
    assert (there[half:] <= 2).all()
    assert partly.info["voxels"][0] == (there == 0).sum()
    assert len(partly.info["voxels"]) == 3


def test_patches_are_centred_where_something_is_known(partly):
    sampler = Sampler([partly], small_plan((4, 4, 4)), 4, 0.5, 0)
    rng = np.random.default_rng(0)
    half = partly.reference.shape[0] // 2
    for wants in (True, False):
        centres = np.array([sampler._centre(partly, rng, wants) for _ in range(40)])
        assert (centres[:, 0] >= half).all()
    assert set(partly.foreground[:, 0]) == {0, 1, 2}


def test_without_anything_unknown_no_background_is_listed():
    assert set(foreground_voxels(np.array([[[0, 1, 2]]], np.uint8))[:, 0]) == {1, 2}


def test_no_loss_is_taken_where_nobody_knows(partly):
    target = torch.from_numpy(np.array(partly.reference)[None]).long()
    logits = torch.randn(1, 3, *target.shape[1:]).requires_grad_()
    loss_of(small_plan(ignore=HIDDEN))(logits, target).backward()
    assert (logits.grad[:, :, : target.shape[1] // 2] == 0).all()


def test_the_monitor_leaves_out_what_nobody_knows(partly):
    class Everywhere(torch.nn.Module):
        def forward(self, x):
            return torch.cat([-torch.ones_like(x), torch.ones_like(x), -torch.ones_like(x)], 1) * 9

    found = dice_of(Everywhere(), small_plan(ignore=HIDDEN), [partly], CPU)
    there = np.asarray(partly.reference)
    ones, known = (there == 1).sum(), (there != IGNORED).sum()
    assert found["dice_large"] == pytest.approx(2 * ones / (ones + known))


def test_a_value_that_is_neither_label_nor_unknown_is_still_refused():
    _, mask = balls(0)
    odd = Image(np.where(mask.array == 2, 7, mask.array), mask.grid)
    with pytest.raises(Exception, match="no label of the plan"):
        prepare_mask(odd, small_plan(ignore=HIDDEN).preparation())
