"""Reading RTSTRUCT: contours in the planes of a series to a label map on its grid.

A voxel belongs to a region when its centre lies inside, by the even-odd rule over the contours of the
region in that plane (`dicom_contours.fill`): a contour within another is a hole. Points are brought into
rows and columns by the position and orientation of each plane itself, so that oblique, tilted and uneven
series are served. Nothing is drawn between the slices that have contours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.core.errors import CaseError
from medseg.imaging.dicom_contour_planes import (
    OFF_PLANE,
    Laid,
    contour_remarks,
    laid,
    nearest_only,
    onto,
    refuse_elsewhere,
)
from medseg.imaging.dicom_contours import Contour, fill, touched, without_repeats
from medseg.imaging.dicom_header import read_header, text_of
from medseg.imaging.dicom_layers import Canvas, Overlap, draw, empty_canvas, overlap_notes
from medseg.imaging.dicom_laying import plane_affines
from medseg.imaging.dicom_references import KINDS, refuse_other_frame
from medseg.imaging.dicom_regions import (
    Region,
    contours_in,
    images_of,
    points_of,
    region_labels,
    region_values,
    regions_of,
    structures,
)
from medseg.imaging.dicom_series import Series
from medseg.imaging.dicom_stack import labels_of
from medseg.imaging.image import Image
from medseg.imaging.labels import Labels

__all__ = ["contours_lie_on", "read_rtstruct", "region_labels", "rtstruct_with_notes"]

_TRACES_CENTRES = frozenset({"rt-utils"})
"""Programs (ManufacturerModelName) that trace a mask through the centres of its outermost pixels, and that
in old versions name a frame of reference that no image has."""


@dataclass(frozen=True)
class _Set:
    """One structure set opened: its wanted regions and what they are worth."""

    file: Path = field(repr=False)
    regions: tuple[Region, ...]
    values: Mapping[int, int]
    others: int
    """Regions that no label names."""
    strays: tuple[int, ...]
    """Wanted regions in another frame of reference."""
    through_centres: bool


def read_rtstruct(
    files: str | Path | Sequence[str | Path],
    series: Series,
    *,
    labels: Labels | None = None,
    overlap: Overlap = "refuse",
) -> Image:
    """The regions of RTSTRUCT objects as one label map ``[1, I, J, K]``; see `rtstruct_with_notes`."""
    return rtstruct_with_notes(files, series, labels=labels, overlap=overlap)[0]


def rtstruct_with_notes(
    files: str | Path | Sequence[str | Path],
    series: Series,
    *,
    labels: Labels | None = None,
    overlap: Overlap = "refuse",
) -> tuple[Image, tuple[str, ...]]:
    """The regions of RTSTRUCT objects as one label map on the grid of their series, with remarks.

    Parameters
    ----------
    files : path or sequence of path
        Several objects of one series are merged when they hold different labels.
    series : Series
        The images they were drawn on.
    labels : tuple of Label, optional
        Which regions are wanted, by name (case, blanks and ``_`` ignored), and their values. Without
        them all regions with closed contours, from 1 on in the order of their numbers.
    overlap : {"refuse", "first", "last"}
        Voxels in several regions: refuse, or give them to the smaller or the greater label value.

    Returns
    -------
    image, notes
        ``uint8`` (``uint16`` with values above 255), ``[1, I, J, K]``.

    Raises
    ------
    CaseError
        Not an RTSTRUCT, a damaged one, one in another frame of reference, contours on slices that are not
        here or across the slices, overlapping regions, no or several regions for a label.
    """
    several = [Path(f) for f in ([files] if isinstance(files, str | Path) else files)]
    inverses = np.linalg.inv(plane_affines(series))
    sets = [_opened(file, series, labels) for file in several]
    owners = _owners(sets)
    canvas = empty_canvas((len(series.planes), *series.shape[1::-1]), owners, overlap)
    notes = _lacking(owners, labels)
    for one in sets:
        try:
            notes += _drawn(one, canvas, series, inverses)
        except CaseError as error:
            error.file = error.file or str(one.file)
            raise
    notes += overlap_notes(canvas, owners)
    return labels_of(canvas.array, series), tuple(dict.fromkeys(notes))


def contours_lie_on(file: str | Path, series: Series) -> bool:
    """Whether every closed contour lies on a slice of the series."""
    inverses = np.linalg.inv(plane_affines(series))
    regions = regions_of(structures(Path(file)))
    found = [laid(r.number, points_of(contour), inverses) for r, contour in contours_in(regions)]
    return all(contour.plane >= 0 and abs(contour.height) <= OFF_PLANE for contour in found)


def _opened(file: Path, series: Series, labels: Labels | None) -> _Set:
    header = read_header(file)
    if header is None or KINDS.get(header.sop_class) != "rtstruct":
        raise CaseError("the file is not an RT Structure Set", file=str(file))
    try:
        dataset = structures(file)
        regions = regions_of(dataset)
        values = region_values(regions, labels, dataset, file)
        traced = text_of(dataset, "ManufacturerModelName").lower() in _TRACES_CENTRES
    except CaseError as error:
        error.file = error.file or str(file)
        raise
    except Exception as error:  # a parser fed with damaged bytes may raise anything
        raise CaseError(
            "the structure set lacks parts that it must have", file=str(file), evidence=type(error).__name__
        ) from error
    wanted = tuple(r for r in regions if r.number in values)
    here = wanted if traced and _named_frame_is_made_up(wanted, series) else _in_frame(wanted, series, file)
    strays = tuple(r.number for r in wanted if r not in here and r.closed)
    others = sum(bool(r.closed) for r in regions if r not in wanted)
    return _Set(file, here, values, others, strays, traced)


def _in_frame(wanted: tuple[Region, ...], series: Series, file: Path) -> tuple[Region, ...]:
    """The regions in the frame of reference of the series; refused when there are none."""
    own = tuple(region for region in wanted if region.frame == series.frame_of_reference)
    drawn = [region for region in wanted if region.closed] or list(wanted)
    if drawn and not any(region in own for region in drawn):
        refuse_other_frame(drawn[0].frame, series.frame_of_reference, "rtstruct", str(file))
    return own


def _named_frame_is_made_up(wanted: tuple[Region, ...], series: Series) -> bool:
    """Whether every contour names an image of the series and lies in its plane, whatever frame is named."""
    inverses = np.linalg.inv(plane_affines(series))
    numbers = {plane.sop_uid: number for number, plane in enumerate(series.planes) if plane.sop_uid}
    for _, contour in contours_in(wanted):
        planes = [numbers[image] for image in images_of(contour) if image in numbers]
        points = points_of(contour)
        if not any(abs(onto(inverses[p], points)[:, 2].mean()) <= OFF_PLANE for p in planes):
            return False
    return any(region.closed for region in wanted)


def _owners(sets: Sequence[_Set]) -> dict[int, str]:
    """Label value -> whose it is, in words without names; a label in two objects is refused."""
    owners: dict[int, str] = {}
    for index, one in enumerate(sets, start=1):
        of = f" of object {index}" if len(sets) > 1 else ""
        drawn = {one.values[r.number]: r.number for r in one.regions if r.closed}
        twice = [value for value in drawn if value in owners]
        if twice:
            raise CaseError(
                "two structure sets of this image hold the same label",
                file=str(one.file),
                evidence=f"ROI {drawn[twice[0]]}{of}, and {owners[twice[0]]}",
                mend="leave the one that counts in the folder, and take the other away",
            )
        owners |= {value: f"ROI {number}{of}" for value, number in drawn.items()}
    return owners


def _lacking(owners: Mapping[int, str], labels: Labels | None) -> list[str]:
    absent = [str(label.value) for label in labels or () if label.value not in owners]
    return [f"no contours for label {', '.join(absent)}"] if absent else []


def _drawn(one: _Set, canvas: Canvas, series: Series, inverses: NDArray[Any]) -> list[str]:
    """Draw the regions of one object; remarks for the report."""
    found = [laid(r.number, points_of(contour), inverses) for r, contour in contours_in(one.regions)]
    refuse_elsewhere(found, len(inverses))
    kept = nearest_only(found)
    drawn: dict[tuple[int, int], list[Contour]] = {}
    for contour in kept:
        drawn.setdefault((contour.region, contour.plane), []).append(contour.points)
    repeated = 0
    for (region, plane), contours in drawn.items():
        single = without_repeats(contours)
        repeated += len(contours) - len(single)
        _fill_in(canvas, plane, single, one.values[region], one.through_centres)
    return [*_remarks(one, series, found), *contour_remarks(found, kept, repeated, drawn)]


def _fill_in(canvas: Canvas, plane: int, contours: list[Contour], value: int, through: bool) -> None:
    """Draw what contours in one plane enclose, looking at their box alone."""
    rows, columns = canvas.array.shape[1:]
    corners = np.concatenate(contours)
    low = np.maximum(np.floor(corners.min(axis=0)).astype(int), 0)
    high = np.minimum(np.ceil(corners.max(axis=0)).astype(int) + 1, (columns, rows))
    if (high <= low).any():
        return
    moved = [contour - low for contour in contours]
    shape = (int(high[1] - low[1]), int(high[0] - low[0]))
    mask = fill(moved, shape) | touched(moved, shape) if through else fill(moved, shape)
    view = canvas.array[plane, low[1] : high[1], low[0] : high[0]]
    draw(canvas, view, mask * canvas.array.dtype.type(value))


def _remarks(one: _Set, series: Series, found: Sequence[Laid]) -> list[str]:
    said = []
    if one.through_centres:
        said.append("contours run through the centres of pixels (rt-utils): these were taken in")
    if any(region.frame != series.frame_of_reference for region in one.regions):
        said.append(
            "the structure set names a frame of reference of its own (rt-utils); each of its contours names "
            "an image of the series and lies in its plane"
        )
    thin = sum(len(contour.points) < 3 for contour in found)
    if thin and not one.through_centres:
        said.append(f"{thin} contour(s) of one or two points enclose nothing")
    outside = sum(bool(((c.points < -1) | (c.points > series.shape[:2])).any()) for c in found)
    if outside:
        said.append(f"{outside} contour(s) reach outside the picture and were cut off at its edge")
    if one.others:
        said.append(f"{one.others} ROI(s) that no label names were left out")
    if one.strays:
        said.append(f"ROI {', '.join(map(str, one.strays))} left out: in another frame of reference")
    opened = {region.number: region.open for region in one.regions if region.open}
    if opened:
        said.append(f"{sum(opened.values())} points and open contours left out: they enclose nothing")
    return said
