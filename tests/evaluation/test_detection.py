"""FROC: counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from medseg.core.errors import MedsegError
from medseg.evaluation.detection import Detections, froc, froc_interval, judged
from medseg.evaluation.policy import LesionRule
from medseg.imaging.grid import Grid
from medseg.imaging.image import Image


def scan(scores, hits, lesions, patient=""):
    return Detections(np.array(scores, float), np.array(hits, int), lesions, patient)


TWO = [scan([0.9, 0.8, 0.3], [0, -1, 0], 2), scan([0.7, 0.6], [0, -1], 1)]


def test_the_curve_counts_lesions_and_false_candidates():
    curve = froc(TWO)
    assert curve.thresholds.tolist() == [0.9, 0.8, 0.7, 0.6]
    assert curve.sensitivity == pytest.approx([1 / 3, 1 / 3, 2 / 3, 2 / 3])
    assert curve.false_positives.tolist() == [0, 0.5, 0.5, 1]


def test_sensitivities_are_read_at_rates_of_false_positives():
    curve = froc(TWO)
    assert curve.at([0, 0.25, 0.5, 8]) == pytest.approx([1 / 3, 1 / 3, 2 / 3, 2 / 3])
    false_first = froc([scan([0.9, 0.1], [-1, 0], 1)])
    assert false_first.at([0.5, 1]).tolist() == [0, 1]


def test_equal_scores_are_taken_together():
    curve = froc([scan([0.5, 0.5], [0, -1], 1)])
    assert (curve.sensitivity.tolist(), curve.false_positives.tolist()) == ([1], [1])


def test_candidates_are_held_against_lesions_in_millimetres():
    grid = Grid((20, 20, 10), np.array([[-2, 0, 0, 30], [0, 1, 0, 0], [0, 0, 3, -9], [0, 0, 0, 1.0]]))
    array = np.zeros((1, *grid.shape), np.uint8)
    array[0, 2:5, 2:5, 2:4], array[0, 10:12, 10:12, 5] = 1, 1
    reference = Image(array, grid)
    inside, beside, far = grid.to_mm([[3, 3, 3], [13, 10, 5], [19, 19, 9]])
    strict = judged([inside, beside, far], [3, 2, 1], reference)
    assert (strict.hits.tolist(), strict.lesions) == ([0, -1, -1], 2)
    near = judged([inside, beside, far], [3, 2, 1], reference, within_mm=4.0)
    assert near.hits.tolist() == [0, 1, -1]
    assert judged([beside], [1], reference, within_mm=3.9).hits.tolist() == [-1]
    large = judged([inside], [1], reference, rule=LesionRule(minimum_ml=0.05))
    assert (large.hits.tolist(), large.lesions) == ([0], 1)


def test_a_candidate_outside_the_image_is_false():
    reference = Image(np.ones((1, 4, 4, 4), np.uint8), Grid.from_spacing((4, 4, 4)))
    assert judged([[9.0, 0, 0], [-0.4, 0, 0]], [1, 1], reference).hits.tolist() == [-1, 0]


def test_nothing_to_find_and_nothing_found():
    empty = Image(np.zeros((1, 4, 4, 4), np.uint8), Grid.from_spacing((4, 4, 4)))
    assert judged(np.zeros((0, 3)), [], empty).lesions == 0
    assert judged([[1, 1, 1]], [0.5], empty).hits.tolist() == [-1]
    for scans in ([], [scan([1.0], [-1], 0)]):
        with pytest.raises(MedsegError, match="needs scans with lesions"):
            froc(scans)
    assert froc([scan([], [], 2)]).at([1.0]).tolist() == [0]
    with pytest.raises(MedsegError, match="a score each"):
        judged([[0, 0, 0]], [1, 2], empty)


def test_the_interval_is_over_patients_and_repeats_exactly():
    rng = np.random.default_rng(0)
    scans = [
        scan(rng.random(4), rng.integers(-1, 2, 4), 2, patient=f"p{i // 2}") for i in range(24)
    ]  # fmt: skip
    mean, low, high = froc_interval(scans, repeats=200)
    assert low < mean < high
    assert (mean, low, high) == froc_interval(scans, repeats=200)
    assert froc_interval(scans[:2])[1] is None
    alone = froc_interval([Detections(s.scores, s.hits, s.lesions) for s in scans], repeats=200)
    assert alone[0] == mean
