"""Every shared case of real DICOM gives its reference volume or its named refusal."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from medseg.core.errors import CaseError
from medseg.imaging.dicom_in import find_series, read_series, series_of_files
from medseg.imaging.dicom_policy import DEFAULT, DicomPolicy
from medseg.imaging.dicom_series import LeftOut, Series
from medseg.imaging.image import Image, canonical, read_image

MENDING = DicomPolicy(gaps="resample", uneven="resample")
SHEARING = MENDING.but(tilt="shear")
CASES = (
    "ct_tilt_missing_slice", "ct_tilt_uniform", "err_no_pixel_spacing", "folder_with_junk",
    "mr_decubitus_left", "mr_enhanced", "mr_jpeg_lossless", "mr_missing_slice", "mr_mosaic_axial",
    "mr_sagittal_oblique", "mr_two_echoes",
)  # fmt: skip


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("MEDSEG_KEY", "for tests")


def settings_of(folder: Path) -> dict:
    file = folder / "case.json"
    return json.loads(file.read_text()) if file.exists() else {}


def in_order(found: list[Series]) -> list[Series]:
    return sorted(found, key=lambda s: s.number)


def test_no_shared_case_is_left_out(shared_data):
    assert {f.parent.name for f in (shared_data / "dicom_cases").glob("*/dicom")} == set(CASES)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("policy", [DEFAULT, MENDING, SHEARING], ids=["default", "mending", "shearing"])
def test_a_case_gives_its_references_or_its_refusal(shared_data, case, policy):
    folder = shared_data / "dicom_cases" / case
    settings = settings_of(folder)
    found, left_out = find_series(folder / "dicom", policy)
    refused = [thing for thing in left_out if thing.status == "refused"]
    if (folder / "expect_error.txt").exists():
        right_refusal(folder, found, refused)
    elif not found:
        assert settings["may_refuse"]
        assert policy is DEFAULT
        assert any(uid in str(refused[0].error()) for uid in settings["ids"])
    else:
        assert refused == []
        right_volumes(folder, settings, in_order(found))


def right_refusal(folder: Path, found: list[Series], refused: list[LeftOut]) -> None:
    expected = dict(line.split(": ", 1) for line in (folder / "expect_error.txt").read_text().splitlines())
    shown = str(refused[0].error())
    assert found == []
    assert expected["id"] in shown
    assert expected["why"] in shown.lower()


def right_volumes(folder: Path, settings: dict, found: list[Series]) -> None:
    references = sorted(folder.glob("reference*.nii.gz"))
    if settings.get("mode") == "world":
        assert len(found) == 1
        image = read_series(found[0])
        for reference in references:
            in_place(image, read_image(reference), settings["max_shift"])
        return
    assert len(found) == len(references)
    for one, reference in zip(found, references, strict=True):
        same_volume(read_series(one), read_image(reference))
        again = series_of_files(one.files, one.part, one.policy)
        assert (again.uid_hash, again.planes, again.part) == (one.uid_hash, one.planes, one.part)


def same_volume(image: Image, reference: Image) -> None:
    ours, theirs = canonical(image), canonical(reference)
    assert ours.grid.shape == theirs.grid.shape
    assert np.abs(ours.grid.affine - theirs.grid.affine).max() < 1e-2
    assert np.abs(ours.array - theirs.array).max() < 1e-3


def in_place(image: Image, reference: Image, shift_mm: float) -> None:
    """Values at the reference's positions agree, and better than from any position `shift_mm` beside them."""
    index = np.stack(np.meshgrid(*map(np.arange, reference.grid.shape), indexing="ij"), axis=-1)[::3, ::3]
    at, values = reference.grid.to_mm(index).reshape(-1, 3), reference.array[0, ::3, ::3].ravel()
    errors = {}
    for axis, sign in [(0, 0), *((a, s) for a in range(3) for s in (-1, 1))]:
        where = image.grid.to_index(at + sign * shift_mm * np.eye(3)[axis]).T
        last = np.array(image.grid.shape)[:, None] - 1
        inside = ((where > -0.01) & (where < last + 0.01)).all(axis=0)
        shown = map_coordinates(image.array[0], where, order=1, mode="nearest")
        errors[axis, sign] = float(np.abs(shown - values)[inside].mean()) if inside.any() else np.inf
        if sign == 0:
            assert inside.all()
            assert errors[axis, sign] < 0.05 * values.std()
    assert min(errors, key=errors.__getitem__) == (0, 0)


