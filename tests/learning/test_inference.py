"""Inference: windows agree with the whole, and the way back is exact."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_patients import small_plan
from torch import nn

from medseg.data.prepare import prepare, prepared_grid
from medseg.imaging.grid import Grid
from medseg.imaging.image import Image, canonical, canonical_grid
from medseg.imaging.labels import labels, named_labels
from medseg.imaging.resample import resample
from medseg.learning import inference
from medseg.learning.inference import class_indices, label_map, probabilities, window_starts
from medseg.learning.settings import Prediction

CPU = torch.device("cpu")
LABELS = labels(a=1, b=2)


class Threshold(nn.Module):
    """Bright is label 1, dark is label 2: a network one knows the answer of."""

    def __init__(self, sure: float = 8.0) -> None:
        super().__init__()
        self.sure = sure

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([torch.full_like(x, 0.5), x, -x], dim=1) * self.sure


def _image(shape=(30, 21, 13), seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((1, *shape)).astype(np.float32)


@given(st.integers(1, 200), st.integers(1, 64), st.sampled_from([0.0, 0.25, 0.5, 0.75]))
def test_windows_cover_everything_and_stay_inside(size, patch, overlap):
    starts = window_starts(size, patch, overlap)
    covered = np.zeros(max(size, patch), bool)
    for start in starts:
        assert 0 <= start <= max(0, size - patch)
        covered[start : start + patch] = True
    assert covered.all()
    assert starts == sorted(set(starts))


@pytest.mark.parametrize("patch", [(8, 8, 4), (16, 16, 1), (64, 64, 64)])
@pytest.mark.parametrize("shape", [(30, 21, 13), (5, 6, 3), (16, 16, 4)])
def test_windows_give_what_the_whole_image_gives(patch, shape):
    array = _image(shape)
    out = probabilities(Threshold(), small_plan(patch, batch=2), array, Prediction(), CPU)
    expected = Threshold()(torch.from_numpy(array)[None]).softmax(1)[0].numpy()
    np.testing.assert_allclose(out, expected, atol=1e-5)


@pytest.mark.parametrize("axes", [(0,), (0, 1, 2)])
def test_mirrored_copies_are_turned_back_before_the_mean(axes):
    array = _image((8, 8, 4))
    plain = probabilities(Threshold(), small_plan(), array, Prediction(), CPU)
    mirrored = probabilities(Threshold(), small_plan(), array, Prediction(mirror=axes), CPU)
    np.testing.assert_allclose(plain, mirrored, atol=1e-5)


@pytest.mark.parametrize("spacing", [(1.5, 1.5, 3.0), (0.9, 1.1, 2.0), (3.0, 3.0, 6.0)])
def test_the_way_back_slab_by_slab_equals_resampling_everything(spacing, monkeypatch):
    source = Grid((30, 21, 13), np.array([[0, -1.5, 0, 9], [1.4, 0, 0, 0], [0, 0, -3.0, 2], [0, 0, 0, 1]]))
    plan = small_plan(spacing_mm=spacing)
    grid = prepared_grid(canonical_grid(source), plan.preparation())
    found = np.random.default_rng(1).random((3, *grid.shape)).astype(np.float32)
    monkeypatch.setattr(inference, "_SLAB_VOXELS", 700)
    out = label_map([(found, grid)], source, labels(a=4, b=9))
    whole = resample(Image(found, grid), canonical_grid(source), 1).array.argmax(0)
    expected = np.array([0, 4, 9], np.uint8)[whole]
    assert out.shape == source.shape
    assert out.dtype == np.uint8
    np.testing.assert_array_equal(canonical(Image(out[None], source)).array[0], expected)


def test_a_mask_comes_back_in_the_source_s_axis_order():
    affine = np.array([[0, 0, 3.0, 0], [-1.5, 0, 0, 40], [0, 1.5, 0, 0], [0, 0, 0, 1]])
    grid = Grid((20, 24, 12), affine)
    array = np.zeros((1, *grid.shape), np.float32)
    array[0, 3:9, 10:15, 5:11] = 50
    image, plan = Image(array, grid), small_plan(spacing_mm=(3.0, 1.5, 1.5))
    prepared = prepare(image, plan.preparation())
    found = probabilities(Threshold(), plan, prepared.array, Prediction(), CPU)
    out = label_map([(found, prepared.grid)], grid, LABELS)
    np.testing.assert_array_equal(out == 1, array[0] > 0)


def test_configurations_of_other_spacing_count_alike_on_the_source_grid():
    fine, coarse = (
        Grid.from_spacing((8, 8, 4), (1.0, 1.0, 2.0)),
        Grid.from_spacing((4, 4, 2), (2.0, 2.0, 4.0)),
    )
    half = np.full((3, *fine.shape), 0.3, np.float32)
    half[:, :4], half[:, 4:] = np.array([0.3, 0.7, 0.0])[:, None, None, None], 0.0
    half[2, 4:] = 1.0
    sure = np.zeros((3, *coarse.shape), np.float32)
    sure[2], sure[1] = 0.6, 0.4
    out = label_map([(half, fine), (sure, coarse)], fine, LABELS)
    np.testing.assert_array_equal(out[:4], 1)  # 0.7 + 0.4 against 0 + 0.6
    np.testing.assert_array_equal(out[4:], 2)
    sure[2], sure[1] = 1.0, 0.0
    assert (label_map([(half, fine), (sure, coarse)], fine, LABELS) == 2).all()


def test_several_networks_are_averaged_window_by_window():
    plan = small_plan(patch=(8, 8, 8))
    a, b = Threshold(), Threshold(1.0)
    one, other, both = (
        probabilities(network, plan, _image((20, 20, 20)), Prediction(), CPU) for network in (a, b, [a, b])
    )
    np.testing.assert_allclose(both, (one + other) / 2, atol=1e-6)
    assert not np.allclose(one, other)


def test_regions_become_the_value_that_lies_in_just_them_and_the_smallest_where_there_is_none():
    brats = named_labels({"whole": [1, 2, 4], "core": [1, 4], "enhancing": [4]})
    said = np.array([[0, 0, 0], [0, 1, 0], [1, 1, 0], [1, 1, 1], [0, 1, 1], [0, 0, 1]], np.float32).T
    found = class_indices(said.reshape(3, 6, 1, 1), brats).ravel()
    assert np.array([0, 1, 2, 4])[found].tolist() == [0, 2, 1, 4, 4, 4]
    grid = Grid.from_spacing((6, 1, 1), (1, 1, 1))
    out = label_map([(said.reshape(3, 6, 1, 1), grid)], grid, brats)
    assert out.ravel().tolist() == [0, 2, 1, 4, 4, 4]


def test_the_mean_of_two_models_of_regions_decides_at_a_half():
    both = named_labels({"a": [1, 2], "b": [2]})
    grid, shape = Grid.from_spacing((1, 1, 1), (1, 1, 1)), (2, 1, 1, 1)
    first, second = (np.array(p, np.float32).reshape(shape) for p in ([0.9, 0.9], [0.3, 0.05]))
    assert label_map([(first, grid)], grid, both).item() == 2
    assert label_map([(first, grid), (second, grid)], grid, both).item() == 1
