"""Masks go out as DICOM SEG on the planes of their series and come back voxel for voxel."""

from __future__ import annotations

import subprocess
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest

from medseg.core.errors import CaseError, MedsegError
from medseg.imaging.dicom_ct import Subject, write_ct_series
from medseg.imaging.dicom_in import Series, find_dicom, find_series, series_of_files
from medseg.imaging.dicom_seg import read_seg, segment_names, write_seg
from medseg.imaging.dicom_stack import planes_of
from medseg.imaging.grid import Grid, ras_from_lps
from medseg.imaging.image import Image, canonical, canonical_grid, read_mask
from medseg.imaging.labels import Code, Label, checked, named_labels
from medseg.imaging.lattice import on_lattice
from tests.imaging.derived import SOURCES, changed, enhanced_mr, mask_on, source, tool, valid

LIVER = Code(value="10200004", meaning="Liver")
LABELS = checked(
    [
        Label(value=1, name="liver", type=LIVER, colour="#ff0000"),
        Label(value=7, name="left kidney"),
        Label(value=9, name="nothing of it"),
    ]
)


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("MEDSEG_KEY", "for tests")


def oblique_series(folder: Path) -> list[Path]:
    a, b = np.radians(20), np.radians(10)
    turn = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]]) @ np.array(
        [[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]]
    )
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([-1.2, -1.7, 4.0])
    affine[:3, 3] = (11, -7, 5)
    image = Image(np.zeros((1, 12, 10, 8), np.float32), Grid((12, 10, 8), affine))
    return write_ct_series(image, Subject("P1", "Phantom^One", "F", 50, "seg test"), folder)


@pytest.fixture
def files(tmp_path) -> list[Path]:
    return oblique_series(tmp_path / "ct")


def some_mask(series: Series) -> Image:
    array = np.zeros((1, *series.grid.shape), np.uint8)
    array[0, 2:7, 3:6, 1:4] = 1
    array[0, 5:9, 5:9, 3:6] = 7
    return Image(array, series.grid)


def test_several_labels_come_back_voxel_for_voxel(files, tmp_path):
    mask = some_mask(series_of_files(files))
    write_seg(mask, LABELS, files, tmp_path / "out.seg.dcm")
    back = read_seg(tmp_path / "out.seg.dcm", mask.grid, labels=LABELS)
    assert np.array_equal(back.array, mask.array)
    assert back.array.dtype == np.uint8
    assert segment_names(tmp_path / "out.seg.dcm") == {1: "liver", 2: "left kidney", 3: "nothing of it"}
    by_number = read_seg(tmp_path / "out.seg.dcm", mask.grid)
    assert np.array_equal(by_number.array, np.select([mask.array == 1, mask.array == 7], [1, 2]))


def test_a_mask_in_any_order_of_axes_lands_on_the_source_planes(files, tmp_path):
    mask = canonical(some_mask(series_of_files(files)))
    write_seg(mask, LABELS, files, tmp_path / "out.seg.dcm")
    dataset = pydicom.dcmread(tmp_path / "out.seg.dcm")
    assert (dataset.Rows, dataset.Columns) == (10, 12)
    assert dataset.NumberOfFrames == 3 + 3
    back = read_seg(tmp_path / "out.seg.dcm", mask.grid, labels=LABELS)
    assert np.array_equal(back.array, mask.array)


def test_highdicom_sees_the_same_volume_on_the_grid_of_the_source(files, tmp_path):
    series = series_of_files(files)
    mask = some_mask(series)
    write_seg(mask, LABELS, files, tmp_path / "out.seg.dcm")
    seg = highdicom.seg.segread(tmp_path / "out.seg.dcm")
    source = highdicom.get_volume_from_series([pydicom.dcmread(f) for f in files])
    volume = seg.get_volume(combine_segments=True).match_geometry(source)
    theirs = Image(volume.array[None], Grid(volume.array.shape, ras_from_lps(volume.affine)))
    assert np.array_equal(on_lattice(theirs, series.grid).array > 0, mask.array > 0)


