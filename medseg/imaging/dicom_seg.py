"""DICOM Segmentation objects: a mask out to the planes of its source series, and back onto a grid."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from medseg.core.errors import MedsegError
from medseg.core.version import __version__
from medseg.imaging.dicom_ct import decimal
from medseg.imaging.dicom_derived import (
    Maker,
    Origin,
    Reference,
    coded,
    numbered,
    origin_of,
    rgb,
    save,
    valued,
)
from medseg.imaging.dicom_header import Plane, tolerant
from medseg.imaging.dicom_seg_in import read_seg, segment_names
from medseg.imaging.dicom_series import Series
from medseg.imaging.image import Image
from medseg.imaging.labels import Labels

if TYPE_CHECKING:
    from highdicom.seg import SegmentDescription
    from pydicom import Dataset

__all__ = ["SegKind", "read_seg", "segment_names", "write_seg"]

SegKind = Literal["binary", "labelmap"]
"""``binary``: a bit plane a segment, read everywhere. ``labelmap``: one plane of numbers, few readers yet."""

_STAND_IN = "2.25.1000000."


def write_seg(
    mask: Image,
    labels: Labels,
    source: Series | Origin | Sequence[str | Path],
    out_file: str | Path,
    *,
    kind: SegKind = "binary",
    series_description: str = "medseg AI segmentation, not for diagnosis",
    series_number: int = 9001,
    algorithm: str = "medseg",
    algorithm_version: str = __version__,
    seed: str | None = None,
) -> str:
    """Write a label map as one DICOM SEG in the planes of its source series.

    Each frame has the position of its own source slice and refers to it. Where the volume was mended
    (tilted or uneven slices), the mask is brought back onto the slices, and the object says so in its
    content description.

    Parameters
    ----------
    mask : Image
        Label values ``[1, I, J, K]`` on the voxels of the source, in any order of axes.
    labels : tuple of Label
        What the values mean; segment n is the n-th label. A label without voxels is still described.
        Regions that overlap become segments that overlap, which only ``binary`` can hold.
    source : Series, sequence of path, or Origin
        The source series, or files that make exactly one. Patient and study are copied from them.
    kind : {"binary", "labelmap"}
    seed : str, optional
        Makes UIDs and times a function of this text (phantoms, tests). By default both are new.

    Returns
    -------
    str
        What was done to the mask to bring it onto the slices; empty when nothing was.

    Raises
    ------
    CaseError
        The files make no single volume, lack the UIDs a SEG must refer to, the mask does not lie on
        their voxels, or it holds values that `labels` does not name.
    MedsegError
        Regions are to be written as a label map.
    """
    origin = origin_of(source, "DICOM SEG")
    maker = Maker(algorithm, algorithm_version, seed)
    array = _segments(mask, labels, origin.series, kind)
    seg = _segmentation(
        [_stand_in(origin, plane, n) for n, plane in enumerate(origin.series.planes)],
        array,
        kind,
        segment_descriptions=_descriptions(labels, maker),
        series_instance_uid=maker.uid("series"),
        sop_instance_uid=maker.uid("instance"),
        series_number=series_number,
        instance_number=1,
        manufacturer="medseg",
        manufacturer_model_name=algorithm,
        software_versions=algorithm_version,
        device_serial_number="0",
        content_label="MEDSEG",
        content_description=origin.remark or None,
        series_description=series_description,
    )
    _refer(seg, origin.references)
    save(seg, out_file, origin.header, maker)
    return origin.remark


def _segments(mask: Image, labels: Labels, series: Series, kind: SegKind) -> NDArray[Any]:
    """Numbers of segments ``[slice, row, column]``; of regions a volume each, along a last axis."""
    if not any(label.region for label in labels):
        return numbered(mask, labels, series)
    if kind == "labelmap":
        raise MedsegError(
            "regions that overlap cannot be written as a label map",
            evidence=", ".join(label.name for label in labels),
            mend="write them as segments: output.seg=binary",
        )
    array = valued(mask, labels, series)
    return np.stack([label.within(array) for label in labels], axis=-1).astype(np.uint8)


def _stand_in(origin: Origin, plane: Plane, number: int) -> Dataset:
    """A plane as if it were a file of its own.

    highdicom takes single images or one multi-frame file as it stands; volumes also are some frames of
    a file, or of several. `_refer` puts the true references in place of these.
    """
    from pydicom import Dataset
    from pydicom.uid import CTImageStorage

    assert plane.spacing_mm and plane.orientation and plane.position  # `origin_of` refuses others
    image = Dataset()
    image.update(origin.header)
    for keyword, value in {
        "SOPClassUID": CTImageStorage,
        "SOPInstanceUID": f"{_STAND_IN}{number}",
        "Rows": plane.rows,
        "Columns": plane.columns,
        "PixelSpacing": [decimal(v) for v in plane.spacing_mm],
        "ImageOrientationPatient": [decimal(v) for v in plane.orientation],
        "ImagePositionPatient": [decimal(v) for v in plane.position],
        "SliceThickness": decimal(plane.thickness_mm or origin.series.grid.spacing_mm[2]),
    }.items():
        image.pop(keyword, None)  # elements are shared with the header
        setattr(image, keyword, value)
    image.pop("SpacingBetweenSlices", None)  # by position, never as some headers have it
    return image


def _refer(seg: Dataset, references: Sequence[Reference]) -> None:
    """The source images and frames themselves, in the place of their stand-ins."""
    true = {f"{_STAND_IN}{n}": reference for n, reference in enumerate(references)}
    for group in seg.PerFrameFunctionalGroupsSequence:
        for item in group.DerivationImageSequence[0].SourceImageSequence:
            if item.ReferencedSOPInstanceUID in true:  # the segments of one plane share the item
                item.update(true[item.ReferencedSOPInstanceUID].item())
    files = dict.fromkeys(Reference(r.sop_class, r.sop_uid) for r in references)
    seg.SourceImageSequence = [file.item() for file in files]
    seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence = [file.item() for file in files]


def _segmentation(images: list[Dataset], array: NDArray[Any], kind: SegKind, **rest: Any) -> Any:
    import highdicom as hd
    from pydicom.uid import RLELossless

    with tolerant():
        seg = hd.seg.Segmentation(
            source_images=images,
            pixel_array=array,
            segmentation_type=hd.seg.SegmentationTypeValues[kind.upper()],
            omit_empty_frames=bool(array.any()),
            **rest,
        )
        if kind == "labelmap":  # not by highdicom: left to itself pydicom takes gdcm, which can abort
            seg.compress(RLELossless, encoding_plugin="pylibjpeg", generate_instance_uid=False)
    return seg


def _descriptions(labels: Labels, maker: Maker) -> list[SegmentDescription]:
    import highdicom as hd
    from highdicom.color import CIELabColor
    from pydicom.sr.codedict import codes

    known = hd.AlgorithmIdentificationSequence(
        name=maker.algorithm, version=maker.version, family=codes.DCM.ArtificialIntelligence
    )
    return [
        hd.seg.SegmentDescription(
            segment_number=number,
            segment_label=label.name,
            segmented_property_category=coded(label.category),
            segmented_property_type=coded(label.type),
            algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm_identification=known,
            tracking_uid=maker.uid(f"tracking {number}"),
            tracking_id=f"medseg {label.name}",
            display_color=CIELabColor.from_rgb(*rgb(label)),
        )
        for number, label in enumerate(labels, start=1)
    ]
