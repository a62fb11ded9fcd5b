"""prepare: axes, spacing and grey values as the plan says, and refusals."""

from __future__ import annotations

import numpy as np
import pytest

from medseg.core.errors import CaseError
from medseg.data.plan import Intensity, Preparation
from medseg.data.prepare import foreground_voxels, prepare, prepare_mask, prepare_pair, prepared_grid
from medseg.imaging.grid import Grid
from medseg.imaging.image import Image, canonical_grid

LPS = Grid((8, 10, 6), np.diag([-1.0, -1.0, 2.0, 1.0]))


def _preparation(spacing=(1.0, 1.0, 2.0), **more) -> Preparation:
    rule = more.pop("rule", Intensity(name="zscore"))
    return Preparation(channels=("MR",), spacing_mm=spacing, intensity={"MR": rule}, **more)


def _noise(grid: Grid = LPS, channels: int = 1) -> Image:
    values = np.random.default_rng(0).normal(500, 80, (channels, *grid.shape))
    return Image(values.astype(np.float32), grid)


def test_axes_become_ras_and_grey_values_have_mean_0_and_sd_1():
    out = prepare(_noise(), _preparation())
    assert out.grid.axis_codes == "RAS"
    assert out.array.dtype == np.float32
    assert abs(out.array.mean()) < 1e-5
    assert abs(out.array.std() - 1) < 1e-5
    np.testing.assert_allclose(out.array[0, 0, 0, 0], out.array[0].flat[0])
    assert out.grid.matches(canonical_grid(LPS))


def test_the_spacing_becomes_the_plan_s():
    out = prepare(_noise(), _preparation(spacing=(2.0, 1.0, 1.0)))
    assert out.grid.spacing_mm == (2.0, 1.0, 1.0)
    assert out.grid.shape == (4, 10, 12)


def test_a_spacing_within_one_percent_is_left_alone():
    grid = Grid.from_spacing((8, 8, 8), (1.004, 0.997, 2.0))
    assert prepared_grid(grid, _preparation()) is grid


def test_scale_and_offset_of_the_source_do_not_matter():
    image = _noise()
    a, b = prepare(image, _preparation()), prepare(image.but(image.array * 7 - 300), _preparation())
    np.testing.assert_allclose(a.array, b.array, atol=1e-4)


def test_a_window_clips_before_it_scales():
    rule = Intensity(name="window_zscore", settings={"low": -100, "high": 200, "mean": 50, "sd": 50})
    values = np.array([-1000.0, -100, 50, 200, 3000], np.float32).reshape(1, 5, 1, 1)
    image = Image(values, Grid.from_spacing((5, 1, 1), (1, 1, 2)))
    assert prepare(image, _preparation(rule=rule)).array.ravel().tolist() == [-3, -3, 0, 3, 3]


def test_bright_spots_and_scale_do_not_move_an_image_cut_at_its_percentiles():
    rule = Intensity(name="percentile_zscore", settings={"low": 0.5, "high": 99})
    image = _noise()
    spots = image.array.copy()
    spots[0, 0, 0, 0] = 1e5
    told = [prepare(im, _preparation(rule=rule)).array for im in (image, image.but(spots * 4000 - 7))]
    assert np.abs(told[1] - told[0]).mean() < 0.05
    plain = prepare(image.but(spots), _preparation()).array
    assert np.abs(plain).mean() < 0.2, "what a plain z-score makes of it"


def test_a_cut_out_background_stays_zero():
    array = _noise().array.copy()
    array[0, :4] = 0
    out = prepare(Image(array, LPS), _preparation(rule=Intensity(name="zscore", settings={"nonzero": 1.0})))
    kept = out.array[0][out.array[0] != 0]
    assert (out.array == 0).sum() == array[0, :4].size
    assert abs(kept.mean()) < 1e-4


def test_a_constant_image_is_refused_with_its_value():
    with pytest.raises(CaseError, match="constant") as caught:
        prepare(Image(np.full((1, 8, 10, 6), 3, np.float32), LPS), _preparation())
    assert "mean 3" in str(caught.value.evidence)


def test_another_number_of_channels_is_refused():
    with pytest.raises(CaseError, match="channels"):
        prepare(_noise(channels=2), _preparation())


def test_labels_become_indices_on_the_same_grid_as_their_image():
    array = np.random.default_rng(1).choice([0, 5, 9], (1, 8, 10, 6)).astype(np.uint8)
    plan = _preparation(spacing=(0.8, 1.3, 2.1), label_values=(5, 9))
    image, mask = prepare_pair(_noise(), Image(array, LPS), plan)
    assert mask is not None
    assert mask.grid is not None
    assert image.grid.matches(mask.grid)
    assert set(np.unique(mask.array)) <= {0, 1, 2}
    assert mask.array.dtype == np.uint8


def test_a_strange_label_is_refused_by_its_value():
    mask = Image(np.full((1, 8, 10, 6), 7, np.uint8), LPS)
    with pytest.raises(CaseError, match="no label of the plan") as caught:
        prepare_mask(mask, _preparation(label_values=(1, 2)))
    assert "7" in str(caught.value.evidence)


def test_image_and_reference_in_different_places_are_refused():
    moved = Grid(LPS.shape, LPS.affine + np.eye(4)[:, [3]] * 0 + np.array([[0, 0, 0, 5.0]] + [[0] * 4] * 3))
    with pytest.raises(CaseError, match="same grid"):
        prepare_pair(_noise(), Image(np.zeros((1, *LPS.shape), np.uint8), moved), _preparation())


def test_whole_images_are_shrunk_in_proportion_until_they_fit():
    plan = _preparation(spacing=(1.0, 1.0, 1.0), whole=(32, 32, 1))
    large = prepared_grid(Grid.from_spacing((100, 64, 1)), plan)
    assert large.shape[0] <= 33
    assert large.shape[:2] == (32, round(64 * 32 / 100))
    assert prepared_grid(Grid.from_spacing((20, 30, 1)), plan).shape == (20, 30, 1)


def test_foreground_voxels_are_of_their_label_and_not_too_many():
    indices = np.zeros((20, 20, 20), np.uint8)
    indices[5:15, 5:15, 5:15], indices[0, 0, 0] = 1, 2
    rows = foreground_voxels(indices, most=100)
    assert (indices[tuple(rows[:, 1:].T)] == rows[:, 0]).all()
    assert (rows[:, 0] == 1).sum() <= 100
    assert (rows[:, 0] == 2).sum() == 1
    assert foreground_voxels(np.zeros((2, 2, 2), np.uint8)).shape == (0, 4)
