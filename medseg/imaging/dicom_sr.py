"""Structured reports (TID 1500): volume and intensities of each segment of a DICOM SEG."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medseg.core.errors import CaseError
from medseg.core.version import __version__
from medseg.imaging.dicom_derived import Maker, Origin, Reference, coded, origin_of, save
from medseg.imaging.dicom_header import tolerant
from medseg.imaging.dicom_series import Series
from medseg.imaging.image import Image
from medseg.imaging.labels import Code, Label, Labels
from medseg.imaging.lattice import on_lattice

if TYPE_CHECKING:
    from pydicom import Dataset

_VOLUME = Code(value="118565006", meaning="Volume")
_ML = Code(value="ml", scheme="UCUM", meaning="milliliter")
_MENDED = "measured on a volume resampled from the source slices"

# what grey values are and their unit, by modality; PET in the unit of its file is not SUV
_INTENSITY = {
    "CT": (
        Code(value="112031", scheme="DCM", meaning="Attenuation Coefficient"),
        Code(value="[hnsf'U]", scheme="UCUM", meaning="Hounsfield unit"),
    ),
    "MR": (
        Code(value="110852", scheme="DCM", meaning="MR signal intensity"),
        Code(value="1", scheme="UCUM", meaning="no units"),
    ),
}
_ANY_INTENSITY = (
    Code(value="PIXEL_INTENSITY", scheme="99MEDSEG", meaning="Pixel intensity as stored, rescaled"),
    Code(value="1", scheme="UCUM", meaning="no units"),
)
_STATISTICS = {
    "mean": Code(value="373098007", meaning="Mean"),
    "sd": Code(value="386136009", meaning="Standard Deviation"),
    "min": Code(value="255605001", meaning="Minimum"),
    "max": Code(value="56851009", meaning="Maximum"),
}
_PROCEDURE = {
    "CT": Code(value="25045-6", scheme="LN", meaning="CT unspecified body region"),
    "MR": Code(value="25056-3", scheme="LN", meaning="MRI unspecified body region"),
    "PT": Code(value="44136-0", scheme="LN", meaning="PET unspecified body region"),
}
_IMAGING = Code(value="363679005", meaning="Imaging procedure")


def write_sr(
    mask: Image,
    image: Image,
    labels: Labels,
    source: Series | Origin | Sequence[str | Path],
    seg_file: str | Path,
    out_file: str | Path,
    *,
    series_description: str = "medseg AI measurements, not for diagnosis",
    series_number: int = 9003,
    algorithm: str = "medseg",
    algorithm_version: str = __version__,
    seed: str | None = None,
) -> str:
    """Write a Comprehensive 3D SR with the volume (ml) and intensities of each label.

    Mean, standard deviation (over all voxels, n in the denominator), minimum and maximum are those of the
    first channel of `image`: HU for CT, numbers without unit otherwise. A label without voxels has
    0 ml and no intensities. The report is preliminary and unverified.

    Parameters
    ----------
    mask : Image
        Label values ``[1, I, J, K]``; volumes are its voxel counts times |det affine|.
    image : Image
        What was segmented, on the voxels of the mask.
    labels : tuple of Label
        As in the SEG: segment n is the n-th label.
    source : Series, sequence of path, or Origin
        The source series, or files that make exactly one.
    seg_file : path
        The DICOM SEG of this mask (`write_seg`): the segments that are referred to and their tracking
        identifiers.

    Returns
    -------
    str
        What was done to the mask to bring it onto the slices of the SEG; empty when nothing was. The
        numbers are those of the mask as it was given.

    Raises
    ------
    CaseError
        The source cannot be referred to, or SEG, image and mask do not belong together.
    """
    origin = origin_of(source, "SR")
    maker = Maker(algorithm, algorithm_version, seed)
    seg = _segmentation(Path(seg_file), labels, origin)
    grey = on_lattice(image.but(image.array[:1]), mask.grid, "the image").array[0]
    groups = [
        _group(n, label, label.within(mask.array[0]), grey, mask.grid.voxel_ml, seg, origin, maker)
        for n, label in enumerate(labels, 1)
    ]
    report = _document(groups, seg, origin, maker, series_number, series_description)
    save(report, out_file, origin.header, maker)
    return origin.remark


def _segmentation(file: Path, labels: Labels, origin: Origin) -> Dataset:
    from pydicom import dcmread

    with tolerant():
        seg = dcmread(file, stop_before_pixels=True)
    names = [str(s.SegmentLabel) for s in seg.SegmentSequence if s.SegmentNumber]
    series = [str(s.SeriesInstanceUID) for s in seg.get("ReferencedSeriesSequence", ())]
    if names != [label.name for label in labels] or origin.series.series_uid not in series:
        raise CaseError(
            "the DICOM SEG is not that of this mask and series",
            file=str(file),
            evidence=f"{len(names)} segments for {len(labels)} labels",
            mend="write the SEG of this mask first",
        )
    return seg


def _group(
    number: int,
    label: Label,
    inside: NDArray[np.bool_],
    grey: NDArray[Any],
    voxel_ml: float,
    seg: Dataset,
    origin: Origin,
    maker: Maker,
) -> Any:
    """TID 1411: one segment, what it is, and its numbers."""
    import highdicom as hd

    segment = next(s for s in seg.SegmentSequence if s.SegmentNumber == number)
    known = hd.sr.AlgorithmIdentification(
        name=maker.algorithm, version=maker.version, parameters=[_MENDED] if origin.remark else None
    )
    values = [_measurement(_VOLUME, float(inside.sum() * voxel_ml), _ML, None)]
    values += list(_intensities(grey[inside], origin.series.modality))
    return hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(uid=segment.TrackingUID, identifier=segment.TrackingID),
        referenced_segment=hd.sr.ReferencedSegment(
            sop_class_uid=seg.SOPClassUID,
            sop_instance_uid=seg.SOPInstanceUID,
            segment_number=number,
            source_series=hd.sr.SourceSeriesForSegmentation(origin.series.series_uid),
        ),
        finding_type=coded(label.type),
        finding_category=coded(label.category),
        algorithm_id=known,
        measurements=values,
    )


def _intensities(values: NDArray[Any], modality: str) -> Iterator[Any]:
    if not values.size:
        return
    name, unit = _INTENSITY.get(modality, _ANY_INTENSITY)
    wide = values.astype(np.float64)
    found = {"mean": wide.mean(), "sd": wide.std(), "min": wide.min(), "max": wide.max()}
    for statistic, code in _STATISTICS.items():
        yield _measurement(name, float(found[statistic]), unit, code)


def _measurement(name: Code, value: float, unit: Code, derivation: Code | None) -> Any:
    import highdicom as hd

    return hd.sr.Measurement(
        name=coded(name),
        value=round(value, 6),
        unit=coded(unit),
        derivation=None if derivation is None else coded(derivation),
    )


def _images(origin: Origin) -> list[Dataset]:
    """The source files as evidence; the first one lends the report its patient and study."""
    from pydicom import Dataset

    def known(instance: Reference) -> Dataset:
        image = Dataset()
        image.StudyInstanceUID = origin.series.study_uid
        image.SeriesInstanceUID = origin.series.series_uid
        image.SOPClassUID, image.SOPInstanceUID = instance.sop_class, instance.sop_uid
        return image

    first, *others = origin.instances
    leading = Dataset()
    leading.update(origin.header)
    leading.update(known(first))
    return [leading, *map(known, others)]


def _document(
    groups: list[Any], seg: Dataset, origin: Origin, maker: Maker, number: int, description: str
) -> Any:
    import highdicom as hd

    device = hd.sr.ObserverContext(
        observer_type=hd.sr.CodedConcept("121007", "DCM", "Device"),
        observer_identifying_attributes=hd.sr.DeviceObserverIdentifyingAttributes(
            uid=Maker(seed=f"device {maker.algorithm} {maker.version}").uid("observer"),
            name=f"{maker.algorithm} {maker.version}",
            manufacturer_name="medseg",
            model_name=maker.algorithm,
        ),
    )
    procedure = _PROCEDURE.get(origin.series.modality, _IMAGING)
    with tolerant():
        return hd.sr.Comprehensive3DSR(
            evidence=[*_images(origin), seg],
            content=hd.sr.MeasurementReport(
                observation_context=hd.sr.ObservationContext(observer_device_context=device),
                procedure_reported=coded(procedure),
                imaging_measurements=groups,
            )[0],
            series_instance_uid=maker.uid("SR series"),
            sop_instance_uid=maker.uid("SR instance"),
            series_number=number,
            instance_number=1,
            manufacturer="medseg",
            manufacturer_model_name=maker.algorithm,
            software_versions=maker.version,
            device_serial_number="0",
            series_description=description,
            is_complete=True,
            is_final=False,
            is_verified=False,
        )
