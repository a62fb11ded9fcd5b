"""Mask steps: drawn masks, and doing a step twice is doing it once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from medseg.core.errors import MedsegError
from medseg.imaging.grid import Grid
from medseg.imaging.image import Image
from medseg.imaging.labels import labels, named_labels
from medseg.imaging.masks import MASK_STEPS, Step, apply_steps, boxes_of, volume_ml, volumes_ml


def image(array, spacing=(1, 1, 1)) -> Image:
    array = np.asarray(array, np.uint8)
    return Image(array[None], Grid.from_spacing(array.shape, spacing))


def two_blobs():
    array = np.zeros((12, 12, 6), np.uint8)
    array[1:5, 1:5, 1:5] = 1
    array[8:10, 8:10, 2:4] = 1
    array[6, 1:3, 1:3] = 2
    return array


def test_the_largest_component_stays_and_other_labels_are_left_alone():
    done = apply_steps(image(two_blobs()), [Step(step="keep_largest", labels=(1,))]).array[0]
    assert (done == 1).sum() == 64
    assert (done == 2).sum() == 4
    assert done[8, 8, 2] == 0


def test_without_labels_a_step_is_for_every_label():
    array = two_blobs()
    array[11, 11, 5] = 2
    done = apply_steps(image(array), [Step(step="keep_largest")]).array[0]
    assert ((done == 1).sum(), (done == 2).sum()) == (64, 4)


def test_components_touching_by_a_corner_are_one():
    array = np.zeros((4, 4, 4), np.uint8)
    array[0, 0, 0] = array[1, 1, 1] = 1
    assert apply_steps(image(array), [Step(step="keep_largest")]).array.sum() == 2


def test_small_components_go_by_volume_not_by_voxels():
    array = two_blobs()
    steps = [Step(step="drop_below_ml", labels=(1,), settings={"ml": 0.02})]
    assert (apply_steps(image(array), steps).array == 1).sum() == 64
    assert (apply_steps(image(array, (2, 2, 2)), steps).array == 1).sum() == 72


def test_holes_are_filled_with_background_only():
    array = np.zeros((9, 9, 9), np.uint8)
    array[1:8, 1:8, 1:8] = 1
    array[3:6, 3:6, 3:6] = 0
    array[4, 4, 4] = 2
    done = apply_steps(image(array), [Step(step="fill_holes", labels=(1,))]).array[0]
    assert done[3, 3, 3] == 1
    assert done[4, 4, 4] == 2
    assert (done > 0).sum() == 343


def test_a_ring_in_a_single_slice_is_filled_in_its_plane():
    array = np.zeros((7, 7, 1), np.uint8)
    array[1:6, 1:6] = 1
    array[2:5, 2:5] = 0
    assert apply_steps(image(array), [Step(step="fill_holes")]).array.sum() == 25


def test_an_empty_mask_and_no_steps_are_fine_and_the_input_is_not_changed():
    empty = image(np.zeros((3, 3, 3)))
    assert apply_steps(empty, [Step(step=name) for name in MASK_STEPS]).array.sum() == 0
    before = image(two_blobs())
    apply_steps(before, [Step(step="keep_largest")])
    assert np.array_equal(before.array[0], two_blobs())


def test_unknown_steps_and_settings_are_named():
    with pytest.raises(MedsegError, match="did you mean 'keep_largest'"):
        apply_steps(image(two_blobs()), [Step(step="keep_larges")])
    with pytest.raises(MedsegError, match="does not take"):
        apply_steps(image(two_blobs()), [Step(step="fill_holes", settings={"size": 3})])


def test_volumes_are_in_millilitres():
    mask = image(two_blobs(), (1, 1, 5))
    assert volume_ml(mask, 1) == pytest.approx(72 * 5 / 1000)
    assert volumes_ml(mask, labels(a=1, b=2, c=3)) == pytest.approx({"a": 0.36, "b": 0.02, "c": 0.0})


WHOLE, CORE, LIT = 2, 1, 4
TUMOUR = named_labels({"whole": [1, 2, 4], "core": [1, 4], "lit": [4]})
"""A region's own value: that of a voxel which lies in it and in no smaller one."""


def tumour():
    """A whole tumour of 7 cubed with a core of 5 cubed, lit in its middle; and a small one far from it."""
    array = np.zeros((16, 9, 9), np.uint8)
    array[1:8, 1:8, 1:8], array[2:7, 2:7, 2:7], array[4, 4, 4] = WHOLE, CORE, LIT
    array[11:14, 2:5, 2:5], array[12, 3, 3] = WHOLE, LIT
    return array


