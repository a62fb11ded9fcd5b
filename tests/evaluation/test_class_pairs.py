"""Two classifiers on the same cases."""

from __future__ import annotations

import numpy as np
import pytest

from medseg.evaluation.areas import auroc_difference
from medseg.evaluation.class_pairs import compare_areas
from medseg.evaluation.classification import class_rows
from medseg.evaluation.policy import Scoring


def _rows(p: np.ndarray, truth: np.ndarray, classes=("no", "yes"), skip=()) -> list:
    rows = []
    for i, (row, t) in enumerate(zip(p, truth, strict=True)):
        said = None if i in skip else dict(zip(classes, map(float, row), strict=True))
        rows += class_rows(f"c{i}", f"p{i}", said, classes[t], classes)
    return rows


@pytest.fixture
def two():
    rng = np.random.default_rng(0)
    truth = np.arange(80) % 2
    weak, strong = (1 / (1 + np.exp(-(rng.normal(size=80) + k * truth))) for k in (0.5, 2.5))
    return truth, np.stack([1 - weak, weak], 1), np.stack([1 - strong, strong], 1)


def test_the_difference_is_delong_s(two):
    truth, weak, strong = two
    found = compare_areas(_rows(weak, truth), _rows(strong, truth), Scoring())
    value, limits, p = auroc_difference(truth == 1, weak[:, 1], strong[:, 1])
    cell = found["classes"]["yes"]
    assert cell == {"difference": value, "ci": limits.limits, "p": p}
    assert value > 0 and found["n"] == 80


def test_of_two_classes_the_mean_is_that_of_either(two):
    truth, weak, strong = two
    found = compare_areas(_rows(weak, truth), _rows(strong, truth), Scoring())
    mean, cell = found["mean"], found["classes"]["yes"]
    assert mean["difference"] == pytest.approx(cell["difference"])
    assert mean["ci"] == pytest.approx(cell["ci"], abs=0.01)


def test_only_cases_that_both_predict_are_compared(two):
    truth, weak, strong = two
    found = compare_areas(_rows(weak, truth, skip={3}), _rows(strong, truth, skip={5, 6})[:-4], Scoring())
    assert found["n"] == 80 - 1 - 2 - 1
    assert compare_areas(_rows(weak, truth, skip=set(range(80))), _rows(strong, truth), Scoring())["n"] == 0


def test_a_classifier_is_no_better_than_itself(two):
    truth, weak, _ = two
    found = compare_areas(_rows(weak, truth), _rows(weak, truth), Scoring())
    assert found["mean"]["difference"] == 0
    assert found["classes"]["no"]["p"] == 1.0
