"""Outlines of a mask in a slice: closed lines half-way between voxel centres."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Point = tuple[float, float]
_STEPS = {
    # code of a 2 x 2 cell (corners 00 -> 1, 01 -> 2, 10 -> 4, 11 -> 8) to (from side, to side), one way round
    # the mask; sides are the edges between neighbouring corners, named by their two corners
    1: (("00-01", "00-10"),), 2: (("01-11", "00-01"),), 3: (("01-11", "00-10"),), 4: (("00-10", "10-11"),),
    5: (("00-01", "10-11"),), 6: (("01-11", "00-01"), ("00-10", "10-11")), 7: (("01-11", "10-11"),),
    8: (("10-11", "01-11"),), 9: (("00-01", "00-10"), ("10-11", "01-11")), 10: (("10-11", "00-01"),),
    11: (("10-11", "00-10"),), 12: (("00-10", "01-11"),), 13: (("00-01", "01-11"),),
    14: (("00-10", "00-01"),),
}  # fmt: skip
_MIDDLE = {"00-01": (0, 1), "01-11": (1, 2), "00-10": (1, 0), "10-11": (2, 1)}
"""Middle of each side in half voxels from the cell's first corner."""


def outlines(mask: NDArray[np.bool_]) -> list[list[Point]]:
    """Closed lines around a mask in a slice.

    Parameters
    ----------
    mask : bool array (rows, columns)

    Returns
    -------
    list of list of (row, column)
        Voxel-centre coordinates; empty for an empty mask. A mask at the image's edge is closed half a
        voxel outside.
    """
    padded = np.pad(mask, 1).astype(np.uint8)
    codes = padded[:-1, :-1] + 2 * padded[:-1, 1:] + 4 * padded[1:, :-1] + 8 * padded[1:, 1:]
    following: dict[tuple[int, int], tuple[int, int]] = {}
    for row, column in np.argwhere((codes > 0) & (codes < 15)).tolist():
        for start, end in _STEPS[int(codes[row, column])]:
            following[_at(row, column, start)] = _at(row, column, end)
    return [_straightened(loop) for loop in _loops(following)]


def _at(row: int, column: int, side: str) -> tuple[int, int]:
    down, right = _MIDDLE[side]
    return 2 * row + down, 2 * column + right


def _loops(following: dict[tuple[int, int], tuple[int, int]]) -> list[list[Point]]:
    loops = []
    while following:
        first = min(following)
        loop, here = [], first
        while here in following:
            loop.append((here[0] / 2 - 1, here[1] / 2 - 1))
            here = following.pop(here)
        loops.append(loop)
    return loops


def _straightened(loop: list[Point]) -> list[Point]:
    """Without the points in the middle of straight pieces."""
    kept = []
    for i, (row, column) in enumerate(loop):
        before, after = loop[i - 1], loop[(i + 1) % len(loop)]
        turn = (row - before[0]) * (after[1] - column) - (column - before[1]) * (after[0] - row)
        if abs(turn) > 1e-9:
            kept.append((row, column))
    return kept
