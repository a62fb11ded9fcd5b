"""Outlines along pixel edges say everything about a mask, by every rule of filling."""

from __future__ import annotations

import numpy as np
import pytest

from medseg.imaging.dicom_contours import fill
from medseg.imaging.dicom_trace import outlines


def filled(outline: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    return fill([outline[:, ::-1] - 0.5], shape)


def random_masks() -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    return [rng.random(rng.integers(1, 14, 2)) < rng.random() for _ in range(150)]


@pytest.mark.parametrize("holes", ["keyhole", "inner"])
def test_exclusive_or_of_the_outlines_is_the_mask(holes):
    for mask in random_masks():
        result = np.zeros(mask.shape, bool)
        for outline in outlines(mask, holes):
            result ^= filled(outline, mask.shape)
        assert np.array_equal(result, mask)


def test_with_keyholes_the_union_is_the_mask_too():
    for mask in random_masks():
        result = np.zeros(mask.shape, bool)
        for outline in outlines(mask):
            result |= filled(outline, mask.shape)
        assert np.array_equal(result, mask)


def test_a_ring_is_one_outline_with_a_keyhole_and_two_without():
    ring = np.ones((5, 5), bool)
    ring[2, 2] = False
    assert len(outlines(ring)) == 1
    assert sorted(len(outline) for outline in outlines(ring, "inner")) == [4, 4]


def test_a_pixel_is_a_square_and_pixels_that_touch_at_a_corner_are_two():
    mask = np.zeros((4, 4), np.uint8)
    mask[1, 2] = mask[2, 1] = 3
    first, second = outlines(mask)
    assert {tuple(c) for c in first} == {(1, 2), (1, 3), (2, 3), (2, 2)}
    assert {tuple(c) for c in second} == {(2, 1), (2, 2), (3, 2), (3, 1)}


def test_only_corners_are_kept():
    assert [len(outline) for outline in outlines(np.ones((7, 9)))] == [4]
    assert outlines(np.zeros((3, 3))) == []
