"""Reading DICOM SEG: each frame is laid onto the grid by its own position, nothing by its number."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medseg.core.errors import CaseError
from medseg.imaging.dicom_header import numbers_of, read_header, text_of, tolerant
from medseg.imaging.dicom_pixels import stored_values
from medseg.imaging.dicom_verdict import SEG_CLASS
from medseg.imaging.grid import Grid, ras_from_lps
from medseg.imaging.image import Image
from medseg.imaging.labels import Code, Label, Labels

if TYPE_CHECKING:
    from pydicom import Dataset

_DRIFT_TOL = 0.25
_VOXEL_TOL = 0.05  # of a voxel: positions of a stack may jitter by 1 % of the gap


def read_seg(
    file: str | Path, grid: Grid, *, labels: Labels | None = None, frame_of_reference: str | None = None
) -> Image:
    """The segments of a binary DICOM SEG as a label map ``[1, I, J, K]`` (uint8) on `grid`.

    Parameters
    ----------
    grid : Grid
        Of the image it belongs to; planes of the SEG must lie on its voxels, in any order of axes.
    labels : tuple of Label, optional
        Segments take the value of the label of their name (case and blanks ignored). Without it a
        segment's value is its number.
    frame_of_reference : str, optional
        UID of the image's frame of reference; another one is refused.

    Raises
    ------
    CaseError
        Not a binary SEG, a damaged one, one of another place, overlapping segments, or segment names
        that `labels` does not hold.
    """
    path = Path(file)
    header = read_header(path)
    if header is None or header.sop_class != SEG_CLASS:
        raise CaseError("the file is not a DICOM Segmentation", file=str(path))
    if frame_of_reference and header.frame_of_reference != frame_of_reference:
        raise CaseError(
            "the segmentation belongs to another frame of reference than the image",
            file=str(path), mend="pair it with the series it was drawn on",
        )  # fmt: skip
    try:
        return _laid_out(path, grid, labels, header.compressed, header.claimed_bytes)
    except CaseError as error:
        error.file = error.file or str(path)
        raise
    except (ValueError, AttributeError, IndexError, KeyError, TypeError) as error:
        raise CaseError(
            "the segmentation lacks parts that it must have", file=str(path), evidence=type(error).__name__
        ) from error


def segment_names(file: str | Path) -> dict[int, str]:
    """Segment number -> segment label of a DICOM SEG."""
    return {int(s.SegmentNumber): text_of(s, "SegmentLabel") for s in _dataset(Path(file)).SegmentSequence}


def segment_labels(file: str | Path) -> Labels:
    """The segments of a DICOM SEG as labels: value = segment number, with coded terms and colour.

    Segments without a name are left out; a term that is missing stays the default of `Label`.
    """
    return tuple(_label(s) for s in _dataset(Path(file)).SegmentSequence if text_of(s, "SegmentLabel"))


def _label(segment: Dataset) -> Label:
    terms = {
        "category": _code(segment, "SegmentedPropertyCategoryCodeSequence"),
        "type": _code(segment, "SegmentedPropertyTypeCodeSequence"),
    }
    return Label(
        value=int(segment.SegmentNumber),
        name=text_of(segment, "SegmentLabel")[:64],
        colour=_colour(segment),
        **{name: code for name, code in terms.items() if code is not None},
    )


def _code(segment: Dataset, sequence: str) -> Code | None:
    items = segment.get(sequence) or ()
    parts = (
        [text_of(items[0], n) for n in ("CodeValue", "CodingSchemeDesignator", "CodeMeaning")]
        if items
        else []
    )
    return Code(value=parts[0], scheme=parts[1], meaning=parts[2]) if all(parts) and parts else None


def _colour(segment: Dataset) -> str:
    from highdicom.color import CIELabColor

    value = segment.get("RecommendedDisplayCIELabValue")
    if not value or len(value) != 3:
        return ""
    return "#" + "".join(f"{int(c):02x}" for c in CIELabColor.from_dicom_value(list(value)).to_rgb())


def _laid_out(path: Path, grid: Grid, labels: Labels | None, compressed: bool, size: int) -> Image:
    dataset = _dataset(path)
    if text_of(dataset, "SegmentationType") != "BINARY":
        raise CaseError(
            "only binary segmentations can be read", evidence=text_of(dataset, "SegmentationType")
        )
    values = _values(dataset, labels)
    pictures = stored_values([path], compressed, size)[0]
    result = np.zeros(grid.shape, np.uint8)
    clashes = 0
    for number, affine, picture in _frames(dataset, pictures):
        voxels = _voxels(picture, affine, grid)
        clashes += int((~np.isin(result[voxels], (0, values[number]))).sum())
        result[voxels] = values[number]
    if clashes:
        raise CaseError(
            "segments overlap: no label map can hold them", evidence=f"{clashes} voxels in two segments"
        )
    return Image(result[None], grid)


def _dataset(path: Path) -> Dataset:
    from pydicom import dcmread

    with tolerant():
        return dcmread(path, stop_before_pixels=True, force=True)


def _values(dataset: Dataset, labels: Labels | None) -> dict[int, int]:
    """Segment number -> value in the label map."""
    names = {int(s.SegmentNumber): text_of(s, "SegmentLabel") for s in dataset.SegmentSequence}
    if labels is None:
        return {number: number for number in names}
    known = {_plain(label.name): label.value for label in labels}
    unknown = [name for name in names.values() if _plain(name) not in known]
    if unknown:
        raise CaseError(
            f"{len(unknown)} segment(s) have names that no label has",
            evidence=f"segments: {', '.join(names.values())}; labels: {', '.join(x.name for x in labels)}",
            mend="name the labels of the configuration as the segments are named",
        )
    return {number: known[_plain(name)] for number, name in names.items()}


def _plain(name: str) -> str:
    return "".join(name.lower().replace("_", " ").split())


def _frames(
    dataset: Dataset, pictures: NDArray[Any]
) -> Iterator[tuple[int, NDArray[np.float64], NDArray[Any]]]:
    """Segment number, affine (column, row, normal -> RAS mm) and picture ``[row, column]`` of each frame."""
    groups = dataset.PerFrameFunctionalGroupsSequence
    shared = list(dataset.get("SharedFunctionalGroupsSequence") or [])
    if len(groups) != len(pictures):
        raise CaseError(
            "the segmentation is cut off", evidence=f"{len(pictures)} frames for {len(groups)} places"
        )
    for group, picture in zip(groups, pictures, strict=True):
        places = [item for g in (group, *shared) for e in g if e.VR == "SQ" and e.value for item in e.value]
        number = int(next(p for p in places if "ReferencedSegmentNumber" in p).ReferencedSegmentNumber)
        yield number, _affine(places), picture


def _voxels(picture: NDArray[Any], affine: NDArray[np.float64], grid: Grid) -> tuple[NDArray[np.int64], ...]:
    """Indices in `grid` of the pixels that are set; refused unless pixels and voxels coincide."""
    step = np.linalg.inv(grid.affine) @ affine
    turn, start = np.rint(step[:3, :2]).astype(int), np.rint(step[:3, 3]).astype(int)
    drift = np.abs(step[:3, :2] - turn) @ np.array(picture.shape[::-1])
    straight = (np.abs(turn).sum(axis=0) == 1).all() and np.abs(turn).sum(axis=1).max() == 1
    if not straight or drift.max() > _DRIFT_TOL or np.abs(step[:3, 3] - start).max() > _VOXEL_TOL:
        raise CaseError(
            "the segmentation does not lie on the voxels of the image",
            evidence=f"a frame at voxel {np.round(step[:3, 3], 3).tolist()}, pixel steps "
            f"{np.round(step[:3, :2].T, 3).tolist()} voxels",
            mend="pair it with the series it was drawn on",
        )
    rows, columns = np.nonzero(picture)
    index = start + np.outer(columns, turn[:, 0]) + np.outer(rows, turn[:, 1])
    if ((index < 0) | (index >= grid.shape)).any():
        raise CaseError(
            "the segmentation reaches outside the image",
            evidence=f"voxels {index.min(0).tolist()} to {index.max(0).tolist()}, image {grid.shape}",
            mend="pair it with the series it was drawn on",
        )
    return tuple(index.T)


def _affine(places: list[Dataset]) -> NDArray[np.float64]:
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
