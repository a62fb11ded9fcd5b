"""The images of one series UID to volumes: which are taken, which are refused, and why."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from medseg.core.errors import CaseError
from medseg.imaging.deidentify import keyed_hash
from medseg.imaging.dicom_geometry import (
    by_position,
    grouped,
    parallel,
    refuse_unplaced,
    same_echo,
    split_by,
    stack,
)
from medseg.imaging.dicom_header import DEFLATED, Header, Plane
from medseg.imaging.dicom_pixels import picture_digest
from medseg.imaging.grid import Grid
from medseg.imaging.image import MAX_VOXELS

IMAGE_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.2": "CT",
    "1.2.840.10008.5.1.4.1.1.2.1": "CT",
    "1.2.840.10008.5.1.4.1.1.2.2": "CT",
    "1.2.840.10008.5.1.4.1.1.4": "MR",
    "1.2.840.10008.5.1.4.1.1.4.1": "MR",
    "1.2.840.10008.5.1.4.1.1.4.4": "MR",
    "1.2.840.10008.5.1.4.1.1.128": "PT",
    "1.2.840.10008.5.1.4.1.1.128.1": "PT",
    "1.2.840.10008.5.1.4.1.1.130": "PT",
}
SEG_CLASS = "1.2.840.10008.5.1.4.1.1.66.4"
_LOSSY = frozenset(f"1.2.840.10008.1.2.4.{n}" for n in (50, 51, 81, 91, 203))


@dataclass(frozen=True)
class Series:
    """One volume found in DICOM files: its planes in order, and where it lies. No pixels yet.

    Attributes
    ----------
    uid_hash : str
        Keyed hash of the series (of its part, when one series holds several volumes).
    modality : str
        ``CT``, ``MR`` or ``PT``.
    grid : Grid
        Of the array ``[column, row, slice]``, RAS mm.
    derived : bool
        The scanner calls it derived: computed from other images.
    notes : tuple of str
        Remarks for the report, without identifiers.
    patient_key, study_uid, series_uid, frame_of_reference : str
        Identifying; live in memory only and never show in `repr`.
    """

    uid_hash: str
    modality: str
    planes: tuple[Plane, ...] = field(repr=False)
    grid: Grid
    derived: bool = False
    notes: tuple[str, ...] = ()
    patient_key: str = field(default="", repr=False)
    study_uid: str = field(default="", repr=False)
    series_uid: str = field(default="", repr=False)
    frame_of_reference: str = field(default="", repr=False)
    pixel_bytes: int = 0

    @property
    def files(self) -> tuple[Path, ...]:
        """Files in the order of the slices (a multi-frame file once)."""
        return tuple(dict.fromkeys(plane.file for plane in self.planes))

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Between columns, rows and slices."""
        return self.grid.spacing_mm

    @property
    def shape(self) -> tuple[int, int, int]:
        """Columns, rows, slices."""
        return self.grid.shape


@dataclass(frozen=True)
class LeftOut:
    """Files that did not become a volume. `reason` may be stored; `file` and the UID may not."""

    series: str
    status: str
    """``skipped``: no image volume and none expected. ``refused``: an image that cannot be trusted."""
    reason: str
    modality: str = ""
    count: int = 1
    mend: str = ""
    file: str = field(default="", repr=False)
    series_uid: str = field(default="", repr=False)

    def error(self) -> CaseError:
        """The same as an error that names file and series UID on the console only."""
        where = f"{self.file} (series {self.series_uid})" if self.series_uid else self.file
        return CaseError(self.reason, case=self.series, file=where, mend=self.mend or None)


def series_of(headers: Sequence[Header], key: bytes) -> Iterator[Series | LeftOut]:
    """Volumes and refusals out of the headers that share one series UID.

    What is skipped for its kind (reports, localizers, screen captures) does not hinder the rest.
    """
    first = headers[0]
    name = keyed_hash(_series_name(first), key)
    images: list[Header] = []
    for (status, reason, modality), some in _judged(headers):
        if status == "taken":
            images = some
            continue
        yield LeftOut(name, status, reason, modality, len(some), "", str(some[0].file), first.series_uid)
    if images:
        yield from _volumes(images, name, key)


def modality_of(header: Header) -> str:
    """CT, MR or PT for an image of a kind medseg takes (by SOP class, else by Modality), else empty."""
    known = IMAGE_CLASSES.get(header.sop_class)
    if known or header.sop_class:
        return known or ""
    return header.modality if header.modality in ("CT", "MR", "PT") else ""


def kind_of(header: Header) -> str:
    """The kind of object in words, such as ``Secondary Capture Image``; never text from the file."""
    from pydicom.uid import UID

    uid = UID(header.sop_class)
    return uid.name.replace(" Storage", "") if uid and uid.name != uid else "object of unknown kind"


