"""Moving voxels between grids that share one lattice: permuted, flipped, shifted, never interpolated."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from medseg.core.errors import CaseError
from medseg.imaging.grid import Grid
from medseg.imaging.image import Image

VOXEL_TOL = 0.02
"""Voxel centres may lie apart by this part of a voxel and still be the same voxel."""


def on_lattice(image: Image, grid: Grid, what: str = "the mask") -> Image:
    """The image on `grid`, when both lie on one lattice of voxels; whatever the order of their axes.

    Voxels of `grid` that the image does not cover become 0.

    Raises
    ------
    CaseError
        Voxel centres do not coincide, or non-zero voxels would be lost outside `grid`.
    """
    if image.grid.matches(grid):
        return image
    order, signs, start = _relation(image.grid, grid, what)
    array = np.transpose(image.array, [0, *(a + 1 for a in order)])
    array = np.flip(array, tuple(i + 1 for i, s in enumerate(signs) if s < 0))
    result = np.zeros((image.array.shape[0], *grid.shape), image.array.dtype)
    put, taken = _overlap(start, array.shape[1:], grid.shape)
    result[(slice(None), *put)] = array[(slice(None), *taken)]
    if np.count_nonzero(result) != np.count_nonzero(image.array):
        raise CaseError(
            f"{what} reaches outside the image it belongs to",
            evidence=f"{np.count_nonzero(image.array) - np.count_nonzero(result)} voxels outside; "
            + image.grid.difference(grid),
        )
    return Image(result, grid)


def _relation(
    own: Grid, other: Grid, what: str
) -> tuple[tuple[int, ...], tuple[int, ...], NDArray[np.int64]]:
    """For each axis of `other` the axis of `own` and its sign, and where the first voxel goes."""
    step = np.linalg.inv(other.affine) @ own.affine
    turn = np.rint(step[:3, :3]).astype(int)
    extent = np.array(own.shape) - 1
    # a wrong direction or spacing counts by how far it drives the last voxel off
    drift = np.abs(step[:3, :3] - turn) @ np.maximum(extent, 1)
    is_turn = (np.abs(turn).sum(axis=0) == 1).all() and (np.abs(turn).sum(axis=1) == 1).all()
    corner = step[:3, 3]
    apart = np.abs(corner - np.rint(corner)).max()
    if not is_turn or drift.max() > 0.25 or apart > VOXEL_TOL + drift.max():
        raise CaseError(
            f"{what} does not lie on the voxels of the image it belongs to",
            evidence=own.difference(other),
            mend="resample it onto the image first (nearest neighbour), or pair the right files",
        )
    order = tuple(int(np.argmax(np.abs(turn[axis]))) for axis in range(3))
    signs = tuple(int(turn[axis, order[axis]]) for axis in range(3))
    first = np.rint(corner).astype(int)
    ends = first + turn @ extent
    return order, signs, np.minimum(first, ends)


def _overlap(
    start: NDArray[np.int64], size: tuple[int, ...], room: tuple[int, ...]
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    low = [max(0, int(s)) for s in start]
    high = [max(lo, min(int(s) + n, r)) for s, n, r, lo in zip(start, size, room, low, strict=True)]
    put = tuple(slice(lo, hi) for lo, hi in zip(low, high, strict=True))
    taken = tuple(slice(lo - int(s), hi - int(s)) for lo, hi, s in zip(low, high, start, strict=True))
    return put, taken