def after(array, step: str, *values: int, regions=TUMOUR):
    return apply_steps(image(array), [Step(step=step, labels=values)], regions).array[0]


def test_a_step_of_a_region_acts_on_all_its_values_together():
    expected = tumour()
    expected[9:] = 0
    np.testing.assert_array_equal(after(tumour(), "keep_largest", WHOLE), expected)
    small = Step(step="drop_below_ml", labels=(WHOLE,), settings={"ml": 0.027})
    np.testing.assert_array_equal(apply_steps(image(tumour()), [small], TUMOUR).array[0], tumour())


def test_what_leaves_a_region_leaves_the_smaller_ones_and_stays_in_the_larger_ones():
    expected = tumour()
    expected[12, 3, 3] = WHOLE
    np.testing.assert_array_equal(after(tumour(), "keep_largest", CORE), expected)
    expected[11:14] = 0
    np.testing.assert_array_equal(after(tumour(), "keep_largest"), expected)


def test_a_hole_of_a_region_is_filled_with_the_value_of_just_this_region_and_those_around_it():
    holed = tumour()
    holed[3, 3, 3], holed[5, 5, 5], holed[1, 4, 4] = 0, WHOLE, 0
    filled = after(holed, "fill_holes", CORE)
    assert (filled[3, 3, 3], filled[5, 5, 5], filled[4, 4, 4]) == (CORE, CORE, LIT)
    assert (filled != holed).sum() == 2
    assert after(holed, "fill_holes", WHOLE)[3, 3, 3] == WHOLE


def test_regions_that_cross_keep_what_is_theirs_alone():
    crossing = named_labels({"left": [1, 3], "right": [2, 3], "around left": [1, 3, 4]})
    array = np.zeros((9, 9, 9), np.uint8)
    array[1:6, 1:8, 1:8] = 1
    array[3, 3, 3], array[8, 4, 4], array[7, 4, 4] = 2, 3, 2
    done = after(array, "fill_holes", 1, regions=crossing)
    assert done[3, 3, 3] == 3, "what is right and enclosed by left is both"
    done = after(array, "keep_largest", 1, regions=crossing)
    assert (done[8, 4, 4], done[7, 4, 4]) == (2, 2), "what was both is right alone"


def test_what_no_value_can_say_without_the_region_becomes_background():
    tied = named_labels({"a": [1, 2], "b": [1, 3], "c": [3]})
    array = np.zeros((5, 5, 5), np.uint8)
    array[0:2], array[4, 4, 4] = 2, 1
    assert after(array, "keep_largest", 2, regions=tied)[4, 4, 4] == 0, "b has no value of its own"


def test_a_region_does_not_take_what_no_value_can_hold_together():
    apart = named_labels({"liver": [1], "spleen": [2, 3], "vessel": [3]})
    array = np.zeros((7, 7, 7), np.uint8)
    array[1:6, 1:6, 1:6] = 1
    array[3, 3, 3], array[2, 2, 2] = 2, 0
    done = after(array, "fill_holes", 1, regions=apart)
    assert (done[3, 3, 3], done[2, 2, 2]) == (2, 1)


@pytest.mark.parametrize("name", sorted(MASK_STEPS))
@given(arrays(np.uint8, (5, 6, 4), elements=st.integers(0, 2)))
@settings(max_examples=25, deadline=None)
def test_a_step_done_twice_is_a_step_done_once(name, array):
    steps = [Step(step=name, settings={"ml": 0.004} if name == "drop_below_ml" else {})]
    once = apply_steps(image(array), steps)
    assert np.array_equal(apply_steps(once, steps).array, once.array)
    assert once.array.dtype == np.uint8
    alone = named_labels({"a": [1], "b": [2], "elsewhere": [3, 4]})
    assert np.array_equal(apply_steps(image(array), steps, alone).array, once.array)


@pytest.mark.parametrize("share", [0.0, 0.02, 0.3])
def test_boxes_are_those_of_the_whole_array(share: float) -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        shape = tuple(rng.integers(1, 9, 3))
        array = ((rng.random(shape) < share) * rng.integers(0, 5, shape)).astype(np.uint8)
        found = {}
        for value in np.unique(array[array > 0]):
            places = np.argwhere(array == value)
            ends = zip(places.min(0), places.max(0) + 1, strict=True)
            found[int(value)] = tuple(slice(int(a), int(b)) for a, b in ends)
        assert boxes_of(array) == found
