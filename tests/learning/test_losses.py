"""Losses: zero for the right answer, empties without surprises, gradients that are numbers."""

from __future__ import annotations

import pytest
import torch

from medseg.core.errors import MedsegError
from medseg.learning.losses import LOSSES, find_loss, soft_dice


def _target() -> torch.Tensor:
    target = torch.zeros(2, 8, 8, 4, dtype=torch.int64)
    target[:, 2:5, 2:5, 1:3], target[:, 5:7, 5:7, 1:3] = 1, 2
    return target


def _sure(target: torch.Tensor) -> torch.Tensor:
    return 30.0 * torch.nn.functional.one_hot(target, 3).movedim(-1, 1).float()


@pytest.mark.parametrize("name", LOSSES)
def test_the_right_answer_costs_nothing_and_a_wrong_one_more(name):
    loss, target = find_loss(name, "segmentation"), _target()
    right, wrong = loss(_sure(target), target), loss(_sure((target + 1) % 3), target)
    assert right < 1e-2 < 0.1 < wrong


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_are_numbers_even_without_any_foreground(name):
    logits = torch.randn(2, 3, 8, 8, 4, requires_grad=True)
    find_loss(name, "segmentation")(logits, torch.zeros(2, 8, 8, 4, dtype=torch.int64)).backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_a_label_that_is_nowhere_in_the_batch_is_left_out_of_the_dice():
    target = _target()
    target[target == 2] = 0
    assert soft_dice(_sure(target), target) < 1e-3
    assert soft_dice(torch.zeros(1, 3, 4, 4, 4), torch.zeros(1, 4, 4, 4, dtype=torch.int64)) == 0


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
