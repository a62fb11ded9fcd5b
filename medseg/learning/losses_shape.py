"""Losses that know shape: centrelines (clDice) and distances to the border. Targets as in `losses_overlap`.

They come on top of Dice and cross-entropy: alone they say little of voxels far from any border.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from medseg.learning.losses_overlap import cross_entropy, dice_ce, foreground, mean_present, soft_dice

_FAR = 1e12
"""Squared distance where there is nothing to be distant from."""


def cldice(
    logits: Tensor, target: Tensor, iterations: int = 3, share: float = 0.5, entropy: float = 1.0
) -> Tensor:
    """Dice and centreline Dice (Shit et al., 2021), for tubes whose connection counts; plus cross-entropy.

    Parameters
    ----------
    iterations : int
        At least the radius of the widest tube, in voxels.
    share : float
        Of the centreline part.
    """
    probability, truth = foreground(logits, target)
    axes = (0, *range(2, truth.ndim))
    thin, true = skeleton(probability, iterations), skeleton(truth, iterations)
    precise = ((thin * truth).sum(axes) + 1) / (thin.sum(axes) + 1)
    complete = ((true * probability).sum(axes) + 1) / (true.sum(axes) + 1)
    lines = mean_present(1 - 2 * precise * complete / (precise + complete), truth)
    overlap = (1 - share) * soft_dice(logits, target) + share * lines
    return overlap + entropy * cross_entropy(logits, target)


def boundary(
    logits: Tensor,
    target: Tensor,
    weight: float = 0.05,
    entropy: float = 1.0,
    spacing_mm: Sequence[float] = (1.0, 1.0, 1.0),
) -> Tensor:
    """Dice and cross-entropy, plus `weight` times the boundary loss (Kervadec et al., 2019).

    Its part is the mean of ``|distance to the reference's border| * |probability - reference|``: that of the
    paper less what no prediction changes, so that the right answer costs nothing. Distances are in mm,
    divided by the finest spacing. Labels that are nowhere in a patch have no border, and add nothing.
    """
    probability, truth = foreground(logits, target)
    costs = to_border(truth > 0.5, spacing_mm) * (probability - truth).abs()
    return dice_ce(logits, target, entropy=entropy) + weight * _mean(costs, truth)


def hausdorff(
    logits: Tensor,
    target: Tensor,
    weight: float = 0.01,
    power: float = 2.0,
    entropy: float = 1.0,
    spacing_mm: Sequence[float] = (1.0, 1.0, 1.0),
) -> Tensor:
    """Dice and cross-entropy, plus `weight` times a Hausdorff loss (Karimi and Salcudean, 2020).

    Its part is the mean of ``(probability - reference) ** 2 * (d ** power + e ** power)``, with the distances
    ``d`` to the border of the reference and ``e`` to that of what is predicted (probability above 0.5), in mm
    over the finest spacing.
    """
    probability, truth = foreground(logits, target)
    with torch.no_grad():
        far = to_border(truth > 0.5, spacing_mm) ** power + to_border(probability > 0.5, spacing_mm) ** power
    return dice_ce(logits, target, entropy=entropy) + weight * _mean(far * (probability - truth) ** 2, truth)


def skeleton(x: Tensor, iterations: int) -> Tensor:
    """Soft skeleton of ``[B, N, I, J, K]``, values from 0 to 1: what openings of ever thinner remains lose.

    Erosion looks along each axis, opening dilates over the whole neighbourhood; along axes of one voxel both
    do nothing, so that a slice has the skeleton of a flat image.
    """
    thin = functional.relu(x - _opened(x))
    for _ in range(iterations):
        x = _eroded(x)
        more = functional.relu(x - _opened(x))
        thin = thin + functional.relu(more - thin * more)
    return thin


@torch.no_grad()
def to_border(mask: Tensor, spacing_mm: Sequence[float]) -> Tensor:
    """Distance of each voxel to the nearest one on the other side of the border, over the finest spacing.

    ``[B, N, I, J, K]``; 0 where a mask is empty or full. Exact, and computed where the mask lies.
    """
    sides = [mm for mm, n in zip(spacing_mm, mask.shape[2:], strict=True) if n > 1] or [1.0]
    steps = [mm / min(sides) for mm in spacing_mm]
    outside, inside = squared_distance(mask, steps), squared_distance(~mask, steps)
    squared = torch.where(mask, inside, outside)
    return torch.where(squared < _FAR, squared, 0.0).sqrt()


def squared_distance(mask: Tensor, steps: Sequence[float]) -> Tensor:
    """Squared distance to the nearest voxel of a mask ``[..., I, J, K]``; at least 1e12 where it has none.

    One axis after another, the least over all shifts along it: as many additions as a side has voxels.
    """
    squared = torch.where(mask, 0.0, _FAR).float()
    for axis, step in zip(range(mask.ndim - 3, mask.ndim), steps, strict=True):
        before, side = squared, mask.shape[axis]
        squared = before.clone()
        for shift in range(1, side):
            cost = (shift * step) ** 2
            if not mask.is_cuda and shift % 8 == 0 and _settled(squared, cost):
                break
            for to, since in ((shift, 0), (0, shift)):
                nearer = squared.narrow(axis, to, side - shift)
                nearer.copy_(torch.minimum(nearer, before.narrow(axis, since, side - shift) + cost))
    return squared


def _settled(squared: Tensor, cost: float) -> bool:
    """Whether no voxel can still be nearer to one that is so far away."""
    return float(squared.max()) <= cost


def _eroded(x: Tensor) -> Tensor:
    """The least of each voxel and its neighbours by a face."""
    along = [_reach(x, axis, torch.minimum) for axis in (2, 3, 4)]
    return torch.minimum(torch.minimum(along[0], along[1]), along[2])


def _opened(x: Tensor) -> Tensor:
    """Eroded, then the greatest of each voxel and all its neighbours."""
    x = _eroded(x)
    for axis in (2, 3, 4):
        x = _reach(x, axis, torch.maximum)
    return x


def _reach(x: Tensor, axis: int, of: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """The least (or greatest) of a voxel and its two neighbours along an axis; pooling is slower on CPUs."""
    side = x.shape[axis]
    if side == 1:
        return x
    pairs = of(x.narrow(axis, 0, side - 1), x.narrow(axis, 1, side - 1))
    ends = pairs.narrow(axis, 0, 1), pairs.narrow(axis, side - 2, 1)
    inner = of(pairs.narrow(axis, 0, side - 2), pairs.narrow(axis, 1, side - 2))
    return torch.cat([ends[0], inner, ends[1]], dim=axis)


def _mean(costs: Tensor, truth: Tensor) -> Tensor:
    """Mean over voxels, then over the labels in the batch."""
    return mean_present(costs.mean((0, *range(2, costs.ndim))), truth)
