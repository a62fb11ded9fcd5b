"""Overlap and volume: what can be told by counting voxels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from medseg.imaging.grid import Grid

Bool = NDArray[np.bool_]


def dice(mask: Bool, reference: Bool) -> float:
    """Dice: 2 |A and B| / (|A| + |B|), by voxel count.

    Parameters
    ----------
    mask, reference : bool arrays of the same shape

    Returns
    -------
    float
        From 0 to 1; NaN when both are empty.

    Examples
    --------
    >>> round(dice(np.array([True, True, False]), np.array([True, False, False])), 3)
    0.667
    """
    total = np.count_nonzero(mask) + np.count_nonzero(reference)
    return float(2 * np.count_nonzero(mask & reference) / total) if total else float("nan")


def iou(mask: Bool, reference: Bool) -> float:
    """Intersection over union, by voxel count; from 0 to 1, NaN when both are empty."""
    union = np.count_nonzero(mask | reference)
    return float(np.count_nonzero(mask & reference) / union) if union else float("nan")


def volume_ml(mask: Bool, grid: Grid) -> float:
    """Voxel count times |det affine|, in millilitres."""
    return float(np.count_nonzero(mask) * grid.voxel_ml)


def volume_error(mask: Bool, reference: Bool) -> float:
    """Signed volume error in percent of the reference; NaN when the reference is empty."""
    there = np.count_nonzero(reference)
    return float(100 * (np.count_nonzero(mask) - there) / there) if there else float("nan")
