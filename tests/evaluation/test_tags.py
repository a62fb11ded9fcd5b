"""Failure tags: each rule on a phantom with that failure alone, and silence on a good mask."""

from __future__ import annotations

import numpy as np
import pytest

from medseg.evaluation.report.tags import RULES, failure_tags, partners
from medseg.imaging.grid import Grid
from medseg.imaging.image import Image
from medseg.imaging.labels import labels

ORGAN = labels(organ=1)
SIDES = labels(kidney_left=1, kidney_right=2)
GRID = Grid.from_spacing((60, 40, 30), (1, 1, 2))
X, Y, Z = np.indices(GRID.shape)


def ball(i, j, k, r):
    return (X - i) ** 2 + (Y - j) ** 2 + (2 * (Z - k)) ** 2 <= r * r


def image(*parts, grid=GRID) -> Image:
    mask = np.zeros((1, *grid.shape), np.uint8)
    for value, part in enumerate(parts, 1):
        mask[0][part] = value
    return Image(mask, grid)


def names(prediction, reference, known=ORGAN):
    return [tag.name for tag in failure_tags(prediction, reference, known)]


TRUTH = ball(20, 20, 14, 10)


@pytest.mark.parametrize(
    ("predicted", "wanted"),
    [
        (TRUTH, []),
        (ball(21, 20, 14, 10), []),
        (np.zeros_like(TRUTH), ["missed"]),
        (TRUTH | ball(48, 8, 6, 3), ["extra component"]),
        (TRUTH | ball(48, 8, 6, 1), []),
        (TRUTH | ((abs(Y - 20) < 3) & (abs(Z - 14) < 2) & (X > 20) & (X < 48)), ["leak"]),
        (ball(42, 20, 14, 10), ["left-right swap"]),
    ],
    ids=["same", "shifted by 1 mm", "missed", "extra", "a speck", "leak", "mirrored"],
)
def test_each_rule_finds_its_failure_and_no_other(predicted, wanted):
    assert set(names(image(predicted), image(TRUTH))) == set(wanted)


def test_without_a_prediction_labels_are_missed_and_what_the_reference_lacks_is_invented():
    assert names(None, image(TRUTH)) == ["missed"]
    assert names(image(TRUTH), image(np.zeros_like(TRUTH))) == ["invented"]
    assert names(image(TRUTH), None) == []


def test_a_lesion_that_nothing_touches_is_a_missed_piece():
    (tag,) = failure_tags(image(TRUTH), image(TRUTH | ball(48, 8, 6, 4)), ORGAN)
    assert (tag.name, tag.label) == ("missed piece", "organ")
    assert tag.said.startswith("1, ")


def test_swapped_sides_are_told_from_swapped_labels_and_from_a_mirrored_mask():
    left, right = ball(15, 20, 14, 8), ball(44, 20, 14, 8)
    assert names(image(left, right), image(left, right), SIDES) == []
    assert names(image(right, left), image(left, right), SIDES) == ["left-right swap"]
    assert "label swap" in names(image(right, left), image(left, right), labels(liver=1, spleen=2))
    assert failure_tags(image(right), image(left), ORGAN)[0].label == "all labels"


@pytest.mark.parametrize(
    ("centre", "side"),
    [
        ((20, 20, 0), "lower"),
        ((20, 20, 29), "upper"),
        ((59, 20, 14), "right"),
        ((20, 0, 14), "posterior"),
    ],
)
def test_a_reference_at_the_edge_of_the_image_is_a_cut_field_of_view(centre, side):
    cut = ball(*centre, 10)
    (tag,) = failure_tags(image(cut), image(cut), ORGAN)
    assert (tag.name, tag.said) == ("cut field of view", f"at the {side} edge")


def test_axes_of_the_file_do_not_change_the_tags():
    affine = np.diag([-1.0, -1, 2, 1])
    affine[:2, 3] = 59, 39
    turned = Grid(GRID.shape, affine)
    cut = ball(59, 20, 14, 10)
    (tag,) = failure_tags(image(cut[::-1, ::-1], grid=turned), image(cut[::-1, ::-1], grid=turned), ORGAN)
    assert tag.said == "at the right edge"


def test_a_single_slice_is_never_cut_through_its_plane():
    grid = Grid.from_spacing((60, 40, 1), (1, 1, 5))
    disc = TRUTH[:, :, 14:15]
    assert names(image(disc, grid=grid), image(disc, grid=grid)) == []
    bar = disc | ((abs(Y - 20) < 3) & (X > 20) & (X < 48))[:, :, :1]
    assert names(image(bar, grid=grid), image(disc, grid=grid)) == ["leak"]


def test_partners_differ_by_their_side_alone():
    assert partners("kidney_left", "Kidney right")
    assert partners("hippocampus_l", "hippocampus_r")
    assert partners("Niere links", "Niere rechts")
    assert not partners("kidney_left", "lung_right")
    assert not partners("left", "left")


def test_every_tag_has_its_rule_in_words():
    assert {"missed", "extra component", "left-right swap", "leak", "cut field of view"} <= set(RULES)
