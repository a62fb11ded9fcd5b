"""DICOM objects drawn on images (SEG, RTSTRUCT): what they say they belong to, read from headers alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from medseg.core.errors import CaseError
from medseg.imaging.deidentify import keyed_hash
from medseg.imaging.dicom_deflate import bounded
from medseg.imaging.dicom_header import Header, text_of, tolerant
from medseg.imaging.dicom_series import Series

if TYPE_CHECKING:
    from pydicom import Dataset

SEG_CLASS = "1.2.840.10008.5.1.4.1.1.66.4"
LABELMAP_CLASS = "1.2.840.10008.5.1.4.1.1.66.7"
RTSTRUCT_CLASS = "1.2.840.10008.5.1.4.1.1.481.3"

ReferenceKind = Literal["seg", "rtstruct"]

KINDS: dict[str, ReferenceKind] = {SEG_CLASS: "seg", LABELMAP_CLASS: "seg", RTSTRUCT_CLASS: "rtstruct"}
"""SOP classes that are read as references, and what reads them."""

_FRAME, _IMAGE = "FrameOfReferenceUID", "ReferencedSOPInstanceUID"

IN_WORDS = {"seg": "DICOM SEG", "rtstruct": "RTSTRUCT"}


@dataclass(frozen=True)
class ReferenceFile:
    """A SEG or RTSTRUCT found beside images, and what it says it belongs to (in memory only).

    Attributes
    ----------
    kind : {"seg", "rtstruct"}
    series : str
        Keyed hash of the object's own series.
    frames : frozenset of str
        UIDs of the frames of reference it is drawn in: one for a SEG.
    referenced_series, referenced_images : frozenset of str
        Series UIDs and SOP instance UIDs it names.
    """

    file: Path = field(repr=False)
    kind: ReferenceKind
    series: str
    patient_key: str = field(repr=False)
    frames: frozenset[str] = field(repr=False)
    referenced_series: frozenset[str] = field(default=frozenset(), repr=False)
    referenced_images: frozenset[str] = field(default=frozenset(), repr=False)

    def names_image_of(self, series: Series) -> bool:
        """Whether it names an image of this volume."""
        return any(plane.sop_uid in self.referenced_images for plane in series.planes if plane.sop_uid)

    def belongs_to(self, series: Series) -> bool:
        """Whether it names an image or the series; naming none at all, whether it `may_belong_to` it.

        What names images or series belongs to no others, wherever it lies. A series with several volumes
        may have one of which it names images: that one counts (`medseg.data.pairing`).
        """
        if self.names_image_of(series) or (series.series_uid and series.series_uid in self.referenced_series):
            return True
        return not self.names_images and self.may_belong_to(series)

    @property
    def names_images(self) -> bool:
        """Whether it says which images or series it was drawn on."""
        return bool(self.referenced_images or self.referenced_series)

    def may_belong_to(self, series: Series) -> bool:
        """Whether it shares frame of reference and patient with the series."""
        return series.frame_of_reference in self.frames - {""} and self.patient_key == series.patient_key


def is_reference(header: Header) -> bool:
    """Whether the file is an object drawn on images, of a kind that can be read."""
    return header.sop_class in KINDS


def reference_file(header: Header, key: bytes) -> ReferenceFile:
    """What a SEG or RTSTRUCT says of itself; a damaged one names nothing and is refused when it is read."""
    try:
        frames, series, images = _said(header)
    except Exception:  # a parser fed with damaged bytes may raise anything
        frames, series, images = set(), set(), set()
    return ReferenceFile(
        file=header.file,
        kind=KINDS[header.sop_class],
        series=keyed_hash(header.series_uid or str(header.file.name), key),
        patient_key=header.patient or header.study_uid or header.frame_of_reference,
        frames=frozenset((frames or {header.frame_of_reference}) - {""}),
        referenced_series=frozenset(series - {""}),
        referenced_images=frozenset(images - {""}),
    )


def refuse_other_frame(own: str, image: str, kind: ReferenceKind, file: str) -> None:
    """Raise CaseError unless object and image say the same of their frame of reference.

    Where neither names one, there is nothing to hold against the object.
    """
    if own != image:
        lacks = "the image" if not image else f"the {IN_WORDS[kind]}" if not own else ""
        raise CaseError(
            f"the {IN_WORDS[kind]} belongs to another frame of reference than the image",
            file=file,
            evidence=f"{lacks} names none" if lacks else "both name one, and they differ",
            mend="pair it with the series it was drawn on, or register it and export it again",
        )


def _said(header: Header) -> tuple[set[str], set[str], set[str]]:
    """Frames of reference, series and images named in the file."""
    from pydicom import dcmread

    with tolerant():
        dataset = dcmread(bounded(header.file), stop_before_pixels=True, force=True)
        return _of_seg(dataset) if KINDS[header.sop_class] == "seg" else _of_structures(dataset)


def _of_seg(dataset: Dataset) -> tuple[set[str], set[str], set[str]]:
    listed = list(items(dataset, "ReferencedSeriesSequence"))
    for study in items(dataset, "StudiesContainingOtherReferencedInstancesSequence"):
        listed += items(study, "ReferencedSeriesSequence")
    images = {text_of(i, _IMAGE) for s in listed for i in items(s, "ReferencedInstanceSequence")}
    images = images or _sources_of_frames(dataset)
    return {text_of(dataset, _FRAME)}, {text_of(s, "SeriesInstanceUID") for s in listed}, images


def _sources_of_frames(dataset: Dataset) -> set[str]:
    groups = [
        *items(dataset, "PerFrameFunctionalGroupsSequence"),
        *items(dataset, "SharedFunctionalGroupsSequence"),
    ]
    derived = [d for group in groups for d in items(group, "DerivationImageSequence")]
    return {text_of(image, _IMAGE) for d in derived for image in items(d, "SourceImageSequence")}


def _of_structures(dataset: Dataset) -> tuple[set[str], set[str], set[str]]:
    frames = list(items(dataset, "ReferencedFrameOfReferenceSequence"))
    studies = [study for frame in frames for study in items(frame, "RTReferencedStudySequence")]
    series = [s for study in studies for s in items(study, "RTReferencedSeriesSequence")]
    rois = items(dataset, "ROIContourSequence")
    places = [*series, *(c for roi in rois for c in items(roi, "ContourSequence"))]
    images = {text_of(image, _IMAGE) for p in places for image in items(p, "ContourImageSequence")}
    named = {text_of(frame, _FRAME) for frame in frames}
    described = items(dataset, "StructureSetROISequence")
    named |= {text_of(roi, "ReferencedFrameOfReferenceUID") for roi in described}
    return named - {""}, {text_of(s, "SeriesInstanceUID") for s in series}, images


def items(dataset: Dataset, keyword: str) -> Iterator[Dataset]:
    """The items of a sequence; none when it is absent, empty or no sequence."""
    element = dataset.get(keyword)
    yield from (element if element and not isinstance(element, str | bytes) else ())
