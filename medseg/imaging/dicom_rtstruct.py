"""RT Structure Sets: a mask as contours, a set for every source slice, in the plane of that slice.

Contours run along the edges of pixels (`dicom_trace`), so that the rule by which planning systems and
readers fill them, a pixel belongs to a region when its centre is inside, gives the mask back voxel for
voxel. A hole is joined to the contour around it by a channel of no width ("keyhole", PS3.3 C.8.8.6.3):
readers that take the union of contours and those that take exclusive-or see the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medseg.core.version import __version__
from medseg.imaging.dicom_derived import Maker, Origin, Reference, coded, origin_of, rgb, save, valued
from medseg.imaging.dicom_header import Plane
from medseg.imaging.dicom_series import Series
from medseg.imaging.dicom_trace import Corners, Holes, outlines
from medseg.imaging.image import Image
from medseg.imaging.labels import Label, Labels

if TYPE_CHECKING:
    from pydicom import Dataset
    from pydicom.dataelem import RawDataElement

_CONTOUR_DATA = 0x30060050
_STUDY = "1.2.840.10008.3.1.2.3.1"  # the class by which a study is referred to
_ORGANS = frozenset({"123037004", "91723000"})  # SNOMED CT: anatomical structure


def write_rtstruct(
    mask: Image,
    labels: Labels,
    source: Series | Origin | Sequence[str | Path],
    out_file: str | Path,
    *,
    holes: Holes = "keyhole",
    series_description: str = "medseg AI contours, not for diagnosis",
    series_number: int = 9002,
    algorithm: str = "medseg",
    algorithm_version: str = __version__,
    seed: str | None = None,
) -> str:
    """Write a label map as one RT Structure Set, a region of interest for each label.

    Parameters
    ----------
    mask : Image
        Label values ``[1, I, J, K]`` on the voxels of the source, in any order of axes.
    labels : tuple of Label
        What the values mean; ROI n is the n-th label. A label without voxels is listed without contours.
    source : Series, sequence of path, or Origin
        The source series, or files that make exactly one. Patient and study are copied from them.
    holes : {"keyhole", "inner"}
        How holes are written; see `dicom_trace.outlines`.
    seed : str, optional
        Makes UIDs and times a function of this text (phantoms, tests). By default both are new.

    Returns
    -------
    str
        What was done to the mask to bring it onto the slices; empty when nothing was.

    Raises
    ------
    CaseError
        The files make no single volume, lack the UIDs an RTSTRUCT must refer to, the mask does not lie
        on their voxels, or it holds values that `labels` does not name.
    """
    origin = origin_of(source, "RTSTRUCT")
    maker = Maker(algorithm, algorithm_version, seed)
    planes = valued(mask, labels, origin.series)
    rt = _document(origin, maker, series_number, series_description)
    rt.ReferencedFrameOfReferenceSequence = [_referenced_frame(origin)]
    rt.StructureSetROISequence = [_region(n, label, origin, maker) for n, label in enumerate(labels, 1)]
    rt.ROIContourSequence = [_contours(n, label, planes, origin, holes) for n, label in enumerate(labels, 1)]
    rt.RTROIObservationsSequence = [_observation(n, label) for n, label in enumerate(labels, 1)]
    rt.ApprovalStatus = "UNAPPROVED"
    save(rt, out_file, origin.header, maker)
    return origin.remark


def _document(origin: Origin, maker: Maker, number: int, description: str) -> Dataset:
    from pydicom.uid import ImplicitVRLittleEndian, RTStructureSetStorage

    # lengths have 32 bits here: a long contour does not fit into the 64 KiB of an explicit DS
    rt = origin.child(RTStructureSetStorage, ImplicitVRLittleEndian, maker)
    rt.Modality, rt.SeriesNumber, rt.SeriesDescription = "RTSTRUCT", number, description
    rt.OperatorsName, rt.InstanceNumber = "", 1
    rt.StructureSetLabel, rt.StructureSetName = "MEDSEG", "medseg"
    rt.StructureSetDescription = ". ".join(filter(None, [description, origin.remark, origin.mends]))
    rt.StructureSetDate, rt.StructureSetTime = rt.InstanceCreationDate, rt.InstanceCreationTime
    return rt


def _referenced_frame(origin: Origin) -> Dataset:
    """Frame of reference -> study -> series -> every image of it."""
    from pydicom import Dataset

    series, study, frame = Dataset(), Dataset(), Dataset()
    series.SeriesInstanceUID = origin.series.series_uid
    series.ContourImageSequence = [reference.item() for reference in origin.references]
    study.ReferencedSOPClassUID, study.ReferencedSOPInstanceUID = _STUDY, origin.series.study_uid
    study.RTReferencedSeriesSequence = [series]
    frame.FrameOfReferenceUID = origin.series.frame_of_reference
    frame.RTReferencedStudySequence = [study]
    return frame


def _region(number: int, label: Label, origin: Origin, maker: Maker) -> Dataset:
    from pydicom import Dataset

    region = Dataset()
    region.ROINumber, region.ROIName = number, label.name
    region.ReferencedFrameOfReferenceUID = origin.series.frame_of_reference
    region.ROIGenerationAlgorithm = "AUTOMATIC"
    region.ROIGenerationDescription = f"{maker.algorithm} {maker.version}"[:64]
    return region


def _contours(number: int, label: Label, planes: NDArray[Any], origin: Origin, holes: Holes) -> Dataset:
    from pydicom import Dataset

    contours = Dataset()
    contours.ReferencedROINumber, contours.ROIDisplayColor = number, list(rgb(label))
    drawn = [
        (plane, reference, outline)
        for plane, reference, picture in zip(origin.series.planes, origin.references, planes, strict=True)
        for outline in outlines(label.within(picture), holes)
    ]
    if drawn:
        contours.ContourSequence = [_contour(n, *each) for n, each in enumerate(drawn, 1)]
    return contours


def _contour(number: int, plane: Plane, reference: Reference, outline: Corners) -> Dataset:
    from pydicom import Dataset

    contour = Dataset()
    contour.ContourImageSequence = [reference.item()]
    contour.ContourGeometricType = "CLOSED_PLANAR"
    contour.NumberOfContourPoints, contour.ContourNumber = len(outline), number
    contour[_CONTOUR_DATA] = _encoded(_points(plane, outline))
    return contour


def _encoded(numbers: list[str]) -> RawDataElement:
    """Points as the bytes they will be in the file: pydicom would look at each of them, for seconds."""
    from pydicom.dataelem import RawDataElement
    from pydicom.tag import Tag

    value = "\\".join(numbers).encode()
    value += b" " * (len(value) % 2)
    return RawDataElement(Tag(_CONTOUR_DATA), "DS", len(value), value, 0, True, True)


def _points(plane: Plane, outline: Corners) -> list[str]:
    """Corners of pixels -> ``x, y, z, x, ...`` in LPS mm: to 0.001 mm, finer for tiny pixels."""
    assert plane.position and plane.orientation and plane.spacing_mm  # `origin_of` refuses others
    along_row, down_column = np.reshape(plane.orientation, (2, 3))
    between_rows, between_columns = plane.spacing_mm
    rows, columns = (outline - 0.5).T
    points = (
        np.array(plane.position)
        + np.outer(columns * between_columns, along_row)
        + np.outer(rows * between_rows, down_column)
    )
    digits = max(3, math.ceil(2 - math.log10(min(plane.spacing_mm))))
    return [f"{value:.{digits}f}" for value in (np.round(points, digits) + 0.0).ravel()]


def _observation(number: int, label: Label) -> Dataset:
    from pydicom import Dataset

    seen = Dataset()
    seen.ObservationNumber = seen.ReferencedROINumber = number
    seen.ROIObservationLabel = label.name[:16]
    seen.RTROIIdentificationCodeSequence = [coded(label.type)]
    # never a target or an organ at risk: what a region is for is the planner's word
    seen.RTROIInterpretedType = "ORGAN" if label.category.value in _ORGANS else ""
    seen.ROIInterpreter = ""
    return seen
