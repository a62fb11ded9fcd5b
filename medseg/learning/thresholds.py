"""What a label's threshold would change: overlaps of the masks it leads to, from one pass of the networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from medseg.imaging.image import Image, canonical
from medseg.imaging.labels import Labels, values_of
from medseg.learning.inference import Part, Thresholds, class_indices, mean_slabs

Counts = NDArray[np.int64]
"""Voxels by class of the reference (rows) and of the mask (columns), background first: ``[L, L]``."""


def overlaps(
    parts: Sequence[Part],
    reference: Image,
    labels: Labels,
    tried: Mapping[str, Thresholds],
    ignore: int | None = None,
) -> dict[str, Counts]:
    """Overlaps of a reference with the mask that each of several thresholds gives.

    Parameters
    ----------
    parts : sequence of (probabilities, grid)
        As `Models.parts` gives them; of labels, not of regions.
    reference : Image
        Label map [1, I, J, K] on the grid the mask would be on. Values that are no label count as background.
    tried : mapping
        Name -> thresholds, as `class_indices` takes them.
    ignore : int, optional
        Value of the reference at which nothing is counted.

    Notes
    -----
    Only voxels are decided again at which a threshold can change anything: those where a second class is
    within the range of the thresholds.
    """
    truth = canonical(reference)
    found = {name: np.zeros((len(labels) + 1,) * 2, np.int64) for name in tried}
    for slab, mean in mean_slabs(parts, truth.grid):
        values = truth.array[0, slab]
        known = np.ones(values.shape, bool) if ignore is None else values != ignore
        rows, chances = _indices(values[known], labels), mean[:, known]
        open_ = _undecided(chances, tried)
        sure = _counted(rows[~open_], class_indices(chances[:, ~open_], labels), len(labels))
        rows, chances = rows[open_], chances[:, open_]
        for name, thresholds in tried.items():
            found[name] += sure + _counted(rows, class_indices(chances, labels, thresholds), len(labels))
    return found


def dice_of(counts: Counts) -> list[float]:
    """Dice of each label; 1 where neither reference nor mask has it."""
    both, sizes = np.diag(counts), counts.sum(0) + counts.sum(1)
    return [2 * float(b) / float(n) if n else 1.0 for b, n in zip(both[1:], sizes[1:], strict=True)]


def _undecided(chances: NDArray[np.float32], tried: Mapping[str, Thresholds]) -> NDArray[np.bool_]:
    """Where a second class is so near the first that one of the thresholds may put it before it."""
    span = 1.0
    for thresholds in tried.values():
        odds = [1.0, *((1 - t) / t for t in thresholds.values())]
        span = max(span, max(odds) / min(odds))
    near = chances >= chances.max(0) * np.float32(0.999 / span)
    return near.sum(0) > 1


def _indices(values: NDArray[np.integer], labels: Labels) -> NDArray[np.int64]:
    """Values of a mask -> class indices; 0 for what is no label."""
    known = np.array([0, *values_of(labels)])
    order = np.searchsorted(known, values).clip(max=len(known) - 1)
    return np.where(known[order] == values, order, 0)


def _counted(rows: NDArray[np.int64], columns: NDArray[np.integer], labels: int) -> Counts:
    side = labels + 1
    return np.bincount(rows * side + columns.astype(np.int64), minlength=side * side).reshape(side, side)
