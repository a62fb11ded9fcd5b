"""What every object derived from a series shares: whose it is, what it refers to, who made it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medseg.core.errors import CaseError
from medseg.core.files import written_whole
from medseg.core.version import __version__
from medseg.imaging.dicom_deflate import bounded
from medseg.imaging.dicom_geometry import fault_of
from medseg.imaging.dicom_header import tolerant
from medseg.imaging.dicom_in import series_of_files
from medseg.imaging.dicom_series import Series
from medseg.imaging.dicom_stack import is_interpolated, planes_of
from medseg.imaging.image import Image
from medseg.imaging.labels import Code, Label, Labels, values_of

if TYPE_CHECKING:
    from pydicom import DataElement, Dataset

# present but empty, or absent, in many real files; derived objects must have them
_TYPE_2 = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID",
    "AccessionNumber", "ReferringPhysicianName", "PositionReferenceIndicator",
)  # fmt: skip
# whose it is and of which study, as far as the source says
_COPIED = (
    "PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientBirthTime", "PatientSex",
    "PatientIdentityRemoved", "DeidentificationMethod", "DeidentificationMethodCodeSequence",
    "LongitudinalTemporalInformationModified", "ClinicalTrialSponsorName", "ClinicalTrialProtocolID",
    "ClinicalTrialProtocolName", "ClinicalTrialSiteID", "ClinicalTrialSiteName", "ClinicalTrialSubjectID",
    "ClinicalTrialSubjectReadingID", "PatientAge", "PatientSize", "PatientWeight",
    "StudyInstanceUID", "StudyDate", "StudyTime", "StudyID", "StudyDescription", "AccessionNumber",
    "IssuerOfAccessionNumberSequence", "ReferringPhysicianName", "SpecificCharacterSet",
    "FrameOfReferenceUID", "PositionReferenceIndicator",
)  # fmt: skip
# bulk, or of no meaning outside the file it stands in
_LEFT_BEHIND = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", "NumberOfFrames")


@dataclass(frozen=True)
class Maker:
    """Who drew the mask, and what is written about it beside the picture."""

    algorithm: str = "medseg"
    version: str = __version__
    seed: str | None = None
    """Makes UIDs and times a function of this text (phantoms, tests). By default both are new."""

    def uid(self, role: str) -> str:
        """A new UID, or with a seed the one that seed and role always give."""
        from pydicom.uid import generate_uid

        fixed = None if self.seed is None else [f"{self.seed} {role}"]
        return str(generate_uid(prefix=None) if fixed is None else generate_uid(entropy_srcs=fixed))


@dataclass(frozen=True)
class Reference:
    """An image, or one frame (counted from 1) of a multi-frame file."""

    sop_class: str
    sop_uid: str = field(repr=False)
    frame: int | None = None

    def item(self) -> Dataset:
        """As an item of a sequence of references."""
        from pydicom import Dataset

        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = self.sop_class, self.sop_uid
        if self.frame is not None:
            item.ReferencedFrameNumber = self.frame
        return item


@dataclass(frozen=True)
class Origin:
    """A source series as the objects derived from it see it.

    Attributes
    ----------
    header : Dataset
        Of its first file, in UTF-8, without pixels and frames. Identifying.
    references : tuple of Reference
        The image or frame of each plane, in the order of `series.planes`.
    """

    series: Series
    header: Dataset = field(repr=False)
    references: tuple[Reference, ...] = field(repr=False)

    @property
    def instances(self) -> tuple[Reference, ...]:
        """The files referred to, each once, without frames."""
        return tuple(dict.fromkeys(Reference(r.sop_class, r.sop_uid) for r in self.references))

    @property
    def remark(self) -> str:
        """What was done to bring a mask onto these planes; empty when nothing was."""
        return MENDED if is_interpolated(self.series) else ""

    @property
    def mends(self) -> str:
        """How the volume was made of the planes, with numbers; empty when they were taken as they are."""
        return "; ".join(mend.said() for mend in self.series.mends)

    def child(self, sop_class: str, syntax: str, maker: Maker) -> Dataset:
        """An empty object of the same patient, study and frame of reference, in a new series."""
        from pydicom import Dataset
        from pydicom.dataset import FileMetaDataset
        from pydicom.uid import UID

        made = Dataset()
        made.update({e.tag: e for keyword in _COPIED if (e := self.header.get_item(keyword)) is not None})
        made.SOPClassUID, made.SOPInstanceUID = sop_class, maker.uid(f"{sop_class} instance")
        made.SeriesInstanceUID = maker.uid(f"{sop_class} series")
        now = datetime.now()
        made.InstanceCreationDate, made.InstanceCreationTime = f"{now:%Y%m%d}", f"{now:%H%M%S}"
        made.Manufacturer, made.ManufacturerModelName = "medseg", maker.algorithm
        made.SoftwareVersions, made.DeviceSerialNumber = maker.version, "0"
        made.file_meta = FileMetaDataset()
        made.file_meta.TransferSyntaxUID = UID(syntax)
        return made


MENDED = "Mask of a resampled volume, brought back onto the source slices"


def origin_of(source: Series | Origin | Sequence[str | Path], what: str) -> Origin:
    """Read what a derived object needs to know of its source.

    Parameters
    ----------
    source : Series, sequence of path, or Origin
        The series, or files that make exactly one; an origin passes through.
    what : str
        The object to be written, such as ``DICOM SEG``: for the words of a refusal.

    Raises
    ------
    CaseError
        The files make no single volume, or the object cannot refer to them: UIDs or positions are
        missing, or slices are tiles of one picture.
    """
    if isinstance(source, Origin):
        return source
    series = source if isinstance(source, Series) else series_of_files(source)
    headers = {file: _brief(file) for file in series.files}
    _refuse_nameless(series, what)
    _refuse_tiles(series, headers, what)
    references = tuple(
        Reference(
            str(headers[plane.file].SOPClassUID),
            plane.sop_uid,
            plane.frame + 1 if _frames(headers[plane.file]) > 1 else None,
        )
        for plane in series.planes
    )
    return Origin(series, _header(series.files[0]), references)


def numbered(mask: Image, labels: Labels, series: Series) -> NDArray[Any]:
    """The mask on the source planes ``[slice, row, column]``, n where it holds the n-th label's own value.

    Raises
    ------
    CaseError
        As `valued`.
    """
    array = valued(mask, labels, series)
    numbers = np.zeros(max(int(array.max()), 0, *(label.value for label in labels)) + 1, _type_for(labels))
    for number, label in enumerate(labels, start=1):
        numbers[label.value] = number
    return numbers[array]


def valued(mask: Image, labels: Labels, series: Series) -> NDArray[Any]:
    """The values of a mask on the source planes ``[slice, row, column]``.

    Raises
    ------
    CaseError
        The mask does not lie on the voxels of the series, or holds values that no label names.
    """
    array = planes_of(mask, series)
    found = np.unique(mask.array)
    unknown = sorted(set(found.tolist()) - {0} - set(values_of(labels)))
    if unknown:
        counts = ", ".join(f"{v}: {int((mask.array == v).sum())} voxels" for v in unknown[:10])
        raise CaseError("the mask holds values that no label names", evidence=counts)
    return array


def coded(code: Code) -> Any:
    """A coded term as highdicom writes it."""
    import highdicom as hd

    return hd.sr.CodedConcept(value=code.value, scheme_designator=code.scheme, meaning=code.meaning)


def rgb(label: Label) -> tuple[int, int, int]:
    """The colour of a label, 0 to 255."""
    shown = label.shown_colour().lstrip("#")
    return int(shown[:2], 16), int(shown[2:4], 16), int(shown[4:], 16)


def save(dataset: Dataset, out_file: str | Path, source: Dataset, maker: Maker) -> None:
    """Write a derived object whole or not at all, with an empty preamble."""
    if maker.seed is not None:
        _pin(dataset, source, maker)
    with written_whole(Path(out_file)) as beside:
        dataset.preamble = b"\0" * 128
        dataset.save_as(beside, enforce_file_format=True)


def _type_for(labels: Labels) -> type:
    return np.uint8 if len(labels) < 256 else np.uint16


def _refuse_nameless(series: Series, what: str) -> None:
    lacking = [name for name, value in (
        ("Frame of Reference UID", series.frame_of_reference), ("Study Instance UID", series.study_uid),
        ("Series Instance UID", series.series_uid), ("SOP Instance UID", series.planes[0].sop_uid),
        ("position in the patient", fault_of(series.planes[0]) is None),
    ) if not value]  # fmt: skip
    if lacking:
        raise CaseError(
            f"no {what} can refer to this series: it lacks " + ", ".join(lacking),
            mend="export from a series with its original UIDs, or take the NIfTI mask",
        )


def _refuse_tiles(series: Series, headers: dict[Path, Dataset], what: str) -> None:
    """Slices of a mosaic are no images of their own: nothing can point at one of them."""
    tiled = len(series.planes) > len(series.files) and any(_frames(header) < 2 for header in headers.values())
    if tiled:
        raise CaseError(
            f"no {what} can refer to the slices of a mosaic: they are tiles of one picture",
            evidence=f"{len(series.planes)} slices in {len(series.files)} file(s)",
            mend="take the NIfTI mask",
        )


def _frames(header: Dataset) -> int:
    return int(header.get("NumberOfFrames") or 1)


def _brief(file: Path) -> Dataset:
    from pydicom import dcmread

    with tolerant():
        return dcmread(
            bounded(file),
            stop_before_pixels=True,
            force=True,
            specific_tags=["SOPClassUID", "NumberOfFrames"],
        )


def _header(file: Path) -> Dataset:
    """A source header made fit to be copied from: what must be there is, nothing is empty, text in UTF-8."""
    from pydicom import dcmread

    with tolerant():
        dataset = dcmread(bounded(file), stop_before_pixels=True, force=True)
        for keyword in _LEFT_BEHIND:
            if keyword in dataset:
                delattr(dataset, keyword)
        dataset.decode()
        for element in [e for e in dataset if e.is_empty or _is_malformed(e)]:  # it says nothing
            del dataset[element.tag]
        for keyword in _TYPE_2:
            if keyword not in dataset:
                setattr(dataset, keyword, None)
        dataset.SpecificCharacterSet = "ISO_IR 192"
        said = "DeidentificationMethod" in dataset or "DeidentificationMethodCodeSequence" in dataset
        if dataset.get("PatientIdentityRemoved") == "YES" and not said:
            dataset.DeidentificationMethod = "Not said by the source"
    return dataset


def _is_malformed(element: DataElement) -> bool:
    """Whether an age or a number is written as none is; dates and names are handed on as they are."""
    from pydicom.config import RAISE
    from pydicom.valuerep import validate_value

    if element.VR not in ("AS", "DS", "IS"):
        return False
    try:
        for value in element.value if element.VM > 1 else [element.value]:
            validate_value(element.VR, str(value), RAISE)
    except ValueError:
        return True
    return False


def _pin(dataset: Dataset, source: Dataset, maker: Maker) -> None:
    """Make every byte a function of source and seed: no clock, no random UID."""
    day, time = source.get("StudyDate") or "20000101", source.get("StudyTime") or "000000"
    copied = {"StudyDate", "StudyTime", "PatientBirthDate"}
    for element in dataset.iterall():
        if element.keyword in copied or not element.value:
            continue
        if element.VR == "DA":
            element.value = day
        elif element.VR == "TM":
            element.value = time
        elif element.VR == "DT":
            element.value = f"{day}{time}"
    for item in dataset.get("DimensionOrganizationSequence", ()):
        _rename(dataset, str(item.DimensionOrganizationUID), maker.uid("dimensions"))


def _rename(dataset: Dataset, old: str, new: str) -> None:
    for element in dataset.iterall():
        if element.VR == "UI" and element.value == old:
            element.value = new
