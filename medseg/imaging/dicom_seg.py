"""DICOM Segmentation objects: a mask out to the planes of its source series, and back onto a grid."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medseg.core.errors import CaseError
from medseg.core.files import written_whole
from medseg.core.version import __version__
from medseg.imaging.dicom_header import tolerant
from medseg.imaging.dicom_in import series_of_files
from medseg.imaging.dicom_seg_in import read_seg, segment_names
from medseg.imaging.dicom_series import Series
from medseg.imaging.image import Image
from medseg.imaging.labels import Code, Label, Labels
from medseg.imaging.lattice import on_lattice

if TYPE_CHECKING:
    from highdicom.seg import SegmentDescription
    from pydicom import Dataset

__all__ = ["read_seg", "segment_names", "write_seg"]

# present but empty, or absent, in many real files; the SEG standard wants them there
_TYPE_2 = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID",
    "AccessionNumber", "ReferringPhysicianName",
)  # fmt: skip


def write_seg(
    mask: Image,
    labels: Labels,
    source_files: Sequence[str | Path],
    out_file: str | Path,
    *,
    series_description: str = "medseg AI segmentation, not for diagnosis",
    series_number: int = 9001,
    algorithm: str = "medseg",
    algorithm_version: str = __version__,
    seed: str | None = None,
) -> None:
    """Write a label map as one binary DICOM SEG in the planes of its source series.

    Parameters
    ----------
    mask : Image
        Label values ``[1, I, J, K]`` on the voxels of the source, in any order of axes.
    labels : tuple of Label
        What the values mean; segment n is the n-th label. A label without voxels is still described.
    source_files : sequence of path
        The DICOM files of the source series. Patient and study are copied from them.
    seed : str, optional
        Makes UIDs and times a function of this text (phantoms, tests). By default both are new.

    Raises
    ------
    CaseError
        The files make no single volume, lack the UIDs a SEG must refer to, the mask does not lie on
        their voxels, or it holds values that `labels` does not name.
    """
    series = series_of_files(source_files)
    _refuse_nameless(series)
    array = _source_order(mask, labels, series)
    datasets = [_source(file) for file in series.files]
    uids = [_uid(f"{seed} {role}") if seed else _uid(None) for role in ("series", "instance")]
    seg = _segmentation(
        datasets,
        array,
        _descriptions(labels, algorithm, algorithm_version, seed),
        series_instance_uid=uids[0],
        sop_instance_uid=uids[1],
        series_number=series_number,
        instance_number=1,
        manufacturer="medseg",
        manufacturer_model_name=algorithm,
        software_versions=algorithm_version,
        device_serial_number="0",
        content_label="MEDSEG",
        series_description=series_description,
    )
    if seed:
        _pin(seg, datasets[0], seed)
    with written_whole(Path(out_file)) as beside:
        seg.preamble = b"\0" * 128
        seg.save_as(beside, enforce_file_format=True)


def _refuse_nameless(series: Series) -> None:
    lacking = [name for name, value in (
        ("Frame of Reference UID", series.frame_of_reference), ("Study Instance UID", series.study_uid),
        ("Series Instance UID", series.series_uid), ("SOP Instance UID", series.planes[0].sop_uid),
    ) if not value]  # fmt: skip
    if len(series.files) > 1 and any(plane.frame for plane in series.planes):
        raise CaseError(
            "no DICOM SEG can be written for a volume spread over several multi-frame files",
            mend="take the NIfTI mask",
        )
    if lacking:
        raise CaseError(
            "no DICOM SEG can refer to this series: it lacks " + ", ".join(lacking),
            mend="export from a series with its original UIDs, or take the NIfTI mask",
        )


def _source_order(mask: Image, labels: Labels, series: Series) -> NDArray[np.uint8]:
    """The mask as segment numbers ``[slice, row, column]`` in the order of the source's planes."""
    array = on_lattice(mask, series.grid).array[0]
    found = np.unique(array)
    unknown = sorted(set(found.tolist()) - {0} - {label.value for label in labels})
    if unknown:
        counts = ", ".join(f"{v}: {int((array == v).sum())} voxels" for v in unknown[:10])
        raise CaseError("the mask holds values that no label names", evidence=counts)
    numbers = np.zeros(int(max(found.max(), *(label.value for label in labels))) + 1, np.uint8)
    for number, label in enumerate(labels, start=1):
        numbers[label.value] = number
    planes = numbers[array].transpose(2, 1, 0)
    # highdicom takes the planes of a multi-frame file in the order of its frames
    order = np.argsort([p.frame for p in series.planes]) if len(series.files) == 1 else slice(None)
    return np.ascontiguousarray(planes[order])


