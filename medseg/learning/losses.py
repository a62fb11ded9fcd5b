"""Losses by name: ``(logits, target) -> scalar``. Dotted names of your own work in their place.

This file makes them fit: to the several logits of deep supervision, to voxels nobody knows, to regions that
overlap, to arguments of a recipe. What they compute stands in `losses_overlap` and `losses_shape`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from medseg.core.errors import MedsegError
from medseg.core.registry import look_up
from medseg.data.cohort import Task
from medseg.data.plan import Plan
from medseg.data.prepare import IGNORED
from medseg.learning import losses_overlap, losses_shape
from medseg.learning.arguments import check_arguments
from medseg.learning.losses_overlap import cross_entropy, soft_dice
from medseg.learning.unet import nearest_targets

Loss = Callable[[Tensor, Tensor], Tensor]

DEFAULT_LOSS: Mapping[Task, str] = {"segmentation": "dice_ce", "classification": "cross_entropy"}

_SURE = 50.0

LOSSES: Mapping[str, Callable[..., Tensor]] = {
    "dice_ce": losses_overlap.dice_ce,
    "dice": soft_dice,
    "cross_entropy": cross_entropy,
    "focal": losses_overlap.focal,
    "dice_focal": losses_overlap.dice_focal,
    "generalized_dice": losses_overlap.generalized_dice,
    "tversky": losses_overlap.tversky,
    "focal_tversky": losses_overlap.focal_tversky,
    "unified_focal": losses_overlap.unified_focal,
    "cldice": losses_shape.cldice,
    "boundary": losses_shape.boundary,
    "hausdorff": losses_shape.hausdorff,
}


def loss_of(plan: Plan, name: str | None = None, settings: Mapping[str, Any] | None = None) -> Loss:
    """The loss called `name`, or that of the plan: by its task, its several classes and their weights.

    Parameters
    ----------
    settings : mapping, optional
        Arguments of the loss. One that asks for ``spacing_mm`` is given the plan's.

    Raises
    ------
    MedsegError
        An unknown name or argument, or weights that are not one a label.
    """
    if name is None and plan.task == "classification" and (plan.multilabel or plan.balance == "loss"):
        return weighed(plan.class_weights or [1.0] * len(plan.classes), plan.multilabel)
    called = name or DEFAULT_LOSS[plan.task]
    function, given = look_up(LOSSES, called, "loss"), dict(settings or {})
    check_arguments(f"loss '{called}'", function, given, own=2)
    _check_weights(called, given.get("weights"), plan)
    _check_signs(called, given)
    if "spacing_mm" in inspect.signature(function).parameters:
        given.setdefault("spacing_mm", plan.spacing_mm)
    single = partial(function, **given)
    return supervised(of_regions(single, plan) if plan.overlapping else without_ignored(single))


def find_loss(name: str | None, task: Task) -> Loss:
    """The loss called `name`, or the task's own, made to take deep supervision's list of logits.

    Raises
    ------
    MedsegError
        An unknown name.
    """
    return supervised(without_ignored(look_up(LOSSES, name or DEFAULT_LOSS[task], "loss")))


def weighed(weights: Sequence[float], multilabel: bool) -> Loss:
    """Cross-entropy with a weight for each class; with several classes a case, for its positives."""

    def loss(logits: Tensor, target: Tensor) -> Tensor:
        table = torch.tensor(weights, device=logits.device)
        if not multilabel:
            return functional.cross_entropy(logits.float(), target, weight=table)
        return functional.binary_cross_entropy_with_logits(logits.float(), target.float(), pos_weight=table)

    return loss


def supervised(single: Loss) -> Loss:
    """A loss of one set of logits for a list of them: each half as heavy as the one before it."""

    def loss(logits: Tensor | list[Tensor], target: Tensor) -> Tensor:
        if isinstance(logits, Tensor):
            return single(logits, target)
        weights = torch.tensor([0.5**level for level in range(len(logits))])
        parts = [single(y, nearest_targets(target, y)) for y in logits]
        return sum(w * p for w, p in zip((weights / weights.sum()).tolist(), parts, strict=True))  # type: ignore[return-value]

    return loss  # type: ignore[return-value]


def without_ignored(loss: Loss) -> Loss:
    """A loss of voxels for which those that are `IGNORED` are rightly called background.

    They add nothing and hand no gradient back; means stay those over all voxels.
    """

    def masked(logits: Tensor, target: Tensor) -> Tensor:
        if target.ndim < 3:
            return loss(logits, target)
        ignored = target == IGNORED
        if target.device.type == "cpu" and not ignored.any():  # a GPU would have to be waited for
            return loss(logits, target)
        sure = torch.full((1, logits.shape[1], *[1] * (logits.ndim - 2)), -_SURE).to(logits)
        sure[:, :1] = _SURE
        return loss(torch.where(ignored[:, None], sure, logits), target.masked_fill(ignored, 0))

    return masked


def of_regions(loss: Loss, plan: Plan) -> Loss:
    """A loss of regions that overlap, for targets that hold the index of a value a voxel.

    `loss` is given 0 and 1 for each region. Voxels that are `IGNORED` are rightly called outside of all.
    """
    members = torch.from_numpy(plan.membership())

    def regional(logits: Tensor, target: Tensor) -> Tensor:
        ignored = target == IGNORED
        table = members.to(logits.device, logits.dtype)
        truth = table[target.masked_fill(ignored, 0)].movedim(-1, 1)
        return loss(logits.masked_fill(ignored[:, None], -_SURE), truth)

    return regional


def _check_signs(name: str, settings: Mapping[str, Any]) -> None:
    below = [f"{k} = {v}" for k, v in settings.items() if isinstance(v, int | float) and v < 0]
    if below:
        raise MedsegError(f"loss '{name}' takes no negative setting", evidence=", ".join(below))


def _check_weights(name: str, weights: Sequence[float] | None, plan: Plan) -> None:
    if weights is None:
        return
    names = [label.name for label in plan.labels] or list(plan.classes)[1:]
    if not isinstance(weights, list | tuple) or len(weights) != len(names) or min(weights) <= 0:
        raise MedsegError(
            f"loss '{name}' needs a positive weight for each label",
            evidence=f"{weights} for {', '.join(names)}",
            mend="background has weight 1; give the others in this order",
        )
