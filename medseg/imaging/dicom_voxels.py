"""The pixels of a series as grey values, plane by plane, on as many cores as there are."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.core.errors import CaseError
from medseg.imaging.dicom_header import Plane
from medseg.imaging.dicom_lut import ModalityLut, modality_lut
from medseg.imaging.dicom_mosaic import cut
from medseg.imaging.dicom_pixels import stored_one_by_one
from medseg.imaging.dicom_series import Series

_EXACT = 2**24
"""Whole numbers below this are exact in float32."""


def voxels_of(series: Series) -> NDArray[np.float32]:
    """Grey values ``[slice, row, column]`` of each plane after rescale, in the order of `series.planes`.

    Slope and intercept count plane by plane, as in float64.

    Raises
    ------
    CaseError
        Pixel data that are cut off, do not decode within the limits, are of another size than the
        header says, or are no numbers.
    """
    first = series.planes[0]
    volume = np.empty((len(series.planes), first.rows, first.columns), np.float32)
    places: dict[Path, list[int]] = {}
    for number, plane in enumerate(series.planes):
        places.setdefault(plane.file, []).append(number)
    bad = 0
    try:
        for compressed in (False, True):
            files = [f for f, at in places.items() if series.planes[at[0]].compressed == compressed]
            bad += sum(_each(files, compressed, series, places, volume))
    except CaseError as error:
        raise error.with_case(series.uid_hash) from error
    if bad:
        raise CaseError(
            "the image has voxels that are not numbers",
            case=series.uid_hash, evidence=f"{bad} of {volume.size} voxels are NaN or infinite",
        )  # fmt: skip
    return volume


def _each(
    files: Sequence[Path],
    compressed: bool,
    series: Series,
    places: dict[Path, list[int]],
    volume: NDArray[np.float32],
) -> Iterator[int]:
    def put(file: Path, stored: NDArray[Any]) -> int:
        planes = [(series.planes[n], volume[n]) for n in places[file]]
        return sum(_put(stored, plane, out) for plane, out in planes)

    def read(file: Path) -> int:
        return put(file, next(stored_one_by_one([file], False, series.pixel_bytes)))

    if compressed:
        yield from map(put, files, stored_one_by_one(files, True, series.pixel_bytes))
    elif len(files) == 1:
        yield read(files[0])
    elif files:
        with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
            yield from pool.map(read, files)


def _put(stored: NDArray[Any], plane: Plane, out: NDArray[np.float32]) -> int:
    """Rescale one plane into its place; how many voxels are no numbers."""
    picture = cut(stored[0], plane.tiling) if plane.tiling else stored
    if plane.frame >= len(picture) or picture[plane.frame].shape != out.shape:
        raise CaseError(
            "an image is of another size than its header says",
            file=str(plane.file),
            evidence=f"{picture.shape[1:]} for {out.shape} (rows, columns)",
        )
    frame = picture[plane.frame]
    if plane.lut:
        out[:] = _table(plane).looked_up(frame)
        return 0
    if _is_exact(frame, plane):
        np.multiply(frame, np.float32(plane.slope), out=out)
        np.add(out, np.float32(plane.intercept), out=out)
        return 0
    with np.errstate(over="ignore", invalid="ignore"):
        out[:] = frame.astype(np.float64) * plane.slope + plane.intercept
    return int(out.size - np.isfinite(out).sum())


def _table(plane: Plane) -> ModalityLut:
    try:
        return modality_lut(plane.file)
    except Exception as error:  # it was sound when it was found: the file is another one now
        raise CaseError("the Modality LUT cannot be read", file=str(plane.file)) from error


def _is_exact(frame: NDArray[Any], plane: Plane) -> bool:
    """Whether every step of the rescale stays a whole number that float32 holds."""
    whole = float(plane.slope).is_integer() and float(plane.intercept).is_integer()
    if not whole or frame.dtype.kind not in "iu" or frame.dtype.itemsize > 2:
        return False
    return 2**16 * abs(plane.slope) + abs(plane.intercept) <= _EXACT
