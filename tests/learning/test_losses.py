"""Losses: zero for the right answer, known values, MONAI's numbers, gradients that are numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from monai.losses.cldice import SoftclDiceLoss
from monai.losses.dice import DiceLoss, GeneralizedDiceLoss
from monai.losses.hausdorff_loss import HausdorffDTLoss
from monai.losses.tversky import TverskyLoss
from monai.losses.unified_focal_loss import AsymmetricFocalLoss, AsymmetricFocalTverskyLoss
from scipy.ndimage import distance_transform_edt
from small_patients import small_plan

from medseg.core.errors import MedsegError
from medseg.imaging.labels import named_labels
from medseg.learning import losses_overlap as overlap
from medseg.learning import losses_shape as shape
from medseg.learning.losses import IGNORED, LOSSES, find_loss, loss_of, soft_dice, without_ignored

REGIONS = named_labels({"whole": [1, 2], "core": [2]})


def _target() -> torch.Tensor:
    target = torch.zeros(2, 8, 8, 4, dtype=torch.int64)
    target[:, 2:5, 2:5, 1:3], target[:, 5:7, 5:7, 1:3] = 1, 2
    return target


def _sure(target: torch.Tensor) -> torch.Tensor:
    return 30.0 * torch.nn.functional.one_hot(target, 3).movedim(-1, 1).float()


def _sure_regions(target: torch.Tensor) -> torch.Tensor:
    return 30.0 * (2 * torch.stack([target > 0, target == 2], dim=1).float() - 1)


def _random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


# -- all of them --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LOSSES)
def test_the_right_answer_costs_nothing_and_a_wrong_one_more(name):
    loss, target = find_loss(name, "segmentation"), _target()
    right, wrong = loss(_sure(target), target), loss(_sure((target + 1) % 3), target)
    assert right < 1e-2 < 0.1 < wrong


@pytest.mark.parametrize("name", LOSSES)
def test_the_right_regions_cost_nothing_and_wrong_ones_more(name):
    loss, target = loss_of(small_plan(labels=REGIONS), name), _target()
    right, wrong = loss(_sure_regions(target), target), loss(_sure_regions((target + 1) % 3), target)
    assert right < 1e-2 < 0.1 < wrong


@pytest.mark.parametrize("labels", [None, REGIONS], ids=["labels", "regions"])
@pytest.mark.parametrize("name", LOSSES)
def test_gradients_are_numbers_even_without_any_foreground_or_with_an_answer_that_is_sure(name, labels):
    plan = small_plan(**({"labels": labels} if labels else {}))
    sure = _sure_regions if labels else _sure
    for target in (torch.zeros(2, 8, 8, 4, dtype=torch.int64), _target()):
        for logits in (_random(2, plan.outputs, 8, 8, 4), 10 * sure(target)):
            logits.requires_grad_()
            loss_of(plan, name)(logits, target).backward()
            assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("labels", [None, REGIONS], ids=["labels", "regions"])
@pytest.mark.parametrize("name", LOSSES)
def test_what_is_said_where_nobody_knows_changes_nothing(name, labels):
    plan = small_plan(**({"labels": labels} if labels else {}))
    loss, target = loss_of(plan, name), _target()
    target[:, :3] = IGNORED
    logits = _random(2, plan.outputs, 8, 8, 4).requires_grad_()
    first = loss(logits, target)
    (slope,) = torch.autograd.grad(first, logits)
    assert (slope[:, :, :3] == 0).all()
    assert (slope[:, :, 3:] != 0).any()
    other = logits.detach().clone()
    other[:, :, :3] = 7.0
    torch.testing.assert_close(loss(other, target), first)


@pytest.mark.parametrize("name", LOSSES)
def test_a_flat_batch_costs_what_it_costs_as_volumes_of_one_slice_and_as_any_turn_of_them(name):
    loss, target, logits = LOSSES[name], _target()[..., :2], _random(2, 3, 8, 8, 2)
    flat = loss(logits[..., :1], target[..., :1])
    turned = loss(logits[..., :1].permute(0, 1, 4, 2, 3), target[..., :1].permute(0, 3, 1, 2))
    torch.testing.assert_close(flat, turned)
    if not name.startswith(("boundary", "hausdorff", "cldice")):  # those know three axes
        plain = loss(logits[..., 0], target[..., 0])
        torch.testing.assert_close(flat, plain)


# -- known values -------------------------------------------------------------------------------------


def test_where_nothing_is_known_the_losses_have_their_closed_values():
    target = torch.zeros(1, 4, 4, 4, dtype=torch.int64)
    target[:, :2] = 1  # half of it
    logits = torch.zeros(1, 2, 4, 4, 4)  # p = 1/2 everywhere: tp 16, surplus 16, missed 16
    assert overlap.cross_entropy(logits, target) == pytest.approx(math.log(2))
    assert overlap.soft_dice(logits, target) == pytest.approx(0.5, abs=1e-5)
    assert overlap.generalized_dice(logits, target, entropy=0) == pytest.approx(0.5, abs=1e-5)
    index = 16 / (16 + 0.2 * 16 + 0.8 * 16)
    assert overlap.tversky(logits, target, 0.2, 0.8, entropy=0) == pytest.approx(1 - index, abs=1e-5)
    sharp = overlap.focal_tversky(logits, target, 0.2, 0.8, gamma=2, entropy=0)
    assert sharp == pytest.approx((1 - index) ** 2, abs=1e-5)
    assert overlap.focal(logits, target, gamma=2) == pytest.approx(0.25 * math.log(2))
    assert overlap.dice_ce(logits, target) == pytest.approx(0.5 + math.log(2), abs=1e-5)


def test_weights_change_what_counts():
    target, logits = _target(), _random(2, 3, 8, 8, 4)
    one, two = (overlap.soft_dice(logits, target, w) for w in ([1.0, 1e-6], [1e-6, 1.0]))
    both = overlap.soft_dice(logits, target)
    torch.testing.assert_close(both, (one + two) / 2, atol=1e-4, rtol=1e-4)
    plain = torch.nn.functional.cross_entropy(logits, target, weight=torch.tensor([1.0, 2.0, 3.0]))
    torch.testing.assert_close(overlap.cross_entropy(logits, target, [2.0, 3.0]), plain)


def test_a_label_that_is_nowhere_in_the_batch_is_left_out_of_the_dice():
    target = _target()
    target[target == 2] = 0
    assert soft_dice(_sure(target), target) < 1e-3
    assert soft_dice(torch.zeros(1, 3, 4, 4, 4), torch.zeros(1, 4, 4, 4, dtype=torch.int64)) == 0


# -- MONAI's numbers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", [slice(None), 1], ids=["3d", "2d"])
def test_overlaps_equal_monai_s_where_the_conventions_are_the_same(cut):
    target, logits = _target()[..., cut], _random(2, 3, 8, 8, 4)[..., cut]
    how = {"include_background": False, "softmax": True, "to_onehot_y": True, "batch": True}
    no = {"smooth_nr": 0.0, "smooth_dr": 0.0}
    theirs = target[:, None]
    found = [
        (overlap.soft_dice(logits, target), DiceLoss(**how, **no)),
        (overlap.generalized_dice(logits, target, entropy=0), GeneralizedDiceLoss(**how, **no)),
        (overlap.tversky(logits, target, 0.2, 0.8, entropy=0), TverskyLoss(alpha=0.2, beta=0.8, **how, **no)),
    ]
    for ours, loss in found:
        torch.testing.assert_close(ours, loss(logits, theirs), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("cut", [slice(None), 1], ids=["3d", "2d"])
def test_the_unified_focal_loss_is_that_of_monai_s_parts_for_one_label(cut):
    target, logits = (_target()[:1, ..., cut] > 0).long(), _random(1, 2, 8, 8, 4)[..., cut]
    soft, hot = logits.softmax(1), torch.stack([target == 0, target == 1], 1).float()
    focal = 2 * AsymmetricFocalLoss(delta=0.6, gamma=0.5)(soft, hot)  # theirs is a mean over the two labels
    tversky = AsymmetricFocalTverskyLoss(delta=0.6, gamma=0.5)(soft, hot)
    ours = overlap.unified_focal(logits, target, share=0.3)
    torch.testing.assert_close(ours, 0.3 * tversky + 0.7 * focal, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("deep", [True, False], ids=["3d", "2d"])
def test_centrelines_equal_monai_s(deep):
    target = (_target()[:1] > 0).long() if deep else (_target()[:1, ..., 1:2] > 0).long()
    logits = _random(1, 2, *target.shape[1:])
    ours = shape.cldice(logits, target, iterations=2, share=1.0, entropy=0)
    probability, truth = overlap.foreground(logits, target)
    cut = (lambda x: x) if deep else (lambda x: x[..., 0])
    theirs = SoftclDiceLoss(iter_=2, smooth=1e-6)(cut(probability), cut(truth))
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_the_hausdorff_loss_equals_monai_s():
    target, logits = _target(), _random(2, 3, 8, 8, 4)
    ours = shape.hausdorff(logits, target, weight=1.0, entropy=0) - soft_dice(logits, target)
    theirs = HausdorffDTLoss(softmax=True, to_onehot_y=True, batch=True)(logits, target[:, None])
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


# -- distances ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("sides", [(9, 14, 6), (17, 20, 1)], ids=str)
def test_distances_are_exact_in_mm(sides):
    mask = np.random.default_rng(0).random((2, 1, *sides)) > 0.97
    mask[1] = False
    steps = (1.0, 2.0, 3.5)
    ours = shape.squared_distance(torch.from_numpy(mask), steps)
    wanted = distance_transform_edt(~mask[0, 0], sampling=steps)
    np.testing.assert_allclose(ours[0, 0].sqrt().numpy(), wanted, rtol=1e-5)
    assert (ours[1] >= 1e12).all()


def test_the_border_s_distance_is_that_of_the_other_side_over_the_finest_spacing():
    mask = torch.zeros(1, 1, 6, 1, 1, dtype=torch.bool)
    mask[:, :, :2] = True
    assert shape.to_border(mask, (3.0, 1.0, 1.0)).ravel().tolist() == [2, 1, 1, 2, 3, 4]
    assert shape.to_border(torch.ones(1, 1, 4, 4, 1, dtype=torch.bool), (1, 1, 1)).max() == 0


def test_the_boundary_loss_counts_a_far_error_more_than_a_near_one():
    target = torch.zeros(1, 16, 4, 4, dtype=torch.int64)
    target[:, :4] = 1
    costs = []
    for wrong in (5, 14):
        said = target.clone()
        said[:, wrong] = 1
        logits = 30.0 * torch.nn.functional.one_hot(said, 2).movedim(-1, 1).float()
        costs.append(shape.boundary(logits, target, entropy=0) - soft_dice(logits, target))
    assert costs[0] == pytest.approx(0.05 * 2 * 16 / 256, rel=1e-3)
    assert costs[1] == pytest.approx(0.05 * 11 * 16 / 256, rel=1e-3)


def test_a_plate_s_skeleton_is_thin_and_a_line_is_its_own():
    plate = torch.zeros(1, 1, 9, 9, 9)
    plate[..., 2:7, 2:7, 3:6] = 1
    assert 0 < shape.skeleton(plate, 3).sum() < plate.sum() / 2
    line = torch.zeros(1, 1, 9, 9, 9)
    line[..., 4, 4, :] = 1
    torch.testing.assert_close(shape.skeleton(line, 3), line)


# -- names and settings -------------------------------------------------------------------------------


def test_settings_reach_the_loss_and_the_plan_s_spacing_too():
    target, logits = _target(), _random(2, 3, 8, 8, 4)
    given = loss_of(small_plan(), "tversky", {"missed": 0.9})(logits, target)
    torch.testing.assert_close(given, overlap.tversky(logits, target, missed=0.9))
    found = loss_of(small_plan(), "boundary")(logits, target)
    torch.testing.assert_close(found, shape.boundary(logits, target, spacing_mm=small_plan().spacing_mm))
    assert found != shape.boundary(logits, target)


def test_an_unknown_setting_or_a_weight_too_few_is_refused():
    with pytest.raises(MedsegError, match="did you mean 'missed'"):
        loss_of(small_plan(), "tversky", {"mised": 0.9})
    with pytest.raises(MedsegError, match="a positive weight for each label"):
        loss_of(small_plan(), "dice_ce", {"weights": [1.0]})


def test_regions_are_scored_as_they_overlap():
    target, logits = _target(), _random(2, 2, 8, 8, 4)
    truth = torch.stack([target > 0, target == 2], 1).float()
    wanted = overlap.dice_ce(logits, truth)
    torch.testing.assert_close(loss_of(small_plan(labels=REGIONS))(logits, target), wanted)
    plain = torch.nn.functional.binary_cross_entropy_with_logits(logits, truth)
    torch.testing.assert_close(overlap.cross_entropy(logits, truth), plain)


def test_a_list_of_logits_weighs_the_finest_most():
    loss, target = find_loss("cross_entropy", "segmentation"), _target()
    right, wrong = _sure(target), _sure((target + 1) % 3)
    coarse = torch.nn.functional.interpolate(right, scale_factor=0.5)
    assert loss([right, coarse], target) < loss([wrong, coarse], target)
    assert loss([right, right], target) == pytest.approx(0, abs=1e-4)


def test_classification_has_its_own_default():
    loss = find_loss(None, "classification")
    assert loss(torch.tensor([[9.0, -9.0]]), torch.tensor([0])) < 1e-3


def test_an_unknown_loss_is_refused():
    with pytest.raises(MedsegError, match="did you mean 'dice_ce'"):
        find_loss("dice_cee", "segmentation")


def test_a_negative_setting_is_refused():
    with pytest.raises(MedsegError, match="no negative setting") as refused:
        loss_of(small_plan(), "tversky", {"missed": -1})
    assert "missed = -1" in str(refused.value)


def test_of_voxels_that_nobody_knows_the_device_is_not_asked():
    """A device that computes nothing stands for a GPU: a question about its values is an error."""

    def plain(logits, target):
        return logits.mean() + 0 * target.sum()

    target = torch.zeros(2, 4, 4, 4, dtype=torch.int64, device="meta")
    assert without_ignored(plain)(torch.zeros(2, 3, 4, 4, 4, device="meta"), target).shape == ()
