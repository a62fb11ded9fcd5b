"""Images come back from disk as they went, and broken files are named, never guessed at."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as s
from test_grid import grids

from medseg.core.errors import CaseError, MedsegError
from medseg.core.files import sha256_of
from medseg.imaging.grid import Grid
from medseg.imaging.image import (
    Image,
    canonical,
    canonical_grid,
    from_canonical,
    read_image,
    read_mask,
    same_place,
    whole_numbers,
    write_image,
)

_quick = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def _image(shape: tuple[int, int, int] = (5, 6, 7), channels: int = 1, dtype: Any = np.float32) -> Image:
    voxels = np.random.default_rng(0).integers(0, 200, (channels, *shape)).astype(dtype)
    return Image(voxels, Grid.from_spacing(shape, (1.0, 2.0, 3.0)))


def _numbered(grid: Grid, channels: int = 1) -> Image:
    count = channels * int(np.prod(grid.shape))
    return Image(np.arange(count, dtype=np.float32).reshape(channels, *grid.shape), grid)


@_quick
@given(grids(), s.integers(1, 3), s.sampled_from([".nii", ".nii.gz"]))
def test_written_and_read_is_the_same(tmp_path: Path, grid: Grid, channels: int, suffix: str) -> None:
    image = _numbered(grid, channels)
    file = tmp_path / f"image{suffix}"
    write_image(image, file)
    back = read_image(file)
    assert np.array_equal(back.array, image.array)
    assert back.array.dtype == np.float32
    assert back.grid.matches(grid)


@_quick
@given(grids())
def test_the_affine_stands_in_sform_and_qform(tmp_path: Path, grid: Grid) -> None:
    write_image(_numbered(grid), tmp_path / "a.nii")
    header: Any = nib.load(tmp_path / "a.nii").header
    assert np.allclose(header.get_sform(), grid.affine, atol=1e-3)
    assert np.allclose(header.get_qform(), grid.affine, atol=1e-2)
    assert header.get_xyzt_units()[0] == "mm"


@given(grids(), s.integers(1, 2))
def test_canonical_there_and_back_is_the_same(grid: Grid, channels: int) -> None:
    image = _numbered(grid, channels)
    turned = canonical(image)
    if grid.shape[2] > 1:
        assert turned.grid.axis_codes == "RAS"
    assert (turned.grid.nearest_axes()[1]) == (1, 1, 1)
    assert turned.grid.matches(canonical_grid(grid))
    assert np.array_equal(from_canonical(turned.array, grid), image.array)


def test_a_picture_of_any_plane_keeps_its_third_axis_last() -> None:
    frontal = np.array(
        [[-1, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1.0]]
    )  # to the left, to the feet
    image = _numbered(Grid((4, 3, 1), frontal))
    turned = canonical(image)
    assert turned.array.shape == (1, 4, 3, 1)
    assert turned.grid.axis_codes == "RSA"
    assert np.array_equal(turned.array[0, ::-1, ::-1, 0], image.array[0, :, :, 0])


def test_an_unknown_pixel_size_stays_unknown_wherever_the_grid_goes(tmp_path: Path) -> None:
    grid = Grid((4, 3, 1), np.diag([-1.0, -1.0, 1.0, 1.0]), spacing_known=False)
    image = _numbered(grid)
    write_image(image, tmp_path / "a.nii.gz")
    assert nib.load(tmp_path / "a.nii.gz").header.get_xyzt_units()[0] == "unknown"  # type: ignore[attr-defined]
    for other in (
        read_image(tmp_path / "a.nii.gz").grid,
        canonical(image).grid,
        grid.cropped((1, 1, 0), (2, 2, 1)),
        grid.resampled((2, 2, 1)),
        image.but(image.array).grid,
    ):
        assert not other.spacing_known
    assert "size unknown" in str(grid)
    known = Grid(grid.shape, grid.affine)
    assert grid.matches(known)
    write_image(_numbered(known), tmp_path / "b.nii.gz")
    assert read_image(tmp_path / "b.nii.gz").grid.spacing_known


@pytest.mark.parametrize(
    ("shape", "side", "known"), [((4, 3, 1), 1.0, False), ((4, 3, 1), 0.5, True), ((4, 3, 2), 1.0, True)]
)
def test_only_a_bare_picture_without_unit_has_no_known_spacing(
    tmp_path: Path, shape: tuple[int, int, int], side: float, known: bool
) -> None:
    nib.save(nib.Nifti1Image(np.zeros(shape, np.uint8), np.diag([side, side, 1, 1])), tmp_path / "a.nii")
    assert read_image(tmp_path / "a.nii").grid.spacing_known is known


@given(grids())
def test_canonical_moves_no_voxel_in_the_patient(grid: Grid) -> None:
    image = _numbered(grid)
    turned = canonical(image)
    for index in np.ndindex(*turned.grid.shape):
        value = int(turned.array[(0, *index)])
        there = np.array(np.unravel_index(value, grid.shape))
        assert np.allclose(turned.grid.to_mm(index), grid.to_mm(there), atol=1e-6)
        if value > 20:
            break


@given(grids())
def test_canonical_of_a_canonical_image_is_itself(grid: Grid) -> None:
    once = canonical(_numbered(grid))
    twice = canonical(once)
    assert np.array_equal(once.array, twice.array)
    assert once.grid.matches(twice.grid)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_equal_images_have_equal_bytes(tmp_path: Path, suffix: str) -> None:
    write_image(_image(), tmp_path / f"one{suffix}")
    write_image(_image(), tmp_path / "deep" / f"another name{suffix}")
    assert sha256_of(tmp_path / f"one{suffix}") == sha256_of(tmp_path / "deep" / f"another name{suffix}")


def test_the_compressed_stream_is_one_that_every_reader_knows(tmp_path: Path) -> None:
    write_image(_image(), tmp_path / "a.nii.gz")
    raw = (tmp_path / "a.nii.gz").read_bytes()
    assert raw[4:8] == b"\0\0\0\0", "no time stamp"
    assert not raw[3] & 0x08, "no file name"
    assert len(gzip.decompress(raw)) == 352 + 5 * 6 * 7 * 4


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.int32, np.float32])
def test_types_survive_on_disk(tmp_path: Path, dtype: Any) -> None:
    write_image(_image(dtype=dtype), tmp_path / "a.nii.gz")
    assert nib.load(tmp_path / "a.nii.gz").get_data_dtype() == dtype  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("dtype", "stored"), [(bool, np.uint8), (np.int64, np.int32), (np.float16, np.float32)]
)
def test_types_that_nifti_lacks_are_widened_or_narrowed_without_loss(
    tmp_path: Path, dtype: Any, stored: Any
) -> None:
    image = _image(dtype=dtype)
    write_image(image, tmp_path / "a.nii.gz")
    assert nib.load(tmp_path / "a.nii.gz").get_data_dtype() == stored  # type: ignore[attr-defined]
    assert np.array_equal(read_image(tmp_path / "a.nii.gz").array, image.array.astype(np.float32))


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    broken = _image(dtype=np.int64)
    broken.array[0, 0, 0, 0] = 2**40
    with pytest.raises(MedsegError, match="cannot be stored"):
        write_image(broken, tmp_path / "a.nii.gz")
    assert list(tmp_path.iterdir()) == []


def test_header_scaling_is_applied(tmp_path: Path) -> None:
    nifti = nib.Nifti1Image(np.full((2, 2, 2), 3, np.int16), np.eye(4))
    nifti.header.set_slope_inter(2.0, -1024.0)
    nib.save(nifti, tmp_path / "a.nii")
    assert np.allclose(read_image(tmp_path / "a.nii").array, 3 * 2.0 - 1024)


def test_a_flat_image_and_one_volume_on_four_axes_get_three_axes(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(np.zeros((4, 5), np.uint8), np.eye(4)), tmp_path / "flat.nii")
    nib.save(nib.Nifti1Image(np.zeros((4, 5, 6, 1), np.uint8), np.eye(4)), tmp_path / "four.nii")
    assert read_image(tmp_path / "flat.nii").array.shape == (1, 4, 5, 1)
    assert read_image(tmp_path / "four.nii").array.shape == (1, 4, 5, 6)


def test_the_array_must_fit_the_grid() -> None:
    with pytest.raises(MedsegError, match=r"\[C, I, J, K\]"):
        Image(np.zeros((1, 2, 2, 3)), Grid.from_spacing((2, 2, 2)))
    with pytest.raises(MedsegError, match=r"\[C, I, J, K\]"):
        Image(np.zeros((2, 2, 2)), Grid.from_spacing((2, 2, 2)))


def test_but_keeps_the_place() -> None:
    image = _image()
    mask = image.but(np.ones(image.grid.shape, np.uint8))
    assert mask.array.shape == (1, 5, 6, 7)
    assert mask.grid is image.grid


# --- broken files -----------------------------------------------------------------------------------


def _bytes(tmp_path: Path, suffix: str = ".nii") -> bytearray:
    write_image(_image(dtype=np.int16), tmp_path / f"good{suffix}")
    return bytearray((tmp_path / f"good{suffix}").read_bytes())


def _refused(file: Path) -> CaseError:
    with pytest.raises(CaseError) as caught:
        read_image(file)
    error = caught.value
    assert error.file == str(file)
    assert str(file.parent) not in error.public()
    assert file.name not in error.public()
    return error


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert "not there" in _refused(tmp_path / "Muster_Max.nii.gz").what


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.99])
def test_a_truncated_file_is_refused_at_any_length(tmp_path: Path, suffix: str, share: float) -> None:
    raw = _bytes(tmp_path, suffix)
    file = tmp_path / f"Muster_Max{suffix}"
    file.write_bytes(raw[: int(share * len(raw))])
    error = _refused(file)
    assert "cannot be read to its end" in error.what
    assert "bytes" in (error.evidence or "")


@pytest.mark.parametrize("text", [b"", b"hello", b"\x1f\x8b" + b"x" * 50, b"\0" * 400])
def test_a_file_that_is_no_nifti_is_refused(tmp_path: Path, text: bytes) -> None:
    for name in ("Muster_Max.nii", "Muster_Max.nii.gz", "Muster_Max.txt"):
        (tmp_path / name).write_bytes(text)
        _refused(tmp_path / name)


def test_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "Muster_Max.nii").mkdir()
    _refused(tmp_path / "Muster_Max.nii")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_voxels_that_are_no_numbers_are_refused_and_counted(tmp_path: Path, value: float) -> None:
    image = _image()
    image.array[0, 1, 1, :3] = value
    write_image(image, tmp_path / "Muster_Max.nii.gz")
    assert "3 of 210 voxels" in (_refused(tmp_path / "Muster_Max.nii.gz").evidence or "")


def test_numbers_beyond_single_precision_are_refused(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(np.full((2, 2, 2), 1e300), np.eye(4)), tmp_path / "Muster_Max.nii")
    assert "8 of 8 voxels" in (_refused(tmp_path / "Muster_Max.nii").evidence or "")


_HEADER_FAULTS: dict[str, tuple[int, bytes, str]] = {
    "30000 voxels along each axis": (40, np.array([3, 30000, 30000, 30000], "<i2").tobytes(), "shape"),
    "an empty axis": (42, np.array([0], "<i2").tobytes(), ""),
    "five axes": (40, np.array([5, 5, 3, 2, 1, 7], "<i2").tobytes(), "two to four axes"),
    "colour voxels": (70, np.array([128, 24], "<i2").tobytes(), "colour"),
    "complex voxels": (70, np.array([32, 64], "<i2").tobytes(), "complex"),
    "an unknown type": (70, np.array([9999], "<i2").tobytes(), ""),
    "a place that is no number": (280, np.array([np.nan] * 4, "<f4").tobytes(), "does not place"),
    "no extent along an axis": (280, np.zeros(4, "<f4").tobytes(), "does not place"),
    "voxels beyond the end": (108, np.array([1e9], "<f4").tobytes(), ""),
    "more voxels than there are": (42, np.array([500, 60, 70], "<i2").tobytes(), "cannot be read to its end"),
}


@pytest.mark.parametrize("fault", _HEADER_FAULTS)
def test_a_header_that_cannot_be_right_is_refused(tmp_path: Path, fault: str) -> None:
    at, wrong, what = _HEADER_FAULTS[fault]
    raw = _bytes(tmp_path)
    raw[at : at + len(wrong)] = wrong
    (tmp_path / "Muster_Max.nii").write_bytes(raw)
    assert what in str(_refused(tmp_path / "Muster_Max.nii"))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(s.lists(s.tuples(s.integers(0, 347), s.integers(0, 255)), min_size=1, max_size=6))
def test_a_header_with_flipped_bytes_gives_an_image_or_a_named_error(
    tmp_path: Path, flips: list[tuple[int, int]]
) -> None:
    raw = _bytes(tmp_path)
    for at, value in flips:
        raw[at] = value
    file = tmp_path / "Muster_Max.nii"
    file.write_bytes(raw)
    said = ""
    try:
        read_image(file)
    except CaseError as error:
        said = error.public()
    assert "Muster" not in said


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(s.lists(s.tuples(s.floats(0, 1, exclude_max=True), s.integers(1, 255)), min_size=1, max_size=4))
def test_a_compressed_file_with_flipped_bytes_never_gives_wrong_voxels(
    tmp_path: Path, flips: list[tuple[float, int]]
) -> None:
    raw = _bytes(tmp_path, ".nii.gz")
    good = read_image(tmp_path / "good.nii.gz").array
    for at, change in flips:
        raw[int(at * len(raw))] ^= change
    (tmp_path / "Muster_Max.nii.gz").write_bytes(raw)
    try:
        read = read_image(tmp_path / "Muster_Max.nii.gz").array
    except CaseError:
        return
    assert np.array_equal(read, good), "the checksum of the stream must be looked at"


def test_sform_wins_over_qform_and_qform_over_nothing(tmp_path: Path) -> None:
    nifti = nib.Nifti1Image(np.zeros((3, 4, 5), np.uint8), None)
    nifti.set_qform(np.diag([2.0, 2, 2, 1]), code=1)
    nib.save(nifti, tmp_path / "q.nii")
    nifti.set_sform(np.diag([3.0, 3, 3, 1]), code=1)
    nib.save(nifti, tmp_path / "both.nii")
    assert read_image(tmp_path / "q.nii").grid.spacing_mm == (2, 2, 2)
    assert read_image(tmp_path / "both.nii").grid.spacing_mm == (3, 3, 3)


# --- masks ------------------------------------------------------------------------------------------


def test_a_mask_is_read_as_whole_numbers(tmp_path: Path) -> None:
    write_image(_image(dtype=np.float32), tmp_path / "a.nii.gz")
    assert read_mask(tmp_path / "a.nii.gz").array.dtype == np.uint8
    assert whole_numbers(np.array([0, 300])).dtype == np.uint16


def test_almost_whole_numbers_are_rounded_and_others_refused() -> None:
    assert whole_numbers(np.array([0.99999994, 2.0])).tolist() == [1, 2]
    with pytest.raises(CaseError, match="not whole numbers") as caught:
        whole_numbers(np.array([0.0, 0.5, 0.25]))
    assert caught.value.evidence == "2 voxels, such as 0.5"


@pytest.mark.parametrize("bad", [[np.nan], [np.inf], [-1.0], [70000]])
def test_values_that_no_label_can_have_are_refused(bad: list[float]) -> None:
    with pytest.raises(CaseError):
        whole_numbers(np.array(bad))


def test_a_mask_of_two_channels_is_refused(tmp_path: Path) -> None:
    write_image(_image(channels=2), tmp_path / "a.nii")
    with pytest.raises(CaseError, match="one channel"):
        read_mask(tmp_path / "a.nii")


def test_two_places_are_refused_with_both_shown() -> None:
    image = _image()
    same_place(image, image.but(image.array))
    moved = image.grid.affine.copy()
    moved[0, 3] += 5
    with pytest.raises(CaseError, match="image and reference do not lie on the same grid") as caught:
        same_place(image, Image(image.array, Grid(image.grid.shape, moved)))
    assert (caught.value.evidence or "").count("affine [") == 2


def test_real_cases_come_back_voxel_for_voxel(shared_data: Path, tmp_path: Path) -> None:
    files = sorted((shared_data / "hippocampus" / "imagesTr").glob("*.nii.gz"))[:5]
    assert files
    for file in files:
        image = read_image(file)
        turned = canonical(image)
        assert np.array_equal(from_canonical(turned.array, image.grid), image.array)
        write_image(image, tmp_path / "a.nii.gz")
        assert np.array_equal(read_image(tmp_path / "a.nii.gz").array, image.array)
