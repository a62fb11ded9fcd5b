"""Losses of voxels and of overlap: cross-entropy, focal, Dice and its relatives. ``(logits, target)``.

``logits [B, L, I, J, K]``. The target is either class indices ``[B, I, J, K]`` (one label a voxel: softmax,
channel 0 is background) or 0 and 1 for each channel, ``[B, L, I, J, K]`` (regions that overlap: a sigmoid
each). Overlaps are those of the whole batch, because a patch without a label would otherwise weigh as much as
one full of it; labels that are nowhere in the batch are left to the cross-entropy. All hold for any number of
axes: a flat batch costs what it costs as a volume of one slice.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

Weights = Sequence[float] | None
"""One a label (background: 1); None: all alike."""

_SMOOTH = 1e-5
_LEAST = 1e-6
"""Roots are taken of no less: their slope at 0 is infinite."""


def foreground(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Probabilities and reference (0 and 1) of the labels, without background: ``[B, N, I, J, K]`` each."""
    if target.ndim == logits.ndim:
        return logits.float().sigmoid(), target.float()
    truth = functional.one_hot(target, logits.shape[1]).movedim(-1, 1)[:, 1:]
    return logits.float().softmax(1)[:, 1:], truth.float()


def mean_present(costs: Tensor, truth: Tensor, weights: Weights = None) -> Tensor:
    """Mean of the labels' costs ``[N]`` over those that are in the batch; 0 when none is."""
    share = (truth.sum(_axes(truth)) > 0).float()
    if weights is not None:
        share = share * torch.tensor(list(weights), device=share.device)
    return (costs * share).sum() / share.sum().clamp(min=_LEAST)


def cross_entropy(logits: Tensor, target: Tensor, weights: Weights = None) -> Tensor:
    """Mean cross-entropy: images ``[B, L]`` or voxels; of regions, the mean over voxels and regions.

    With weights the mean is weighted by them, so that they change what counts and not how much it counts.
    """
    if target.ndim == logits.ndim:
        costs = functional.binary_cross_entropy_with_logits(logits.float(), target.float(), reduction="none")
        each = costs.mean(_axes(costs))
        shares = torch.ones_like(each) if weights is None else each.new_tensor(list(weights))
        return (each * shares).sum() / shares.sum()
    table = None if weights is None else logits.new_tensor([1.0, *weights], dtype=torch.float32)
    return functional.cross_entropy(logits.float(), target, weight=table)


def focal(logits: Tensor, target: Tensor, gamma: float = 2.0) -> Tensor:
    """Cross-entropy with each voxel weighted by how wrong it still is: ``(1 - p) ** gamma``."""
    if target.ndim == logits.ndim:
        truth = target.float()
        logs = functional.logsigmoid(logits.float() * (2 * truth - 1))
    else:
        logs = functional.log_softmax(logits.float(), dim=1).gather(1, target[:, None])
    return -((1 - logs.exp()).clamp(min=0) ** gamma * logs).mean()


def soft_dice(logits: Tensor, target: Tensor, weights: Weights = None) -> Tensor:
    """One minus the soft Dice of each label over the whole batch, averaged over the labels in it.

    0 without any.
    """
    probability, truth = foreground(logits, target)
    axes = _axes(truth)
    both = (probability * truth).sum(axes)
    size = probability.sum(axes) + truth.sum(axes)
    return mean_present(1 - 2 * both / (size + _SMOOTH), truth, weights)


def dice_ce(logits: Tensor, target: Tensor, weights: Weights = None, entropy: float = 1.0) -> Tensor:
    """Soft Dice plus `entropy` times cross-entropy."""
    return soft_dice(logits, target, weights) + _entropy(logits, target, entropy, weights)


def dice_focal(logits: Tensor, target: Tensor, gamma: float = 2.0) -> Tensor:
    """Focal loss plus soft Dice: for lesions that are a small part of the image."""
    return focal(logits, target, gamma) + soft_dice(logits, target)


def generalized_dice(logits: Tensor, target: Tensor, entropy: float = 1.0) -> Tensor:
    """One Dice of all labels, each weighted by one over its squared volume (Sudre et al., 2017)."""
    probability, truth = foreground(logits, target)
    axes = _axes(truth)
    volume = truth.sum(axes)
    weight = torch.where(volume > 0, 1 / volume.clamp(min=1) ** 2, 0.0)
    both = (weight * (probability * truth).sum(axes)).sum()
    size = (weight * (probability.sum(axes) + volume)).sum()
    overlap = torch.where(size > 0, 1 - 2 * both / size.clamp(min=1e-12), 0.0)
    return overlap + _entropy(logits, target, entropy)


