"""Masks go out as contours in the planes of their slices and come back voxel for voxel."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pydicom
import pytest

from medseg.core.errors import CaseError
from medseg.imaging.dicom_in import find_series, series_of_files
from medseg.imaging.dicom_policy import DicomPolicy
from medseg.imaging.dicom_rtstruct import write_rtstruct
from medseg.imaging.dicom_rtstruct_in import read_rtstruct
from medseg.imaging.dicom_stack import planes_of
from medseg.imaging.grid import Grid, ras_from_lps
from medseg.imaging.image import Image, canonical
from medseg.imaging.lattice import on_lattice
from tests.imaging.derived import (
    LABELS,
    SOURCES,
    changed,
    enhanced_mr,
    mask_on,
    moved,
    oblique_ct,
    read_contours,
    source,
    tool,
    valid,
)


def as_numbers(array: np.ndarray) -> np.ndarray:
    return np.select([array == label.value for label in LABELS], [1, 2, 3])


@pytest.mark.parametrize("holes", ["keyhole", "inner"])
@pytest.mark.parametrize("name", SOURCES)
def test_contours_come_back_voxel_for_voxel_on_the_source_slices(shared_data, tmp_path, name, holes):
    series = source(name, tmp_path, shared_data)
    mask = mask_on(series)
    write_rtstruct(mask, LABELS, series, tmp_path / "rt.dcm", holes=holes)
    back = read_contours(tmp_path / "rt.dcm", series)
    assert np.array_equal(back, as_numbers(planes_of(mask, series)))
    assert set(np.unique(back)) == {0, 1, 2}
    read = read_rtstruct(tmp_path / "rt.dcm", series, labels=LABELS)
    assert np.array_equal(planes_of(read, series), planes_of(mask, series))
    if name not in ("tilted", "uneven"):
        assert np.array_equal(read.array, mask.array)


@pytest.mark.parametrize("name", SOURCES)
def test_dciodvfy_finds_no_error(shared_data, tmp_path, name):
    series = source(name, tmp_path, shared_data)
    write_rtstruct(mask_on(series), LABELS, series, tmp_path / "rt.dcm")
    assert valid(tmp_path / "rt.dcm") == []


def test_plastimatch_fills_the_same_voxels_holes_included(shared_data, tmp_path):
    plastimatch = tool("plastimatch")
    series = source("axial", tmp_path, shared_data)
    mask = mask_on(series)
    (tmp_path / "ct").mkdir()
    for file in series.files:
        shutil.copy(file, tmp_path / "ct")
    write_rtstruct(mask, LABELS, series, tmp_path / "rt.dcm")
    call = [plastimatch, "convert", "--input", "rt.dcm", "--referenced-ct", "ct", "--output-prefix", "out"]
    subprocess.run([*call, "--prefix-format", "nrrd"], cwd=tmp_path, capture_output=True, check=True)
    for label in LABELS[:2]:
        theirs = on_lattice(_nrrd(tmp_path / "out" / f"{label.name}.nrrd"), series.grid)
        assert np.array_equal(theirs.array > 0, mask.array == label.value)


def _nrrd(file: Path) -> Image:
    import SimpleITK as sitk  # noqa: N813

    image = sitk.ReadImage(str(file))
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    array = sitk.GetArrayFromImage(image).transpose(2, 1, 0)
    return Image(array[None], Grid(array.shape, ras_from_lps(affine)))


def test_a_keyhole_joins_a_hole_to_its_outline_and_inner_contours_stand_alone(tmp_path):
    files = oblique_ct(tmp_path / "ct")
    mask = mask_on(series_of_files(files))
    counts = {}
    for holes in ("keyhole", "inner"):
        write_rtstruct(mask, LABELS, files, tmp_path / holes, holes=holes)
        liver = pydicom.dcmread(tmp_path / holes).ROIContourSequence[0]
        counts[holes] = len(liver.ContourSequence)
        assert {c.ContourGeometricType for c in liver.ContourSequence} == {"CLOSED_PLANAR"}
    assert counts == {"keyhole": 2 * 5, "inner": 3 * 5}  # a ring and an island on each of five slices


def test_references_are_complete_and_each_contour_names_its_own_image(tmp_path):
    files = oblique_ct(tmp_path / "ct")
    write_rtstruct(mask_on(series_of_files(files)), LABELS, files, tmp_path / "rt.dcm")
    rt = pydicom.dcmread(tmp_path / "rt.dcm")
    sources = {d.SOPInstanceUID: d for d in map(pydicom.dcmread, files)}
    frame = rt.ReferencedFrameOfReferenceSequence[0]
    study = frame.RTReferencedStudySequence[0]
    series = study.RTReferencedSeriesSequence[0]
    first = next(iter(sources.values()))
    assert frame.FrameOfReferenceUID == rt.FrameOfReferenceUID == first.FrameOfReferenceUID
    assert study.ReferencedSOPInstanceUID == first.StudyInstanceUID
    assert series.SeriesInstanceUID == first.SeriesInstanceUID != rt.SeriesInstanceUID
    assert {i.ReferencedSOPInstanceUID for i in series.ContourImageSequence} == set(sources)
    for contour in rt.ROIContourSequence[0].ContourSequence:
        image = sources[contour.ContourImageSequence[0].ReferencedSOPInstanceUID]
        row, column = np.reshape(np.array(image.ImageOrientationPatient, float), (2, 3))
        points = np.array(contour.ContourData, float).reshape(-1, 3)
        assert contour.NumberOfContourPoints == len(points)
        assert np.abs((points - image.ImagePositionPatient) @ np.cross(row, column)).max() < 1e-3
        assert max(map(len, map(str, contour.ContourData))) <= 16


def test_regions_say_what_they_are_and_that_a_machine_drew_them(tmp_path):
    files = oblique_ct(tmp_path / "ct")
    write_rtstruct(mask_on(series_of_files(files)), LABELS, files, tmp_path / "rt.dcm")
    rt, first = pydicom.dcmread(tmp_path / "rt.dcm"), pydicom.dcmread(files[0])
    for keyword in ("PatientID", "PatientName", "StudyInstanceUID", "StudyDate", "PatientSex"):
        assert rt[keyword].value == first[keyword].value
    assert (rt.Modality, rt.ApprovalStatus, rt.SoftwareVersions) == ("RTSTRUCT", "UNAPPROVED", "0.1.0")
    assert "AI" in rt.SeriesDescription and "not for diagnosis" in rt.SeriesDescription
    assert [r.ROIName for r in rt.StructureSetROISequence] == ["liver", "left kidney", "nothing of it"]
    assert {r.ROIGenerationAlgorithm for r in rt.StructureSetROISequence} == {"AUTOMATIC"}
    assert rt.ROIContourSequence[0].ROIDisplayColor == [255, 0, 0]
    assert "ContourSequence" not in rt.ROIContourSequence[2]  # listed, but nothing is there
    seen = rt.RTROIObservationsSequence
    assert seen[0].RTROIIdentificationCodeSequence[0].CodeValue == "10200004"
    assert [o.RTROIInterpretedType for o in seen] == ["ORGAN", "", ""]
    assert (tmp_path / "rt.dcm").read_bytes()[:128] == bytes(128)


def test_a_mask_in_any_order_of_axes_gives_the_same_contours(tmp_path):
    files = oblique_ct(tmp_path / "ct")
    mask = mask_on(series_of_files(files))
    write_rtstruct(mask, LABELS, files, tmp_path / "a", seed="x")
    write_rtstruct(canonical(mask), LABELS, files, tmp_path / "b", seed="x")
    write_rtstruct(mask, LABELS, files, tmp_path / "c")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert pydicom.dcmread(tmp_path / "a").SOPInstanceUID != pydicom.dcmread(tmp_path / "c").SOPInstanceUID


def test_a_tilted_gantry_is_followed_slice_by_slice_and_it_says_so(tmp_path):
    files = oblique_ct(tmp_path / "even")
    aside = np.array(pydicom.dcmread(files[0]).ImageOrientationPatient[3:], float)
    tilted = moved(files, tmp_path / "ct", [1.3 * n * aside for n in range(5)])
    series = series_of_files(tilted)
    said = write_rtstruct(mask_on(series), LABELS, series, tmp_path / "rt.dcm")
    assert "brought back onto the source slices" in said
    text = pydicom.dcmread(tmp_path / "rt.dcm").StructureSetDescription
    assert said in text and "tilted by" in text
    kept = series_of_files(tilted, policy=DicomPolicy(tilt="shear"))
    assert write_rtstruct(mask_on(kept), LABELS, kept, tmp_path / "kept.dcm") == ""
    assert np.array_equal(
        read_contours(tmp_path / "kept.dcm", kept), as_numbers(planes_of(mask_on(kept), kept))
    )


@pytest.mark.parametrize(
    ("files", "volumes"),
    [
        ([[(2, 5.0), (0, 5.0), (1, 5.0), (3, 5.0)]], 1),
        ([[(at, echo) for at in range(4) for echo in (5.0, 10.0)]], 2),
        ([[(0, 5.0), (1, 5.0)], [(2, 5.0), (3, 5.0)]], 1),
    ],
    ids=["frames out of order", "two volumes in one file", "one volume in two files"],
)
def test_frames_of_multi_frame_files_are_named_one_by_one(tmp_path, files, volumes):
    found = find_series(enhanced_mr(tmp_path / "mr", files))[0]
    assert len(found) == volumes
    named = set()
    for series in found:
        mask = mask_on(series)
        write_rtstruct(mask, LABELS, series, tmp_path / "rt.dcm")
        assert np.array_equal(read_contours(tmp_path / "rt.dcm", series), as_numbers(planes_of(mask, series)))
        rt = pydicom.dcmread(tmp_path / "rt.dcm")
        study = rt.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence[0]
        images = study.RTReferencedSeriesSequence[0].ContourImageSequence
        named |= {(i.ReferencedSOPInstanceUID, int(i.ReferencedFrameNumber)) for i in images}
        assert len(images) == 4
    assert len(named) == 4 * volumes


def test_a_long_contour_keeps_all_its_points(tmp_path):
    files = oblique_ct(tmp_path / "ct", 1)
    files = _large(files[0], tmp_path / "large.dcm")
    series = series_of_files(files)
    comb = np.zeros((1, *series.grid.shape), np.uint8)
    comb[0, ::2, :-1] = 1
    comb[0, :, 0] = 1
    write_rtstruct(Image(comb, series.grid), LABELS, series, tmp_path / "rt.dcm")
    data = pydicom.dcmread(tmp_path / "rt.dcm").ROIContourSequence[0].ContourSequence[0].ContourData
    assert len("\\".join(map(str, data))) > 1 << 16
    assert np.array_equal(read_contours(tmp_path / "rt.dcm", series)[0], comb[0, :, :, 0].T)


def _large(file: Path, out: Path) -> list[Path]:
    dataset = pydicom.dcmread(file)
    dataset.Columns, dataset.Rows = 1700, 8
    dataset.PixelData = np.arange(1700 * 8, dtype="<u2").tobytes()
    dataset.save_as(out)
    return [out]


def test_names_in_any_script_arrive(tmp_path):
    files = changed(
        oblique_ct(tmp_path / "ct"),
        tmp_path / "jp",
        SpecificCharacterSet=["", "ISO 2022 IR 87"],
        PatientName="Yamada^Tarou=山田^太郎=やまだ^たろう",
    )
    labels = (LABELS[0].but(name="Lymphknoten größer"), *LABELS[1:])
    write_rtstruct(mask_on(series_of_files(files)), labels, files, tmp_path / "rt.dcm")
    rt = pydicom.dcmread(tmp_path / "rt.dcm")
    assert str(rt.PatientName) == "Yamada^Tarou=山田^太郎=やまだ^たろう"
    assert rt.StructureSetROISequence[0].ROIName == "Lymphknoten größer"


def test_a_source_that_cannot_be_referred_to_is_refused(tmp_path):
    files = changed(oblique_ct(tmp_path / "ct"), tmp_path / "nameless", FrameOfReferenceUID="")
    with pytest.raises(CaseError, match="no RTSTRUCT can refer to this series: it lacks Frame of Reference"):
        write_rtstruct(mask_on(series_of_files(files)), LABELS, files, tmp_path / "rt.dcm")
    assert not (tmp_path / "rt.dcm").exists()


def test_slices_of_a_mosaic_are_refused_by_name(shared_data, tmp_path):
    series = find_series(shared_data / "dicom_cases/mr_mosaic_axial/dicom")[0][0]
    with pytest.raises(CaseError, match="tiles of one picture"):
        write_rtstruct(mask_on(series), LABELS, series, tmp_path / "rt.dcm")
