"""Between the planes of a series and the grid its volume is given on: there, and back for masks.

A regular series needs nothing but other axes. A mended one (tilt, uneven steps, gaps) is interpolated
linearly: all planes are parallel, so that each slice of one side is a weighted sum of a few shifted
slices of the other.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.imaging.dicom_mend import WHOLE_VOXEL
from medseg.imaging.dicom_series import Series
from medseg.imaging.dicom_slices import GAP_TOL
from medseg.imaging.image import Image
from medseg.imaging.lattice import on_lattice

AIR_HU = -1024.0
"""What lies outside the source planes of a resampled CT; in other modalities its smallest value does."""

Boxes = list[tuple[int, int, int, int] | None]


@dataclass(frozen=True)
class Tap:
    """A slice of the source, moved by whole pixels (rows, columns), with its weight in the sum."""

    slice: int
    rows: int
    columns: int
    weight: float


def volume_of(planes: NDArray[np.float32], series: Series) -> Image:
    """Grey values ``[slice, row, column]``, one per plane of the series -> ``[1, I, J, K]`` on its grid.

    Voxels of a mended grid that lie outside all planes become `AIR_HU` in CT, else the smallest value
    of the series.
    """
    if not is_interpolated(series):
        return Image(planes.transpose(2, 1, 0)[None], series.grid)
    outside = AIR_HU if series.modality == "CT" else float(planes.min())
    columns, rows, count = series.grid.shape
    volume = np.empty((count, rows, columns), np.float32)
    for target, taps in zip(volume, _taps_onto_grid(series), strict=True):
        _blend(planes, taps, target, outside)
    return Image(volume.transpose(2, 1, 0)[None], series.grid)


def labels_of(planes: NDArray[Any], series: Series) -> Image:
    """A label map ``[slice, row, column]`` on the planes -> ``[1, I, J, K]`` on the grid of the series.

    A voxel of a mended grid goes to the label with the largest linear share of it, as in
    `medseg.imaging.resample.resample_labels`; shared equally, to the smallest value.
    """
    if not is_interpolated(series):
        return Image(planes.transpose(2, 1, 0)[None], series.grid)
    columns, rows, count = series.grid.shape
    volume, boxes = np.zeros((count, rows, columns), planes.dtype), _boxes(planes)
    for target, taps in zip(volume, _taps_onto_grid(series), strict=True):
        _vote(planes, boxes, taps, target)
    return Image(volume.transpose(2, 1, 0)[None], series.grid)


def planes_of(mask: Image, series: Series) -> NDArray[Any]:
    """A label map on the voxels of the series, in any order of axes -> ``[slice, row, column]`` per plane.

    Each pixel of a plane takes the label with the largest linear share at its true position.

    Raises
    ------
    CaseError
        The mask does not lie on the voxels of the series.
    """
    volume = np.ascontiguousarray(on_lattice(mask, series.grid).array[0].transpose(2, 1, 0))
    if not is_interpolated(series):
        return volume
    first = series.planes[0]
    planes, boxes = np.zeros((len(series.planes), first.rows, first.columns), volume.dtype), _boxes(volume)
    for target, taps in zip(planes, _taps_onto_planes(series), strict=True):
        _vote(volume, boxes, taps, target)
    return planes


def is_interpolated(series: Series) -> bool:
    """Whether the voxels of the grid are others than the pixels of the planes."""
    return any(mend.method == "resample" for mend in series.mends)


def _places(series: Series) -> NDArray[np.float64]:
    """Where the first pixel of each plane lies on the grid: (K, 3) in voxels, without rounding and jitter."""
    positions = np.array([p.position for p in series.planes], float) * (-1, -1, 1)
    at = series.grid.to_index(positions)
    whole = np.rint(at)
    # the slices of an even stack lie on those of the grid, but for their jitter
    between = WHOLE_VOXEL if any(mend.kind == "uneven" for mend in series.mends) else 2 * GAP_TOL
    return np.where(np.abs(at - whole) <= (WHOLE_VOXEL, WHOLE_VOXEL, between), whole, at)


def _taps_onto_grid(series: Series) -> Iterator[list[Tap]]:
    places = _places(series)
    for number in range(series.grid.shape[2]):
        yield [
            tap
            for plane, weight in _neighbours(places[:, 2], float(number))
            for tap in _shifted(plane, places[plane, :2], weight)
        ]


def _taps_onto_planes(series: Series) -> Iterator[list[Tap]]:
    levels = np.arange(series.grid.shape[2], dtype=float)
    for column, row, level in _places(series):
        yield [
            tap
            for number, weight in _neighbours(levels, level)
            for tap in _shifted(number, (-column, -row), weight)
        ]


def _neighbours(levels: NDArray[np.float64], at: float) -> list[tuple[int, float]]:
    """The slices on both sides of a level (ascending) and their weights; the last one beyond the ends."""
    above = int(np.searchsorted(levels, at))
    if above == 0 or above == len(levels):
        return [(min(above, len(levels) - 1), 1.0)]
    share = (at - levels[above - 1]) / (levels[above] - levels[above - 1])
    both = [(above - 1, 1.0 - share), (above, share)]
    return [(number, float(weight)) for number, weight in both if weight > 0]


def _shifted(number: int, move: Sequence[float] | NDArray[np.float64], weight: float) -> Iterator[Tap]:
    """A slice moved by (columns, rows): up to four whole moves that share its weight."""
    columns, rows = (_whole_moves(float(v)) for v in move)
    for row, row_weight in rows:
        for column, column_weight in columns:
            yield Tap(number, row, column, weight * row_weight * column_weight)


def _whole_moves(move: float) -> list[tuple[int, float]]:
    low = math.floor(move)
    part = move - low
    return [(low, 1.0 - part), (low + 1, part)] if part else [(low, 1.0)]


def _window(tap: Tap, have: Sequence[int], rows: slice, columns: slice) -> tuple[Any, Any]:
    """Where a moved slice of shape `have` meets a window: in the slice, and in the window."""
    taken, put = [], []
    for move, size, part in zip((tap.rows, tap.columns), have, (rows, columns), strict=True):
        low = min(max(part.start, move), part.stop)
        high = max(low, min(part.stop, size + move))
        taken.append(slice(low - move, high - move))
        put.append(slice(low - part.start, high - part.start))
    return tuple(taken), tuple(put)


def _blend(source: NDArray[Any], taps: Sequence[Tap], target: NDArray[np.float32], outside: float) -> None:
    everything = slice(0, target.shape[0]), slice(0, target.shape[1])
    target[:] = 0
    bare = np.ones_like(target)
    for tap in taps:
        taken, put = _window(tap, source.shape[1:], *everything)
        target[put] += np.float32(tap.weight) * source[tap.slice][taken]
        bare[put] -= np.float32(tap.weight)
    bare[bare < 1e-6] = 0
    target += np.float32(outside) * bare


def _vote(source: NDArray[Any], boxes: Boxes, taps: Sequence[Tap], target: NDArray[Any]) -> None:
    """The label with the largest sum of weights; what lies outside the source counts as 0."""
    window = _labelled(boxes, taps, target.shape)
    if window is None:
        return
    found, moved = target[window], [_moved(source, tap, window) for tap in taps]
    if len(moved) == 1:
        found[:] = moved[0]
        return
    largest = np.full(found.shape, -1.0, np.float32)
    for value in np.unique(np.concatenate([np.unique(one) for one in moved])):
        share = np.zeros(found.shape, np.float32)
        for tap, one in zip(taps, moved, strict=True):
            share += np.float32(tap.weight) * (one == value)
        better = share > largest + np.float32(1e-6)
        found[better], largest[better] = value, share[better]


def _moved(source: NDArray[Any], tap: Tap, window: tuple[slice, slice]) -> NDArray[Any]:
    rows, columns = window
    out = np.zeros((rows.stop - rows.start, columns.stop - columns.start), source.dtype)
    taken, put = _window(tap, source.shape[1:], rows, columns)
    out[put] = source[tap.slice][taken]
    return out


def _boxes(source: NDArray[Any]) -> Boxes:
    """For each slice the rows and columns that hold labels, or None."""
    found: Boxes = []
    for one in source:
        rows, columns = np.flatnonzero(one.any(axis=1)), np.flatnonzero(one.any(axis=0))
        box = (int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1) if len(rows) else None
        found.append(box)
    return found


def _labelled(boxes: Boxes, taps: Sequence[Tap], size: Sequence[int]) -> tuple[slice, slice] | None:
    """The part of a target that labels can reach."""
    reached = [(boxes[tap.slice], tap) for tap in taps]
    moved = [(b[0] + t.rows, b[1] + t.rows, b[2] + t.columns, b[3] + t.columns) for b, t in reached if b]
    if not moved:
        return None
    top, bottom, left, right = zip(*moved, strict=True)
    rows = slice(max(0, min(top)), min(size[0], max(bottom)))
    columns = slice(max(0, min(left)), min(size[1], max(right)))
    return (rows, columns) if rows.start < rows.stop and columns.start < columns.stop else None