def test_each_frame_refers_to_its_own_source_slice(files, tmp_path):
    mask = some_mask(series_of_files(files))
    write_seg(mask, LABELS, files, tmp_path / "out.seg.dcm")
    places = {pydicom.dcmread(f).SOPInstanceUID: pydicom.dcmread(f).ImagePositionPatient for f in files}
    for group in pydicom.dcmread(tmp_path / "out.seg.dcm").PerFrameFunctionalGroupsSequence:
        uid = group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        assert np.allclose(group.PlanePositionSequence[0].ImagePositionPatient, places[uid])


def test_patient_study_codes_and_provenance_are_written(files, tmp_path):
    write_seg(some_mask(series_of_files(files)), LABELS, files, tmp_path / "out.seg.dcm")
    seg, source = pydicom.dcmread(tmp_path / "out.seg.dcm"), pydicom.dcmread(files[0])
    for keyword in ("PatientID", "PatientName", "StudyInstanceUID", "FrameOfReferenceUID"):
        assert seg[keyword].value == source[keyword].value
    assert seg.SeriesInstanceUID != source.SeriesInstanceUID
    assert seg.SegmentationType == "BINARY"
    assert "AI" in seg.SeriesDescription
    first = seg.SegmentSequence[0]
    assert first.SegmentedPropertyTypeCodeSequence[0].CodeValue == LIVER.value
    assert first.SegmentAlgorithmType == "AUTOMATIC"
    assert first.SegmentationAlgorithmIdentificationSequence[0].AlgorithmName == "medseg"
    shown = highdicom.color.CIELabColor.from_dicom_value(first.RecommendedDisplayCIELabValue).to_rgb()
    assert np.allclose(shown, (255, 0, 0), atol=3)
    assert (tmp_path / "out.seg.dcm").read_bytes()[:128] == bytes(128)


def test_new_uids_each_time_but_the_same_bytes_from_a_seed(files, tmp_path):
    mask = some_mask(series_of_files(files))
    for name in ("a", "b"):
        write_seg(mask, LABELS, files, tmp_path / name)
        write_seg(mask, LABELS, files, tmp_path / f"seeded {name}", seed="x")
    assert pydicom.dcmread(tmp_path / "a").SOPInstanceUID != pydicom.dcmread(tmp_path / "b").SOPInstanceUID
    assert (tmp_path / "seeded a").read_bytes() == (tmp_path / "seeded b").read_bytes()


def test_an_empty_mask_is_written_and_comes_back_empty(files, tmp_path):
    series = series_of_files(files)
    empty = Image(np.zeros((1, *series.grid.shape), np.uint8), series.grid)
    write_seg(empty, LABELS, files, tmp_path / "out.seg.dcm")
    assert not read_seg(tmp_path / "out.seg.dcm", series.grid, labels=LABELS).array.any()


def test_empty_attributes_of_the_source_do_not_stop_it(files, tmp_path):
    for file in files:
        dataset = pydicom.dcmread(file)
        dataset.SpecificCharacterSet = ""
        for keyword in ("AccessionNumber", "StudyID", "ReferringPhysicianName", "StudyTime", "PatientSex"):
            del dataset[keyword]
        dataset.save_as(file)
    mask = some_mask(series_of_files(files))
    write_seg(mask, LABELS, files, tmp_path / "out.seg.dcm")
    assert np.array_equal(read_seg(tmp_path / "out.seg.dcm", mask.grid, labels=LABELS).array, mask.array)


