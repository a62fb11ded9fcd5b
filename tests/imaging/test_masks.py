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
from medseg.imaging.labels import labels
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


@pytest.mark.parametrize("name", sorted(MASK_STEPS))
@given(arrays(np.uint8, (5, 6, 4), elements=st.integers(0, 2)))
@settings(max_examples=25, deadline=None)
def test_a_step_done_twice_is_a_step_done_once(name, array):
    steps = [Step(step=name, settings={"ml": 0.004} if name == "drop_below_ml" else {})]
    once = apply_steps(image(array), steps)
    assert np.array_equal(apply_steps(once, steps).array, once.array)
    assert once.array.dtype == np.uint8


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
