"""Candidates for lesions in a map of probabilities: connected parts, each with its peak."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.imaging.grid import Grid

ABOVE = 0.1
"""A candidate is a connected part where the probability is above this."""


def candidates(probability: NDArray[Any], grid: Grid, above: float = ABOVE) -> list[dict[str, Any]]:
    """Connected parts above a probability, surest first: place and height of the peak, volume of the part.

    Parameters
    ----------
    probability : array (I, J, K)
    grid : Grid
        Of the array.
    above : float
        Parts are 26-connected.

    Returns
    -------
    list of dict
        ``point_mm`` (RAS), ``score``, ``ml``; empty where nothing is above.
    """
    from scipy import ndimage

    labelled: Any = ndimage.label(probability > above, np.ones((3, 3, 3), int))
    parts, n = labelled
    peaks: Any = ndimage.maximum_position(probability, parts, range(1, n + 1)) if n else []
    sizes = np.bincount(parts.ravel(), minlength=n + 1)[1:]
    points = grid.to_mm(np.array(peaks, float).reshape(-1, 3))
    rows = [
        {
            "point_mm": [round(float(x), 4) for x in point],
            "score": round(float(probability[tuple(int(i) for i in peak)]), 6),
            "ml": round(float(size * grid.voxel_ml), 6),
        }
        for point, peak, size in zip(points, peaks, sizes, strict=True)
    ]
    return sorted(rows, key=lambda row: (-row["score"], row["point_mm"]))