@pytest.mark.parametrize("keyword", ["FrameOfReferenceUID", "SOPInstanceUID", "SeriesInstanceUID"])
def test_a_source_without_the_uids_to_refer_to_is_refused(files, tmp_path, keyword):
    for file in files:
        dataset = pydicom.dcmread(file)
        setattr(dataset, keyword, "")
        dataset.save_as(file, enforce_file_format=False)
    mask = some_mask(series_of_files(files))
    with pytest.raises(CaseError, match=r"lacks \w+ ?\w* ?\w* ?\w* UID"):
        write_seg(mask, LABELS, files, tmp_path / "out.seg.dcm")
    assert not (tmp_path / "out.seg.dcm").exists()


def test_a_mask_of_another_place_or_with_unknown_values_is_refused(files, tmp_path):
    mask = some_mask(series_of_files(files))
    elsewhere = mask.grid.affine.copy()
    elsewhere[:3, 3] += 0.6
    with pytest.raises(CaseError, match="does not lie on the voxels"):
        write_seg(Image(mask.array, Grid(mask.grid.shape, elsewhere)), LABELS, files, tmp_path / "x")
    mask.array[0, 0, 0, 0] = 5
    with pytest.raises(CaseError, match="5: 1 voxels"):
        write_seg(mask, LABELS, files, tmp_path / "x")


def test_a_seg_read_onto_another_place_is_refused(files, tmp_path):
    mask = some_mask(series_of_files(files))
    write_seg(mask, LABELS, files, tmp_path / "out.seg.dcm")
    moved = mask.grid.affine.copy()
    moved[:3, 3] += 1
    with pytest.raises(CaseError, match="does not lie on the voxels"):
        read_seg(tmp_path / "out.seg.dcm", Grid(mask.grid.shape, moved))
    with pytest.raises(CaseError, match="outside the image"):
        read_seg(tmp_path / "out.seg.dcm", mask.grid.cropped((0, 0, 0), (12, 10, 4)))
    with pytest.raises(CaseError, match="frame of reference"):
        read_seg(tmp_path / "out.seg.dcm", mask.grid, frame_of_reference="1.2.3")
    with pytest.raises(CaseError, match="names that no label has"):
        read_seg(tmp_path / "out.seg.dcm", mask.grid, labels=LABELS[:2])
    with pytest.raises(CaseError, match="not a DICOM Segmentation"):
        read_seg(files[0], mask.grid)


def test_overlapping_segments_are_refused(files, tmp_path):
    mask = some_mask(series_of_files(files))
    write_seg(mask, LABELS, files, tmp_path / "out.seg.dcm")
    dataset = pydicom.dcmread(tmp_path / "out.seg.dcm")
    dataset.PixelData = b"\xff" * len(dataset.PixelData)
    dataset.save_as(tmp_path / "out.seg.dcm")
    with pytest.raises(CaseError, match="overlap"):
        read_seg(tmp_path / "out.seg.dcm", mask.grid)


def test_a_truncated_seg_is_refused(files, tmp_path):
    mask = some_mask(series_of_files(files))
    write_seg(mask, LABELS, files, tmp_path / "out.seg.dcm")
    raw = (tmp_path / "out.seg.dcm").read_bytes()
    (tmp_path / "out.seg.dcm").write_bytes(raw[:-40])
    with pytest.raises(CaseError):
        read_seg(tmp_path / "out.seg.dcm", mask.grid)


@pytest.mark.parametrize("name", ["liver", "liver_expb", "liver_rle", "liver_deflate"])
def test_a_real_seg_is_read_in_four_encodings(shared_data, name):
    import SimpleITK as sitk  # noqa: N813

    folder = shared_data / "dicom" / "seg_liver_ct3"
    found = find_dicom(folder)
    assert all(seg.belongs_to(found.series[0]) for seg in found.segs)
    mask = read_seg(folder / "seg" / f"{name}.dcm", found.series[0].grid)
    reference = sitk.GetArrayFromImage(sitk.ReadImage(str(folder / "liver_seg.nrrd"))).transpose(2, 1, 0)
    assert np.array_equal(mask.array[0], reference)
    assert int(mask.array.sum()) == 107098


