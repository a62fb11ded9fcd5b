"""DICOM SEG of every kind comes in as highdicom wrote it, on the planes it was drawn on, or is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
from pydicom.sr.codedict import codes

from medseg.core.errors import CaseError
from medseg.imaging.dicom_ct import Subject, write_ct_series
from medseg.imaging.dicom_header import read_header
from medseg.imaging.dicom_in import find_dicom, series_of_files
from medseg.imaging.dicom_laying import on_planes, window
from medseg.imaging.dicom_seg_frames import frames_of
from medseg.imaging.dicom_seg_in import read_seg, seg_with_notes, segment_labels
from medseg.imaging.dicom_series import Series
from medseg.imaging.grid import Grid, ras_from_lps
from medseg.imaging.image import Image
from medseg.imaging.labels import Label, checked, labels

SHAPE = (14, 12, 6)  # columns, rows, slices
LABELS = labels(organ=1, tumour=2)


def oblique() -> np.ndarray:
    a, b = np.radians(20), np.radians(10)
    turn = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]]) @ np.array(
        [[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]]
    )
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([-1.2, -1.7, 4.0])
    affine[:3, 3] = (11, -7, 5)
    return affine


def write_series(folder: Path, patient: str = "P1") -> list[Path]:
    image = Image(np.zeros((1, *SHAPE), np.float32), Grid(SHAPE, oblique()))
    return write_ct_series(image, Subject(patient, "Somebody^Else", "F", 50, f"seg {patient}"), folder)


@pytest.fixture
def files(tmp_path) -> list[Path]:
    return write_series(tmp_path / "ct")


@pytest.fixture
def series(files) -> Series:
    return series_of_files(files)


def describe(number: int, name: str) -> hd.seg.SegmentDescription:
    return hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=name,
        segmented_property_category=codes.SCT.Tissue,
        segmented_property_type=codes.SCT.Liver,
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.MANUAL,
    )


def write(
    file: Path, series: Series, stack: np.ndarray, kind: str, names=("organ", "tumour"), **rest
) -> Path:
    """A SEG of ``[slice, row, column(, segment)]`` on the planes of a series, by highdicom alone."""
    seg = hd.seg.Segmentation(
        source_images=[pydicom.dcmread(p.file) for p in series.planes],
        pixel_array=stack,
        segmentation_type=kind,
        segment_descriptions=[describe(n, name) for n, name in enumerate(names, start=1)],
        series_instance_uid=hd.UID(),
        series_number=5,
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer="somebody",
        manufacturer_model_name="else",
        software_versions="1",
        device_serial_number="1",
        **rest,
    )
    seg.save_as(file)
    return file


def change(file: Path, **values) -> pydicom.Dataset:
    dataset = pydicom.dcmread(file)
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    dataset.save_as(file)
    return dataset


def stack(*boxes: tuple[int, slice, slice, slice]) -> np.ndarray:
    array = np.zeros((6, 12, 14, 2), np.uint8)
    for segment, *box in boxes:
        array[(*box, segment)] = 1
    return array


APART = stack((0, slice(1, 4), slice(2, 7), slice(1, 6)), (1, slice(3, 5), slice(5, 9), slice(8, 12)))
OVER = stack((0, slice(1, 4), slice(2, 9), slice(1, 9)), (1, slice(2, 4), slice(4, 7), slice(3, 6)))


def expected(array: np.ndarray, last: bool = True) -> np.ndarray:
    """``[1, column, row, slice]`` with the values 1 and 2."""
    one, two = array[..., 0] > 0, array[..., 1] > 0
    values = np.where(two, 2, one) if last else np.where(one, 1, 2 * two)
    return values.transpose(2, 1, 0)[None]


def theirs(file: Path, series: Series, segment: int) -> np.ndarray:
    """What highdicom itself reads of one segment, ``[column, row, slice]`` of the series."""
    volume = hd.seg.segread(file).get_volume(segment_numbers=[segment]).squeeze_channel()
    image = hd.get_volume_from_series([pydicom.dcmread(f) for f in series.files])
    array = volume.match_geometry(image).array
    grid = Grid(array.shape, ras_from_lps(image.affine))
    step = np.rint(np.linalg.inv(series.grid.affine) @ grid.affine).astype(int)
    placed = np.zeros(SHAPE, array.dtype)
    index = np.argwhere(array) @ step[:3, :3].T + step[:3, 3]
    placed[tuple(index.T)] = array[array != 0]
    return placed


def test_a_binary_seg_on_the_series_is_that_on_its_grid(series, tmp_path):
    file = write(tmp_path / "s.dcm", series, APART, "BINARY")
    mask = read_seg(file, series, labels=LABELS)
    assert np.array_equal(mask.array, expected(APART))
    assert np.array_equal(read_seg(file, series.grid, labels=LABELS).array, mask.array)
    for value in (1, 2):
        assert np.array_equal(theirs(file, series, value) > 0, mask.array[0] == value)


def test_frames_in_any_order_and_empty_frames_left_out(series, tmp_path):
    file = write(tmp_path / "s.dcm", series, APART, "BINARY", omit_empty_frames=True)
    dataset = pydicom.dcmread(file)
    frames = dataset.pixel_array
    assert len(frames) == 5
    order = [3, 0, 4, 2, 1]
    groups = [dataset.PerFrameFunctionalGroupsSequence[n] for n in order]
    dataset.PerFrameFunctionalGroupsSequence = pydicom.Sequence(groups)
    dataset.PixelData = pydicom.pixels.pack_bits(frames[order])
    dataset.save_as(file)
    assert np.array_equal(read_seg(file, series, labels=LABELS).array, expected(APART))
    everything = write(tmp_path / "all.dcm", series, APART, "BINARY", omit_empty_frames=False)
    assert pydicom.dcmread(everything).NumberOfFrames == 12
    assert np.array_equal(read_seg(everything, series, labels=LABELS).array, expected(APART))


def test_geometry_may_stand_in_each_frame(series, tmp_path):
    file = write(tmp_path / "s.dcm", series, APART, "BINARY")
    dataset = pydicom.dcmread(file)
    shared = dataset.SharedFunctionalGroupsSequence[0]
    for group in dataset.PerFrameFunctionalGroupsSequence:
        group.PixelMeasuresSequence = shared.PixelMeasuresSequence
        group.PlaneOrientationSequence = shared.PlaneOrientationSequence
    del shared.PixelMeasuresSequence, shared.PlaneOrientationSequence
    dataset.save_as(file)
    assert np.array_equal(read_seg(file, series, labels=LABELS).array, expected(APART))


def test_frames_across_the_slices_of_the_image_are_laid_voxel_for_voxel(series, tmp_path):
    values = np.zeros((*SHAPE,), np.uint8)
    values[3:8, 2:9, 1:4] = 1
    upright = values.transpose(0, 2, 1)[::-1]  # planes along the columns of the image, the last first
    affine = ras_from_lps(series.grid.affine) @ np.array(
        [[-1, 0, 0, SHAPE[0] - 1], [0, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 1]], float
    )
    volume = hd.Volume(upright, affine, "PATIENT", series.frame_of_reference)
    file = write(tmp_path / "s.dcm", series, volume, "BINARY", names=("organ",))
    assert pydicom.dcmread(file).Rows != SHAPE[1]
    assert np.array_equal(read_seg(file, series, labels=LABELS).array[0], values)


@pytest.mark.parametrize("flips", [(1,), (2,), (1, 2)])
def test_frames_that_run_the_other_way_are_turned(series, tmp_path, flips):
    values = expected(APART)[0].transpose(2, 1, 0).astype(np.uint8)
    turn = np.zeros((4, 4))
    turn[2, 0] = turn[1, 1] = turn[0, 2] = turn[3, 3] = 1  # slice, row, column -> column, row, slice
    for axis in flips:
        turn[2 - axis] = -turn[2 - axis]
        turn[2 - axis, 3] = values.shape[axis] - 1
    affine = ras_from_lps(series.grid.affine) @ turn
    volume = hd.Volume(np.flip(values, flips), affine, "PATIENT", series.frame_of_reference)
    file = write(tmp_path / "s.dcm", series, volume, "LABELMAP")
    assert np.array_equal(read_seg(file, series, labels=LABELS).array, expected(APART))


def test_a_small_frame_lies_where_its_position_says(series, tmp_path):
    file = write(tmp_path / "s.dcm", series, APART, "BINARY")
    dataset = pydicom.dcmread(file)
    frames = dataset.pixel_array[:, 2:10, 1:13]
    dataset.Rows, dataset.Columns = frames.shape[1:]
    measures = dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    turned = np.array(dataset.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0][0x200037].value)
    step = 1 * measures.PixelSpacing[1] * turned[:3] + 2 * measures.PixelSpacing[0] * turned[3:]
    for group in dataset.PerFrameFunctionalGroupsSequence:
        place = group.PlanePositionSequence[0]
        moved = np.array(place.ImagePositionPatient, float) + step
        place.ImagePositionPatient = [f"{v:.9f}"[:16] for v in moved]
    dataset.PixelData = pydicom.pixels.pack_bits(frames)
    dataset.save_as(file)
    assert np.array_equal(read_seg(file, series, labels=LABELS).array, expected(APART))


@pytest.mark.parametrize("meaning", ["PROBABILITY", "OCCUPANCY"])
@pytest.mark.parametrize("most", [255, 100])
def test_a_fractional_seg_is_cut_at_one_half_or_where_it_is_told(series, tmp_path, meaning, most):
    fractions = np.random.default_rng(3).uniform(0, 0.7, (6, 12, 14, 2))
    fractions[..., 1] = np.clip(0.8 - fractions[..., 0], 0, 1) * (fractions[..., 0] < 0.45)
    file = write(
        tmp_path / "s.dcm", series, fractions, "FRACTIONAL",
        fractional_type=meaning, max_fractional_value=most,
    )  # fmt: skip
    stored = np.stack([theirs(file, series, n) for n in (1, 2)], -1).transpose(2, 1, 0, 3)
    for cut in (0.5, 0.46):
        wanted = stored >= cut
        assert not (wanted.all(axis=-1)).any()
        image, notes = seg_with_notes(file, series, labels=LABELS, threshold=cut)
        assert np.array_equal(image.array, expected(wanted))
        assert notes == (f"a fractional segmentation: pixels belong to a segment from {cut:g} on",)
    assert 50 < int((image.array == 1).sum()) < 900


def test_one_half_itself_belongs_to_the_segment(series, tmp_path):
    fractions = np.zeros((6, 12, 14, 2))
    fractions[2, 3, 4, 0], fractions[2, 3, 5, 0] = 0.5, 0.49
    file = write(
        tmp_path / "s.dcm", series, fractions, "FRACTIONAL",
        fractional_type="PROBABILITY", max_fractional_value=100,
    )  # fmt: skip
    mask = read_seg(file, series, labels=LABELS).array[0]
    assert mask[4, 3, 2] == 1
    assert mask.sum() == 1


@pytest.mark.parametrize("omit", [True, False])
@pytest.mark.parametrize(("kind", "shift"), [(np.uint8, 0), (np.uint16, 300)])
def test_a_label_map(series, tmp_path, omit, kind, shift):
    values = expected(APART)[0].transpose(2, 1, 0).astype(kind)
    file = write(
        tmp_path / "s.dcm", series, values, "LABELMAP", omit_empty_frames=omit,
        transfer_syntax_uid=pydicom.uid.RLELossless if omit else pydicom.uid.ExplicitVRLittleEndian,
    )  # fmt: skip
    assert pydicom.dcmread(file).SOPClassUID == "1.2.840.10008.5.1.4.1.1.66.7"
    known = checked([Label(value=1 + shift, name="Organ"), Label(value=2 + shift, name="TUMOUR")])
    mask = read_seg(file, series, labels=known)
    wanted = expected(APART)
    assert np.array_equal(mask.array, np.where(wanted > 0, wanted + shift, 0))
    assert mask.array.dtype == kind
    assert [x.name for x in segment_labels(file)] == ["organ", "tumour"]


def test_a_label_map_with_a_number_that_no_segment_has_is_refused(series, tmp_path):
    values = expected(APART)[0].transpose(2, 1, 0).astype(np.uint8)
    file = write(tmp_path / "s.dcm", series, values, "LABELMAP")
    dataset = pydicom.dcmread(file)
    pixels = np.frombuffer(dataset.PixelData, np.uint8).copy()
    pixels[pixels == 2] = 7
    dataset.PixelData = pixels.tobytes()
    dataset.save_as(file)
    with pytest.raises(CaseError, match="no segment has") as caught:
        read_seg(file, series, labels=LABELS)
    assert "7: 16 pixels" in caught.value.evidence


@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL"])
def test_overlapping_segments_are_refused_with_numbers_or_given_to_the_label_told(series, tmp_path, kind):
    more = {"fractional_type": "OCCUPANCY"} if kind == "FRACTIONAL" else {}
    array = OVER.astype(float) if kind == "FRACTIONAL" else OVER
    file = write(tmp_path / "s.dcm", series, array, kind, **more)
    shared = int((OVER.sum(axis=-1) == 2).sum())
    with pytest.raises(CaseError, match="overlap") as caught:
        read_seg(file, series, labels=LABELS)
    assert f"segment 1 and segment 2: {shared} voxels" in caught.value.evidence
    assert "ingest.overlap=last" in caught.value.mend
    assert np.array_equal(read_seg(file, series, labels=LABELS, overlap="last").array, expected(OVER))
    first, notes = seg_with_notes(file, series, labels=LABELS, overlap="first")
    assert np.array_equal(first.array, expected(OVER, last=False))
    assert any(f"{shared} voxels" in note for note in notes)
    turned = checked([LABELS[0].but(value=9), LABELS[1]])  # the order of the labels counts, not of the file
    lesser = read_seg(file, series, labels=turned, overlap="last").array
    assert np.array_equal(lesser, np.where(expected(OVER, last=False) == 1, 9, 2 * (expected(OVER) == 2)))


def test_segments_of_one_name_are_one_label(series, tmp_path):
    file = write(tmp_path / "s.dcm", series, OVER, "BINARY", names=("lesion", "Lesion "))
    mask = read_seg(file, series, labels=labels(lesion=4))
    assert np.array_equal(mask.array[0] == 4, (OVER.sum(axis=-1) > 0).transpose(2, 1, 0))


def test_objects_of_one_series_are_merged_unless_they_hold_the_same_label(series, tmp_path):
    one = write(tmp_path / "1.dcm", series, APART[..., :1], "BINARY", names=("organ",))
    two = write(tmp_path / "2.dcm", series, APART[..., 1:], "BINARY", names=("tumour",))
    over = write(tmp_path / "3.dcm", series, OVER[..., 1:], "BINARY", names=("tumour",))
    assert np.array_equal(read_seg([one, two], series, labels=LABELS).array, expected(APART))
    with pytest.raises(CaseError, match="overlap") as caught:
        read_seg([one, over], series, labels=LABELS)
    assert "segment 1 of object 1 and segment 1 of object 2" in caught.value.evidence
    with pytest.raises(CaseError, match="same label"):
        read_seg([two, over], series, labels=LABELS)


def test_names_in_the_file_stay_out_of_what_may_be_stored(series, tmp_path, monkeypatch):
    monkeypatch.setenv("MEDSEG_SHOW_PATHS", "1")
    file = write(tmp_path / "s.dcm", series, APART, "BINARY", names=("organ", "of SOMEBODY"))
    with pytest.raises(CaseError, match="names that no label has") as caught:
        read_seg(file, series, labels=LABELS)
    assert "SOMEBODY" not in caught.value.public()
    assert "of SOMEBODY" in str(caught.value)
    assert [x.name for x in segment_labels(file)] == ["organ", "segment 2"]
    mask = read_seg(file, series, labels=labels(organ=1, segment_2=2))
    assert np.array_equal(mask.array, expected(APART))


@pytest.mark.parametrize(
    ("own", "image", "said"),
    [("1.2.3", None, "they differ"), ("", None, "SEG names none"), (None, "", "image names none")],
)
def test_another_frame_of_reference_is_refused_and_so_is_one_named_by_one_alone(
    series, tmp_path, own, image, said
):
    file = write(tmp_path / "s.dcm", series, APART, "BINARY")
    if own is not None:
        change(file, FrameOfReferenceUID=own)
    if image is not None:
        series = replace(series, frame_of_reference=image)
    with pytest.raises(CaseError, match="another frame of reference") as caught:
        read_seg(file, series, labels=LABELS)
    assert said in caught.value.evidence


def test_what_lies_beside_between_or_beyond_the_slices_is_refused(series, tmp_path):
    file = write(tmp_path / "s.dcm", series, APART, "BINARY")
    short = replace(series, planes=series.planes[:3], grid=series.grid.cropped((0, 0, 0), (14, 12, 3)))
    with pytest.raises(CaseError, match="outside the image"):
        read_seg(file, short, labels=LABELS)
    empty = write(tmp_path / "e.dcm", series, APART * (np.arange(6) < 3)[:, None, None, None], "BINARY",
                  omit_empty_frames=False)  # fmt: skip
    assert read_seg(empty, short, labels=LABELS).array.sum() == expected(APART)[..., :3].sum()
    for shift in ((0.5, 0, 0), (0, 0, 0.3)):
        dataset = pydicom.dcmread(file)
        for group in dataset.PerFrameFunctionalGroupsSequence:
            place = group.PlanePositionSequence[0]
            moved = np.array(place.ImagePositionPatient, float) + np.linalg.norm(shift) * (
                np.array([1.0, 0, 0]) if shift[0] else np.array([0, 0, 4.0])
            )
            place.ImagePositionPatient = [f"{v:.8f}"[:16] for v in moved]
        dataset.save_as(tmp_path / "moved.dcm")
        with pytest.raises(CaseError, match="does not lie on the voxels"):
            read_seg(tmp_path / "moved.dcm", series, labels=LABELS)


def test_tilted_and_uneven_planes_are_drawn_on_one_by_one(series, tmp_path):
    """A SEG on slices sheared and unevenly spaced: each frame goes to the plane at its position."""
    file = write(tmp_path / "s.dcm", series, APART, "BINARY")
    row = np.array(series.planes[0].orientation[3:])
    normal = np.cross(series.planes[0].orientation[:3], row)
    shifts = [1.3 * k * row + (0.4 * k * k) * normal for k in range(6)]
    moved = {p.position: np.array(p.position) + s for p, s in zip(series.planes, shifts, strict=True)}
    dataset = pydicom.dcmread(file)
    for group in dataset.PerFrameFunctionalGroupsSequence:
        place = group.PlanePositionSequence[0]
        at = np.array(place.ImagePositionPatient, float)
        near = min(moved, key=lambda position: np.abs(np.array(position) - at).max())
        place.ImagePositionPatient = [f"{v:.9f}"[:16] for v in moved[near]]
    dataset.save_as(file)
    planes = tuple(replace(p, position=tuple(moved[p.position])) for p in series.planes)

    drawn = np.zeros((6, 12, 14), np.uint8)
    find = on_planes(replace(series, planes=planes), drawn)
    for number, affine, picture in frames_of(read_header(file), pydicom.dcmread(file)):
        view, part = window(*find(affine), picture)
        view[part > 0] = number
    assert np.array_equal(drawn.transpose(2, 1, 0)[None], expected(APART))


def test_damaged_objects_are_refused(series, tmp_path, files):
    file = write(tmp_path / "s.dcm", series, APART, "BINARY")
    for size in (-3, -40, -200):
        (tmp_path / "cut.dcm").write_bytes(file.read_bytes()[:size])
        with pytest.raises(CaseError):
            read_seg(tmp_path / "cut.dcm", series, labels=LABELS)
    with pytest.raises(CaseError, match="not a DICOM Segmentation"):
        read_seg(files[0], series)
    change(file, SegmentationType="NONSENSE")
    with pytest.raises(CaseError, match="of a kind that is not known"):
        read_seg(file, series, labels=LABELS)


@pytest.mark.parametrize("name", ["liver", "liver_expb", "liver_rle", "liver_deflate"])
def test_real_segs_are_read_onto_their_series(shared_data, name):
    import SimpleITK as sitk  # noqa: N813

    folder = shared_data / "dicom" / "seg_liver_ct3"
    series = find_dicom(folder / "ct").series[0]
    mask = read_seg(folder / "seg" / f"{name}.dcm", series)
    reference = sitk.GetArrayFromImage(sitk.ReadImage(str(folder / "liver_seg.nrrd"))).transpose(2, 1, 0)
    assert np.array_equal(mask.array[0], reference)
    assert mask.grid.matches(series.grid)
