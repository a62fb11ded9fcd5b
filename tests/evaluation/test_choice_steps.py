"""Mask steps are kept where they pay on cases nobody trained on, and nowhere else."""

from __future__ import annotations

import numpy as np
import pytest

from medseg.evaluation.choice import said_of
from medseg.evaluation.choice_steps import choose_steps, options_for, try_options
from medseg.evaluation.policy import Scoring
from medseg.imaging.grid import Grid
from medseg.imaging.image import Image
from medseg.imaging.labels import labels, named_labels

ORGANS = labels(liver=1, lesion=2)
GRID = Grid.from_spacing((20, 20, 20), (1.0, 1.0, 1.0))
QUICK = Scoring(repeats=500)
OPTIONS = options_for(ORGANS, {"1": 0.5, "2": 0.0})


def image(*boxes):
    """Label values in boxes: (value, low, high), along all axes alike."""
    array = np.zeros((1, *GRID.shape), np.uint8)
    for value, low, high in boxes:
        array[0, low:high, low:high, low:high] = value
    return Image(array, GRID)


def tries(masks, reference):
    found = []
    for n, mask in enumerate(masks):
        found += try_options(mask, reference, ORGANS, OPTIONS, QUICK, f"c{n}", f"p{n}")
    return found


def test_what_is_tried_on_a_label():
    said = [option.said for option in OPTIONS if option.name == "liver"]
    assert "nothing" in said and "keep_largest" in said and "below 0.025 ml + fill_holes" in said
    assert len(said) == 2 * 5
    assert len([o for o in OPTIONS if o.name == "lesion"]) == 2 * 2  # no volume is known


def test_a_step_of_a_region_is_judged_on_the_whole_of_it():
    regions = named_labels({"tumour": [1, 2], "core": [2]})
    options = options_for(regions, {"1": 0.5, "2": 0.1})
    assert {o.ml for o in options if o.name == "tumour"} == {0.0, 0.006, 0.03, 0.12}, "shares of 0.6 ml"
    mask, reference = image((1, 2, 10), (2, 4, 8), (2, 14, 18)), image((1, 2, 10), (2, 4, 8))
    rows = try_options(mask, reference, regions, options, QUICK, "c", "p")
    found = {(row["label"], row["option"]): row["value"] for row in rows}
    assert found["tumour", "nothing"] == pytest.approx(2 * 512 / (512 + 576))
    assert found["tumour", "keep_largest"] == 1.0


def test_a_second_piece_that_is_always_wrong_is_taken_away():
    reference = image((1, 2, 10))
    masks = [image((1, 2, 10), (1, 14, 16 + n % 2)) for n in range(20)]
    found = choose_steps(tries(masks, reference), OPTIONS, QUICK)
    assert [s["step"] for s in found["steps"]] in (["keep_largest"], ["drop_below_ml"])
    assert found["steps"][0]["labels"] == [1]
    kept = [row for row in found["tried"] if row["kept"]]
    assert len(kept) == 1 and kept[0]["ci"][0] > 0
    assert next(said_of("steps", found)).startswith("liver: ")


def test_a_step_that_helps_in_one_case_alone_is_left_out():
    reference = image((1, 2, 10))
    masks = [image((1, 2, 10))] * 19 + [image((1, 2, 10), (1, 14, 18))]
    found = choose_steps(tries(masks, reference), OPTIONS, QUICK)
    assert found["steps"] == []
    assert next(said_of("steps", found)).startswith("none")


def test_holes_are_filled_after_the_removal_where_that_pays_too():
    reference = image((1, 2, 12))
    masks = [image((1, 2, 12), (0, 5, 7 + n % 2), (1, 15, 18)) for n in range(20)]
    found = choose_steps(tries(masks, reference), OPTIONS, QUICK)
    assert [s["step"] for s in found["steps"]] == ["keep_largest", "fill_holes"]


def test_the_intervals_are_wider_the_more_is_tried():
    found = choose_steps([], OPTIONS, QUICK)
    tests = 4 + 1 + 1 + 1  # removals and one filling, of two labels
    assert found["confidence"] == pytest.approx(1 - 0.05 / tests)


def test_an_invented_label_of_an_empty_reference_counts_for_something():
    values = try_options(image((2, 3, 4)), image(), ORGANS, OPTIONS, QUICK, "c", "p")
    by_option = {row["option"]: row["value"] for row in values if row["label"] == "lesion"}
    assert by_option["nothing"] == 0.0
    of_liver = {row["value"] for row in values if row["label"] == "liver"}
    assert of_liver == {1.0}  # neither mask has it
