"""The loss of a plan with classes: weighed, and with several classes a case."""

from __future__ import annotations

import pytest
import torch
from small_patients import small_plan
from torch.nn import functional

from medseg.learning.losses import loss_of


def _plan(**changes):
    return small_plan((8, 8, 1), task="classification", labels=(), classes=("a", "b"), **changes)


LOGITS = torch.tensor([[2.0, -1.0], [0.5, 1.0], [-3.0, 0.0]])


def test_without_weights_it_is_plain_cross_entropy():
    target = torch.tensor([0, 1, 0])
    assert loss_of(_plan())(LOGITS, target) == functional.cross_entropy(LOGITS, target)


def test_a_heavier_class_costs_more_when_missed():
    loss = loss_of(_plan(balance="loss", class_weights=(1.0, 5.0)))
    missed = torch.tensor([[3.0, -3.0], [3.0, -3.0]])
    assert loss(missed, torch.tensor([1, 0])) > functional.cross_entropy(missed, torch.tensor([1, 0]))


def test_several_classes_have_a_logit_each():
    target = torch.tensor([[1, 1], [0, 0], [0, 1]])
    plain = functional.binary_cross_entropy_with_logits(LOGITS, target.float())
    assert loss_of(_plan(multilabel=True))(LOGITS, target) == pytest.approx(float(plain))
    heavy = loss_of(_plan(multilabel=True, balance="loss", class_weights=(1.0, 4.0)))(LOGITS, target)
    assert heavy > plain


def test_a_loss_named_by_hand_is_taken():
    target = torch.tensor([0, 1, 0])
    named = loss_of(_plan(balance="loss", class_weights=(1.0, 5.0)), "cross_entropy")
    assert named(LOGITS, target) == functional.cross_entropy(LOGITS, target)