@pytest.mark.parametrize(
    ("folder", "reference", "count"),
    [
        ("mr_ge_fmri_4d", "ref/DCM2NIIX_regression_test_4.nii.gz", 10),
        ("mr_siemens_enhanced_4d", "ref/Siemens_REST1_w_SMS_PF7-8_6.nii.gz", 4),
        ("mr_siemens_vida_enhanced_phantom", "ref/11_ep2d_fid_weisskoff_25slc.nii.gz", 4),
        ("mr_siemens_mosaic_ax", "ref/ax_asc_35sl_6.nii.gz", 2),
        ("mr_siemens_mosaic_cor", "ref/cor_asc_35sl_16.nii.gz", 2),
        ("mr_siemens_mosaic_sag", "ref/sag_asc_35sl_22.nii.gz", 2),
        ("mr_transfer_syntaxes", "ref/1.nii.gz", 1),
        ("headers_real_pixels_noise/failing_slicecount_001", "ground_truth.nii.gz", 1),
        ("headers_real_pixels_noise/hyperfine_anatomical_001", "ground_truth.nii.gz", 1),
        ("headers_real_pixels_noise/philips_enhanced_anatomical_001", "ground_truth.nii.gz", 1),
        ("headers_real_pixels_noise/siemens_multiframe_anatomical_001", "ground_truth.nii.gz", 1),
    ],
)
def test_time_points_and_multi_frame_files_agree_with_an_independent_reader(
    shared_data, folder, reference, count
):
    found, left_out = find_series(shared_data / "dicom" / folder)
    assert [thing for thing in left_out if thing.status == "refused"] == []
    theirs = read_image(shared_data / "dicom" / folder / reference)
    assert len(found) == theirs.array.shape[0] == count
    for number, one in enumerate(in_order(found)):
        same_volume(read_series(one), theirs.but(theirs.array[number]))


def test_both_mends_of_a_tilted_ct_lie_where_the_reference_lies(shared_data):
    folder = shared_data / "dicom" / "ct_philips_tilt"
    straight = read_series(find_series(folder)[0][0])
    in_place(straight, read_image(folder / "ref" / "201_STEREOTAXIS_Tilt_1.nii.gz"), 0.3)
    sheared = read_series(find_series(folder, SHEARING)[0][0])
    in_place(straight, sheared, 0.3)
    assert sheared.grid.shape == (512, 512, 8)


def test_tilt_and_uneven_steps_are_mended_together_and_noted(shared_data):
    folder = shared_data / "dicom" / "ct_ge_tilt_variable_spacing"
    with pytest.raises(CaseError, match="unevenly spaced"):
        raise find_series(folder)[1][0].error()
    one = find_series(folder, MENDING)[0][0]
    assert [m.kind for m in one.mends] == ["tilt", "uneven"]
    assert "tilted by 18.5 degrees" in one.notes[0]
    assert "uneven slices (1.081 to 6.999 mm apart)" in one.notes[1]
    assert one.planes[0].thickness_mm != one.planes[-1].thickness_mm
    # where a slice of the grid meets a source plane, it shows that plane
    image, planes = read_series(one), np.array([p.position for p in one.planes]) * (-1, -1, 1)
    levels = one.grid.to_index(planes)[:, 2]
    assert levels[[0, -1]] == pytest.approx([0, one.grid.shape[2] - 1])
    sheared = read_series(find_series(folder, SHEARING)[0][0])
    in_place(image, Image(sheared.array[..., :1], sheared.grid.cropped((0, 0, 0), (512, 512, 1))), 0.3)
