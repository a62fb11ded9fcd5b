"""Losses by name: ``(logits, target) -> scalar``. Dotted names of your own work in their place."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from medseg.core.registry import look_up
from medseg.data.cohort import Task
from medseg.data.plan import Plan
from medseg.learning.unet import nearest_targets

Loss = Callable[[Tensor, Tensor], Tensor]

DEFAULT_LOSS: Mapping[Task, str] = {"segmentation": "dice_ce", "classification": "cross_entropy"}

IGNORED = 255
"""Voxels with this value in a target count for nothing: nobody knows what they are."""
_SMOOTH = 1e-5
_SURE = 50.0


def soft_dice(logits: Tensor, target: Tensor) -> Tensor:
    """One minus the soft Dice of each label over the whole batch, averaged over the labels in it.

    Over the batch, because a patch without a label would otherwise weigh as much as one full of it; a
    label that is nowhere in the batch has no Dice and is left to the cross-entropy. 0 without any.
    ``logits [B, L, I, J, K]``, ``target [B, I, J, K]`` class indices.
    """
    probability, truth = _foreground(logits, target)
    axes = (0, *range(2, logits.ndim))
    both = (probability * truth).sum(axes)
    size = probability.sum(axes) + truth.sum(axes)
    return _mean_present(1 - 2 * both / (size + _SMOOTH), truth, axes)


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Mean cross-entropy; images ``[B, L]`` or voxels ``[B, L, I, J, K]``."""
    return functional.cross_entropy(logits.float(), target)


def weighed(weights: Sequence[float], multilabel: bool) -> Loss:
    """Cross-entropy with a weight for each class; with several classes a case, for its positives."""

    def loss(logits: Tensor, target: Tensor) -> Tensor:
        table = torch.tensor(weights, device=logits.device)
        if not multilabel:
            return functional.cross_entropy(logits.float(), target, weight=table)
        return functional.binary_cross_entropy_with_logits(logits.float(), target.float(), pos_weight=table)

    return loss


def dice_ce(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy plus soft Dice."""
    return cross_entropy(logits, target) + soft_dice(logits, target)


def focal(logits: Tensor, target: Tensor, gamma: float = 2.0) -> Tensor:
    """Cross-entropy with each voxel weighted by how wrong it still is: ``(1 - p) ** gamma``."""
    logs = functional.log_softmax(logits.float(), dim=1).gather(1, target[:, None])
    return -((1 - logs.exp()) ** gamma * logs).mean()


def dice_focal(logits: Tensor, target: Tensor) -> Tensor:
    """Focal loss plus soft Dice: for lesions that are a small part of the image."""
    return focal(logits, target) + soft_dice(logits, target)


def tversky(logits: Tensor, target: Tensor, surplus: float = 0.3, missed: float = 0.7) -> Tensor:
    """Tversky loss plus cross-entropy: as Dice, but a missed voxel weighs more than a surplus one."""
    probability, truth = _foreground(logits, target)
    axes = (0, *range(2, logits.ndim))
    both = (probability * truth).sum(axes)
    wrong = surplus * (probability * (1 - truth)).sum(axes) + missed * ((1 - probability) * truth).sum(axes)
    return cross_entropy(logits, target) + _mean_present(1 - both / (both + wrong + _SMOOTH), truth, axes)


LOSSES: Mapping[str, Loss] = {
    "dice_ce": dice_ce,
    "dice": soft_dice,
    "cross_entropy": cross_entropy,
    "focal": focal,
    "dice_focal": dice_focal,
    "tversky": tversky,
}


def loss_of(plan: Plan, name: str | None = None) -> Loss:
    """The loss called `name`, or that of the plan: by its task, its several classes and their weights."""
    if name is None and plan.task == "classification" and (plan.multilabel or plan.balance == "loss"):
        return weighed(plan.class_weights or [1.0] * len(plan.classes), plan.multilabel)
    return find_loss(name, plan.task)


def find_loss(name: str | None, task: Task) -> Loss:
    """The loss called `name`, or the task's own, made to take deep supervision's list of logits.

    Raises
    ------
    MedsegError
        An unknown name.
    """
    single = without_ignored(look_up(LOSSES, name or DEFAULT_LOSS[task], "loss"))

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
        if target.ndim < 3 or not (ignored := target == IGNORED).any():
            return loss(logits, target)
        sure = torch.full_like(logits, -_SURE)
        sure[:, 0] = _SURE
        return loss(torch.where(ignored[:, None], sure, logits), target.masked_fill(ignored, 0))

    return masked


def _foreground(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Probabilities and one-hot reference of the labels, without background: ``[B, L - 1, I, J, K]``."""
    truth = functional.one_hot(target, logits.shape[1]).movedim(-1, 1)[:, 1:]
    return logits.float().softmax(1)[:, 1:], truth.float()


def _mean_present(costs: Tensor, truth: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Mean of the labels' costs over those that are in the batch; 0 when none is."""
    present = truth.sum(axes) > 0
    return (costs * present).sum() / present.sum().clamp(min=1)
