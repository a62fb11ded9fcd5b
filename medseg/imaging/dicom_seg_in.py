"""Reading DICOM SEG: each frame is laid where it lies in the patient, nothing by its number."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from medseg.core.errors import CaseError
from medseg.imaging.dicom_header import Header, numbers_of, read_header, text_of
from medseg.imaging.dicom_layers import Canvas, Overlap, draw, empty_canvas, overlap_notes
from medseg.imaging.dicom_laying import Finder, on_grid, on_planes, outside, window
from medseg.imaging.dicom_references import KINDS, refuse_other_frame
from medseg.imaging.dicom_seg_frames import frames_of, places_of
from medseg.imaging.dicom_segments import header_of_seg, segment_labels, segment_names, segment_values
from medseg.imaging.dicom_series import Series
from medseg.imaging.dicom_stack import labels_of
from medseg.imaging.grid import Grid
from medseg.imaging.image import Image
from medseg.imaging.labels import Labels

if TYPE_CHECKING:
    from pydicom import Dataset

__all__ = ["lies_on", "read_seg", "seg_with_notes", "segment_labels", "segment_names"]

THRESHOLD = 0.5
"""A pixel of a fractional segmentation belongs to the segment from this fraction on."""

T = TypeVar("T")
ToValues = Callable[[int, NDArray[Any]], NDArray[Any]]
"""Segment number and stored picture -> label values."""


@dataclass(frozen=True)
class _Seg:
    """One SEG object opened: its header, what its segments are worth, and which object it is."""

    header: Header
    dataset: Dataset = field(repr=False)
    values: Mapping[int, int]


def read_seg(
    files: str | Path | Sequence[str | Path],
    place: Series | Grid,
    *,
    labels: Labels | None = None,
    frame_of_reference: str | None = None,
    overlap: Overlap = "refuse",
    threshold: float = THRESHOLD,
) -> Image:
    """The segments of DICOM SEG objects as one label map ``[1, I, J, K]``; see `seg_with_notes`."""
    return seg_with_notes(
        files, place, labels=labels, frame_of_reference=frame_of_reference, overlap=overlap,
        threshold=threshold,
    )[0]  # fmt: skip


def seg_with_notes(
    files: str | Path | Sequence[str | Path],
    place: Series | Grid,
    *,
    labels: Labels | None = None,
    frame_of_reference: str | None = None,
    overlap: Overlap = "refuse",
    threshold: float = THRESHOLD,
) -> tuple[Image, tuple[str, ...]]:
    """The segments of DICOM SEG objects (binary, fractional, label map) as one label map, with remarks.

    Parameters
    ----------
    files : path or sequence of path
        Several objects of one series are merged when they hold different labels.
    place : Series or Grid
        The series they were drawn on: frames are laid onto its own planes, and the map is delivered as
        the series is (`dicom_stack.labels_of`). Or a grid on whose voxels they lie, in any order of axes.
    labels : tuple of Label, optional
        Segments take the value of the label of their name (case, blanks and ``_`` ignored). Without
        them a segment's value is its number.
    frame_of_reference : str, optional
        UID of the frame of reference of a grid; a series has its own. Another one is refused, and so is
        one that is named by only one of the two.
    overlap : {"refuse", "first", "last"}
        Voxels in several segments: refuse, or give them to the smaller or the greater label value.
    threshold : float
        Fraction (PROBABILITY or OCCUPANCY, 0 to 1) from which on a pixel belongs to a segment.

    Returns
    -------
    image, notes
        ``uint8`` (``uint16`` with values above 255), ``[1, I, J, K]``.

    Raises
    ------
    CaseError
        Not a SEG, a damaged one, one of another place or frame of reference, overlapping segments, a label
        in two objects, or segment names that `labels` does not hold.
    """
    several = [Path(f) for f in ([files] if isinstance(files, str | Path) else files)]
    frame = place.frame_of_reference if isinstance(place, Series) else frame_of_reference
    segs = [_careful(file, lambda file=file: _opened(file, labels, frame)) for file in several]
    owners = _owners(segs)
    shape = (len(place.planes), *place.shape[1::-1]) if isinstance(place, Series) else place.shape
    canvas = empty_canvas(shape, owners, overlap)
    find = on_planes(place, canvas.array) if isinstance(place, Series) else on_grid(place, canvas.array)
    notes = [n for s in segs for n in _careful(s.header.file, lambda s=s: _drawn(s, canvas, find, threshold))]
    notes += _careful(several[0], lambda: overlap_notes(canvas, owners))
    whole = labels_of(canvas.array, place) if isinstance(place, Series) else Image(canvas.array[None], place)
    return whole, tuple(dict.fromkeys(notes))


def lies_on(file: str | Path, series: Series) -> bool:
    """Whether every frame of a SEG lies on the voxels of a series; its pixels are not read."""
    header, dataset = read_header(Path(file)), header_of_seg(Path(file))
    if header is None:
        return False
    nothing = np.broadcast_to(np.uint8(0), (len(series.planes), *series.shape[1::-1]))
    picture = np.broadcast_to(np.uint8(0), (header.rows, header.columns))
    find = on_planes(series, nothing)
    try:
        found = [find(affine) for _, affine in places_of(dataset)]
        return all(f is not None and window(*f, picture)[0].size > 0 for f in found)
    except CaseError:
        return False


def _opened(file: Path, labels: Labels | None, frame: str | None) -> _Seg:
    header = read_header(file)
    if header is None or KINDS.get(header.sop_class) != "seg":
        raise CaseError("the file is not a DICOM Segmentation")
    if frame is not None:
        refuse_other_frame(header.frame_of_reference, frame, "seg", str(file))
    dataset = header_of_seg(file)
    return _Seg(header, dataset, segment_values(dataset, labels, file))


def _careful(file: Path, work: Callable[[], T]) -> T:
    """The work done; what a damaged file makes fail is told as such, with the file."""
    try:
        return work()
    except CaseError as error:
        error.file = error.file or str(file)
        raise
    except (ValueError, AttributeError, IndexError, KeyError, TypeError, StopIteration) as error:
        raise CaseError(
            "the segmentation lacks parts that it must have", file=str(file), evidence=type(error).__name__
        ) from error


def _owners(segs: Sequence[_Seg]) -> dict[int, str]:
    """Label value -> whose it is, in words without names; a label in two objects is refused."""
    owners: dict[int, str] = {}
    for index, seg in enumerate(segs, start=1):
        of = f" of object {index}" if len(segs) > 1 else ""
        twice = [number for number, value in seg.values.items() if value in owners]
        if twice:
            raise CaseError(
                "two segmentations of this image hold the same label",
                file=str(seg.header.file),
                evidence=f"segment {twice[0]}{of}, and {owners[seg.values[twice[0]]]}",
                mend="leave the one that counts in the folder, and take the other away",
            )
        owners |= {value: f"segment {n}{of}" for n, value in reversed(list(seg.values.items()))}
    return owners


def _drawn(seg: _Seg, canvas: Canvas, find: Finder, threshold: float) -> tuple[str, ...]:
    """Draw all frames of one object; remarks for the report."""
    kind = text_of(seg.dataset, "SegmentationType").upper()
    if kind not in _READERS:
        raise CaseError(
            "the segmentation is of a kind that is not known",
            mend="export it as BINARY, FRACTIONAL or LABELMAP",
        )
    to_values, notes = _READERS[kind](seg, canvas.array.dtype, threshold)
    for number, affine, picture in frames_of(seg.header, seg.dataset):
        values = to_values(number, picture)
        found = find(affine)
        if found is None:
            outside(values)
        else:
            draw(canvas, *window(*found, values))
    return notes


def _binary(seg: _Seg, kind: np.dtype[Any], threshold: float) -> tuple[ToValues, tuple[str, ...]]:
    return lambda number, picture: (picture != 0) * kind.type(seg.values[number]), ()


def _fractional(seg: _Seg, kind: np.dtype[Any], threshold: float) -> tuple[ToValues, tuple[str, ...]]:
    most = (numbers_of(seg.dataset, "MaximumFractionalValue") or (0.0,))[0]
    if not most > 0:
        raise CaseError("the segmentation does not say which value means the whole of a pixel")
    note = f"a fractional segmentation: pixels belong to a segment from {threshold:g} on"
    return lambda number, picture: (picture >= threshold * most) * kind.type(seg.values[number]), (note,)


def _label_map(seg: _Seg, kind: np.dtype[Any], threshold: float) -> tuple[ToValues, tuple[str, ...]]:
    table = np.full(2**16, -1, np.int64)
    padding = numbers_of(seg.dataset, "PixelPaddingValue")
    for background in (0.0, *(padding or ())):
        table[int(background)] = 0
    table[list(seg.values)] = list(seg.values.values())

    def values(number: int, picture: NDArray[Any]) -> NDArray[Any]:
        found = table[picture]
        if found.min(initial=0) < 0:
            strange, counts = np.unique(picture[found < 0], return_counts=True)
            seen = [f"{v}: {n} pixels" for v, n in zip(strange[:8], counts[:8], strict=True)]
            raise CaseError("the label map holds numbers that no segment has", evidence=", ".join(seen))
        return found

    return values, ()


_READERS = {"BINARY": _binary, "FRACTIONAL": _fractional, "LABELMAP": _label_map}
