"""Surface elements: how much surface lies between 2 x 2 x 2 (or 2 x 2) neighbouring voxels.

The area-weighted NSD of the public challenges measures surface with marching cubes whose vertices lie
half-way between voxel centres. We derive those surfaces here instead of copying a table: on every face
of the cube the edges that leave the mask are joined, the joints close to loops, and each loop is filled
with triangles. Where that is ambiguous, the convention of the challenges is kept:

- four crossings on a face: the corners of the minority (inside, when no more than half of the corners are
  inside) are kept apart;
- a loop that is not flat is filled with the triangles of largest total area at unit spacing, and among equals
  with those that contain the largest single triangle.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import product

import numpy as np
from numpy.typing import NDArray

Corner = tuple[int, ...]
Crossing = tuple[Corner, Corner]
Vector = tuple[float, float, float]
Triangle = tuple[int, int, int]

_CORNERS2: list[Corner] = list(product((0, 1), repeat=2))
_CORNERS3: list[Corner] = list(product((0, 1), repeat=3))
_RING: tuple[Corner, ...] = ((0, 0), (0, 1), (1, 1), (1, 0))


def code_weights(dimensions: int) -> NDArray[np.uint8]:
    """Weight of each of the 2^d voxels of a cell in its code, shape (2,) * d; all inside is the sum."""
    n = 2**dimensions
    return (1 << np.arange(n, dtype=np.uint16)).astype(np.uint8).reshape((2,) * dimensions)


def element_sizes(step_mm: NDArray[np.float64]) -> NDArray[np.float64]:
    """Surface area (mm^2; in 2-D, contour length in mm) for each code of a cell.

    Parameters
    ----------
    step_mm : array (3, d)
        Columns: the step in mm from a voxel to the next along each of d = 2 or 3 axes. They need not be
        orthogonal.

    Returns
    -------
    array (2 ** 2**d,)
    """
    if step_mm.shape[1] == 2:
        return np.linalg.norm(_table(2) @ step_mm.T, axis=-1).sum(axis=-1)
    columns = step_mm.T
    faces = np.array([np.cross(columns[(a + 1) % 3], columns[(a + 2) % 3]) for a in range(3)])
    return np.linalg.norm(_table(3) @ faces, axis=-1).sum(axis=-1)


@cache
def _table(dimensions: int) -> NDArray[np.float64]:
    """Pieces of surface of every code, array (2 ** 2**d, most pieces, d), zeros where there are fewer."""
    pieces = [_segments(c) for c in range(16)] if dimensions == 2 else [_normals(c) for c in range(256)]
    table = np.zeros((len(pieces), max(map(len, pieces)), dimensions))
    for code, found in enumerate(pieces):
        table[code, : len(found)] = np.reshape(found, (len(found), dimensions))
    return table


def _segments(code: int) -> list[NDArray[np.float64]]:
    """Pieces of the contour through a 2 x 2 cell, as vectors in voxel units."""
    inside = {corner: bool(code & (1 << i)) for i, corner in enumerate(_CORNERS2)}
    few = sum(inside.values()) <= 2
    return [_middle(a) - _middle(b) for a, b in _joints(list(_RING), inside, few)]


def _normals(code: int) -> list[Vector]:
    """Triangles of the surface through a 2 x 2 x 2 cell, each as normal x area in voxel units."""
    inside = {corner: bool(code & (1 << i)) for i, corner in enumerate(_CORNERS3)}
    few = sum(inside.values()) <= 4
    joints = [joint for face in _faces() for joint in _joints(face, inside, few)]
    return [normal for loop in _loops(joints) for normal in _filled(loop)]


def _faces() -> Iterator[list[Corner]]:
    for axis, side in product(range(3), (0, 1)):
        yield [(*c[:axis], side, *c[axis:]) for c in _RING]


def _joints(ring: list[Corner], inside: dict[Corner, bool], few: bool) -> list[tuple[Crossing, Crossing]]:
    """Pairs of crossings of a face's four edges that the surface joins."""
    edges = [_crossing(ring[i], ring[(i + 1) % 4]) for i in range(4)]
    crossed = [i for i in range(4) if inside[ring[i]] != inside[ring[(i + 1) % 4]]]
    if len(crossed) == 2:
        return [(edges[crossed[0]], edges[crossed[1]])]
    apart = [i for i in range(4) if inside[ring[i]] == few] if crossed else []
    return [(edges[i - 1], edges[i]) for i in apart]


def _crossing(a: Corner, b: Corner) -> Crossing:
    return (a, b) if a < b else (b, a)


def _middle(crossing: Crossing) -> NDArray[np.float64]:
    return (np.array(crossing[0]) + np.array(crossing[1])) / 2


def _loops(joints: list[tuple[Crossing, Crossing]]) -> list[list[Crossing]]:
    """Closed loops of crossings: every crossing has two joints."""
    beside: dict[Crossing, list[Crossing]] = {}
    for a, b in joints:
        beside.setdefault(a, []).append(b)
        beside.setdefault(b, []).append(a)
    loops: list[list[Crossing]] = []
    while beside:
        loop = [min(beside)]
        while following := [c for c in beside.pop(loop[-1]) if c in beside]:
            loop.append(following[0])
        loops.append(loop)
    return loops


def _filled(loop: list[Crossing]) -> list[Vector]:
    """The normals of the triangles that fill a loop, by the rule at the top of this module."""
    points = [_middle(c) for c in loop]
    options = [[_normal(points, t) for t in filling] for filling in _fillings(0, len(loop) - 1)]
    areas = [[float(np.linalg.norm(n)) for n in normals] for normals in options]
    best = max(range(len(options)), key=lambda i: (round(sum(areas[i]), 9), round(max(areas[i]), 9)))
    return options[best]


def _normal(points: list[NDArray[np.float64]], triangle: Triangle) -> Vector:
    a, b, c = (points[i] for i in triangle)
    x, y, z = np.cross(b - a, c - a) / 2
    return float(x), float(y), float(z)


def _fillings(first: int, last: int) -> list[list[Triangle]]:
    """All ways to cut the polygon first ... last into triangles."""
    if last - first < 2:
        return [[]]
    return [
        [*left, *right, (first, middle, last)]
        for middle in range(first + 1, last)
        for left in _fillings(first, middle)
        for right in _fillings(middle, last)
    ]
