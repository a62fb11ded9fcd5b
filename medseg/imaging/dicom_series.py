"""The images of one series UID to volumes: which are taken, which are refused, and why."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from medseg.core.errors import CaseError
from medseg.imaging.deidentify import keyed_hash
from medseg.imaging.dicom_copies import without_copies
from medseg.imaging.dicom_geometry import extends, parts_of, refuse_unplaced, stack
from medseg.imaging.dicom_header import Header, Plane
from medseg.imaging.dicom_policy import DEFAULT, DicomPolicy
from medseg.imaging.dicom_verdict import modality_of, remarks, verdict
from medseg.imaging.grid import Grid


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
    part : str
        Names this volume among several in the same files, the same on every reading; else empty.
    policy : DicomPolicy
        How it is read.
    description : str
        What the scanner calls the series: free text, in memory only, for selection.
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
    policy: DicomPolicy = DEFAULT
    patient_key: str = field(default="", repr=False)
    study_uid: str = field(default="", repr=False)
    series_uid: str = field(default="", repr=False)
    frame_of_reference: str = field(default="", repr=False)
    pixel_bytes: int = 0
    description: str = field(default="", repr=False)

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
        judged.setdefault((*verdict(header), modality_of(header)), []).append(header)
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
        parts = parts_of(planes)
    except CaseError as error:
        yield _refused(name, headers, error)
        return
    for number, part in enumerate(parts):
        own = keyed_hash(f"{_name(headers)}#{number}", key) if len(parts) > 1 else name
        if len(part) == 1 and len(parts) > 1:
            yield _left_out(own, headers[:1], "skipped", "a single image of other geometry than its series")
            continue
        try:
            _refuse_outsider(part, parts)
            yield _series(part, own, headers, copies, str(number) if len(parts) > 1 else "", policy)
        except CaseError as error:
            yield _refused(own, headers, error)


def _series(
    part: list[Plane], name: str, headers: Sequence[Header], copies: int, which: str, policy: DicomPolicy
) -> Series:
    planes, grid, notes = stack(part)
    first = headers[0]
    said = dict.fromkeys(remark for header in headers for remark in remarks(header))
    return Series(
        uid_hash=name,
        modality=modality_of(first),
        planes=planes,
        grid=grid,
        derived=any(plane.image_type[:1] == ("DERIVED",) for plane in planes),
        part=which,
        policy=policy,
        notes=(*([f"{copies} exact copies of images left out"] if copies else []), *notes, *said),
        patient_key=first.patient or first.study_uid or first.frame_of_reference,
        study_uid=first.study_uid,
        series_uid=first.series_uid,
        frame_of_reference=first.frame_of_reference,
        pixel_bytes=max(h.claimed_bytes for h in headers),
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


def _refuse_outsider(part: list[Plane], parts: list[list[Plane]]) -> None:
    """A lone image where the next slice should lie, with another matrix or direction, was a slice."""
    for other in parts:
        if len(other) == 1 and other is not part and extends(part, other[0]):
            raise CaseError(
                "matrix, pixel spacing or orientation changes within the stack",
                evidence=f"{part[0].columns} x {part[0].rows} at {part[0].spacing_mm} mm, one image "
                f"{other[0].columns} x {other[0].rows} at {other[0].spacing_mm} mm",
                mend="send the series again, or leave it out",
            )


def _name(headers: Sequence[Header]) -> str:
    """What names the series; without a UID, who it is of and where its images lie."""
    first = headers[0]
    if first.series_uid:
        return first.series_uid
    places = sorted(str(plane.position) for header in headers for plane in header.planes)
    who = f"{first.frame_of_reference}|{first.study_uid}|{first.patient}|{places}"
    return hashlib.sha256(who.encode()).hexdigest()