def _judged(headers: Sequence[Header]) -> Iterator[tuple[tuple[str, str, str], list[Header]]]:
    verdicts: dict[tuple[str, str, str], list[Header]] = {}
    for header in headers:
        verdicts.setdefault((*_verdict(header), modality_of(header)), []).append(header)
    yield from verdicts.items()


def _verdict(header: Header) -> tuple[str, str]:
    """(status, reason) of one file looked at alone."""
    types = {word.upper() for word in header.image_type}
    if header.syntax == DEFLATED:
        return (
            "refused",
            "the file is deflated as a whole, which may unfold without bound: store it uncompressed",
        )
    if not modality_of(header):
        return "skipped", f"{kind_of(header)}: not a CT, MR or PET volume"
    if "LOCALIZER" in types:
        return "skipped", "a localizer"
    if types & {"SCREEN SAVE", "DOSE_INFO"}:
        return "skipped", "a screen capture"
    if "MOSAIC" in types:
        return "refused", "a Siemens mosaic: slices tiled into one picture, which medseg does not take apart"
    return _pixel_verdict(header)


def _pixel_verdict(header: Header) -> tuple[str, str]:
    if header.rows <= 0 or header.columns <= 0 or header.frames <= 0:
        return "refused", "the header names no image size"
    if header.samples != 1 or not header.photometric.startswith("MONOCHROME"):
        return "refused", f"colour image ({header.samples} samples a pixel): only grey values can be used"
    if header.photometric == "MONOCHROME1":
        return "refused", "MONOCHROME1: grey values run from white to black in a CT, MR or PET image"
    if header.modality_lut:
        return "refused", "a Modality LUT stands in place of slope and intercept"
    if header.frames > 1 and len(header.planes) != header.frames:
        return "refused", f"{header.frames} frames in the file, but positions for {len(header.planes)}"
    if any(
        plane.slope == 0 or plane.slope != plane.slope or plane.intercept != plane.intercept
        for plane in header.planes
    ):
        return "refused", "RescaleSlope is zero, or slope or intercept are not readable numbers"
    if header.rows * header.columns * header.frames > MAX_VOXELS:
        return "refused", f"the header claims {header.rows} x {header.columns} x {header.frames} voxels"
    on_disk = header.file.stat().st_size
    if not header.compressed and header.claimed_bytes > on_disk:
        return "refused", (
            f"the pixel data are cut off: {header.claimed_bytes} bytes are claimed, the file has {on_disk}"
        )
    return "taken", ""


def _volumes(headers: Sequence[Header], name: str, key: bytes) -> Iterator[Series | LeftOut]:
    try:
        _refuse_mixed(headers)
        planes, copies = _without_copies([p for h in headers for p in h.planes])
        refuse_unplaced(planes)
        parts = sorted(_parts(planes), key=lambda part: str(_kind(part[0])))
    except CaseError as error:
        yield _left_out(name, headers, len(headers), error)
        return
    several = len(parts) > 1
    for number, part in enumerate(parts):
        own = keyed_hash(f"{_series_name(headers[0])}#{number}", key) if several else name
        yield _volume(part, parts, own, headers, copies)


def _volume(
    part: list[Plane], parts: list[list[Plane]], name: str, headers: Sequence[Header], copies: tuple[str, ...]
) -> Series | LeftOut:
    first = headers[0]
    try:
        if len(part) == 1 and len(parts) > 1:
            return LeftOut(
                name, "skipped", "a single image of other geometry than the rest of its series",
                modality_of(first), 1, "", str(part[0].file), first.series_uid,
            )  # fmt: skip
        _refuse_outsider(part, parts)
        planes, grid, notes = stack(part)
    except CaseError as error:
        return _left_out(name, headers, len(part), error)
    series = Series(
        uid_hash=name,
        modality=modality_of(first),
        planes=planes,
        grid=grid,
        derived=any(h.image_type[:1] == ("DERIVED",) for h in headers),
        patient_key=first.patient or first.study_uid or first.frame_of_reference,
        study_uid=first.study_uid,
        series_uid=first.series_uid,
        frame_of_reference=first.frame_of_reference,
        pixel_bytes=max(h.claimed_bytes for h in headers),
    )
    return replace(series, notes=(*copies, *notes, *_remarks(headers)))


def _left_out(name: str, headers: Sequence[Header], count: int, error: CaseError) -> LeftOut:
    reason = f"{error.what} ({error.evidence})" if error.evidence else error.what
    first = headers[0]
    return LeftOut(
        name,
        "refused",
        reason,
        modality_of(first),
        count,
        error.mend or "",
        str(first.file),
        first.series_uid,
    )


