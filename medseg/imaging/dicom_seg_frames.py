"""The frames of a DICOM SEG: where each lies, which segment it belongs to, and its picture."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medseg.core.errors import CaseError
from medseg.imaging.dicom_header import Header, numbers_of, tolerant
from medseg.imaging.dicom_pixels import stored_values
from medseg.imaging.grid import Affine, ras_from_lps

if TYPE_CHECKING:
    from pydicom import Dataset

_IMPLICIT = "1.2.840.10008.1.2"

Frame = tuple[int, Affine, NDArray[Any]]
"""Segment number (0: the picture holds segment numbers), affine (column, row, normal -> RAS mm), picture."""


def frames_of(header: Header, dataset: Dataset) -> Iterator[Frame]:
    """The frames of a SEG one after the other, in the order of the file.

    Raises
    ------
    CaseError
        Frames without a place, or fewer of them than the header says.
    """
    count, places = 0, list(places_of(dataset))
    for (number, affine), picture in zip(places, _pictures(header), strict=False):
        yield number, affine, picture
        count += 1
    if not count == len(places) == header.frames:
        raise CaseError(
            "the segmentation is cut off",
            evidence=f"{header.frames} frames, {len(places)} places, {count} pictures",
        )


def places_of(dataset: Dataset) -> Iterator[tuple[int, Affine]]:
    """Segment number (0: a label map) and affine (column, row, normal -> RAS mm) of each frame."""
    shared = list(dataset.get("SharedFunctionalGroupsSequence") or [])
    for group in dataset.PerFrameFunctionalGroupsSequence:
        places = [item for g in (group, *shared) for e in g if e.VR == "SQ" and e.value for item in e.value]
        numbers = [p.ReferencedSegmentNumber for p in places if "ReferencedSegmentNumber" in p]
        yield int(numbers[0]) if numbers else 0, _affine(places)


def _pictures(header: Header) -> Iterator[NDArray[Any]]:
    """One frame after the other: many segments on many slices would not fit in memory all at once."""
    if header.compressed:
        yield from stored_values([header.file], True, header.claimed_bytes)[0]
        return
    from pydicom.pixels.utils import iter_pixels

    _refuse_short(header)
    if header.bits == 1 and header.rows * header.columns % 8:  # pydicom cannot cut shared bytes
        yield from stored_values([header.file], False, header.claimed_bytes)[0]
        return
    with tolerant():
        yield from iter_pixels(header.file, raw=True)


def _refuse_short(header: Header) -> None:
    """Refuse native pixel data with fewer bytes than the header claims: they would be read as they come."""
    from pydicom import dcmread

    with tolerant(), header.file.open("rb") as stream:
        dcmread(stream, stop_before_pixels=True, force=True)
        start = 8 if header.syntax in ("", _IMPLICIT) else 12  # bytes of the element before its value
        left = header.file.stat().st_size - stream.tell() - start
    if left < header.claimed_bytes:
        raise CaseError(
            "the segmentation is cut off",
            evidence=f"{header.claimed_bytes} bytes claimed, {left} in the file",
        )


def _affine(places: list[Dataset]) -> Affine:
    def first(keyword: str, count: int) -> NDArray[np.float64]:
        found = next((n for n in (numbers_of(p, keyword) for p in places) if n), ())
        if len(found) != count or not np.isfinite(found).all():
            raise CaseError(f"the segmentation has frames without {keyword}")
        return np.array(found)

    rows_mm, columns_mm = first("PixelSpacing", 2)
    row, column = first("ImageOrientationPatient", 6).reshape(2, 3)
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = row * columns_mm, column * rows_mm
    affine[:3, 2] = np.cross(row, column)
    affine[:3, 3] = first("ImagePositionPatient", 3)
    return ras_from_lps(affine)
