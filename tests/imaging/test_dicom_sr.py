"""Reports hold the volumes and intensities of the mask, and refer to the segments they are of."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest

from medseg.core.errors import CaseError
from medseg.imaging.dicom_in import find_series, read_series, series_of_files
from medseg.imaging.dicom_seg import write_seg
from medseg.imaging.dicom_series import Series
from medseg.imaging.dicom_sr import write_sr
from medseg.imaging.image import Image, canonical
from tests.imaging.derived import (
    LABELS,
    SOURCES,
    changed,
    enhanced_mr,
    mask_on,
    oblique_ct,
    source,
    tool,
    valid,
)


def reported(series: Series, folder: Path, mask: Image | None = None, **options: str) -> Path:
    """SEG and SR of one mask."""
    mask = mask or mask_on(series)
    write_seg(mask, LABELS, series, folder / "seg.dcm", **options)
    image = read_series(series)
    write_sr(mask, image, LABELS, series, folder / "seg.dcm", folder / "sr.dcm", **options)
    return folder / "sr.dcm"


def groups_of(file: Path) -> list[hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations]:
    return hd.sr.srread(file).content.get_volumetric_roi_measurement_groups()


def numbers_of(
    group: hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations,
) -> dict[str, tuple[float, str]]:
    """What was measured -> value and unit."""
    return {
        f"{m.derivation.meaning if m.derivation else ''} {m.name.meaning}".strip(): (m.value, m.unit.value)
        for m in group.get_measurements()
    }


@pytest.fixture
def series(tmp_path: Path) -> Series:
    return series_of_files(oblique_ct(tmp_path / "ct"))


@pytest.mark.parametrize("name", SOURCES)
def test_dciodvfy_finds_no_error(shared_data, tmp_path, name):
    assert valid(reported(source(name, tmp_path, shared_data), tmp_path)) == []


def test_volumes_and_intensities_are_those_of_the_mask(series, tmp_path):
    mask, image = mask_on(series), read_series(series)
    liver, kidney, nothing = map(numbers_of, groups_of(reported(series, tmp_path, mask)))
    values = image.array[mask.array == 1].astype(np.float64)
    assert liver == {
        "Volume": (pytest.approx(values.size * 1.2 * 1.7 * 4.0 / 1000, abs=1e-5), "ml"),
        "Mean Attenuation Coefficient": (pytest.approx(values.mean(), abs=1e-5), "[hnsf'U]"),
        "Standard Deviation Attenuation Coefficient": (pytest.approx(values.std(), abs=1e-5), "[hnsf'U]"),
        "Minimum Attenuation Coefficient": (values.min(), "[hnsf'U]"),
        "Maximum Attenuation Coefficient": (values.max(), "[hnsf'U]"),
    }
    assert kidney["Volume"][0] == pytest.approx((mask.array == 7).sum() * 1.2 * 1.7 * 4.0 / 1000, abs=1e-5)
    assert nothing == {"Volume": (0.0, "ml")}


def test_grey_values_of_other_modalities_have_no_unit(tmp_path):
    (mr,) = find_series(enhanced_mr(tmp_path / "mr", [[(at, 5.0) for at in range(4)]]))[0]
    liver = numbers_of(groups_of(reported(mr, tmp_path))[0])
    assert liver["Mean MR signal intensity"][1] == "1"


def test_a_modality_without_a_term_for_its_grey_values_is_valid_too(tmp_path):
    pet = {"Modality": "PT", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.128"}
    series = series_of_files(changed(oblique_ct(tmp_path / "ct"), tmp_path / "pt", **pet))
    file = reported(series, tmp_path)
    assert numbers_of(groups_of(file)[0])["Mean Pixel intensity as stored, rescaled"][1] == "1"
    assert valid(file) == []


def test_segments_series_and_tracking_are_those_of_the_seg(series, tmp_path):
    file = reported(series, tmp_path)
    report, seg = pydicom.dcmread(file), pydicom.dcmread(tmp_path / "seg.dcm")
    for group, segment, label in zip(groups_of(file), seg.SegmentSequence, LABELS, strict=True):
        refers = (
            group.referenced_segmentation_items if hasattr(group, "referenced_segmentation_items") else None
        )
        assert refers is None
        assert group.tracking_uid == segment.TrackingUID
        assert group.tracking_identifier == segment.TrackingID
        assert (group.finding_type.value, group.finding_category.value) == (
            label.type.value,
            label.category.value,
        )
        (item,) = [i for i in group[0].ContentSequence if i.name.meaning == "Referenced Segment"]
        image = item.ReferencedSOPSequence[0]
        assert image.ReferencedSOPInstanceUID == seg.SOPInstanceUID
        assert image.ReferencedSegmentNumber == segment.SegmentNumber
        (of,) = [i for i in group[0].ContentSequence if i.name.meaning == "Source Series for Segmentation"]
        assert of.value == series.series_uid
    named = {
        instance.ReferencedSOPInstanceUID
        for study in report.CurrentRequestedProcedureEvidenceSequence
        for one in study.ReferencedSeriesSequence
        for instance in one.ReferencedSOPSequence
    }
    assert named == {plane.sop_uid for plane in series.planes} | {seg.SOPInstanceUID}


def test_it_is_a_preliminary_report_of_a_device_in_a_series_of_its_own(series, tmp_path):
    report = pydicom.dcmread(reported(series, tmp_path))
    first, seg = pydicom.dcmread(series.files[0]), pydicom.dcmread(tmp_path / "seg.dcm")
    for keyword in ("PatientID", "PatientName", "StudyInstanceUID"):
        assert report[keyword].value == first[keyword].value
    assert len({report.SeriesInstanceUID, seg.SeriesInstanceUID, first.SeriesInstanceUID}) == 3
    assert len({report.SeriesNumber, seg.SeriesNumber, first.SeriesNumber}) == 3
    assert (report.CompletionFlag, report.PreliminaryFlag, report.VerificationFlag) == (
        "COMPLETE", "PRELIMINARY", "UNVERIFIED",
    )  # fmt: skip
    assert "AI" in report.SeriesDescription and "not for diagnosis" in report.SeriesDescription
    said = {str(i.name.meaning): i for i in hd.sr.srread(tmp_path / "sr.dcm").content[0].ContentSequence}
    assert said["Device Observer Name"].value == "medseg 0.1.0"
    assert said["Procedure reported"].value.meaning == "CT unspecified body region"


def test_a_report_of_a_mended_volume_says_so(shared_data, tmp_path):
    for name, expected in (("tilted", True), ("axial", False)):
        (tmp_path / name).mkdir()
        file = reported(source(name, tmp_path / name, shared_data), tmp_path / name)
        assert (b"resampled from the source slices" in file.read_bytes()) == expected


def test_a_mask_in_any_order_of_axes_and_a_seed_give_the_same_bytes(series, tmp_path):
    mask, image = mask_on(series), read_series(series)
    write_seg(mask, LABELS, series, tmp_path / "seg.dcm", seed="x")
    for name, one in (("a", mask), ("b", canonical(mask))):
        write_sr(one, image, LABELS, series, tmp_path / "seg.dcm", tmp_path / name, seed="x")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_the_seg_of_another_series_or_of_other_labels_is_refused(series, tmp_path, shared_data):
    mask, image = mask_on(series), read_series(series)
    other = source("axial", tmp_path, shared_data)
    write_seg(mask_on(other), LABELS, other, tmp_path / "other.dcm")
    write_seg(mask, LABELS, series, tmp_path / "seg.dcm")
    for seg, labels in (("other.dcm", LABELS), ("seg.dcm", LABELS[::-1])):
        with pytest.raises(CaseError, match="not that of this mask"):
            write_sr(mask, image, labels, series, tmp_path / seg, tmp_path / "sr.dcm")
    assert not (tmp_path / "sr.dcm").exists()


def test_dsrdump_reads_it_as_a_valid_document(series, tmp_path):
    done = subprocess.run(
        [tool("dsrdump"), reported(series, tmp_path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.count("Measurement Group") == 3
    assert not [line for line in done.stderr.splitlines() if line.startswith("E:")]


def test_dcmqi_reads_the_same_numbers(series, tmp_path):
    reader = tool("tid1500reader")
    call = [reader, "--inputDICOM", reported(series, tmp_path), "--outputMetadata", tmp_path / "out.json"]
    subprocess.run(call, capture_output=True, check=True)
    groups = json.loads((tmp_path / "out.json").read_text())["Measurements"]
    ours = [numbers_of(group)["Volume"][0] for group in groups_of(tmp_path / "sr.dcm")]
    theirs = [float(g["measurementItems"][0]["value"]) for g in groups]
    assert theirs == pytest.approx(ours)