@pytest.mark.parametrize(
    "name", ["mr_study1_hippocrop", "mr_fragmented_jpeg_lossless", "seg_liver_ct3", "ct_enhanced_2frame"]
)
def test_real_series_round_trip(shared_data, tmp_path, name):
    series = find_series(shared_data / "dicom" / name)[0][0]
    grid = canonical_grid(series.grid)
    array = np.zeros((1, *grid.shape), np.uint8)
    array[0, 3:20, 5:25, :2] = 1
    array[0, 8:12, 2:8, 1:] = 7
    write_seg(Image(array, grid), LABELS, series.files, tmp_path / "out.seg.dcm")
    assert np.array_equal(read_seg(tmp_path / "out.seg.dcm", grid, labels=LABELS).array, array)


def test_a_label_map_is_written_compressed_and_comes_back(files, tmp_path):
    series = series_of_files(files)
    mask = some_mask(series)
    write_seg(mask, LABELS, series, tmp_path / "map.dcm", kind="labelmap")
    dataset = pydicom.dcmread(tmp_path / "map.dcm")
    assert dataset.SegmentationType == "LABELMAP"
    assert dataset.file_meta.TransferSyntaxUID == pydicom.uid.RLELossless
    back = read_seg(tmp_path / "map.dcm", series, labels=LABELS)
    assert np.array_equal(back.array, mask.array)
    theirs = highdicom.seg.segread(tmp_path / "map.dcm").get_volume(combine_segments=True)
    assert np.bincount(theirs.array.ravel())[1:].tolist() == [(mask.array == v).sum() for v in (1, 7)]


@pytest.mark.parametrize("kind", ["binary", "labelmap"])
@pytest.mark.parametrize("name", SOURCES)
def test_every_kind_of_source_gives_its_slices_back(shared_data, tmp_path, name, kind):
    series = source(name, tmp_path, shared_data)
    mask = mask_on(series)
    write_seg(mask, LABELS, series, tmp_path / "seg.dcm", kind=kind)
    assert kind == "labelmap" or valid(tmp_path / "seg.dcm") == []  # dciodvfy of Debian knows no label maps
    back = read_seg(tmp_path / "seg.dcm", series, labels=LABELS)
    assert np.array_equal(planes_of(back, series), planes_of(mask, series))
    if name not in ("tilted", "uneven"):
        assert np.array_equal(back.array, mask.array)
    for value in (1, 7):
        ours, theirs = mask.array == value, back.array == value
        assert 2 * (ours & theirs).sum() > 0.98 * (ours.sum() + theirs.sum())


@pytest.mark.parametrize("name", ["axial", "oblique", "decubitus", "enhanced"])
def test_dcmqi_sees_the_same_segments(shared_data, tmp_path, name):
    reader = tool("segimage2itkimage")
    series = source(name, tmp_path, shared_data)
    mask = mask_on(series)
    write_seg(mask, LABELS, series, tmp_path / "seg.dcm")
    call = [
        reader,
        "--inputDICOM",
        "seg.dcm",
        "--outputDirectory",
        ".",
        "--mergeSegments",
        "--outputType",
        "nii",
    ]
    subprocess.run(call, cwd=tmp_path, capture_output=True, check=True)
    (file,) = tmp_path.glob("*.nii.gz")
    theirs = on_lattice(read_mask(file), series.grid).array
    assert np.array_equal(theirs, np.select([mask.array == 1, mask.array == 7], [1, 2]))


def test_a_seg_of_a_mended_volume_says_so_and_keeps_each_slices_place(shared_data, tmp_path):
    series = source("tilted", tmp_path, shared_data)
    said = write_seg(mask_on(series), LABELS, series, tmp_path / "seg.dcm")
    seg = pydicom.dcmread(tmp_path / "seg.dcm")
    assert seg.ContentDescription == said != ""
    places = {plane.sop_uid: plane.position for plane in series.planes}
    for group in seg.PerFrameFunctionalGroupsSequence:
        of = group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        assert np.allclose(group.PlanePositionSequence[0].ImagePositionPatient, places[of])
    straight = series_of_files(oblique_series(tmp_path / "straight"))
    assert write_seg(some_mask(straight), LABELS, straight, tmp_path / "x.dcm") == ""
    assert not pydicom.dcmread(tmp_path / "x.dcm").get("ContentDescription")


