"""All objects of one mask: each whole or not at all, one study, series of their own."""

from __future__ import annotations

from pathlib import Path

import pydicom
import pytest

from medseg.imaging import dicom_out
from medseg.imaging.dicom_in import read_series, series_of_files
from medseg.imaging.dicom_out import OBJECTS, DicomOutput, Written, write_objects
from medseg.imaging.dicom_series import Series
from medseg.imaging.image import Image
from tests.imaging.derived import LABELS, changed, mask_on, oblique_ct


@pytest.fixture
def series(tmp_path: Path) -> Series:
    return series_of_files(oblique_ct(tmp_path / "ct"))


def written(series: Series, kinds: tuple[str, ...], stem: Path, mask: Image | None = None) -> Written:
    mask = mask or mask_on(series)
    return write_objects(mask, LABELS, series, kinds, stem, image=lambda: read_series(series))


def test_all_objects_stand_in_one_study_under_their_own_series(series, tmp_path):
    done = written(series, OBJECTS, tmp_path / "case")
    assert sorted(f.name for f in tmp_path.glob("case*")) == [f"case.{k}.dcm" for k in sorted(OBJECTS)]
    assert (done.failed, done.remark) == ({}, "")
    made = [pydicom.dcmread(file) for file in done.files.values()]
    assert [d.Modality for d in made] == ["SEG", "RTSTRUCT", "SR"]
    first = pydicom.dcmread(series.files[0])
    assert {d.StudyInstanceUID for d in made} == {first.StudyInstanceUID}
    assert {d.PatientID for d in made} == {first.PatientID}
    for keyword in ("SeriesInstanceUID", "SOPInstanceUID", "SeriesNumber"):
        assert len({d[keyword].value for d in [first, *made]}) == 4


def test_a_report_brings_the_seg_it_refers_to(series, tmp_path):
    done = written(series, ("sr",), tmp_path / "case")
    assert list(done.files) == ["seg", "sr"]


def test_pixels_are_read_for_a_report_alone(series, tmp_path):
    def never() -> Image:
        raise AssertionError("the image was asked for")

    done = write_objects(mask_on(series), LABELS, series, ("seg", "rtstruct"), tmp_path / "x", image=never)
    assert list(done.files) == ["seg", "rtstruct"]


def test_a_series_without_frame_of_reference_gives_one_reason_and_no_file(tmp_path):
    files = changed(oblique_ct(tmp_path / "ct"), tmp_path / "nameless", FrameOfReferenceUID="")
    (tmp_path / "case.seg.dcm").write_bytes(b"of an earlier run")
    done = written(series_of_files(files), OBJECTS, tmp_path / "case")
    assert list(done.failed) == list(OBJECTS)
    assert {str(error.what) for error in done.failed.values()} == {
        "no DICOM SEG, RTSTRUCT or SR can refer to this series: it lacks Frame of Reference UID"
    }
    assert done.files == {} and list(tmp_path.glob("case*")) == []


def test_what_one_library_cannot_write_does_not_stop_the_others(series, tmp_path, monkeypatch):
    def breaks(*args: object, **options: object) -> str:
        raise ValueError("Phantom^One cannot be encoded")

    monkeypatch.setattr(dicom_out, "write_rtstruct", breaks)
    done = written(series, OBJECTS, tmp_path / "case")
    assert list(done.files) == ["seg", "sr"]
    assert "unexpected ValueError" in str(done.failed["rtstruct"])
    assert "Phantom^One" not in str(done.failed["rtstruct"])
    monkeypatch.setattr(dicom_out, "write_seg", breaks)
    done = written(series, OBJECTS, tmp_path / "case")
    assert done.files == {} and list(tmp_path.glob("case*")) == []  # no report without its segments
    assert sorted(done.failed) == sorted(OBJECTS)


def test_kinds_of_seg_and_of_holes_can_be_chosen(series, tmp_path):
    output = DicomOutput(seg="labelmap", holes="inner")
    mask = mask_on(series)
    done = write_objects(
        mask, LABELS, series, OBJECTS, tmp_path / "case", image=lambda: read_series(series), output=output
    )
    assert pydicom.dcmread(done.files["seg"]).SegmentationType == "LABELMAP"
    liver = pydicom.dcmread(done.files["rtstruct"]).ROIContourSequence[0]
    assert len(liver.ContourSequence) == 3 * series.shape[2]
    assert done.failed == {}
