"""The regions of interest of an RTSTRUCT: numbers, names, frames of reference, and their contours."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medseg.core.errors import CaseError
from medseg.imaging.dicom_deflate import whole
from medseg.imaging.dicom_header import numbers_of, text_of, tolerant
from medseg.imaging.dicom_naming import safe_name, values_of, without_identity
from medseg.imaging.dicom_references import items
from medseg.imaging.labels import Code, Label, Labels

if TYPE_CHECKING:
    from pydicom import Dataset

CLOSED = frozenset({"CLOSED_PLANAR", "CLOSEDPLANAR_XOR"})

CONTRADICTION = "several"
"""In place of a frame of reference where a region and its set name different ones."""

_CODES = ("RTROIIdentificationCodeSequence", "AnatomicRegionSequence")


@dataclass(frozen=True)
class Region:
    """One region: what it is called, where it lies, and the items that hold its contours."""

    number: int
    name: str = field(repr=False)
    frame: str = field(repr=False)
    closed: tuple[Any, ...] = field(repr=False)
    """Items of closed contours, as in the file."""
    open: int = 0
    """Points and open contours, which enclose nothing."""
    colour: str = ""
    code: Code | None = None


def structures(file: Path) -> Dataset:
    """The data set of an RTSTRUCT."""
    from pydicom import dcmread

    with tolerant():
        return dcmread(whole(file), force=True)


def regions_of(dataset: Dataset) -> tuple[Region, ...]:
    """The regions in the order of their numbers, with or without contours.

    Raises
    ------
    CaseError
        Two regions have the same number.
    """
    shown = {_number(item): item for item in items(dataset, "ROIContourSequence")}
    codes = {_number(item): item for item in items(dataset, "RTROIObservationsSequence")}
    described = list(items(dataset, "StructureSetROISequence"))
    numbers = Counter(_number(item, "ROINumber") for item in described)
    twice = [number for number, count in numbers.items() if count > 1]
    if twice:
        raise CaseError("two regions have the same number", evidence=f"ROI {twice[0]} x {numbers[twice[0]]}")
    found = [_region(item, shown, codes, dataset) for item in described]
    return tuple(sorted(found, key=lambda region: region.number))


def region_labels(file: str | Path, frames: Collection[str] | None = None) -> Labels:
    """The regions with closed contours as labels, 1, 2, ... in the order of their numbers.

    A name in which the patient's name or number stands is replaced. With `frames`, only regions in one of
    these frames of reference.
    """
    dataset = structures(Path(file))
    drawn = [r for r in regions_of(dataset) if r.closed and (frames is None or r.frame in frames)]
    return tuple(
        _label(value, region, dataset) for value, region in enumerate([r for r in drawn if r.name], start=1)
    )


def region_values(
    regions: tuple[Region, ...], labels: Labels | None, dataset: Dataset, file: Path
) -> dict[int, int]:
    """Number of a wanted region -> label value; without `labels` those with contours, from 1 on.

    Raises
    ------
    CaseError
        No region has the name of a label, or two of them have one and the same.
    """
    if labels is None:
        return {r.number: value for value, r in enumerate((r for r in regions if r.closed), start=1)}
    names = {region.number: region.name for region in regions}
    found = {n: v for n, v in values_of(names, labels, dataset, "ROI").items() if v is not None}
    if not found:
        raise CaseError(
            "no region has the name of a label",
            file=f"{file} (ROIs {', '.join(names.values())})",
            evidence=f"{len(names)} ROIs; labels: {', '.join(label.name for label in labels)}",
            mend="name the labels of the configuration as the regions are named",
        )
    drawn = Counter(value for number, value in found.items() if _drawn(regions, number))
    twice = [n for n, value in found.items() if drawn[value] > 1 and _drawn(regions, n)]
    if twice:
        raise CaseError(
            "several regions have the name of one label",
            evidence=f"ROIs {', '.join(map(str, twice))}, but for case and blanks",
            mend="rename or take away all but the one that counts",
        )
    return found


def points_of(contour: Dataset) -> NDArray[np.float64]:
    """The points of a contour, ``[n, 3]`` in LPS mm.

    Raises
    ------
    CaseError
        Numbers that cannot be read, or fewer or more of them than the contour says.
    """
    values = _values(contour)
    told = numbers_of(contour, "NumberOfContourPoints")
    if len(values) % 3 or not np.isfinite(values).all() or (told and int(told[0]) * 3 != len(values)):
        raise CaseError(
            "a contour is damaged",
            evidence=f"{len(values)} coordinates" + (f" for {told[0]:g} points" if told else ""),
            mend="export the structure set again",
        )
    return values.reshape(-1, 3)


def images_of(contour: Dataset) -> set[str]:
    """SOP instance UIDs of the images a contour says it was drawn on."""
    return {
        text_of(image, "ReferencedSOPInstanceUID") for image in items(contour, "ContourImageSequence")
    } - {""}


def _drawn(regions: tuple[Region, ...], number: int) -> bool:
    return any(region.closed for region in regions if region.number == number)


def _number(item: Dataset, keyword: str = "ReferencedROINumber") -> int:
    found = numbers_of(item, keyword)
    if not found or not np.isfinite(found[0]):
        raise CaseError("a region has no number")
    return int(found[0])


def _region(
    item: Dataset, shown: Mapping[int, Dataset], codes: Mapping[int, Dataset], dataset: Dataset
) -> Region:
    number = _number(item, "ROINumber")
    listed = items(shown[number], "ContourSequence") if number in shown else ()
    contours = [contour for contour in listed if _has_points(contour)]
    closed = tuple(c for c in contours if text_of(c, "ContourGeometricType").upper() in CLOSED)
    return Region(
        number=number,
        name=text_of(item, "ROIName"),
        frame=_frame(item, dataset),
        closed=closed,
        open=len(contours) - len(closed),
        colour=_colour(shown.get(number)),
        code=_code(codes.get(number), dataset),
    )


def _has_points(contour: Dataset) -> bool:
    element = contour.get_item("ContourData") if "ContourData" in contour else None
    return bool(element is not None and element.value)


def _frame(item: Dataset, dataset: Dataset) -> str:
    """The frame of reference of a region: said by itself, and not otherwise by the set it is in."""
    listed = {
        text_of(frame, "FrameOfReferenceUID")
        for frame in items(dataset, "ReferencedFrameOfReferenceSequence")
    } - {""}
    own, whole = text_of(item, "ReferencedFrameOfReferenceUID"), text_of(dataset, "FrameOfReferenceUID")
    if len(listed) > 1:
        return own if own in listed or not own else CONTRADICTION
    said = {own, whole, *listed} - {""}
    return said.pop() if len(said) == 1 else CONTRADICTION if said else ""


def _label(value: int, region: Region, dataset: Dataset) -> Label:
    name = safe_name(region.name, dataset, f"ROI {region.number}")
    label = Label(value=value, name=name, colour=region.colour)
    return label if region.code is None else label.but(type=region.code)


def _colour(item: Dataset | None) -> str:
    parts = numbers_of(item, "ROIDisplayColor") if item is not None else None
    if not parts or len(parts) != 3 or not all(0 <= part <= 255 for part in parts):
        return ""
    return "#" + "".join(f"{int(part):02x}" for part in parts)


def _code(item: Dataset | None, dataset: Dataset) -> Code | None:
    for found in (i for keyword in _CODES for i in (items(item, keyword) if item is not None else ())):
        parts = [text_of(found, n) for n in ("CodeValue", "CodingSchemeDesignator", "CodeMeaning")]
        if all(parts) and all(without_identity(part, dataset) for part in parts):
            return Code(value=parts[0], scheme=parts[1], meaning=parts[2])
    return None


def _values(contour: Dataset) -> NDArray[np.float64]:
    """The coordinates, from the bytes of the file where they were not read yet: there can be millions."""
    from pydicom.dataelem import RawDataElement
    from pydicom.tag import Tag

    tag = Tag("ContourData")
    element = contour.get_item(tag) if tag in contour else None
    if isinstance(element, RawDataElement) and isinstance(element.value, bytes):
        texts = element.value.decode("ascii", "replace").strip(" \0").split("\\")
        try:
            return np.array(texts, dtype=float) if texts != [""] else np.empty(0)
        except ValueError:
            return np.array([np.nan])
    return np.array(numbers_of(contour, "ContourData") or (), float)


def contours_in(regions: tuple[Region, ...]) -> Iterator[tuple[Region, Any]]:
    """Every closed contour with its region."""
    for region in regions:
        for contour in region.closed:
            yield region, contour