def _parts(planes: Sequence[Plane]) -> Iterator[list[Plane]]:
    """Groups by geometry and echo; where positions still repeat, by ImageType (magnitude, phase, ...)."""
    for group in grouped(planes):
        shelves = by_position(group)
        if all(len(shelf) == 1 for shelf in shelves):
            yield group
            continue
        split = split_by(group, lambda p: p.image_type)
        alone = all(len(s) == 1 for part in split for s in by_position(part))
        yield from split if alone and len({len(p) for p in split}) == 1 else [group]


def _kind(plane: Plane) -> tuple[object, ...]:
    """What tells the parts of a series apart, whatever the files are called."""
    return plane.orientation, plane.spacing_mm, plane.rows, plane.columns, plane.echo, plane.image_type


def _without_copies(planes: Sequence[Plane]) -> tuple[list[Plane], tuple[str, ...]]:
    """Leave out images sent twice; one instance UID with two different pictures is refused."""
    kept: list[Plane] = []
    known: dict[tuple[str, int], Plane] = {}
    for plane in planes:
        twin = known.get((plane.sop_uid, plane.frame)) if plane.sop_uid else None
        if twin is None:
            known[plane.sop_uid, plane.frame] = plane
            kept.append(plane)
        elif picture_digest(twin.file) != picture_digest(plane.file) or twin.position != plane.position:
            raise CaseError("two different images carry the same instance UID", mend="send the series again")
    dropped = len(planes) - len(kept)
    kept, twins = _without_twins(kept)
    total = dropped + twins
    return kept, ((f"{total} exact copies of images left out",) if total else ())


def _without_twins(planes: list[Plane]) -> tuple[list[Plane], int]:
    """Leave out images that agree with another in place and picture though not in their UID."""
    if any(p.position is None for p in planes):
        return planes, 0
    seen: dict[tuple[object, ...], set[str]] = {}
    crowded = {
        s
        for s, n in _count((p.position, p.orientation, p.echo, p.image_type) for p in planes).items()
        if n > 1
    }
    kept = []
    for plane in planes:
        spot = (plane.position, plane.orientation, plane.echo, plane.image_type)
        if spot in crowded and plane.frame == 0:
            picture = f"{picture_digest(plane.file)} {plane.slope} {plane.intercept}"
            if picture in seen.setdefault(spot, set()):
                continue
            seen[spot].add(picture)
        kept.append(plane)
    return kept, len(planes) - len(kept)


def _count(things: Iterator[tuple[object, ...]]) -> dict[tuple[object, ...], int]:
    counts: dict[tuple[object, ...], int] = {}
    for thing in things:
        counts[thing] = counts.get(thing, 0) + 1
    return counts


def _refuse_mixed(headers: Sequence[Header]) -> None:
    for name, values in (
        ("patients", {h.patient for h in headers}),
        ("studies", {h.study_uid for h in headers}),
        ("frames of reference", {h.frame_of_reference for h in headers}),
        ("modalities", {modality_of(h) for h in headers}),
    ):
        if len(values) > 1:
            raise CaseError(
                f"one series UID covers {len(values)} {name}",
                mend="export again: the files of different series were given one UID",
            )


def _refuse_outsider(part: list[Plane], parts: list[list[Plane]]) -> None:
    """A lone image parallel to the stack, with another matrix or spacing, was a slice of it."""
    for other in parts:
        if (
            other is not part
            and len(other) == 1
            and parallel(other[0], part[0])
            and same_echo(other[0], part[0])
        ):
            raise CaseError(
                "matrix or pixel spacing changes within the stack",
                evidence=f"{part[0].columns} x {part[0].rows} at {part[0].spacing_mm} mm, one image "
                f"{other[0].columns} x {other[0].rows} at {other[0].spacing_mm} mm",
                mend="send the series again, or leave it out",
            )


def _remarks(headers: Sequence[Header]) -> Iterator[str]:
    if any(h.syntax in _LOSSY for h in headers):
        yield "lossy compression: grey values are not those of the scanner"
    if any(h.burned_in for h in headers):
        yield "BurnedInAnnotation = YES: text may stand in the picture"
    if not headers[0].frame_of_reference:
        yield "no Frame of Reference UID: DICOM SEG cannot be exported for it"
    if not headers[0].series_uid:
        yield "no Series Instance UID: files grouped by their geometry alone"


def _series_name(header: Header) -> str:
    """What names the series; without a UID its place in the patient does."""
    if header.series_uid:
        return header.series_uid
    places = f"{header.frame_of_reference}|{header.study_uid}|{header.patient}|{header.planes[:1]!r}"
    return hashlib.sha256(places.encode()).hexdigest()