@pytest.mark.parametrize(
    "files",
    [
        [[(2, 5.0), (0, 5.0), (1, 5.0), (3, 5.0)]],
        [[(at, echo) for at in range(4) for echo in (5.0, 10.0)]],
        [[(0, 5.0), (1, 5.0)], [(2, 5.0), (3, 5.0)]],
    ],
    ids=["frames out of order", "two volumes in one file", "one volume in two files"],
)
def test_frames_of_multi_frame_files_are_named_one_by_one(tmp_path, files):
    named = []
    for series in find_series(enhanced_mr(tmp_path / "mr", files))[0]:
        mask = mask_on(series)
        write_seg(mask, LABELS, series, tmp_path / "seg.dcm")
        assert np.array_equal(read_seg(tmp_path / "seg.dcm", series, labels=LABELS).array, mask.array)
        places = {(plane.sop_uid, plane.frame + 1): plane.position for plane in series.planes}
        seg = pydicom.dcmread(tmp_path / "seg.dcm")
        for group in seg.PerFrameFunctionalGroupsSequence:
            of = group.DerivationImageSequence[0].SourceImageSequence[0]
            who = (of.ReferencedSOPInstanceUID, of.ReferencedFrameNumber)
            assert np.allclose(group.PlanePositionSequence[0].ImagePositionPatient, places[who])
        named += places
        told = {
            i.ReferencedSOPInstanceUID for i in seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence
        }
        assert told == {uid for uid, _ in places}
    assert len(named) == len(set(named)) == sum(map(len, files))


def test_a_wrong_distance_of_slices_in_the_header_is_not_handed_on(files, tmp_path):
    wrong = changed(files, tmp_path / "wrong", SpacingBetweenSlices="9.5")
    write_seg(some_mask(series_of_files(wrong)), LABELS, wrong, tmp_path / "seg.dcm")
    measures = (
        pydicom.dcmread(tmp_path / "seg.dcm").SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    )
    assert measures.SpacingBetweenSlices == pytest.approx(4.0)


def test_what_a_source_leaves_empty_or_writes_wrongly_does_not_make_the_seg_invalid(files, tmp_path):
    sloppy = changed(
        files, tmp_path / "sloppy", PatientAge="0Y", ReferencedStudySequence=[], StudyDescription=""
    )
    raw = changed(sloppy, tmp_path / "raw", PatientIdentityRemoved="YES", DeidentificationMethod="")
    write_seg(some_mask(series_of_files(raw)), LABELS, raw, tmp_path / "seg.dcm")
    assert valid(tmp_path / "seg.dcm") == []


def test_regions_that_overlap_become_segments_that_overlap(files, tmp_path):
    mask, regions = some_mask(series_of_files(files)), named_labels({"organ": [1, 7], "lesion": [7]})
    write_seg(mask, regions, files, tmp_path / "out.seg.dcm")
    valid(tmp_path / "out.seg.dcm")
    plain = checked([Label(value=1, name="organ"), Label(value=7, name="lesion")])
    inner, outer = (
        read_seg(tmp_path / "out.seg.dcm", mask.grid, labels=plain, overlap=how).array
        for how in ("last", "first")
    )
    assert np.array_equal(inner, mask.array)  # where they overlap the greater value: the lesion
    assert np.array_equal(outer == 1, mask.array > 0)  # ... and the smaller: the whole organ
    with pytest.raises(MedsegError, match=r"output\.seg=binary"):
        write_seg(mask, regions, files, tmp_path / "map.seg.dcm", kind="labelmap")
