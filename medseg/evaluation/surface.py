"""Distances between surfaces, in mm, on the box that holds both masks.

Two surfaces are in use, each where the field uses it: **border voxels** (HD, HD95, ASSD, MASD) and
**area-weighted surface elements** between voxels (NSD). A single slice is measured in its plane.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from medseg.evaluation.elements import code_weights, element_sizes
from medseg.imaging.grid import Grid

Bool = NDArray[np.bool_]
Floats = NDArray[np.float64]

SLACK_MM = 1e-5
"""Added to a tolerance: NIfTI stores spacings in float32, and 1.0000001 mm is 1 mm."""
_LEAF = 32
"""Points a leaf of a tree: a quarter faster than scipy's 10 for the points of a surface."""


@dataclass(frozen=True, eq=False)
class Surface:
    """The pieces of one surface: the distance of each to the nearest piece of the other, and its area."""

    distances_mm: Floats
    areas: Floats


@dataclass(frozen=True, eq=False)
class Pair:
    """A predicted and a reference mask of one label on one grid, both not empty.

    Parameters
    ----------
    mask, reference : bool arrays of one shape
        The whole image or any box of it that holds every voxel of both.
    grid : Grid
        Of the whole image: gives the steps in mm, and tells a single slice.
    start : (i, j, k)
        Where the box begins in the whole image.

    Notes
    -----
    Distances are computed once and shared by the metrics.
    """

    mask: Bool
    reference: Bool
    grid: Grid
    start: tuple[int, int, int] = (0, 0, 0)

    @property
    def box_grid(self) -> Grid:
        """The grid of the box the masks are given on."""
        return self.grid.cropped(self.start, self.mask.shape)

    @cached_property
    def step_mm(self) -> Floats:
        """Steps from voxel to voxel in mm, array (3, d): d = 2 for a single slice."""
        return self.grid.affine[:3, :3][:, list(self._axes)]

    @cached_property
    def borders(self) -> tuple[Floats, Floats]:
        """Distance of each border voxel to the other border, in mm: the prediction's, the reference's.

        A border voxel has a face neighbour that is background or outside the image. Border voxels that
        coincide are at distance 0.
        """
        mask, reference = (border(a) for a in self._boxed)
        return self._nearest(mask, reference), self._nearest(reference, mask)

    def elements(self, within_mm: float = np.inf) -> tuple[Surface, Surface]:
        """The surface elements of the prediction and of the reference; beyond `within_mm` is infinite."""
        sizes = element_sizes(self.step_mm)
        codes = [cell_codes(a) for a in self._boxed]
        mask, reference = ((c > 0) & (c < sizes.size - 1) for c in codes)
        there = self._nearest(mask, reference, within_mm)
        back = self._nearest(reference, mask, within_mm)
        return Surface(there, sizes[codes[0][mask]]), Surface(back, sizes[codes[1][reference]])

    @cached_property
    def _boxed(self) -> tuple[Bool, Bool]:
        """Both masks cut to their common box, a rim of background around it, flat axis dropped."""
        either = self.mask | self.reference
        box = tuple(_extent(either, axis) for axis in range(3))
        return _rimmed(self.mask[box], self._axes), _rimmed(self.reference[box], self._axes)

    @property
    def _axes(self) -> tuple[int, ...]:
        flat = [axis for axis in range(3) if self.grid.shape[axis] == 1]
        return tuple(axis for axis in range(3) if axis not in flat[-1:])

    def _nearest(self, these: Bool, others: Bool, within_mm: float = np.inf) -> Floats:
        return nearest_mm(these, others, _turned(self.step_mm), within_mm)


def hd(pair: Pair) -> float:
    """Hausdorff distance: the largest distance from a border voxel to the other border, in mm."""
    return float(max(d.max() for d in pair.borders))


def hd95(pair: Pair) -> float:
    """The larger of the two directed 95th percentiles (linear between ranks) over border voxels, in mm."""
    return float(max(np.percentile(d, 95) for d in pair.borders))


def assd(pair: Pair) -> float:
    """Average symmetric surface distance: the mean over both border sets pooled, in mm."""
    return float(np.concatenate(pair.borders).mean())


def masd(pair: Pair) -> float:
    """Mean average surface distance: the mean of the two directed means over border voxels, in mm."""
    return float(np.mean([d.mean() for d in pair.borders]))


def nsd(pair: Pair, tolerance_mm: float) -> float:
    """Normalised surface Dice: the part of both surfaces' area within `tolerance_mm` (<=) of the other."""
    limit = tolerance_mm + SLACK_MM
    both = pair.elements(within_mm=limit)
    near = sum(s.areas[s.distances_mm <= limit].sum() for s in both)
    return float(near / sum(s.areas.sum() for s in both))


def border(mask: Bool) -> Bool:
    """Voxels of a mask that have a face neighbour outside it; the array's rim must be background."""
    inner = mask.copy()
    for axis in range(mask.ndim):
        ahead, behind = _shifted(axis, 1, None), _shifted(axis, None, -1)
        inner[behind] &= mask[ahead]
        inner[ahead] &= mask[behind]
    return mask & ~inner


def cell_codes(mask: Bool) -> NDArray[np.uint8]:
    """Code of every cell of 2^d neighbouring voxels, one fewer along each axis; 0 is all outside."""
    weights = code_weights(mask.ndim)
    codes = np.zeros([n - 1 for n in mask.shape], np.uint8)
    whole = mask.view(np.uint8)
    for corner in np.ndindex(weights.shape):
        where = tuple(slice(c, n - 1 + c) for c, n in zip(corner, mask.shape, strict=True))
        codes += whole[where] * weights[corner]
    return codes


def nearest_mm(these: Bool, others: Bool, step_mm: Floats, within_mm: float = np.inf) -> Floats:
    """Distance in mm from each True of `these` to the nearest True of `others`; infinite if beyond."""
    from scipy.spatial import KDTree

    apart = ~others[these]
    distances = np.zeros(apart.size)
    if apart.any():
        tree = KDTree(
            np.argwhere(others) @ step_mm.T, leafsize=_LEAF, balanced_tree=False, compact_nodes=False
        )
        points = np.argwhere(these)[apart] @ step_mm.T
        distances[apart] = tree.query(points, distance_upper_bound=within_mm * (1 + 1e-9))[0]
    return distances


def _turned(step_mm: Floats) -> Floats:
    """The steps turned so that orthogonal axes give a diagonal matrix: exact numbers, faster trees."""
    product = step_mm.T @ step_mm
    lengths = np.sqrt(np.diag(product))
    crooked = np.abs(product - np.diag(np.diag(product))).max() > 1e-6 * lengths.max() ** 2
    return step_mm if crooked else np.diag(lengths)


def _extent(mask: Bool, axis: int) -> slice:
    others = tuple(a for a in range(3) if a != axis)
    found = np.flatnonzero(mask.any(axis=others))
    return slice(int(found[0]), int(found[-1]) + 1)


def _rimmed(mask: Bool, axes: tuple[int, ...]) -> Bool:
    flat = mask.reshape([mask.shape[a] for a in axes])
    return np.pad(flat, 1)


def _shifted(axis: int, start: int | None, stop: int | None) -> tuple[slice, ...]:
    return (*(slice(None),) * axis, slice(start, stop))
