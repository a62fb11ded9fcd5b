"""Lesions: the connected parts of a mask, matched one-to-one with those of the reference."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from medseg.evaluation.policy import LesionRule
from medseg.evaluation.surface import Pair
from medseg.imaging.grid import Grid

Bool = NDArray[np.bool_]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_RANK = {6: 1, 18: 2, 26: 3}


@dataclass(frozen=True, eq=False)
class Matching:
    """How the lesions of a prediction and of a reference go together.

    Parameters
    ----------
    reference, predicted : int
        Number of lesions on each side.
    ious : array (n,)
        IoU of the matched pairs.
    pairs : int array (n, 2)
        Which go together: lesion of the reference and of the prediction, counted from 0.
    reference_voxels, predicted_voxels : int arrays
        Voxels of each lesion.
    """

    reference: int
    predicted: int
    ious: Floats
    pairs: Ints
    reference_voxels: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    predicted_voxels: Ints = field(default_factory=lambda: np.zeros(0, np.int64))

    @property
    def found(self) -> int:
        """Matched pairs: true positives."""
        return int(self.ious.size)

    @property
    def missed(self) -> int:
        """Lesions of the reference without a partner: false negatives."""
        return self.reference - self.found

    @property
    def invented(self) -> int:
        """Predicted lesions without a partner: false positives."""
        return self.predicted - self.found

    def sensitivity(self) -> float:
        """Found / lesions of the reference; NaN when it has none."""
        return self.found / self.reference if self.reference else float("nan")

    def precision(self) -> float:
        """Found / predicted lesions; NaN when there is none."""
        return self.found / self.predicted if self.predicted else float("nan")

    def f1(self) -> float:
        """2 found / (reference + predicted); NaN when neither side has a lesion."""
        total = self.reference + self.predicted
        return 2 * self.found / total if total else float("nan")

    def sq(self) -> float:
        """Segmentation quality: mean IoU of the matched pairs; NaN without one."""
        return float(self.ious.mean()) if self.found else float("nan")

    def pq(self) -> float:
        """Panoptic quality: sum of IoU / (found + missed / 2 + invented / 2) = SQ x F1."""
        total = self.reference + self.predicted
        return float(2 * self.ious.sum() / total) if total else float("nan")


def matched(pair: Pair, rule: LesionRule) -> Matching:
    """The lesions of a pair of masks, matched; computed once for each pair and rule."""
    known = _MATCHED.setdefault(pair, {})
    if rule.model_dump_json() not in known:
        known[rule.model_dump_json()] = match_lesions(pair.mask, pair.reference, pair.grid, rule)
    return known[rule.model_dump_json()]


_MATCHED: WeakKeyDictionary[Pair, dict[str, Matching]] = WeakKeyDictionary()


def match_lesions(mask: Bool, reference: Bool, grid: Grid, rule: LesionRule | None = None) -> Matching:
    """Match the lesions of two masks one-to-one, where their IoU is larger than the rule's.

    Parameters
    ----------
    mask, reference : bool arrays (I, J, K)
        The whole image or any box of it that holds every voxel of both.
    grid : Grid
        Gives the volume of a voxel.
    rule : LesionRule, optional
        Threshold, connectivity, smallest volume.

    Returns
    -------
    Matching
        The most pairs, and among those the largest sum of IoU (above 0.5 there is only one way).
    """
    rule = rule or LesionRule()
    (theirs, large), (ours, small) = (components(side, grid, rule) for side in (reference, mask))
    r, p, shared = _overlaps(theirs, ours)
    ious = shared / (large[r] + small[p] - shared)
    chosen = np.flatnonzero(ious > rule.iou)
    r, p, ious = r[chosen], p[chosen], ious[chosen]
    kept = _one_to_one(r, p, ious)
    return Matching(large.size, small.size, ious[kept], np.stack([r[kept], p[kept]], axis=1), large, small)


def components(mask: Bool, grid: Grid, rule: LesionRule | None = None) -> tuple[NDArray[Any], Ints]:
    """Lesions of a mask: an array with 1, 2, ... in each, and their voxel counts.

    Lesions below the rule's smallest volume are background. In an image of one slice the neighbours
    are those within the slice.
    """
    from scipy import ndimage

    rule = rule or LesionRule()
    neighbours = ndimage.generate_binary_structure(3, _RANK[rule.connectivity])
    labelled: Any = ndimage.label(mask, neighbours)
    parts, n = labelled
    sizes = np.bincount(parts.ravel(), minlength=n + 1)[1:]
    kept = sizes * grid.voxel_ml >= rule.minimum_ml * (1 - 1e-9)
    if kept.all():
        return parts, sizes
    renamed = np.concatenate([[0], np.where(kept, np.cumsum(kept), 0)])
    return renamed[parts], sizes[kept]


def _overlaps(a: NDArray[Any], b: NDArray[Any]) -> tuple[Ints, Ints, Ints]:
    """Pairs of parts that share voxels (counted from 0), and how many."""
    both = (a > 0) & (b > 0)
    wide = int(b.max(initial=0)) + 1
    codes, shared = np.unique(a[both].astype(np.int64) * wide + b[both], return_counts=True)
    return codes // wide - 1, codes % wide - 1, shared


def _one_to_one(r: Ints, p: Ints, ious: Floats) -> Ints:
    """Indices of pairs such that no lesion is in two: the most pairs, then the largest sum of IoU."""
    from scipy.optimize import linear_sum_assignment

    if np.unique(r).size == r.size and np.unique(p).size == p.size:
        return np.arange(r.size)
    (rows, at_row), (columns, at_column) = (np.unique(x, return_inverse=True) for x in (r, p))
    weights = np.zeros((rows.size, columns.size))
    weights[at_row, at_column] = min(weights.shape) + 1 + ious
    numbers = np.full(weights.shape, -1)
    numbers[at_row, at_column] = np.arange(r.size)
    row, column = linear_sum_assignment(weights, maximize=True)
    found = numbers[row, column]
    return np.sort(found[found >= 0])
