"""One DICOM file to plain values: what geometry and grouping need of a header, and nothing else."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medseg.imaging.dicom_deflate import DEFLATED, bounded
from medseg.imaging.dicom_marks import TOP_TAGS, Mark, Marks, marks_of
from medseg.imaging.dicom_mosaic import PRIVATE_TAGS, MosaicError, is_mosaic, tiles_of
from medseg.imaging.dicom_quick import glance, wanted
from medseg.imaging.dicom_values import numbers_of, text_of, words_of

if TYPE_CHECKING:
    from pydicom import Dataset

Vector = tuple[float, ...]

_DRAWN = frozenset({"1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7"})
_NATIVE = frozenset({"", "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"})
# fmt: off
_TAGS = [
    "SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID",
    "Modality", "ImageType", "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel",
    "PhotometricInterpretation", "BitsAllocated", "BitsStored", "PixelSpacing",
    "ImageOrientationPatient", "ImagePositionPatient", "SliceThickness", "SpacingBetweenSlices",
    "EchoTime", "EchoNumbers", "RescaleSlope", "RescaleIntercept", "ModalityLUTSequence",
    "BurnedInAnnotation", "PatientID", "IssuerOfPatientID", "PatientName", "PatientBirthDate",
    "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", "ReferencedSeriesSequence",
]
# fmt: on
_ALL_TAGS: list[Any] = list(dict.fromkeys([*_TAGS, *TOP_TAGS, *PRIVATE_TAGS]))


@dataclass(frozen=True)
class Header:
    """What one file says of its image; identifying values never show in `repr`.

    A value that is absent is None or empty; a number that cannot be read as one is NaN.
    """

    file: Path = field(repr=False)
    syntax: str
    sop_class: str
    modality: str
    image_type: tuple[str, ...]
    rows: int
    columns: int
    frames: int
    samples: int
    photometric: str
    bits: int
    has_pixels: bool
    modality_lut: bool
    burned_in: str
    planes: tuple[Plane, ...]
    sop_uid: str = field(repr=False)
    series_uid: str = field(repr=False)
    study_uid: str = field(repr=False)
    frame_of_reference: str = field(repr=False)
    referenced_series: str = field(repr=False)
    patient: str = field(repr=False)
    mosaic_fault: str = ""

    @property
    def compressed(self) -> bool:
        """Whether the pixels must go through a decoder of foreign code."""
        return self.syntax not in _NATIVE

    @property
    def claimed_bytes(self) -> int:
        """Bytes of pixel data the header promises, decoded."""
        return (self.rows * self.columns * self.frames * self.samples * self.bits + 7) // 8


@dataclass(frozen=True)
class Plane:
    """One frame in the patient: all lengths in mm, directions and positions in LPS.

    `spacing_mm` is (between rows, between columns), DICOM's order.
    """

    file: Path = field(repr=False)
    frame: int
    position: Vector | None
    orientation: Vector | None
    spacing_mm: Vector | None
    thickness_mm: float | None
    gap_mm: float | None
    slope: float
    intercept: float
    echo: tuple[float | None, str]
    rows: int
    columns: int
    image_type: tuple[str, ...]
    compressed: bool
    sop_uid: str = field(repr=False)
    marks: Marks = field(default=(), repr=False)
    """What may tell it from other images of its place (`dicom_marks.marks_of`)."""
    tiling: int = 0
    """Tiles along a side of the picture this plane is a tile of (Siemens mosaic); 0: it is a picture."""

    lut: bool = False
    """Whether a Modality LUT of the file stands in place of slope and intercept."""

    def mark(self, name: str) -> Mark | None:
        """The value of a mark, or None."""
        return next((value for own, value in self.marks if own == name), None)


@contextmanager
def tolerant() -> Iterator[None]:
    """Read files as they are: faults of value syntax are judged by us, not warned about."""
    import pydicom.config as config

    before = config.settings.reading_validation_mode
    config.settings.reading_validation_mode = config.IGNORE
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        config.settings.reading_validation_mode = before


def is_dicom(file: Path) -> bool:
    """Whether the first bytes are those of DICOM, with or without a preamble."""
    with file.open("rb") as stream:
        start = stream.read(132)
    if len(start) < 16:
        return False
    bare = start[:2] in (b"\x02\x00", b"\x08\x00") and start[3] == 0 and start[2] < 0x40
    return start[128:] == b"DICM" or bare


def read_header(file: Path) -> Header | None:
    """The header of a DICOM file, or None when the file is not DICOM at all.

    Only named tags are read and the pixel data are not touched. Of deflated files,
    which may unfold without bound, only a beginning is unfolded; where that does not hold the header,
    their `syntax` alone is told.
    """
    from pydicom import dcmread

    try:
        plain = glance(file, _asked())
        if plain is not None:
            return _header(file, plain, plain.syntax)  # type: ignore[arg-type]  # it has what is used here
        if not is_dicom(file):
            return None
        with tolerant():
            syntax = syntax_of(file)
            if syntax == DEFLATED:
                return _unfolded(file)
            dataset = dcmread(file, stop_before_pixels=True, specific_tags=_ALL_TAGS, force=True)
            return _header(file, dataset, syntax)
    except Exception:  # a parser fed with damaged bytes may raise anything; the file is no image then
        return None


@cache
def _asked() -> dict[int, str]:
    return wanted(_ALL_TAGS)


def syntax_of(file: Path) -> str:
    """The transfer syntax UID that a file with a preamble states; else empty."""
    from pydicom.filereader import read_file_meta_info

    with file.open("rb") as stream:
        stream.seek(128)
        if stream.read(4) != b"DICM":
            return ""
    return str(read_file_meta_info(file).get("TransferSyntaxUID", ""))


def _unfolded(file: Path) -> Header | None:
    """The header of a deflated file; nothing but its syntax when it does not unfold within bounds."""
    from pydicom import dcmread

    try:
        dataset = dcmread(bounded(file), stop_before_pixels=True, specific_tags=_ALL_TAGS, force=True)
    except Exception:  # broken off by the bound, or damaged
        return _nothing_but(file, DEFLATED)
    return _header(file, dataset, DEFLATED)


def _nothing_but(file: Path, syntax: str) -> Header:
    return Header(file, syntax, "", "", (), 0, 0, 0, 0, "", 0, False, False, "", (), "", "", "", "", "", "")


def _header(file: Path, dataset: Dataset, syntax: str) -> Header | None:
    if not len(dataset):
        return None
    header = Header(
        file=file,
        syntax=syntax or str(getattr(dataset, "file_meta", {}).get("TransferSyntaxUID", "")),
        sop_class=text_of(dataset, "SOPClassUID"),
        modality=text_of(dataset, "Modality"),
        image_type=words_of(dataset, "ImageType"),
        rows=_whole(dataset, "Rows"),
        columns=_whole(dataset, "Columns"),
        frames=_whole(dataset, "NumberOfFrames", 1),
        samples=_whole(dataset, "SamplesPerPixel", 1),
        photometric=text_of(dataset, "PhotometricInterpretation"),
        bits=_whole(dataset, "BitsAllocated"),
        has_pixels=_whole(dataset, "Rows") > 0,
        modality_lut="ModalityLUTSequence" in dataset,
        burned_in=text_of(dataset, "BurnedInAnnotation").upper(),
        planes=(),
        sop_uid=text_of(dataset, "SOPInstanceUID"),
        series_uid=text_of(dataset, "SeriesInstanceUID"),
        study_uid=text_of(dataset, "StudyInstanceUID"),
        frame_of_reference=text_of(dataset, "FrameOfReferenceUID"),
        referenced_series=_referenced(dataset),
        patient=_patient(dataset),
    )
    # what is drawn on images lists its frames by the thousand, and its own reader looks at them
    planes = () if header.sop_class in _DRAWN else tuple(_planes(header, dataset))
    try:
        tiles = tiles_of(planes[0], dataset) if planes and is_mosaic(header.image_type) else planes
    except MosaicError as error:
        return replace(header, planes=planes, mosaic_fault=str(error))
    return replace(header, planes=tiles)


def _planes(header: Header, dataset: Dataset) -> Iterator[Plane]:
    groups = dataset.get("PerFrameFunctionalGroupsSequence")
    if not groups:
        yield _plane(header, 0, [dataset])
        return
    shared = list(dataset.get("SharedFunctionalGroupsSequence") or [])
    for number, group in enumerate(groups):
        # a value stands per frame, or shared, or (legacy) at the top: the nearest one counts
        yield _plane(header, number, [*_inside(group), *(i for s in shared for i in _inside(s)), dataset])


def _inside(group: Dataset) -> Iterator[Dataset]:
    for element in group:
        if element.VR == "SQ" and element.value:
            yield element.value[0]


def _plane(header: Header, number: int, places: list[Dataset]) -> Plane:
    def numbers(keyword: str) -> Vector | None:
        return next((n for n in (numbers_of(p, keyword) for p in places) if n), None)

    def number_or(keyword: str, default: float | None) -> float | None:
        found = numbers(keyword)
        return found[0] if found else default

    frame_type = next((w for w in (words_of(p, "FrameType") for p in places) if w), header.image_type)
    echo_name = next((t for t in (text_of(p, "EchoNumbers") for p in places) if t), "")
    return Plane(
        file=header.file,
        frame=number,
        position=numbers("ImagePositionPatient"),
        orientation=numbers("ImageOrientationPatient"),
        spacing_mm=numbers("PixelSpacing"),
        thickness_mm=number_or("SliceThickness", None),
        gap_mm=number_or("SpacingBetweenSlices", None),
        slope=float(number_or("RescaleSlope", 1.0) or 0.0),
        intercept=float(number_or("RescaleIntercept", 0.0) or 0.0),
        echo=(number_or("EchoTime", number_or("EffectiveEchoTime", None)), echo_name),
        rows=header.rows,
        columns=header.columns,
        image_type=frame_type,
        compressed=header.compressed,
        sop_uid=header.sop_uid,
        marks=marks_of(places, frame_type),
        lut=header.modality_lut,
    )


def _whole(dataset: Dataset, keyword: str, default: int = 0) -> int:
    found = numbers_of(dataset, keyword)
    return default if not found else int(found[0]) if math.isfinite(found[0]) else -1


def _referenced(dataset: Dataset) -> str:
    references = dataset.get("ReferencedSeriesSequence")
    return text_of(references[0], "SeriesInstanceUID") if references else ""


def _patient(dataset: Dataset) -> str:
    """Who the patient is, in words for the keyed hash only: number and issuer, else name and birth date."""
    number = text_of(dataset, "PatientID")
    if number:
        return f"{number}|{text_of(dataset, 'IssuerOfPatientID')}"
    name = f"{text_of(dataset, 'PatientName')}|{text_of(dataset, 'PatientBirthDate')}"
    return "" if name == "|" else name