def tversky(
    logits: Tensor,
    target: Tensor,
    surplus: float = 0.3,
    missed: float = 0.7,
    weights: Weights = None,
    entropy: float = 1.0,
) -> Tensor:
    """Dice, but a missed voxel weighs more than a surplus one (Salehi et al., 2017); plus cross-entropy."""
    index, truth = _tversky_index(logits, target, surplus, missed)
    return mean_present(1 - index, truth, weights) + _entropy(logits, target, entropy, weights)


def focal_tversky(
    logits: Tensor,
    target: Tensor,
    surplus: float = 0.3,
    missed: float = 0.7,
    gamma: float = 0.75,
    weights: Weights = None,
    entropy: float = 1.0,
) -> Tensor:
    """Tversky loss to the power `gamma` (Abraham and Khan, 2019): below 1, good labels go on counting."""
    index, truth = _tversky_index(logits, target, surplus, missed)
    costs = (1 - index).clamp(min=_LEAST) ** gamma
    return mean_present(costs, truth, weights) + _entropy(logits, target, entropy, weights)


def unified_focal(
    logits: Tensor, target: Tensor, share: float = 0.5, delta: float = 0.6, gamma: float = 0.5
) -> Tensor:
    """Asymmetric unified focal loss (Yeung et al., 2022): focal cross-entropy and focal Tversky loss.

    Parameters
    ----------
    share : float
        Of the Tversky part.
    delta : float
        What a missed voxel of a label weighs against a surplus one.
    gamma : float
        How much background that is easy is played down, and labels that are hard played up.

    Notes
    -----
    Sums over labels and means over all voxels, as many as there are; the overlap is that of the batch. Each
    region has its own background.
    """
    logs, truth = _with_background(logits, target)
    probability = logs.exp()
    costs = -truth * logs
    easy = (1 - probability[:, :1]).clamp(min=_LEAST) ** gamma
    focal_part = ((1 - delta) * easy * costs[:, :1]).sum(1) + (delta * costs[:, 1:]).sum(1)
    tversky_part = _asymmetric(probability, truth, delta, gamma)
    return share * tversky_part + (1 - share) * focal_part.mean()


def _asymmetric(probability: Tensor, truth: Tensor, delta: float, gamma: float) -> Tensor:
    """Mean over background and labels in the batch of one minus the Tversky index, labels sharpened."""
    axes = _axes(truth)
    both = (probability * truth).sum(axes)
    wrong = delta * ((1 - probability) * truth).sum(axes) + (1 - delta) * (probability * (1 - truth)).sum(
        axes
    )
    lack = 1 - both / (both + wrong + _LEAST)
    sharp = torch.cat([lack[:1], lack[1:].clamp(min=_LEAST) ** (1 - gamma)])
    return mean_present(sharp, truth)


def _with_background(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probabilities and reference with background as channel 0; regions are put into the batch."""
    if target.ndim != logits.ndim:
        truth = functional.one_hot(target, logits.shape[1]).movedim(-1, 1).float()
        return functional.log_softmax(logits.float(), dim=1), truth
    alone, truth = logits.float().flatten(0, 1)[:, None], target.float().flatten(0, 1)[:, None]
    logs = torch.cat([functional.logsigmoid(-alone), functional.logsigmoid(alone)], dim=1)
    return logs, torch.cat([1 - truth, truth], dim=1)


def _tversky_index(logits: Tensor, target: Tensor, surplus: float, missed: float) -> tuple[Tensor, Tensor]:
    """Index of each label ``[N]``, and the reference."""
    probability, truth = foreground(logits, target)
    axes = _axes(truth)
    both = (probability * truth).sum(axes)
    wrong = surplus * (probability * (1 - truth)).sum(axes) + missed * ((1 - probability) * truth).sum(axes)
    return both / (both + wrong + _SMOOTH), truth


def _entropy(logits: Tensor, target: Tensor, share: float, weights: Weights = None) -> Tensor:
    return share * cross_entropy(logits, target, weights) if share else logits.new_zeros(())


def _axes(x: Tensor) -> tuple[int, ...]:
    """All axes but that of the labels."""
    return (0, *range(2, x.ndim))
