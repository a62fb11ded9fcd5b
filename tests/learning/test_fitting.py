"""Weights in another shape compute what they computed: the algebra of inflation, channels, sides, places."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from medseg.learning.fitting import (
    Place,
    bias_table,
    by_class,
    fitted,
    flatten,
    inflate,
    positions,
    rechannel,
    resize,
)


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.mark.parametrize("how", ["repeat", "centre"])
@pytest.mark.parametrize("depth", [1, 3, 5])
def test_an_inflated_kernel_answers_to_a_volume_constant_in_depth_as_the_flat_one_to_a_slice(how, depth):
    kernel, picture = torch.randn(4, 3, 3, 3), torch.randn(1, 3, 9, 8)
    volume = picture[..., None].expand(-1, -1, -1, -1, 11)
    flat = functional.conv2d(picture, kernel, padding=1)
    deep = functional.conv3d(volume, inflate(kernel, depth, how), padding=(1, 1, depth // 2))
    inside = deep[..., depth // 2 : 11 - depth // 2]
    assert torch.allclose(inside, flat[..., None].expand_as(inside), atol=1e-5)


@pytest.mark.parametrize("how", ["repeat", "centre"])
def test_a_kernel_summed_over_its_depth_is_the_one_that_was_inflated(how):
    kernel = torch.randn(4, 3, 5, 5)
    assert torch.allclose(flatten(inflate(kernel, 5, how)), kernel, atol=1e-6)


@pytest.mark.parametrize(("before", "after"), [(3, 1), (1, 3), (3, 2), (1, 4)])
def test_equal_channels_are_answered_to_as_before_however_many_there_are(before, after):
    kernel, grey = torch.randn(4, before, 3, 3, 3), torch.randn(1, 1, 6, 6, 6)
    old = functional.conv3d(grey.expand(-1, before, -1, -1, -1), kernel)
    new = functional.conv3d(grey.expand(-1, after, -1, -1, -1), rechannel(kernel, after))
    assert torch.allclose(new, old, atol=1e-5)


def test_a_grown_kernel_computes_the_same():
    kernel, image = torch.randn(2, 1, 3, 3), torch.randn(1, 1, 9, 9)
    grown = resize(kernel, (7, 5))
    assert grown is not None
    assert torch.allclose(
        functional.conv2d(image, grown, padding=(3, 2)),
        functional.conv2d(image, kernel, padding=1),
        atol=1e-6,
    )


def test_a_kernel_is_cut_only_when_its_middle_holds_most_of_it():
    middle = torch.zeros(1, 1, 7, 7)
    middle[..., 2:5, 2:5] = torch.randn(3, 3)
    cut = resize(middle, (3, 3))
    assert cut is not None
    assert torch.equal(cut, middle[..., 2:5, 2:5])
    assert resize(torch.ones(1, 1, 7, 7), (3, 3)) is None
    assert resize(torch.ones(1, 1, 4, 4), (3, 3)) is None, "a side that is even has no middle"


def test_axes_channels_and_sides_change_together_and_all_of_it_is_told():
    stem = torch.randn(8, 3, 3, 3)
    value, said = fitted(stem, (8, 1, 5, 5, 5), "conv1.weight", Place(channels=1))
    assert value is not None
    assert value.shape == (8, 1, 5, 5, 5)
    assert torch.allclose(value.sum((1, 2, 3, 4)), stem.sum((1, 2, 3)), atol=1e-5)
    assert "inflated" in said
    assert "3 input channels to 1" in said


def test_only_what_sees_the_image_may_change_its_number_of_inputs():
    value, said = fitted(torch.randn(8, 4, 3, 3), (8, 6, 3, 3), "layer1.weight", Place(channels=2, spatial=2))
    assert value is None
    assert said == "another shape, 8 x 4 x 3 x 3 for 8 x 6 x 3 x 3"


@pytest.mark.parametrize("token", [0, 1])
def test_positions_that_are_linear_in_place_stay_so(token):
    """A plane over 8 x 8 patches is the same plane over 4 x 4, at their middles."""
    at = (torch.arange(8) + 0.5) / 8
    grid = torch.stack(torch.meshgrid(at, at, indexing="ij"), -1).reshape(1, 64, 2)
    old = torch.cat([torch.full((1, token, 2), 9.0), grid], dim=1)
    new, said = positions(old, (1, 16, 2), (4, 4))
    at = (torch.arange(4) + 0.5) / 4
    wanted = torch.stack(torch.meshgrid(at, at, indexing="ij"), -1).reshape(1, 16, 2)
    assert new is not None
    assert torch.allclose(new[:, [5, 6, 9, 10]], wanted[:, [5, 6, 9, 10]], atol=0.02)
    assert said == "positions interpolated from 8 to 4 x 4"


def test_a_bias_table_keeps_its_middle_and_its_ends():
    old = torch.linspace(-1, 1, 5)[:, None].expand(5, 5).reshape(25, 1)
    new, said = bias_table(old, (49, 1), 2)
    assert new is not None
    grid = new.reshape(7, 7)
    assert torch.allclose(grid[3], torch.zeros(7), atol=1e-6)
    assert torch.allclose(grid[0], -grid[6], atol=1e-6)
    assert (grid[1:] > grid[:-1]).all()
    assert said == "window biases interpolated from 3 to 4 voxels"


def test_a_table_that_is_no_square_is_left():
    assert (
        fitted(torch.zeros(24, 3), (49, 3), "a.relative_position_bias_table", Place(1, spatial=2))[0] is None
    )


def test_rows_of_a_head_go_to_the_classes_of_their_names():
    old, fresh = torch.arange(6.0).reshape(3, 2), torch.full((3, 2), -1.0)
    value, said = by_class(old, fresh, ["background", "spleen", "liver"], ["background", "liver", "kidney"])
    assert value is not None
    assert value.tolist() == [[0, 1], [4, 5], [-1, -1]]
    assert said == "2 of 3 outputs by the names of their classes"


def test_the_background_alone_is_no_class_in_common():
    old, fresh = torch.zeros(2, 2), torch.ones(2, 2)
    assert by_class(old, fresh, ["background", "a"], ["background", "b"]) == (None, "no class in common")
