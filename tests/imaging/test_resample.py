"""Resampling: what must hold for any grid."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from medseg.imaging.grid import Grid
from medseg.imaging.image import Image, canonical, canonical_grid
from medseg.imaging.resample import along_axes, axis_maps, matrix, resample, resample_labels

SHAPES = st.tuples(*[st.integers(1, 9)] * 3)
SPACINGS = st.tuples(*[st.floats(0.4, 4.0)] * 3)
ORDERS = st.sampled_from([0, 1, 3])


def _turned(degrees: float = 20.0) -> np.ndarray:
    a = np.radians(degrees)
    affine = np.eye(4)
    affine[:2, :2] = [[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]
    return affine


@settings(deadline=None, max_examples=40)
@given(SHAPES, SPACINGS, SPACINGS, ORDERS, st.booleans())
def test_a_constant_image_stays_constant(shape, before, after, order, antialias):
    grid = Grid.from_spacing(shape, before)
    image = Image(np.full((1, *shape), 7.5, np.float32), grid)
    out = resample(image, grid.resampled(after), order, antialias=antialias)
    np.testing.assert_allclose(out.array, 7.5, rtol=1e-5)


@settings(deadline=None, max_examples=40)
@given(st.tuples(*[st.integers(4, 9)] * 3), SPACINGS, SPACINGS, st.sampled_from([1, 3]))
def test_a_linear_ramp_is_exact_inside(shape, before, after, order):
    grid = Grid.from_spacing(shape, before)
    target = grid.resampled(after)
    slope = np.array([1.0, -2.0, 0.5])

    def ramp(g: Grid) -> np.ndarray:
        index = np.stack(np.meshgrid(*(np.arange(n) for n in g.shape), indexing="ij"), -1)
        return g.to_mm(index) @ slope

    out = resample(Image(ramp(grid)[None].astype(np.float32), grid), target, order).array[0]
    inside = np.ones(target.shape, bool)
    for axis, n in enumerate(shape):
        # the spline's mirrored ends bend a ramp within a few voxels of the edge
        edge = 0.0 if order == 1 else 1.5
        at = axis_maps(grid, target)[axis].at
        keep = (at > edge + 1e-9) & (at < n - 1 - edge - 1e-9)
        inside &= np.expand_dims(keep, [a for a in range(3) if a != axis])
    tolerance = 1e-4 if order == 1 else 0.3
    np.testing.assert_allclose(out[inside], ramp(target)[inside], atol=tolerance * max(1, *before, *after))


@settings(deadline=None, max_examples=30)
@given(st.tuples(*[st.integers(2, 6)] * 3), st.integers(2, 4))
def test_labels_go_there_and_back_unchanged(shape, finer):
    grid = Grid.from_spacing(shape, (1.0, 2.0, 3.0))
    labels = np.random.default_rng(0).integers(0, 4, (1, *shape)).astype(np.uint8)
    there = resample(Image(labels, grid), grid.resampled(np.array(grid.spacing_mm) / finer), order=3)
    back = resample(there, grid)
    assert there.array.dtype == np.uint8
    np.testing.assert_array_equal(back.array, labels)


def test_labels_never_get_a_value_that_was_not_there():
    grid = Grid.from_spacing((8, 8, 8))
    labels = np.random.default_rng(1).choice([0, 3, 7], (1, 8, 8, 8)).astype(np.uint8)
    for target in (grid.resampled((1.7, 0.6, 1.3)), Grid((9, 9, 9), _turned())):
        assert set(np.unique(resample(Image(labels, grid), target, 1).array)) <= {0, 3, 7}


def test_a_smooth_image_survives_the_way_there_and_back():
    grid = Grid.from_spacing((24, 24, 24))
    noise = np.random.default_rng(0).standard_normal((24, 24, 24))
    image = Image(ndimage.gaussian_filter(noise, 3)[None].astype(np.float32), grid)
    there = resample(image, grid.resampled((0.7, 0.8, 0.6)), 3)
    back = resample(there, grid, 3)
    error = np.abs(back.array - image.array)[0, 3:-3, 3:-3, 3:-3].max()
    assert error < 0.01 * np.abs(image.array).max()


@pytest.mark.parametrize("order", [1, 3])
def test_the_separable_way_equals_interpolation_point_by_point(order):
    grid = Grid.from_spacing((13, 9, 11), (1.0, 1.5, 2.0))
    target = grid.resampled((1.3, 0.9, 1.1))
    array = np.random.default_rng(2).standard_normal((1, 13, 9, 11)).astype(np.float32)
    axes = axis_maps(grid, target)
    at = np.meshgrid(*(a.at for a in axes), indexing="ij")
    mode = "mirror" if order == 3 else "nearest"
    expected = ndimage.map_coordinates(array[0].astype(float), at, order=order, mode=mode)
    np.testing.assert_allclose(along_axes(array, axes, order)[0], expected, atol=1e-5)


def test_permuted_and_flipped_grids_share_axes_and_give_the_same_voxels():
    affine = np.array([[0, 0, -2.0, 30], [1.0, 0, 0, -5], [0, -3.0, 0, 8], [0, 0, 0, 1]])
    grid = Grid((5, 6, 7), affine)
    image = Image(np.random.default_rng(3).standard_normal((2, 5, 6, 7)).astype(np.float32), grid)
    assert axis_maps(grid, canonical_grid(grid)) is not None
    for order in (0, 1, 3):
        out = resample(image, canonical_grid(grid), order)
        np.testing.assert_allclose(out.array, canonical(image).array, atol=1e-6)


def test_turned_grids_are_interpolated_point_by_point():
    grid, turned = Grid.from_spacing((20, 20, 3)), Grid((20, 20, 3), _turned())
    assert axis_maps(grid, turned) is None
    index = np.stack(np.meshgrid(*(np.arange(n) for n in grid.shape), indexing="ij"), -1)
    ramp = grid.to_mm(index)[..., 0][None].astype(np.float32)
    out = resample(Image(ramp, grid), turned, 1).array[0]
    expected = turned.to_mm(index)[..., 0]
    at = grid.to_index(turned.to_mm(index))
    inside = ((at >= 0) & (at <= np.array(grid.shape) - 1)).all(-1)
    np.testing.assert_allclose(out[inside], expected[inside], atol=1e-4)


def test_beyond_the_edge_the_edge_voxel_goes_on():
    grid = Grid.from_spacing((3, 1, 1))
    image = Image(np.array([1.0, 2.0, 5.0], np.float32).reshape(1, 3, 1, 1), grid)
    wide = grid.cropped((-2, 0, 0), (7, 1, 1))
    assert resample(image, wide, 1).array.ravel().tolist() == [1, 1, 1, 2, 5, 5, 5]


def test_antialiasing_averages_where_sampling_would_pick():
    grid = Grid.from_spacing((64, 1, 1))
    stripes = np.tile([0.0, 1.0], 32).astype(np.float32).reshape(1, 64, 1, 1)
    coarse = grid.resampled((4, 1, 1))
    out = resample(Image(stripes, grid), coarse, 1, antialias=True).array
    assert np.abs(out - 0.5).max() < 0.1


def test_rows_of_weights_sum_to_one_and_hold_no_denormals():
    axes = axis_maps(Grid.from_spacing((200, 1, 1)), Grid.from_spacing((200, 1, 1)).resampled((0.7, 1, 1)))
    weights = matrix(axes[0], 3)
    np.testing.assert_allclose(weights.sum(1), 1, atol=1e-5)
    assert np.abs(weights[weights != 0]).min() >= 1e-8


def test_matching_grids_give_the_very_image_back():
    image = Image(np.zeros((1, 2, 3, 4), np.float32), Grid.from_spacing((2, 3, 4)))
    assert resample(image, Grid.from_spacing((2, 3, 4))) is image


def test_a_usual_ct_takes_seconds_not_minutes():
    grid = Grid.from_spacing((160, 160, 60), (0.8, 0.8, 5.0))
    image = Image(np.random.default_rng(0).standard_normal((1, *grid.shape)).astype(np.float32), grid)
    start = time.process_time()
    resample(image, grid.resampled((1.5, 1.5, 3.0)), 3)
    assert time.process_time() - start < 5


@pytest.mark.parametrize("ratio", [0.9, 1.042, 1.3])
def test_labels_keep_their_volume_where_the_nearest_voxel_would_not(ratio: float):
    grid = Grid.from_spacing((40, 40, 40), (4, 4, 4))
    points = grid.to_mm(np.moveaxis(np.indices(grid.shape), 0, -1)) - 80.7
    ball = Image((np.linalg.norm(points, axis=-1) <= 31).astype(np.uint8)[None] * 7, grid)
    target = grid.resampled((4 * ratio,) * 3)
    moved = resample_labels(ball, target)
    volume = (moved.array == 7).sum() * target.voxel_ml
    assert set(np.unique(moved.array)) == {0, 7}
    assert moved.array.dtype == np.uint8
    assert abs(volume / (4 / 3 * np.pi * 31**3 / 1000) - 1) < 0.06


def test_labels_on_their_own_grid_stay_what_they_are():
    mask = Image(np.arange(27, dtype=np.uint8).reshape(1, 3, 3, 3), Grid.from_spacing((3, 3, 3)))
    assert resample_labels(mask, mask.grid) is mask
