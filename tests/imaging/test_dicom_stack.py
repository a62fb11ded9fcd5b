"""Volumes and masks cross between tilted or uneven planes and an orthogonal grid, and come back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medseg.imaging.dicom_header import Plane
from medseg.imaging.dicom_policy import DicomPolicy
from medseg.imaging.dicom_series import Series
from medseg.imaging.dicom_slices import stack
from medseg.imaging.dicom_stack import AIR_HU, labels_of, planes_of, volume_of
from medseg.imaging.image import Image

EVERYTHING = DicomPolicy(uneven="resample", gaps="resample")
EVEN = np.arange(0, 60, 2.5)
GAP = np.delete(EVEN, [9, 15])
UNEVEN = np.concatenate([np.arange(0, 24, 2.0), 24 + np.arange(0, 36, 3.0)])


def series(levels_mm, degrees=0.0, turn=0.0, policy=EVERYTHING, size=(96, 80), modality="CT") -> Series:
    """Planes at these levels along the normal; each lies sideways by the tangent of the tilt."""
    row = np.array([np.cos(turn), np.sin(turn), 0])
    column = np.array([-np.sin(turn), np.cos(turn), 0])
    normal = np.cross(row, column)
    planes = [
        Plane(
            file=Path(f"{z}"), frame=0, orientation=(*row, *column), spacing_mm=(1.0, 0.9), thickness_mm=None,
            position=tuple((-40, -45, 5) + normal * z + column * z * np.tan(np.radians(degrees))),
            gap_mm=None, slope=1.0, intercept=0.0, echo=(None, ""), rows=size[0], columns=size[1],
            image_type=(), compressed=False, sop_uid=f"1.{z}",
        )
        for z in levels_mm
    ]  # fmt: skip
    made = stack(planes, policy)
    return Series("x", modality, made.planes, made.grid, mends=made.mends, policy=policy)


def points(one: Series) -> np.ndarray:
    """RAS mm of every pixel, [slice, row, column, 3]."""
    first = one.planes[0]
    assert first.orientation is not None
    row, column = np.reshape(first.orientation, (2, 3))
    i, j = np.meshgrid(np.arange(first.columns) * 0.9, np.arange(first.rows) * 1.0)
    inside = i[..., None] * row + j[..., None] * column
    return np.stack([inside + np.array(p.position) for p in one.planes]) * (-1, -1, 1)


def voxels(one: Series) -> np.ndarray:
    """RAS mm of every voxel of the grid, [I, J, K, 3]."""
    return one.grid.to_mm(np.stack(np.meshgrid(*map(np.arange, one.grid.shape), indexing="ij"), axis=-1))


def ellipsoid(at: np.ndarray, one: Series, radii=(22.0, 17.0, 15.0)) -> np.ndarray:
    """1 inside an ellipsoid around the middle of the planes, 2 in its core; radii in mm (RAS)."""
    middle = points(one).reshape(-1, 3).mean(axis=0)
    away = np.sqrt((((at - middle) / np.array(radii)) ** 2).sum(axis=-1))
    return (away <= 1).astype(np.uint8) + (away <= 0.5).astype(np.uint8)


def ramp(at: np.ndarray) -> np.ndarray:
    return (at @ np.array([1.5, -2.0, 0.75]) + 100).astype(np.float32)


def dice(a, b) -> float:
    return float(2 * np.logical_and(a, b).sum() / (a.sum() + b.sum()))


STACKS = {
    "tilted": (EVEN, 18.5),
    "tilted back": (EVEN, -12.0),
    "uneven": (UNEVEN, 0.0),
    "gap": (GAP, 0.0),
    "tilted and uneven": (UNEVEN, 15.0),
    "tilted with a gap": (GAP, -20.0),
}


@pytest.mark.parametrize("name", STACKS)
@pytest.mark.parametrize("turn", [0.0, 0.7])
def test_a_linear_field_is_kept_exactly_wherever_planes_reach(name, turn):
    one = series(*STACKS[name], turn=turn)
    image = volume_of(ramp(points(one)), one)
    expected = ramp(voxels(one))
    assert image.grid is one.grid
    other = volume_of(ramp(points(one)), replace(one, modality="MR"))
    inside = image.array == other.array  # what lies outside has another value there
    assert inside.mean() > 0.7
    assert np.abs(image.array - expected)[inside].max() < 1e-2


@pytest.mark.parametrize("name", STACKS)
def test_the_mended_grid_is_orthogonal_and_holds_every_pixel(name):
    one = series(*STACKS[name], turn=0.3)
    step = one.grid.affine[:3, :3] / np.array(one.spacing_mm)
    assert np.allclose(step.T @ step, np.eye(3), atol=1e-9)
    assert one.spacing_mm[:2] == pytest.approx((0.9, 1.0))
    index = one.grid.to_index(points(one)).reshape(-1, 3)
    assert index.min() > -1e-3
    assert (index.max(axis=0) < np.array(one.grid.shape) - 1 + 1e-3).all()
    middle = one.planes[0]
    assert np.allclose(one.grid.to_index(np.array(middle.position) * (-1, -1, 1)) % 1 % 1, 0, atol=1e-6)


@pytest.mark.parametrize("name", STACKS)
def test_labels_go_onto_the_grid_and_come_back(name):
    one = series(*STACKS[name])
    drawn = ellipsoid(points(one), one)
    on_grid = labels_of(drawn, one)
    true = ellipsoid(voxels(one), one)
    for value in (1, 2):
        assert dice(on_grid.array[0] >= value, true >= value) > 0.92
        back = planes_of(on_grid, one)
        assert dice(back >= value, drawn >= value) > 0.98
    assert back.dtype == drawn.dtype
    litres = (on_grid.array > 0).sum() * one.grid.voxel_ml
    assert litres == pytest.approx(4 / 3 * np.pi * 22 * 17 * 15 / 1000, rel=0.06)


@pytest.mark.parametrize("name", STACKS)
def test_a_mask_made_on_the_grid_lies_right_on_the_planes(name):
    one = series(*STACKS[name])
    mask = Image(ellipsoid(voxels(one), one)[None], one.grid)
    back = planes_of(mask, one)
    true = ellipsoid(points(one), one)
    assert dice(back > 0, true > 0) > 0.97
    assert set(np.unique(back)) == {0, 1, 2}
    flipped = Image(mask.array[:, ::-1], one.grid.cropped((0, 0, 0), one.grid.shape))
    turned = one.grid.affine @ np.diag([-1.0, 1, 1, 1])
    turned[:3, 3] = one.grid.to_mm([one.grid.shape[0] - 1, 0, 0])
    assert np.array_equal(planes_of(Image(flipped.array, type(one.grid)(one.grid.shape, turned)), one), back)


def test_one_whole_voxel_of_shift_a_slice_moves_values_untouched():
    one = series(np.arange(6) * 2.0, degrees=np.degrees(np.arctan(0.5)))
    planes = np.random.default_rng(0).normal(size=(6, 96, 80)).astype(np.float32)
    image = volume_of(planes, one)
    assert image.grid.shape == (80, 101, 6)
    for number, plane in enumerate(planes):
        assert np.array_equal(image.array[0, :, number : number + 96, number], plane.T)
        assert (image.array[0, :, :number, number] == AIR_HU).all()
    labels = (planes > 0).astype(np.uint16)
    assert np.array_equal(planes_of(labels_of(labels, one), one), labels)


def test_outside_the_planes_there_is_air_in_ct_and_the_darkest_value_elsewhere():
    planes = np.full((24, 96, 80), 7.0, np.float32)
    planes[3, 5, 5] = 3.0
    assert volume_of(planes, series(EVEN, 18.5)).array.min() == AIR_HU
    assert volume_of(planes, series(EVEN, 18.5, modality="MR")).array.min() == 3.0


def test_a_gap_is_filled_and_the_true_slices_stay_as_they_are():
    one = series(GAP)
    planes = np.random.default_rng(1).normal(size=(22, 96, 80)).astype(np.float32)
    array = volume_of(planes, one).array[0]
    assert array.shape == (80, 96, 24)
    kept = np.delete(np.arange(24), [9, 15])
    assert np.array_equal(array[:, :, kept], planes.transpose(2, 1, 0))
    assert np.allclose(array[:, :, 9], (planes[8].T + planes[9].T) / 2, atol=1e-6)


def test_a_sheared_grid_keeps_every_voxel():
    one = series(EVEN, 18.5, policy=DicomPolicy(tilt="shear"))
    planes = np.random.default_rng(2).normal(size=(24, 96, 80)).astype(np.float32)
    assert one.mends[0].method == "shear"
    assert np.array_equal(volume_of(planes, one).array[0], planes.transpose(2, 1, 0))
    assert np.allclose(one.grid.to_mm([5, 7, 11]), points(one)[11, 7, 5], atol=1e-9)
    assert np.array_equal(planes_of(labels_of(planes.astype(np.int16), one), one), planes.astype(np.int16))


def test_shared_equally_a_voxel_goes_to_the_smallest_label():
    one = series(np.arange(6) * 2.0, degrees=np.degrees(np.arctan(0.25)))
    planes = np.zeros((6, 96, 80), np.uint8)
    planes[1, 40:60] = 3
    planes[1, 60:80] = 2
    column = labels_of(planes, one).array[0, 10, :, 1]
    assert column[40:42].tolist() == [0, 3]
    assert column[59:63].tolist() == [3, 2, 2, 2]
    assert column[79:82].tolist() == [2, 0, 0]


def test_jitter_is_no_mend():
    one = series(EVEN + np.where(np.arange(24) % 2, 0.02, 0.0))
    assert one.mends == ()
    planes = np.random.default_rng(3).normal(size=(24, 96, 80)).astype(np.float32)
    assert np.array_equal(volume_of(planes, one).array[0], planes.transpose(2, 1, 0))
    assert replace(one).grid.shape == (80, 96, 24)
