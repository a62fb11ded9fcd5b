"""Masks move between grids of one lattice without a voxel changing place in the patient."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from medseg.core.errors import CaseError
from medseg.imaging.grid import Grid
from medseg.imaging.image import Image, canonical
from medseg.imaging.lattice import on_lattice

ORDERS = list(itertools.permutations(range(3)))
OBLIQUE = Grid((5, 6, 7), np.array([[2, 0.3, 0, 5], [-0.3, 2, 0.2, -7], [0, -0.2, 3, 11], [0, 0, 0, 1.0]]))


def some_mask(grid: Grid, seed: int = 0) -> Image:
    return Image(np.random.default_rng(seed).integers(0, 4, (1, *grid.shape)).astype(np.uint8), grid)


def turned(image: Image, order: tuple[int, ...], flips: tuple[bool, ...]) -> Image:
    """The same voxels at the same places, stored along other axes."""
    array, affine = image.array.transpose(0, *(a + 1 for a in order)), np.eye(4)
    affine[:3, :3] = image.grid.affine[:3, :3][:, list(order)]
    affine[:3, 3] = image.grid.affine[:3, 3]
    for axis in range(3):
        if flips[axis]:
            array = np.flip(array, axis + 1)
            affine[:3, 3] += affine[:3, axis] * (array.shape[axis + 1] - 1)
            affine[:3, axis] *= -1
    return Image(array, Grid(array.shape[1:], affine))  # type: ignore[arg-type]


@given(some.sampled_from(ORDERS), some.tuples(some.booleans(), some.booleans(), some.booleans()))
def test_any_order_of_axes_comes_back_voxel_for_voxel(order, flips):
    image = some_mask(OBLIQUE)
    assert np.array_equal(on_lattice(turned(image, order, flips), OBLIQUE).array, image.array)


def test_the_canonical_order_comes_back():
    image = some_mask(OBLIQUE)
    assert np.array_equal(on_lattice(canonical(image), OBLIQUE).array, image.array)


def test_a_crop_is_laid_where_it_belongs_and_the_rest_is_background():
    image = some_mask(OBLIQUE)
    crop = Image(image.array[:, 1:4, 2:6, 3:5], OBLIQUE.cropped((1, 2, 3), (3, 4, 2)))
    whole = on_lattice(crop, OBLIQUE).array
    assert np.array_equal(whole[:, 1:4, 2:6, 3:5], crop.array)
    assert np.count_nonzero(whole) == np.count_nonzero(crop.array)


def test_padding_without_labels_is_dropped_but_labels_outside_are_refused():
    padded = Image(np.zeros((1, 7, 8, 9), np.uint8), OBLIQUE.cropped((-1, -1, -1), (7, 8, 9)))
    assert on_lattice(padded, OBLIQUE).grid is OBLIQUE
    padded.array[0, 0, 0, 0] = 1
    with pytest.raises(CaseError, match="outside"):
        on_lattice(padded, OBLIQUE)


@pytest.mark.parametrize("shift", [(0.5, 0, 0), (0, 0.1, 0), (0, 0, 0.3)])
def test_half_a_voxel_off_is_refused_with_both_grids(shift):
    moved = OBLIQUE.affine.copy()
    moved[:3, 3] += OBLIQUE.affine[:3, :3] @ shift
    with pytest.raises(CaseError, match="affine"):
        on_lattice(some_mask(Grid(OBLIQUE.shape, moved)), OBLIQUE)


def test_another_spacing_is_refused():
    with pytest.raises(CaseError, match="does not lie on the voxels"):
        on_lattice(some_mask(OBLIQUE.resampled((1, 2, 3))), OBLIQUE)


def test_float32_rounding_of_a_header_is_not_a_difference():
    rounded = Grid(OBLIQUE.shape, OBLIQUE.affine.astype(np.float32).astype(float))
    assert np.array_equal(on_lattice(some_mask(rounded), OBLIQUE).array, some_mask(OBLIQUE).array)
