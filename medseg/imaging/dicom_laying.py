"""Laying a frame drawn on an image where it lies: onto a grid of voxels, or onto the planes of a series."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.core.errors import CaseError
from medseg.imaging.dicom_header import Plane
from medseg.imaging.dicom_series import Series
from medseg.imaging.grid import Affine, Grid, ras_from_lps

_DRIFT_TOL = 0.25
"""Of a voxel: how far a slightly other direction or spacing may drive the last pixel off."""
_VOXEL_TOL = 0.05
"""Of a voxel: positions of a stack may jitter by 1 % of the gap."""
_MEND = "pair it with the series it was drawn on"

Finder = Callable[[Affine], tuple[NDArray[Any], NDArray[np.float64]] | None]
"""Affine of a frame (column, row, normal -> RAS mm) -> a view of the label map and the affine from the
frame's indices to indices of that view; None when the frame lies outside the stack."""


def on_grid(grid: Grid, array: NDArray[Any]) -> Finder:
    """Frames onto the voxels of a grid, in any order of axes; `array` is ``[I, J, K]``."""
    inverse = np.linalg.inv(grid.affine)
    return lambda affine: (array, inverse @ affine)


def on_planes(series: Series, array: NDArray[Any]) -> Finder:
    """Frames onto the source planes of a series; `array` is ``[K, R, C]``.

    Frames parallel to the planes are laid onto the plane at their own position, so that tilted and uneven
    stacks are served too. Other frames need planes at even steps.

    Raises
    ------
    CaseError
        The planes have no place in the patient.
    """
    affines = plane_affines(series)
    inverses = np.linalg.inv(affines)
    turned = array.transpose(2, 1, 0)
    across = on_grid(_lattice(affines, turned.shape), turned) if _even(affines) else None

    def find(affine: Affine) -> tuple[NDArray[Any], NDArray[np.float64]] | None:
        steps = inverses @ affine
        if np.abs(steps[0, 2, :2]).max() * max(turned.shape) > _DRIFT_TOL:
            if across is None:
                raise _astray(steps[0], "not in the planes of the image, which lie at uneven steps")
            return across(affine)
        height = steps[:, 2, 3]
        nearest = int(np.argmin(np.abs(height)))
        if abs(height[nearest]) > _VOXEL_TOL:
            if height.min() > 0.5 or height.max() < -0.5:
                return None
            raise _astray(steps[nearest], f"{abs(height[nearest]):.3f} of a gap off the nearest slice")
        return turned[:, :, nearest : nearest + 1], _level(steps[nearest])

    return find