def _source(file: Path) -> Dataset:
    """A source header made fit to be copied from: type 2 attributes present, character set named."""
    from pydicom import dcmread

    with tolerant():
        dataset = dcmread(file, stop_before_pixels=True, force=True)
        for keyword in _TYPE_2:
            if keyword not in dataset:
                setattr(dataset, keyword, None)
        if not dataset.get("SpecificCharacterSet"):
            dataset.SpecificCharacterSet = "ISO_IR 192"
        if "PerFrameFunctionalGroupsSequence" in dataset:
            _share_groups(dataset)
    return dataset


def _share_groups(dataset: Dataset) -> None:
    """Some multi-frame files repeat spacing and orientation per frame; highdicom wants them shared."""
    shared = dataset.SharedFunctionalGroupsSequence[0]
    first = dataset.PerFrameFunctionalGroupsSequence[0]
    for keyword in ("PixelMeasuresSequence", "PlaneOrientationSequence"):
        if keyword not in shared and keyword in first:
            setattr(shared, keyword, getattr(first, keyword))


def _segmentation(
    datasets: list[Dataset], array: NDArray[np.uint8], descriptions: list[SegmentDescription], **rest: Any
) -> Any:
    import highdicom as hd

    with tolerant():
        return hd.seg.Segmentation(
            source_images=datasets,
            pixel_array=array,
            segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
            segment_descriptions=descriptions,
            omit_empty_frames=bool(array.any()),
            **rest,
        )


def _descriptions(labels: Labels, algorithm: str, version: str, seed: str | None) -> list[SegmentDescription]:
    import highdicom as hd
    from pydicom.sr.codedict import codes

    known = hd.AlgorithmIdentificationSequence(
        name=algorithm, version=version, family=codes.DCM.ArtificialIntelligence
    )
    return [
        hd.seg.SegmentDescription(
            segment_number=number,
            segment_label=label.name,
            segmented_property_category=_coded(label.category),
            segmented_property_type=_coded(label.type),
            algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm_identification=known,
            tracking_uid=_uid(f"{seed} tracking {number}" if seed else None),
            tracking_id=f"medseg {label.name}",
            display_color=_colour(label),
        )
        for number, label in enumerate(labels, start=1)
    ]


def _coded(code: Code) -> Any:
    import highdicom as hd

    return hd.sr.CodedConcept(value=code.value, scheme_designator=code.scheme, meaning=code.meaning)


def _colour(label: Label) -> Any:
    from highdicom.color import CIELabColor

    shown = label.shown_colour().lstrip("#")
    return CIELabColor.from_rgb(*(int(shown[i : i + 2], 16) for i in (0, 2, 4)))


def _uid(text: str | None) -> str:
    """A new UID, or the one that `text` always gives."""
    from pydicom.uid import generate_uid

    return str(generate_uid(prefix=None) if text is None else generate_uid(entropy_srcs=[text]))


def _pin(seg: Any, source: Dataset, seed: str) -> None:
    """Make every byte a function of source and seed: no clock, no random UID."""
    day, time = source.get("StudyDate") or "20000101", source.get("StudyTime") or "000000"
    for keyword in ("ContentDate", "InstanceCreationDate", "SeriesDate"):
        if keyword in seg:
            setattr(seg, keyword, day)
    for keyword in ("ContentTime", "InstanceCreationTime", "SeriesTime"):
        if keyword in seg:
            setattr(seg, keyword, time)
    old, new = seg.DimensionOrganizationSequence[0].DimensionOrganizationUID, _uid(f"{seed} dimensions")
    for element in seg.iterall():
        if element.VR == "UI" and element.value == old:
            element.value = new
        elif element.VR == "DT" and element.value:
            element.value = f"{day}{time}"
