"""Real series come out as an independent reader gives them; broken ones are refused with the reason."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest

from medseg.core.errors import CaseError, MedsegError
from medseg.imaging.dicom_ct import Subject, write_ct_series
from medseg.imaging.dicom_in import find_dicom, find_series, read_series, series_of_files
from medseg.imaging.grid import Grid
from medseg.imaging.image import Image, canonical, read_image

NAME, NUMBER = "Quillfeather^Ada", "CNRY-4471-XQ"


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("MEDSEG_KEY", "for tests")


def drawn(slices: int = 5) -> Image:
    rng = np.random.default_rng(0)
    affine = np.array([[-2, 0, 0, 10], [0, -3, 0, 20], [0, 0, 4, -30], [0, 0, 0, 1.0]])
    array = np.round(rng.uniform(-1000, 1000, (1, 7, 6, slices))).astype(np.float32)
    return Image(array, Grid((7, 6, slices), affine))


@pytest.fixture
def series_folder(tmp_path) -> Path:
    write_ct_series(drawn(), Subject(NUMBER, NAME, "F", 40, "seed"), tmp_path / "ct")
    return tmp_path / "ct"


def altered(file: Path, **changes) -> None:
    """Write `file` again with other elements; None deletes one."""
    dataset = pydicom.dcmread(file)
    for keyword, value in changes.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    dataset.save_as(file)


def refusal(folder: Path) -> str:
    series, left_out = find_series(folder)
    assert series == []
    refused = [thing for thing in left_out if thing.status == "refused"]
    assert len(refused) == 1
    return refused[0].reason


# real series ---------------------------------------------------------------------------------------------

GRID_CASES = (
    "folder_with_junk",
    "mr_decubitus_left",
    "mr_enhanced",
    "mr_jpeg_lossless",
    "mr_sagittal_oblique",
)


@pytest.mark.parametrize("case", GRID_CASES)
def test_a_real_series_is_the_reference_volume(shared_data, case):
    folder = shared_data / "dicom_cases" / case
    series, _ = find_series(folder / "dicom")
    assert len(series) == 1
    same_volume(read_series(series[0]), folder / "reference.nii.gz")


def test_two_echoes_of_one_series_are_two_volumes(shared_data):
    folder = shared_data / "dicom_cases" / "mr_two_echoes"
    series, left_out = find_series(folder / "dicom")
    assert left_out == []
    assert len({s.uid_hash for s in series}) == 2
    by_echo = sorted(series, key=lambda s: s.planes[0].echo[0] or 0)
    for number, one in enumerate(by_echo):
        same_volume(read_series(one), folder / f"reference_{number:03d}.nii.gz")


@pytest.mark.parametrize(
    ("case", "reference"),
    [
        ("mr_study1_hippocrop", "ref/2913632465_HippoCrop.nii.gz"),
        ("ct_philips_mixed_study", "ref/201_STD_BRAIN_5MM.nii.gz"),
        ("mr_fragmented_jpeg_lossless", "ref/5001_anat-T1w_acq-tfl.nii.gz"),
        ("seg_liver_ct3", "ref/2_.nii.gz"),
        ("headers_real_pixels_noise/generic_anatomical_002_non_isotropic", "ground_truth.nii.gz"),
        ("headers_real_pixels_noise/hitachi_anatomical_001", "ground_truth.nii.gz"),
    ],
)
def test_a_real_series_agrees_with_dcm2niix(shared_data, case, reference):
    folder = shared_data / "dicom" / case
    series, _ = find_series(folder)
    assert len(series) == 1
    same_volume(read_series(series[0]), folder / reference)


def test_a_study_with_empty_uids_is_read_by_geometry(shared_data):
    folder = shared_data / "dicom" / "ct_siemens_j2k_with_seg"
    series, _ = find_series(folder)
    image = read_series(series[0])
    assert image.array.shape == (1, 512, 512, 20)
    assert series[0].spacing_mm == pytest.approx((0.9765625, 0.9765625, 2.0))
    assert (image.array.min(), image.array.max()) == (-1024, 1839)
    body = read_image(folder / "segmentation.nii.gz")
    assert canonical(image).grid.matches(canonical(body).grid, tol_mm=1e-2)
    assert "no Series Instance UID" in " ".join(series[0].notes)


def test_what_is_no_volume_is_skipped_with_its_kind(shared_data):
    found = find_dicom(shared_data / "dicom" / "ct_philips_mixed_study")
    reasons = {thing.reason: thing.count for thing in found.left_out}
    assert reasons["a localizer"] == 1
    captures = next(count for reason, count in reasons.items() if "a secondary capture" in reason)
    assert captures == 2
    assert len(found.series) == 1


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("dicom_cases/mr_missing_slice/dicom", "1 slice(s) missing"),
        ("dicom_cases/err_no_pixel_spacing/dicom", "spacing of the pixels) is absent"),
        ("dicom_cases/ct_tilt_missing_slice/dicom", "missing"),
        ("dicom/ct_ge_tilt_variable_spacing", "unevenly spaced"),
        ("dicom/headers_real_pixels_noise/failing_sliceincrement_001", "10.000 mm between positions"),
    ],
)
def test_what_would_be_silently_wrong_is_refused(shared_data, case, words):
    assert words in refusal(shared_data / case)


def test_a_refusal_names_file_and_series_on_the_console_but_not_in_public(shared_data, monkeypatch):
    monkeypatch.setenv("MEDSEG_SHOW_PATHS", "1")
    folder = shared_data / "dicom_cases" / "err_no_pixel_spacing"
    uid = (folder / "expect_error.txt").read_text().split()[1]
    _, left_out = find_series(folder / "dicom")
    error = left_out[0].error()
    assert uid in str(error)
    assert str(folder) in str(error)
    for secret in (uid, str(folder), "Quillfeather", "CNRY", "1923"):
        assert secret not in error.public()
        assert secret not in repr(left_out)


# written series, then broken -----------------------------------------------------------------------------


def test_a_written_series_comes_back_voxel_for_voxel(series_folder):
    series, left_out = find_series(series_folder)
    image = read_series(series[0])
    assert left_out == []
    assert image.grid.matches(drawn().grid)
    assert np.array_equal(image.array, drawn().array)
    assert image.array.dtype == np.float32
    assert (series[0].modality, series[0].derived, series[0].notes) == ("CT", False, ())


def test_nothing_that_identifies_shows_in_the_representation(series_folder):
    series, _ = find_series(series_folder)
    shown = repr(series) + repr(series[0].planes)
    assert series[0].patient_key == f"{NUMBER}|"
    for secret in (NAME, NUMBER, "2.25.", str(series_folder)):
        assert secret not in shown


def test_names_extensions_and_order_of_files_do_not_matter(series_folder, tmp_path):
    first = find_series(series_folder)[0][0]
    mixed = tmp_path / "mixed"
    for number, file in enumerate(sorted(series_folder.iterdir(), reverse=True)):
        target = mixed / f"sub{number % 2}" / f"IM{number}"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)
        altered(target, InstanceNumber=7)
    (mixed / "notes.txt").write_text("a text")
    (mixed / "empty.dcm").touch()
    series, left_out = find_series(mixed)
    assert series[0].uid_hash == first.uid_hash
    assert np.array_equal(read_series(series[0]).array, drawn().array)
    assert [(thing.status, thing.count) for thing in left_out] == [("skipped", 2)]


def test_files_without_preamble_are_read(series_folder):
    for file in series_folder.iterdir():
        dataset = pydicom.dcmread(file)
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
        dataset.save_as(file)
        raw = file.read_bytes()
        file.write_bytes(raw[raw.find(b"\x08\x00\x05\x00") :])
    assert np.array_equal(read_series(find_series(series_folder)[0][0]).array, drawn().array)


def test_slope_and_intercept_are_applied_slice_by_slice(series_folder):
    files = sorted(series_folder.iterdir())
    altered(files[2], RescaleSlope="0.25", RescaleIntercept="-3.5")
    image = read_series(find_series(series_folder)[0][0])
    expected = drawn().array.copy()
    expected[..., 2] = (expected[..., 2] + 1024) * 0.25 - 3.5
    assert np.array_equal(image.array, expected)


def test_an_exact_copy_counts_once_and_is_noted(series_folder):
    shutil.copy(series_folder / "0002.dcm", series_folder / "copy.dcm")
    shutil.copy(series_folder / "0003.dcm", series_folder / "twin.dcm")
    altered(series_folder / "twin.dcm", SOPInstanceUID="2.25.99")
    series, _ = find_series(series_folder)
    assert series[0].shape == (7, 6, 5)
    assert series[0].notes == ("2 exact copies of images left out",)
    assert np.array_equal(read_series(series[0]).array, drawn().array)


@pytest.mark.parametrize("uid", ["2.25.99", None])
def test_two_pictures_at_one_position_are_refused(series_folder, uid):
    shutil.copy(series_folder / "0002.dcm", series_folder / "other.dcm")
    dataset = pydicom.dcmread(series_folder / "0002.dcm")
    changes = {"SOPInstanceUID": uid} if uid else {}
    altered(series_folder / "other.dcm", PixelData=bytes(len(dataset.PixelData)), **changes)
    assert ("one position" if uid else "same instance UID") in refusal(series_folder)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"PixelSpacing": None}, "PixelSpacing"),
        ({"PixelSpacing": [0, 0]}, "not positive"),
        ({"ImagePositionPatient": None}, "ImagePositionPatient is absent"),
        ({"ImageOrientationPatient": [1, 0, 0, 0.2, 0.98, 0]}, "orthogonal"),
        ({"PixelSpacing": [3, 2.5]}, "changes within the stack"),
        ({"ImageOrientationPatient": [1, 0, 0, 0, 0.9962, 0.0872]}, "changes within the stack"),
        ({"RescaleSlope": "0"}, "cannot be used"),
        ({"Rows": 4000, "Columns": 4000}, "cannot be used"),
        ({"PatientID": "somebody else"}, "2 patients"),
        ({"FrameOfReferenceUID": "1.2.3"}, "2 frames of reference"),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, "cannot be used"),
    ],
)
def test_one_bad_slice_refuses_the_series(series_folder, changes, words):
    altered(series_folder / "0005.dcm", **changes)
    series, left_out = find_series(series_folder)
    assert series == []
    assert any(words in thing.reason for thing in left_out if thing.status == "refused")


def test_a_decimal_comma_is_not_read_as_another_number(series_folder):
    for file in series_folder.iterdir():
        raw = file.read_bytes()
        at = raw.find(b"\x28\x00\x30\x00DS")
        length = int.from_bytes(raw[at + 6 : at + 8], "little")
        text = b"3,75\\3,75".ljust(length)
        file.write_bytes(raw[: at + 8] + text + raw[at + 8 + length :])
    assert "readable numbers" in refusal(series_folder)


def test_a_truncated_file_is_refused_before_or_at_reading(series_folder):
    file = series_folder / "0003.dcm"
    raw = file.read_bytes()
    file.write_bytes(raw[:-10])
    series, _ = find_series(series_folder)
    with pytest.raises(CaseError, match="cannot be read") as caught:
        read_series(series[0])
    assert str(series_folder) not in caught.value.public()
    file.write_bytes(raw[: len(raw) // 10])
    assert find_series(series_folder)[0] == []


def test_a_header_that_claims_terabytes_is_refused_without_allocating(series_folder):
    for file in series_folder.iterdir():
        altered(file, NumberOfFrames=2000000, Rows=65535, Columns=65535)
    assert "frames in the file" in refusal(series_folder)


def test_high_bits_are_no_part_of_the_value_and_signs_are_extended(series_folder):
    for file in series_folder.iterdir():
        dataset = pydicom.dcmread(file)
        stored = np.frombuffer(dataset.PixelData, "<u2") | 0xF000
        altered(file, PixelData=stored.tobytes())
    assert np.array_equal(read_series(find_series(series_folder)[0][0]).array, drawn().array)
    for file in series_folder.iterdir():
        altered(file, PixelRepresentation=1)
    signed = drawn().array + 1024
    signed = np.where(signed > 2047, signed - 4096, signed) - 1024
    assert np.array_equal(read_series(find_series(series_folder)[0][0]).array, signed)


def test_a_localizer_inside_the_series_is_skipped(series_folder):
    shutil.copy(series_folder / "0001.dcm", series_folder / "scout.dcm")
    altered(
        series_folder / "scout.dcm", SOPInstanceUID="2.25.7", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"],
        ImageOrientationPatient=[0, 1, 0, 0, 0, -1],
    )  # fmt: skip
    series, left_out = find_series(series_folder)
    assert len(series) == 1
    assert left_out[0].reason == "a localizer"


@pytest.mark.parametrize("seed", range(25))
def test_altered_bytes_end_in_a_volume_or_a_refusal_never_in_a_crash(series_folder, seed):
    rng = np.random.default_rng(seed)
    victim = series_folder / "0003.dcm"
    raw = bytearray(victim.read_bytes())
    for at in rng.integers(0, len(raw) - 84, rng.integers(1, 30)):
        raw[at] = rng.integers(256)
    victim.write_bytes(raw)
    try:
        for series in find_series(series_folder)[0]:
            assert read_series(series).array.shape[1:] == series.shape
    except CaseError as refused:
        shown = refused.public()
        assert NUMBER not in shown


def test_an_unknown_object_class_is_named_without_its_text(series_folder):
    file = series_folder / "0001.dcm"
    file.write_bytes(
        file.read_bytes().replace(b"1.2.840.10008.5.1.4.1.1.2\0", b"Quillfeather^Ada^of^Nowhere"[:26])
    )
    _, left_out = find_series(series_folder)
    assert left_out[0].reason == "object of unknown kind: not an image of a kind that medseg takes"


def test_an_empty_or_absent_folder_is_a_usage_error(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing here")
    with pytest.raises(MedsegError, match="no DICOM"):
        find_series(tmp_path)
    with pytest.raises(MedsegError, match="no such folder"):
        find_series(tmp_path / "absent")


def test_files_of_two_series_make_no_single_volume(series_folder, tmp_path):
    other = write_ct_series(drawn(), Subject("1", "B", "M", 50, "other"), tmp_path / "other")
    with pytest.raises(CaseError, match="2 volumes"):
        series_of_files([*series_folder.iterdir(), *other])


# compressed frames ---------------------------------------------------------------------------------------


def test_a_damaged_codestream_is_refused_within_the_limits(shared_data, tmp_path):
    folder = tmp_path / "j2k"
    shutil.copytree(shared_data / "dicom" / "ct_siemens_j2k_with_seg" / "series", folder)
    victim = sorted(folder.iterdir())[3]
    raw = bytearray(victim.read_bytes())
    at = raw.find(b"\xff\x4f\xff\x51")
    raw[at + 8 : at + 16] = b"\x00\x01\x00\x00\x00\x01\x00\x00"  # the stream now says 65536 x 65536
    victim.write_bytes(raw)
    series, _ = find_series(folder)
    with pytest.raises(CaseError, match="cannot be decoded") as caught:
        read_series(series[0])
    assert "65536 x 65536" in (caught.value.evidence or "")
    assert caught.value.file == str(victim)


def test_a_decoder_that_crashes_takes_only_the_worker_with_it(series_folder):
    for file in series_folder.iterdir():
        dataset = pydicom.dcmread(file)
        dataset.PixelData = pydicom.encaps.encapsulate(
            [b"\xff\xd8\xff\xf7garbage that is no JPEG-LS at all\xff\xd9"]
        )
        dataset["PixelData"].VR = "OB"
        dataset["PixelData"].is_undefined_length = True
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.JPEGLSLossless
        dataset.save_as(file)
    series, _ = find_series(series_folder)
    with pytest.raises(CaseError, match="cannot be decoded"):
        read_series(series[0])


def same_volume(image: Image, reference: Path) -> None:
    ours, theirs = canonical(image), canonical(read_image(reference))
    assert ours.grid.shape == theirs.grid.shape
    assert np.abs(ours.grid.affine - theirs.grid.affine).max() < 1e-2
    assert np.abs(ours.array - theirs.array).max() < 1e-3
