"""Pictures in DICOM: values as shown, pixel sizes as far as they are known, axes where they are said."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset

from medseg.core.errors import CaseError, MedsegError
from medseg.imaging.dicom_in import find_series, read_series, series_of_files
from medseg.imaging.dicom_picture import read_picture
from medseg.imaging.dicom_policy import DicomPolicy
from medseg.imaging.dicom_seg import write_seg
from medseg.imaging.dicom_series import Series
from medseg.imaging.grid import PIXELS
from medseg.imaging.image import canonical, read_image, write_image
from medseg.imaging.labels import labels
from tests.pictures import NAME, NUMBER, ROWS, region, write_picture

ALL = DicomPolicy(burned_in="take", secondary="take")
COLOUR = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]], [[9, 9, 9], [0, 0, 0], [200, 100, 50]]], np.uint8)


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("MEDSEG_KEY", "for tests")


def series_from(tmp_path: Path, kind: str = "DX", pixels: np.ndarray = ROWS, **elements: Any) -> Series:
    file = write_picture(tmp_path / "one" / "x.dcm", kind, pixels, **elements)
    (series,), left_out = find_series(file, ALL)
    assert left_out == []
    return series


def shown(series: Series, colour: bool = False) -> np.ndarray:
    """The picture as ``[row, column]``, or ``[channel, row, column]``."""
    array = read_picture(series, colour)[0].array[..., 0].transpose(0, 2, 1)
    return array if colour else array[0]


def refusal(file: Path) -> str:
    series, left_out = find_series(file, ALL)
    assert series == []
    assert [thing.status for thing in left_out] == ["refused"]
    return left_out[0].reason


# values -----------------------------------------------------------------------------------------------------


def test_a_radiograph_is_an_image_of_one_slice(tmp_path):
    series = series_from(tmp_path, PixelSpacing=[0.2, 0.1], PatientOrientation=["L", "F"])
    image = read_series(series)
    assert (series.modality, series.picture, series.shape) == ("DX", True, (4, 3, 1))
    assert image.array.shape == (1, 4, 3, 1)
    assert image.array.dtype == np.float32
    assert image.grid.spacing_mm == pytest.approx((0.1, 0.2, 1.0))
    assert np.array_equal(shown(series), ROWS)
    assert series.patient_key == f"{NUMBER}|"
    assert NAME not in repr(series) + " ".join(series.notes)


@pytest.mark.parametrize(
    "elements",
    [
        {"PhotometricInterpretation": "MONOCHROME1"},
        {"PresentationLUTShape": "INVERSE"},
        {"PhotometricInterpretation": "MONOCHROME1", "PresentationLUTShape": "INVERSE"},
    ],
)
def test_what_is_stored_from_white_to_black_is_turned_over_once(tmp_path, elements):
    series = series_from(tmp_path, **elements)
    assert np.array_equal(shown(series), 4095 - ROWS.astype(int))
    assert "grey values turned over: stored from white to black" in series.notes


def test_signed_values_are_turned_over_within_their_bits(tmp_path):
    rows = np.array([[-2048, 0], [2047, 5]], np.int16)
    series = series_from(tmp_path, pixels=rows, PhotometricInterpretation="MONOCHROME1")
    assert shown(series).tolist() == [[2047, -1], [-2048, -6]]


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_slope_and_intercept_are_applied_and_the_window_is_not(tmp_path, photometric):
    series = series_from(
        tmp_path, RescaleSlope="0.5", RescaleIntercept="-7", PhotometricInterpretation=photometric,
        WindowCenter="50", WindowWidth="10",
    )  # fmt: skip
    stored = ROWS if photometric == "MONOCHROME2" else 4095 - ROWS.astype(int)
    assert np.array_equal(shown(series), stored * 0.5 - 7)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_a_modality_table_is_looked_up(tmp_path, photometric):
    rows = np.array([[0, 1], [2, 3]], np.uint8)
    table = Dataset()
    table.LUTDescriptor = [4, 0, 8]
    table["LUTDescriptor"].VR = "US"
    table.ModalityLUTType = "US"
    table.LUTData = bytes([5, 0, 50, 0, 100, 0, 200, 0])
    table["LUTData"].VR = "OW"
    series = series_from(
        tmp_path, pixels=rows, ModalityLUTSequence=[table], PhotometricInterpretation=photometric
    )
    expected = np.array([[5, 50], [100, 200]])
    assert np.array_equal(shown(series), expected if photometric == "MONOCHROME2" else 255 - expected)
    assert "a Modality LUT was applied" in read_picture(series)[1]


def test_a_broken_table_is_refused_and_no_crash(tmp_path):
    table = Dataset()
    table.LUTDescriptor = [0, 0, 99]
    table["LUTDescriptor"].VR = "US"
    series = series_from(tmp_path, ModalityLUTSequence=[table])
    with pytest.raises(CaseError, match="look-up table") as caught:
        read_series(series)
    assert caught.value.case == series.uid_hash


def test_cut_off_pixels_are_refused(tmp_path):
    file = write_picture(tmp_path / "x.dcm", pixels=np.zeros((64, 64), np.uint16))
    file.write_bytes(file.read_bytes()[:-20])
    series, _ = find_series(file)
    with pytest.raises(CaseError):
        read_series(series[0])


# colour -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL"])
def test_colour_is_luminance_or_three_channels(tmp_path, photometric):
    pixels = COLOUR if photometric == "RGB" else _ybr(COLOUR)
    series = series_from(tmp_path, "US", pixels, PhotometricInterpretation=photometric)
    near = 0 if photometric == "RGB" else 1.01  # YBR is rounded when it is stored
    colour, notes = read_picture(series, colour=True)
    assert colour.array.shape == (3, 3, 2, 1)
    assert np.abs(np.moveaxis(shown(series, colour=True), 0, -1) - COLOUR).max() <= near
    assert notes == []
    grey, notes = read_picture(series)
    assert grey.array.shape == (1, 3, 2, 1)
    assert np.abs(shown(series) - [[76, 150, 29], [9, 0, 124]]).max() <= near
    assert notes[0].startswith("colour given up: ")


def test_planes_of_colour_one_after_the_other_are_the_same_colour(tmp_path):
    planes = np.ascontiguousarray(np.moveaxis(COLOUR, -1, 0))
    series = series_from(tmp_path, "US", COLOUR, PlanarConfiguration=1, PixelData=planes.tobytes())
    assert np.array_equal(np.moveaxis(shown(series, colour=True), 0, -1), COLOUR)


def test_colour_without_any_is_read_as_grey(tmp_path):
    grey = np.repeat(np.arange(6, dtype=np.uint8).reshape(2, 3, 1) * 40, 3, axis=2)
    series = series_from(tmp_path, "US", grey)
    assert np.array_equal(shown(series), grey[..., 0])
    assert read_picture(series)[1] == ["stored in colour, but without any: read as grey"]


def test_grey_asked_for_in_colour_is_three_equal_channels(tmp_path):
    series = series_from(tmp_path)
    image, notes = read_picture(series, colour=True)
    assert (image.array == ROWS.T[None, :, :, None]).all()
    assert notes == ["colour was asked for, the picture is grey: three equal channels"]


@pytest.mark.parametrize("bits", [8, 16])
def test_a_palette_is_looked_up(tmp_path, bits):
    colours = np.array([[10, 200], [20, 100], [30, 0]], np.uint16)  # red, green, blue of two entries
    names = [f"{c}PaletteColorLookupTable" for c in ("Red", "Green", "Blue")]
    tables = {f"{n}Descriptor": [2, 0, bits] for n in names}
    scaled = colours.astype("<u2") * (256 if bits == 16 else 1)
    data = [row.astype("u1" if bits == 8 else "<u2").tobytes() for row in scaled]
    tables |= {f"{n}Data": d for n, d in zip(names, data, strict=True)}
    series = series_from(
        tmp_path, "US", np.array([[0, 1]], np.uint8), PhotometricInterpretation="PALETTE COLOR", **tables
    )
    assert shown(series, colour=True)[:, 0].T.tolist() == [[10, 20, 30], [200, 100, 0]]


def _ybr(rgb: np.ndarray) -> np.ndarray:
    """PS3.3 C.7.6.3.1.2, full range."""
    matrix = np.array([[0.299, 0.587, 0.114], [-0.1687, -0.3313, 0.5], [0.5, -0.4187, -0.0813]])
    ybr = rgb @ matrix.T + [0, 128, 128]
    return np.clip(np.rint(ybr), 0, 255).astype(np.uint8)


# pixel sizes ------------------------------------------------------------------------------------------------

DETECTOR = "pixel size at the detector: what lies before it in the patient is shown larger than it is"


@pytest.mark.parametrize(
    ("kind", "elements", "size", "note"),
    [
        ("DX", {"PixelSpacing": [0.2, 0.1], "ImagerPixelSpacing": [0.3, 0.3],
                "PixelSpacingCalibrationType": "GEOMETRY"},
         (0.1, 0.2), "pixel size calibrated in the patient (geometry)"),
        ("DX", {"PixelSpacing": [0.3, 0.3], "ImagerPixelSpacing": [0.3, 0.3]}, (0.3, 0.3), DETECTOR),
        ("CR", {"PixelSpacing": [0.2, 0.2], "ImagerPixelSpacing": [0.3, 0.3]}, (0.2, 0.2),
         "pixel size corrected for magnification; how, the header does not say"),
        ("CR", {"PixelSpacing": [0.2, 0.2]}, (0.2, 0.2),
         "pixel size as stated; whether it holds in the patient or at the detector, nobody says"),
        ("MG", {"ImagerPixelSpacing": [0.07, 0.05]}, (0.05, 0.07), DETECTOR),
        ("MG", {"ImagerPixelSpacing": [0.07, 0.07], "EstimatedRadiographicMagnificationFactor": "1.05"},
         (0.07, 0.07), f"{DETECTOR}, about 1.05 times by the header"),
        ("CR", {"NominalScannedPixelSpacing": [0.4, 0.4]}, (0.4, 0.4), "pixel size of the film scanner"),
        ("US", {"SequenceOfUltrasoundRegions": [region(0.03, 0.02)]}, (0.3, 0.2), None),
        ("US", {"SequenceOfUltrasoundRegions": [region(), region(0.02, -0.02)], "PixelSpacing": [0.2, 0.2]},
         (0.2, 0.2), None),
        ("US", {"SequenceOfUltrasoundRegions": [region(), region(form=3, unit=4)]}, (0.2, 0.2),
         "the pixel size holds inside the 2-D region alone"),
    ],
)  # fmt: skip
def test_the_best_known_pixel_size_counts_and_is_said(tmp_path, kind, elements, size, note):
    series = series_from(tmp_path, kind, **elements)
    assert series.grid.spacing_known
    assert series.spacing_mm == pytest.approx((*size, 1.0))
    assert note in series.notes if note else not any("pixel size" in n for n in series.notes)


@pytest.mark.parametrize(
    ("kind", "elements", "note"),
    [
        ("DX", {}, PIXELS),
        ("US", {"SequenceOfUltrasoundRegions": [region(unit=5)]}, PIXELS),
        ("US", {"SequenceOfUltrasoundRegions": [region(0)]}, PIXELS),
        ("US", {"SequenceOfUltrasoundRegions": [region(), region(0.05, 0.05)]},
         "the header states several pixel sizes: none is used"),
        ("US", {"SequenceOfUltrasoundRegions": [region()], "PixelSpacing": [0.5, 0.5]},
         "the header states several pixel sizes: none is used"),
    ],
)  # fmt: skip
def test_an_unknown_pixel_size_stays_unknown(tmp_path, kind, elements, note):
    series = series_from(tmp_path, kind, **elements)
    assert not series.grid.spacing_known
    assert series.spacing_mm == (1, 1, 1)
    assert {note, PIXELS} <= set(series.notes)
    assert not read_series(series).grid.spacing_known


def test_pixels_of_unknown_size_keep_their_proportion(tmp_path):
    series = series_from(tmp_path, PixelAspectRatio=[4, 3])
    assert series.spacing_mm == pytest.approx((1, 4 / 3, 1))
    assert not series.grid.spacing_known


@pytest.mark.parametrize("keyword", ["PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing"])
@pytest.mark.parametrize("value", [[0, 0], [-1, 1], [1, 1, 1]])
def test_a_pixel_size_that_cannot_be_is_refused(tmp_path, keyword, value):
    file = write_picture(tmp_path / "x.dcm", **{keyword: value})
    assert refusal(file).startswith(f"{keyword} (the spacing of the pixels) is not two positive numbers")


def test_a_decimal_comma_is_refused(tmp_path):
    file = write_picture(tmp_path / "x.dcm", PixelSpacing=[0.25, 0.25])
    file.write_bytes(file.read_bytes().replace(b"0.25\\0.25", b"0,25\\0,25"))
    assert "not two positive numbers" in refusal(file)


# axes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("orientation", "codes", "oblique"),
    [
        (["L", "F"], "LIP", False),
        (["R", "F"], "RIA", False),
        (["A", "F"], "AIL", False),
        (["P", "L"], "PLI", False),
        (["A", "FR"], "AIL", True),
        (["L", "P"], "LPS", False),
    ],
)
def test_the_axes_are_those_of_the_plane_that_is_shown(tmp_path, orientation, codes, oblique):
    series = series_from(tmp_path, PatientOrientation=orientation, PixelSpacing=[0.2, 0.1])
    assert series.grid.axis_codes == codes
    assert np.linalg.det(series.grid.affine[:3, :3]) == pytest.approx(0.02)
    assert any("oblique" in note for note in series.notes) == oblique
    assert canonical(read_series(series)).array.shape[3] == 1, "a picture stays a picture"


@pytest.mark.parametrize("orientation", [None, [], ["L", "R"], ["L"], ["X", "F"], ["", ""]])
def test_without_a_readable_orientation_the_axes_are_those_of_an_axial_slice(tmp_path, orientation):
    series = series_from(tmp_path, **({} if orientation is None else {"PatientOrientation": orientation}))
    assert series.grid.axis_codes == "LPS"
    assert "no readable PatientOrientation: axes as of an axial slice" in series.notes


# series -----------------------------------------------------------------------------------------------------


def test_each_picture_of_a_series_is_one_of_its_own_under_the_same_name_ever_after(tmp_path):
    files = [write_picture(tmp_path / f"{n}.dcm", pixels=ROWS + np.uint16(n)) for n in range(3)]
    write_picture(tmp_path / "raw.dcm", "DX raw")
    series, left_out = find_series(tmp_path)
    assert left_out == []
    assert len({one.uid_hash for one in series}) == 4
    for file in files:
        again = series_of_files([file])
        (found,) = [one for one in series if one.files == (file,)]
        assert (again.uid_hash, again.grid.shape) == (found.uid_hash, found.grid.shape)
    assert len([one for one in series if any("for processing" in note for note in one.notes)]) == 1


def test_one_bad_picture_does_not_hinder_the_others_of_its_series(tmp_path):
    write_picture(tmp_path / "good.dcm")
    write_picture(tmp_path / "text.dcm", BurnedInAnnotation="YES")
    write_picture(tmp_path / "size.dcm", PixelSpacing=[0, 0])
    write_picture(tmp_path / "capture.dcm", "OT")
    series, left_out = find_series(tmp_path)
    assert len(series) == 1
    assert sorted(thing.status for thing in left_out) == ["refused", "refused", "skipped"]


def test_copies_count_once_and_different_pictures_of_one_name_are_refused(tmp_path):
    file = write_picture(tmp_path / "a.dcm")
    shutil.copy(file, tmp_path / "b.dcm")
    (series,), left_out = find_series(tmp_path)
    assert left_out == []
    assert "1 exact copies of the image left out" in series.notes
    uid = str(pydicom.dcmread(file).SOPInstanceUID)
    write_picture(tmp_path / "b.dcm", pixels=ROWS + np.uint16(1), SOPInstanceUID=uid)
    assert "two different images carry the same instance UID" in refusal(tmp_path)


def test_pictures_of_two_patients_under_one_series_are_refused(tmp_path):
    write_picture(tmp_path / "a.dcm")
    write_picture(tmp_path / "b.dcm", PatientID="another")
    series, left_out = find_series(tmp_path)
    assert series == []
    assert {thing.reason for thing in left_out} == {"one series UID covers 2 patients"}


def test_pictures_without_any_uid_have_names_by_their_content(tmp_path):
    none = {"SOPInstanceUID": "", "SeriesInstanceUID": ""}
    write_picture(tmp_path / "a.dcm", **none)
    write_picture(tmp_path / "b.dcm", pixels=ROWS + np.uint16(1), **none)
    first = {one.uid_hash for one in find_series(tmp_path)[0]}
    (tmp_path / "a.dcm").rename(tmp_path / "c.dcm")
    assert first == {one.uid_hash for one in find_series(tmp_path)[0]}
    assert len(first) == 2


def test_a_dicom_seg_of_a_radiograph_is_refused_in_plain_words(tmp_path):
    series = series_from(tmp_path, FrameOfReferenceUID="1.2.3")
    mask = read_series(series).but((shown(series).T[..., None] > 50).astype(np.uint8))
    with pytest.raises(CaseError, match="it lacks position in the patient"):
        write_seg(mask, labels(bone=1), series.files, tmp_path / "seg.dcm")
    assert not (tmp_path / "seg.dcm").exists()
    write_image(mask, tmp_path / "mask.nii.gz")
    assert read_image(tmp_path / "mask.nii.gz").grid.matches(series.grid), "the NIfTI mask that is advised"


# real pictures ----------------------------------------------------------------------------------------------


def test_a_real_radiograph_is_as_on_the_light_box(shared_data):
    (series,), left_out = find_series(shared_data / "dicom" / "cr_monochrome1")
    image = read_series(series)
    stored = pydicom.dcmread(series.files[0]).pixel_array
    assert left_out == []
    assert (series.modality, series.derived, series.shape) == ("CR", True, (1760, 1760, 1))
    assert np.array_equal(image.array[0, :, :, 0].T, 1023 - stored.astype(int))
    assert series.grid.axis_codes == "RIA"
    assert not series.grid.spacing_known
    air, shin = image.array[0, 500:540, 400:440].mean(), image.array[0, 850:880, 400:440].mean()
    assert air + 300 < shin, "the air beside the leg is dark, the bone is bright"


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("examples_palette.dcm", (800, 350)),
        ("examples_rgb_color.dcm", (320, 240)),
        ("examples_jpeg2k.dcm", (640, 480)),
        ("SC_ybr_full_422_uncompressed.dcm", (100, 100)),
        ("SC_rgb_jpeg_dcmtk.dcm", (100, 100)),
        ("SC_rgb_rle.dcm", (100, 100)),
    ],
)
def test_real_colour_is_that_of_another_reader(name, shape):
    from pydicom.pixels.processing import apply_color_lut

    file = get_testdata_file(name)
    (series,), _ = find_series(str(file), ALL)
    dataset = pydicom.dcmread(str(file))
    expected = dataset.pixel_array
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        expected = apply_color_lut(expected, dataset) >> 8
    assert series.shape == (*shape, 1)
    assert np.array_equal(np.moveaxis(shown(series, colour=True), 0, -1), expected)


def test_damaged_pictures_give_an_image_or_a_named_refusal(tmp_path):
    rng = np.random.default_rng(1)
    colour = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
    whole = [
        write_picture(tmp_path / "a.dcm", PixelSpacing=[0.1, 0.1], PatientOrientation=["L", "F"]),
        write_picture(
            tmp_path / "b.dcm", "US", colour, SequenceOfUltrasoundRegions=[region(), region(form=3)]
        ),
    ]
    file, read = tmp_path / "damaged" / "x.dcm", 0
    file.parent.mkdir()
    for number in range(60):
        raw = bytearray(whole[number % 2].read_bytes())
        for _ in range(3):
            raw[rng.integers(0, len(raw))] = rng.integers(0, 256)
        file.write_bytes(raw[: len(raw) if number % 5 else rng.integers(1, len(raw))])
        with suppress(MedsegError):
            for series in find_series(file, ALL)[0]:
                read += int(np.isfinite(read_series(series).array).all())
    assert 10 < read < 60, "much of the damage is harmless"
