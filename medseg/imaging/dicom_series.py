"""The images of one series UID to volumes: which are taken, which are refused, and why."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from medseg.core.errors import CaseError
from medseg.imaging.deidentify import keyed_hash
from medseg.imaging.dicom_copies import without_copies
from medseg.imaging.dicom_geometry import refuse_unplaced
from medseg.imaging.dicom_header import Header, Plane
from medseg.imaging.dicom_mend import Mend
from medseg.imaging.dicom_parts import Part, names_of, parts_of
from medseg.imaging.dicom_policy import DEFAULT, DicomPolicy
from medseg.imaging.dicom_rests import leftover, refuse_incomplete, refuse_outsider
from medseg.imaging.dicom_slices import stack
from medseg.imaging.dicom_units import value_notes
from medseg.imaging.dicom_verdict import modality_of, remarks, verdict
from medseg.imaging.dicom_words import said, said_alone
from medseg.imaging.grid import Grid


@dataclass(frozen=True)
class Series:
    """One volume found in DICOM files: its planes in order, and where it lies. No pixels yet.

    Attributes
    ----------
    uid_hash : str
        Keyed hash of the volume: of the series UID and the lowest instance UID (and frame) it is made of,
        so that it is the same with and without the other volumes of the series.
    modality : str
        ``CT``, ``MR``, ``PT``; of pictures ``CR``, ``DX``, ``MG``, ``US``, ``XA``, ``RF``, else ``OT``.
    grid : Grid
        Of the array ``[column, row, slice]``, RAS mm: the grid the volume is delivered on.
    derived : bool
        The scanner calls it derived: computed from other images.
    notes : tuple of str
        Remarks for the report, without identifiers.
    part : str
        Names this volume among several in the same files, the same on every reading; else empty.
    contrast : str
        What sets it apart from the other volumes of its series, such as ``echo 2 of 2, TE 7.4 ms``; also
        the first of the notes. Empty when it is the only one (a note may say then what its header says).
    number : int
        Which volume of its series it is, from 1, in the order of contrasts and time.
    mends : tuple of Mend
        What was mended, with numbers.
    policy : DicomPolicy
        How it is read.
    description : str
        What the scanner calls the series: free text, in memory only, for selection.
    picture : bool
        One image that stands for itself (`dicom_picture`): no position, one plane.
    patient_key, study_uid, series_uid, frame_of_reference : str
        Identifying; live in memory only and never show in `repr`.
    """

    uid_hash: str
    modality: str
    planes: tuple[Plane, ...] = field(repr=False)
    grid: Grid
    derived: bool = False
    notes: tuple[str, ...] = ()
    part: str = ""
    contrast: str = ""
    number: int = 1
    mends: tuple[Mend, ...] = ()
    policy: DicomPolicy = DEFAULT
    patient_key: str = field(default="", repr=False)
    study_uid: str = field(default="", repr=False)
    series_uid: str = field(default="", repr=False)
    frame_of_reference: str = field(default="", repr=False)
    pixel_bytes: int = 0
    description: str = field(default="", repr=False)
    picture: bool = False

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


def series_of(
    headers: Sequence[Header], key: bytes, policy: DicomPolicy = DEFAULT
) -> Iterator[Series | LeftOut]:
    """Volumes and refusals out of the headers that share one series UID.

    What is skipped for its kind (reports, localizers, screen captures) does not hinder the rest; an image
    that is refused takes its series with it, because a stack without it would be another volume.
    """
    judged: dict[tuple[str, str, str], list[Header]] = {}
    for header in headers:
        judged.setdefault((*verdict(header, policy), modality_of(header)), []).append(header)
    name = keyed_hash(_name(headers), key)
    taken = [h for (status, _, _), some in judged.items() for h in some if status == "taken"]
    bad = [h for (status, _, _), some in judged.items() for h in some if status == "refused"]
    for (status, reason, _), some in judged.items():
        if status != "taken":
            yield _left_out(name, some, status, reason)
    if taken and bad:
        yield _left_out(
            name, taken, "refused", f"{len(bad)} other image(s) of the same series cannot be used"
        )
    elif taken:
        yield from _volumes(taken, name, key, policy)


def _volumes(
    headers: Sequence[Header], name: str, key: bytes, policy: DicomPolicy
) -> Iterator[Series | LeftOut]:
    try:
        _refuse_mixed(headers)
        planes, copies = without_copies([p for h in headers for p in h.planes])
        refuse_unplaced(planes)
    except CaseError as error:
        yield _refused(name, headers, error)
        return
    parts = parts_of(planes)
    own_headers = _headers_of(headers)
    for number, (part, called) in enumerate(zip(parts, names_of(parts, planes), strict=True), start=1):
        own = keyed_hash(f"{_whose(headers[0])}#{_identity(part)}", key)
        some = own_headers(part)
        why_not = leftover(part, parts)
        if why_not:
            yield _left_out(own, some, "skipped", why_not)
            continue
        try:
            refuse_outsider(part, parts)
            refuse_incomplete(part, parts)
            series = _series(part, own, some, policy)
        except CaseError as error:
            yield _refused(own, some, error)
            continue
        contrast = said(part.splits)
        first = (
            contrast or said_alone(part.planes[0]),
            f"{copies} exact copies of images left out" if copies else "",
        )
        notes = (*filter(None, first), *series.notes)
        yield replace(series, part=called, contrast=contrast, number=number, notes=notes)


def _headers_of(headers: Sequence[Header]) -> Callable[[Part], list[Header]]:
    by_file = {header.file: header for header in headers}
    return lambda part: [by_file[f] for f in dict.fromkeys(p.file for p in part.planes)]


def _series(part: Part, name: str, headers: Sequence[Header], policy: DicomPolicy) -> Series:
    made = stack(part.planes, policy)
    first = headers[0]
    remarked = dict.fromkeys(remark for header in headers for remark in remarks(header))
    remarked |= dict.fromkeys(value_notes(first.file))
    derived = sum(plane.image_type[:1] == ("DERIVED",) for plane in made.planes)
    mixed = f"{derived} of {len(made.planes)} images are derived from others"
    return Series(
        uid_hash=name,
        modality=modality_of(first),
        planes=made.planes,
        grid=made.grid,
        derived=derived > 0,
        mends=made.mends,
        policy=policy,
        notes=(*made.notes, *([mixed] if 0 < derived < len(made.planes) else []), *remarked),
        patient_key=first.patient or first.study_uid or first.frame_of_reference,
        study_uid=first.study_uid,
        series_uid=first.series_uid,
        frame_of_reference=first.frame_of_reference,
        pixel_bytes=max(h.claimed_bytes for h in headers),
    )


def _identity(part: Part) -> str:
    """What a volume is made of, whatever else its series holds."""
    if all(plane.sop_uid for plane in part.planes):
        return min(f"{plane.sop_uid}:{plane.frame:06d}" for plane in part.planes)
    return str(
        sorted((str(p.position), str(p.orientation), str(p.echo), p.frame, str(p.marks)) for p in part.planes)
    )


def _refused(name: str, headers: Sequence[Header], error: CaseError) -> LeftOut:
    reason = f"{error.what} ({error.evidence})" if error.evidence else error.what
    return _left_out(name, headers, "refused", reason, error.mend or "")


def _left_out(name: str, headers: Sequence[Header], status: str, reason: str, mend: str = "") -> LeftOut:
    first = headers[0]
    return LeftOut(
        series=name,
        status=status,
        reason=reason,
        modality=modality_of(first),
        count=len(headers),
        mend=mend,
        file=str(first.file),
        series_uid=first.series_uid,
    )


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


def _name(headers: Sequence[Header]) -> str:
    """What names the series; without a UID, who it is of and where its images lie."""
    first = headers[0]
    if first.series_uid:
        return first.series_uid
    places = sorted(str(plane.position) for header in headers for plane in header.planes)
    return hashlib.sha256(f"{_whose(first)}|{places}".encode()).hexdigest()


def _whose(header: Header) -> str:
    return header.series_uid or f"{header.frame_of_reference}|{header.study_uid}|{header.patient}"
