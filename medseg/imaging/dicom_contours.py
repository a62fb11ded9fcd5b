"""Closed contours in a plane and the pixels inside them: pure geometry, no DICOM.

Points are ``[n, 2]`` as (column, row) in pixels, and pixel centres lie at whole numbers: the edge of the
picture is at -0.5.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Contour = NDArray[np.float64]


def fill(contours: Sequence[Contour], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Pixels whose centre lies inside, by the even-odd rule over all contours together.

    A contour within another is a hole, one within the hole is tissue again. A contour that runs there
    and back on one line (a keyhole) encloses nothing along it. Parts outside the picture are cut off.

    Parameters
    ----------
    contours : sequence of array [n, 2]
        Each closed by itself: the last point is joined with the first.
    shape : (rows, columns)

    Returns
    -------
    array of bool, [rows, columns]

    Notes
    -----
    Of centres that lie on a contour, those on its left and upper side belong to it, those on its right
    and lower side do not: of two areas that share a side each pixel belongs to one, and a rectangle from
    centre to centre holds as many pixels as its area says.
    """
    rows, columns = shape
    row, column = _crossings(contours, rows)
    # the first pixel at or right of each crossing; what lies left of the picture turns the whole row
    first = np.clip(np.ceil(column), 0, columns).astype(np.int64)
    turns = np.bincount(row * (columns + 1) + first, minlength=rows * (columns + 1))
    turned = np.cumsum(turns.reshape(rows, columns + 1)[:, :columns], axis=1)
    return turned % 2 == 1


def touched(contours: Sequence[Contour], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Pixels whose centre lies on a contour that runs from centre to centre.

    Some programs trace a mask through the centres of its outermost pixels instead of around them; their
    areas are `fill` and `touched` together. Only sides that begin and end on centres count.
    """
    mask = np.zeros(shape, bool)
    for contour in contours:
        points = np.asarray(contour, float)
        for start, end in zip(points, np.roll(points, -1, axis=0), strict=True):
            if (start == np.rint(start)).all() and (end == np.rint(end)).all():
                step = (end - start).astype(int)
                parts = max(1, int(np.gcd(*step)))
                column, row = (start + np.outer(np.arange(parts + 1), step // parts)).astype(int).T
                inside = (row >= 0) & (row < shape[0]) & (column >= 0) & (column < shape[1])
                mask[row[inside], column[inside]] = True
    return mask


def without_repeats(contours: Sequence[Contour], tolerance: float = 1e-3) -> list[Contour]:
    """The contours without those drawn twice, whatever their first point and direction.

    Two equal contours would cancel each other in `fill`.
    """
    kept: list[Contour] = []
    for contour in contours:
        if not any(_same(contour, other, tolerance) for other in kept):
            kept.append(contour)
    return kept


def snapped(contour: Contour, tolerance: float = 2e-3) -> Contour:
    """Points moved onto a pixel centre, a pixel edge, or a line of them, where they mean just that.

    Coordinates are written with few decimals: rounding must not decide on which side a point lies.
    """
    half = np.rint(2 * np.asarray(contour, float)) / 2
    return np.where(np.abs(contour - half) <= tolerance, half, contour)


def _crossings(contours: Sequence[Contour], rows: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Where the sides of the contours cross the lines of pixel centres: row numbers and columns."""
    sides = [(points, np.roll(points, -1, axis=0)) for points in (np.asarray(c, float) for c in contours)]
    start = np.concatenate([np.empty((0, 2)), *(a for a, _ in sides)])
    end = np.concatenate([np.empty((0, 2)), *(b for _, b in sides)])
    upper = np.where((start[:, 1] <= end[:, 1])[:, None], start, end)
    lower = np.where((start[:, 1] <= end[:, 1])[:, None], end, start)
    # rows from the upper end, that one included, to the lower end, that one excluded
    first = np.clip(np.ceil(upper[:, 1]), 0, rows).astype(np.int64)
    count = np.clip(np.ceil(lower[:, 1]), 0, rows).astype(np.int64) - first
    side = np.repeat(np.arange(len(count)), count)
    row = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count) + first[side]
    (x0, y0), (x1, y1) = upper[side].T, lower[side].T
    return row, x0 + (row - y0) * (x1 - x0) / (y1 - y0)


def _same(contour: Contour, other: Contour, tolerance: float) -> bool:
    if len(contour) != len(other):
        return False
    for turned in (other, other[::-1]):
        near = np.flatnonzero(np.abs(turned - contour[0]).max(axis=1) <= tolerance)
        if any(np.abs(np.roll(turned, -at, axis=0) - contour).max() <= tolerance for at in near):
            return True
    return False
