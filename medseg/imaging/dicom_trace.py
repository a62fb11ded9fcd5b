"""Outlines of a mask along the edges of its pixels: nothing is smoothed, so nothing is lost.

Corners are counted as ``(row, column)`` with the outer corner of the first pixel at ``(0, 0)``: pixel
``(r, c)`` spans ``r .. r + 1`` and ``c .. c + 1``, and its centre is ``(r + 0.5, c + 0.5)``.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Holes = Literal["keyhole", "inner"]
Corners = NDArray[np.int64]
_Corner = tuple[int, int]
_STEPS = ((0, 1), (1, 0), (0, -1), (-1, 0))  # right, down, left, up


def outlines(mask: NDArray[Any], holes: Holes = "keyhole") -> list[Corners]:
    """Closed outlines of a 2-D mask ``[row, column]``, each ``[n, 2]`` corners without a repeated end.

    Pixels that touch at a corner alone have outlines of their own. By the even-odd rule a pixel centre
    is inside exactly when its pixel is set.

    Parameters
    ----------
    holes : {"keyhole", "inner"}
        ``keyhole``: a hole is joined to the outline around it by a channel of no width, so that one
        outline says it all and even-odd, exclusive-or and union give the same. ``inner``: a hole is an
        outline of its own, right by even-odd or exclusive-or alone.
    """
    rows, columns = np.nonzero(mask.any(axis=1))[0], np.nonzero(mask.any(axis=0))[0]
    if not len(rows):
        return []
    box = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] != 0
    loops = _loops(box)
    if holes == "keyhole":
        loops = _keyholed(loops, box)
    first = np.array([rows[0], columns[0]])
    return [first + _bends(loop) for loop in loops]


def _loops(box: NDArray[np.bool_]) -> list[list[_Corner]]:
    """Every closed walk along pixel edges, corner by corner, with the mask on the right hand."""
    leaving = _edges(box)
    loops = []
    for start in np.argwhere(leaving[0]):  # every loop goes right somewhere
        place = (int(start[0]), int(start[1]))
        if leaving[0][place]:
            loops.append(_walk(leaving, place))
    return loops


def _edges(box: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which edges leave each corner to the right, down, left and up: ``[4, rows + 1, columns + 1]``."""
    padded = np.pad(box, 1)
    upper_left, upper_right = padded[:-1, :-1], padded[:-1, 1:]
    lower_left, lower_right = padded[1:, :-1], padded[1:, 1:]
    return np.stack(
        [
            lower_right & ~upper_right,
            lower_left & ~lower_right,
            upper_left & ~lower_left,
            upper_right & ~upper_left,
        ]
    )


def _walk(leaving: NDArray[np.bool_], start: _Corner) -> list[_Corner]:
    """Follow the edges from `start` (to the right) until it closes; walked edges are taken away."""
    loop, place, heading = [], start, 0
    while leaving[heading][place]:
        leaving[heading][place] = False
        loop.append(place)
        place = (place[0] + _STEPS[heading][0], place[1] + _STEPS[heading][1])
        # a right turn first: at a corner where two pixels touch the walk stays with its own
        turns = ((heading + turn) % 4 for turn in (1, 0, 3))
        heading = next((turn for turn in turns if leaving[turn][place]), heading)
    return loop


def _keyholed(loops: list[list[_Corner]], box: NDArray[np.bool_]) -> list[list[_Corner]]:
    """Holes joined to what lies left of them.

    From the upper left corner of a hole's leftmost pixels a line to the left runs inside the mask until it
    meets another outline: the one around it, or a hole further left, which is joined already.
    """
    kept = [loop for loop in loops if _area(loop) > 0]
    holes = sorted((loop for loop in loops if _area(loop) < 0), key=lambda loop: _leftmost(loop)[::-1])
    owner = {corner: loop for loop in kept for corner in loop}
    for hole in holes:
        door = _leftmost(hole)
        meets = _wall_left_of(door, box)
        around, at = owner[meets], hole.index(door)
        channel = [meets, *hole[at:], *hole[:at], door, meets]
        k = around.index(meets)
        around[k : k + 1] = channel
        owner |= dict.fromkeys(hole, around)
    return kept


def _wall_left_of(corner: _Corner, box: NDArray[np.bool_]) -> _Corner:
    row, column = corner[0], corner[1] - 1
    while column and box[row - 1, column - 1] and box[row, column - 1]:
        column -= 1
    return row, column


def _leftmost(loop: list[_Corner]) -> _Corner:
    return min(loop, key=lambda corner: (corner[1], corner[0]))


def _area(loop: list[_Corner]) -> int:
    """Twice the signed area: positive around mask, negative around a hole."""
    row, column = np.array(loop).T
    return int((column * np.roll(row, -1) - row * np.roll(column, -1)).sum())


def _bends(loop: list[_Corner]) -> Corners:
    """The corners at which an outline changes its direction."""
    corners = np.array(loop)
    before = np.sign(corners - np.roll(corners, 1, axis=0))
    after = np.sign(np.roll(corners, -1, axis=0) - corners)
    return corners[(before != after).any(axis=1)]
