"""Lesions: what is one, which go together, and what that amounts to, on drawn masks counted by hand."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from medseg.evaluation.lesions import Matching, components, match_lesions
from medseg.evaluation.pairs import score_pair
from medseg.evaluation.policy import LesionRule, Scoring
from medseg.imaging.grid import Grid
from medseg.imaging.image import Image
from medseg.imaging.labels import labels

SHAPE = (30, 20, 10)
ROW = ("lesion_sensitivity", "lesion_precision", "lesion_f1", "pq", "sq")


def mask(*boxes, shape=SHAPE):
    drawn = np.zeros(shape, bool)
    for start, stop in boxes:
        drawn[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))] = True
    return drawn


def matching(a, b, spacing=(1, 1, 1), **rule) -> Matching:
    return match_lesions(a, b, Grid.from_spacing(a.shape, spacing), LesionRule(**rule))


A, B, C = (
    ((2, 2, 2), (6, 6, 6)),
    ((12, 2, 2), (16, 6, 6)),
    ((22, 12, 2), (26, 16, 6)),
)


def test_found_missed_and_invented_lesions_are_counted():
    moved = ((3, 2, 2), (7, 6, 6))  # 3/4 overlap of two 4-cubes: 48 / 80
    found = matching(mask(moved, C), mask(A, B))
    assert (found.reference, found.predicted) == (2, 2)
    assert (found.found, found.missed, found.invented) == (1, 1, 1)
    assert found.ious.tolist() == [48 / 80]
    assert (found.sensitivity(), found.precision(), found.f1()) == (0.5, 0.5, 0.5)
    assert found.sq() == 0.6
    assert found.pq() == pytest.approx(0.6 * 0.5)


def test_an_iou_equal_to_the_threshold_is_no_match():
    half = ((2, 2, 2), (6, 6, 4))
    assert matching(mask(half), mask(A), iou=0.5).found == 0
    assert matching(mask(half), mask(A), iou=0.49).found == 1


def test_a_split_lesion_matches_once_and_a_merged_one_too():
    halves = (((2, 2, 2), (6, 6, 4)), ((2, 2, 5), (6, 6, 6)))
    split = matching(mask(*halves), mask(A), iou=0.1)
    assert (split.found, split.missed, split.invented) == (1, 0, 1)
    assert split.ious.tolist() == [0.5]
    bridge = ((6, 3, 3), (12, 4, 4))
    merged = matching(mask(A, B, bridge), mask(A, B), iou=0.1)
    assert (merged.reference, merged.predicted, merged.found, merged.missed) == (2, 1, 1, 1)


def test_the_most_pairs_are_matched_even_when_a_larger_overlap_is_given_up():
    reference = mask(((0, 0, 0), (6, 4, 1)), ((7, 0, 0), (13, 4, 1)))
    predicted = mask(((3, 0, 0), (10, 4, 1)), ((11, 0, 0), (13, 4, 1)))
    found = matching(predicted, reference, iou=0.2)
    assert found.found == 2
    assert sorted(found.pairs.tolist()) == [[0, 0], [1, 1]]


@pytest.mark.parametrize(("connectivity", "joined"), [(6, 0), (18, 1), (26, 2)])
def test_connectivity_says_which_neighbours_join(connectivity, joined):
    edge = mask(((2, 2, 2), (4, 4, 4)), ((4, 4, 2), (6, 6, 4)))
    corner = mask(((2, 2, 2), (4, 4, 4)), ((4, 4, 4), (6, 6, 6)))
    counts = [components(m, Grid.from_spacing(SHAPE), LesionRule(connectivity=connectivity))[1].size
              for m in (edge, corner)]  # fmt: skip
    assert 4 - sum(counts) == joined


@pytest.mark.parametrize(("connectivity", "parts"), [(6, 2), (18, 1), (26, 1)])
def test_touching_at_a_corner_within_one_slice(connectivity, parts):
    flat = mask(((2, 2, 0), (4, 4, 1)), ((4, 4, 0), (6, 6, 1)), shape=(10, 10, 1))
    rule = LesionRule(connectivity=connectivity)
    assert components(flat, Grid.from_spacing(flat.shape), rule)[1].size == parts


def test_the_smallest_volume_is_in_millilitres_and_counts_on_both_sides():
    speck = ((20, 2, 2), (22, 4, 4))  # 8 voxels
    spacing = (2, 2, 2.5)  # 0.01 ml a voxel
    both = matching(mask(A, speck), mask(A, speck), spacing, minimum_ml=0.08)
    assert (both.reference, both.found) == (2, 2)
    both = matching(mask(A, speck), mask(A, speck), spacing, minimum_ml=0.081)
    assert (both.reference, both.predicted, both.found) == (1, 1, 1)
    parts, sizes = components(
        mask(speck, ((2, 2, 2), (6, 6, 6))), Grid.from_spacing(SHAPE, spacing), LesionRule(minimum_ml=0.1)
    )
    assert sizes.tolist() == [64]
    assert set(np.unique(parts)) == {0, 1}


def test_rates_without_a_lesion_are_undefined():
    empty = np.zeros(SHAPE, bool)
    both, missed, invented = matching(empty, empty), matching(empty, mask(A)), matching(mask(A), empty)
    assert np.isnan([both.sensitivity(), both.precision(), both.f1(), both.sq(), both.pq()]).all()
    assert (missed.sensitivity(), missed.f1(), missed.pq()) == (0, 0, 0)
    assert np.isnan(missed.precision())
    assert np.isnan(invented.sensitivity())
    assert (invented.precision(), invented.f1()) == (0, 0)


def image(array) -> Image:
    return Image(array.astype(np.uint8)[None], Grid.from_spacing(array.shape))


def test_the_metrics_stand_in_the_table_with_their_policy():
    scoring = Scoring(metrics=(*ROW, "lesions_ref", "lesions_pred", "lesions_found", "lesions_invented"))

    def values(prediction, reference):
        rows = score_pair(prediction, reference, labels(lesion=1), scoring, "c")
        return {row["metric"]: row["value"] for row in rows}

    found = values(image(mask(A, C)), image(mask(A, B)))
    assert [found[name] for name in ROW] == [0.5, 0.5, 0.5, 0.5, 1.0]
    assert [found[f"lesions_{n}"] for n in ("ref", "pred", "found", "invented")] == [2, 2, 1, 1]
    invented = values(image(mask(C)), image(mask()))
    assert (invented["lesion_sensitivity"], invented["lesion_precision"], invented["pq"]) == (None, 0, 0)
    unpredicted = values(None, image(mask(A, B)))
    assert (unpredicted["lesion_sensitivity"], unpredicted["lesion_precision"]) == (0, None)
    assert set(values(image(mask()), image(mask())).values()) == {None}


def test_settings_reach_the_metrics():
    half = ((2, 2, 2), (6, 6, 4))
    pair = image(mask(half)), image(mask(A))
    names = ("lesion_f1",)
    strict = score_pair(*pair, labels(lesion=1), Scoring(metrics=names), "c")
    loose = score_pair(*pair, labels(lesion=1), Scoring(metrics=names, lesions=LesionRule(iou=0.1)), "c")
    assert (strict[0]["value"], loose[0]["value"]) == (0, 1)


small = arrays(bool, (6, 5, 3), elements=st.booleans())


@given(small, small, st.sampled_from([0.0, 0.1, 0.3, 0.5]))
@settings(max_examples=40, deadline=None)
def test_matching_is_one_to_one_above_the_threshold_and_the_same_both_ways(a, b, iou):
    there, back = matching(a, b, iou=iou, connectivity=6), matching(b, a, iou=iou, connectivity=6)
    assert (there.found, there.ious.sum()) == (back.found, pytest.approx(back.ious.sum()))
    assert len(set(there.pairs[:, 0])) == len(set(there.pairs[:, 1])) == there.found
    assert (there.ious > iou).all()
    grid = Grid.from_spacing(a.shape)
    parts = [components(x, grid, LesionRule(connectivity=6))[0] for x in (b, a)]
    for (r, p), value in zip(there.pairs, there.ious, strict=True):
        one, other = parts[0] == r + 1, parts[1] == p + 1
        assert value == (one & other).sum() / (one | other).sum()


def test_two_small_overlaps_are_more_than_a_large_one():
    from medseg.evaluation.lesions import _one_to_one

    kept = _one_to_one(np.array([0, 0, 1]), np.array([0, 1, 0]), np.array([0.9, 0.1, 0.1]))
    assert kept.tolist() == [1, 2]


@given(arrays(float, (3, 4), elements=st.sampled_from([0.0, 0.0, 0.1, 0.2, 0.9])))
@settings(max_examples=60, deadline=None)
def test_the_assignment_is_the_best_of_all(table):
    from medseg.evaluation.lesions import _one_to_one

    r, p = np.nonzero(table)
    kept = _one_to_one(r, p, table[r, p])
    best = max(
        ((sum(table[i, c] > 0 for i, c in enumerate(order)), sum(table[i, c] for i, c in enumerate(order)))
         for order in permutations(range(4), 3)),
        key=lambda x: (x[0], round(x[1], 9)),
    )  # fmt: skip
    assert (kept.size, table[r, p][kept].sum()) == (best[0], pytest.approx(best[1]))