def window(
    view: NDArray[Any], step: NDArray[np.float64], picture: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """The part of a label map that a picture covers, seen as the picture is, and that part of the picture.

    Parameters
    ----------
    view : array [I, J, K]
    step : array (4, 4)
        (column, row, normal, 1) of the picture -> indices of `view`.
    picture : array [row, column]

    Raises
    ------
    CaseError
        Pixels and voxels do not coincide, or pixels that are not 0 lie outside.
    """
    turn, start = np.rint(step[:3, :2]).astype(int), np.rint(step[:3, 3]).astype(int)
    drift = np.abs(step[:3, :2] - turn) @ np.array(picture.shape[::-1])
    straight = (np.abs(turn).sum(axis=0) == 1).all() and np.abs(turn).sum(axis=1).max() == 1
    if not straight or drift.max() > _DRIFT_TOL or np.abs(step[:3, 3] - start).max() > _VOXEL_TOL:
        raise _astray(step)
    column, row = (int(np.argmax(np.abs(turn[:, a]))) for a in (0, 1))
    depth = 3 - column - row
    if not 0 <= start[depth] < view.shape[depth]:
        outside(picture)
        return view[:0, :0, 0], picture[:0, :0]
    sheet = np.moveaxis(view, (depth, row, column), (0, 1, 2))[start[depth]]
    sheet, top = _facing(sheet, 0, turn[row, 1], start[row])
    sheet, left = _facing(sheet, 1, turn[column, 0], start[column])
    put, taken = _shared((top, left), picture.shape, sheet.shape)
    beyond = np.count_nonzero(picture) - np.count_nonzero(picture[taken])
    if beyond:
        raise _outside(f"{beyond} pixels of a frame lie beyond the edge of its slice")
    return sheet[put], picture[taken]


def outside(picture: NDArray[Any]) -> None:
    """Raise CaseError when a frame that lies beyond the stack has anything drawn in it."""
    if picture.any():
        raise _outside(f"a frame with {np.count_nonzero(picture)} pixels lies beyond the first or last slice")


def plane_affines(series: Series) -> NDArray[np.float64]:
    """(column, row, gaps along the normal) of each plane -> RAS mm: ``[K, 4, 4]``.

    A gap is the distance to the nearer neighbour, 1 mm where there is none.

    Raises
    ------
    CaseError
        A plane has no position, orientation or pixel spacing.
    """
    return np.array([_plane_affine(series.planes, k) for k in range(len(series.planes))])


def _plane_affine(planes: tuple[Plane, ...], index: int) -> Affine:
    plane = planes[index]
    if plane.position is None or plane.orientation is None or plane.spacing_mm is None:
        raise CaseError("the image has no place in the patient: nothing can be laid onto it")
    row, column = np.reshape(np.array(plane.orientation, float), (2, 3))
    between_rows, between_columns = plane.spacing_mm
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = row * between_columns, column * between_rows
    affine[:3, 2] = np.cross(row, column) * _gap(planes, index, np.cross(row, column))
    affine[:3, 3] = plane.position
    return ras_from_lps(affine)


def _gap(planes: tuple[Plane, ...], index: int, normal: NDArray[np.float64]) -> float:
    beside = [planes[k] for k in (index - 1, index + 1) if 0 <= k < len(planes)]
    own = np.array(planes[index].position, float)
    gaps = [abs(float((np.array(p.position, float) - own) @ normal)) for p in beside]
    return min((gap for gap in gaps if gap > 0), default=1.0)


def _even(affines: NDArray[np.float64]) -> bool:
    """Whether all planes lie a step apart, be it along the normal or (a tilted gantry) not."""
    steps = np.diff(affines[:, :3, 3], axis=0)
    return len(steps) > 0 and bool(
        np.abs(steps - steps.mean(axis=0)).max() <= 0.02 * np.linalg.norm(steps.mean(axis=0))
    )


def _lattice(affines: NDArray[np.float64], shape: tuple[int, ...]) -> Grid:
    affine = affines[0].copy()
    affine[:3, 2] = (affines[-1, :3, 3] - affines[0, :3, 3]) / (len(affines) - 1)
    return Grid((shape[0], shape[1], shape[2]), affine)


def _level(step: NDArray[np.float64]) -> NDArray[np.float64]:
    """The same, lying on the plane for good."""
    flat = step.copy()
    flat[2] = (0, 0, 1, 0)
    return flat


def _facing(sheet: NDArray[Any], axis: int, sign: int, start: int) -> tuple[NDArray[Any], int]:
    """The sheet flipped so that its axis runs as the picture's, and where the picture begins on it."""
    return (sheet, start) if sign > 0 else (np.flip(sheet, axis), sheet.shape[axis] - 1 - start)


def _shared(
    start: tuple[int, ...], size: tuple[int, ...], room: tuple[int, ...]
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    low = [max(0, int(s)) for s in start]
    high = [max(lo, min(int(s) + n, r)) for s, n, r, lo in zip(start, size, room, low, strict=True)]
    put = tuple(slice(lo, hi) for lo, hi in zip(low, high, strict=True))
    taken = tuple(slice(lo - int(s), hi - int(s)) for lo, hi, s in zip(low, high, start, strict=True))
    return put, taken


def _astray(step: NDArray[np.float64], how: str = "") -> CaseError:
    return CaseError(
        "the segmentation does not lie on the voxels of the image",
        evidence=f"a frame at voxel {np.round(step[:3, 3], 3).tolist()}, pixel steps "
        f"{np.round(step[:3, :2].T, 3).tolist()} voxels" + (f", {how}" if how else ""),
        mend=_MEND,
    )


def _outside(evidence: str) -> CaseError:
    return CaseError("the segmentation reaches outside the image", evidence=evidence, mend=_MEND)
