"""Two classifiers on the same cases."""

from __future__ import annotations

import numpy as np
import pytest

from medseg.evaluation.areas import auroc_difference
from medseg.evaluation.classification import class_rows
from medseg.evaluation.compare_classes import class_differences, mean_area_difference
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


def _compared(weak: np.ndarray, strong: np.ndarray, truth: np.ndarray):
    return _rows(weak, truth), _rows(strong, truth), Scoring(repeats=100)


def test_the_difference_is_delong_s(two):
    truth, weak, strong = two
    cell = class_differences(*_compared(weak, strong, truth))[1]
    value, limits, p = auroc_difference(truth == 1, weak[:, 1], strong[:, 1])
    assert (cell["label"], cell["difference"], cell["ci"], cell["p"]) == ("yes", value, limits.limits, p)
    assert cell["difference"] > 0 and cell["n"] == 80


def test_of_two_classes_the_mean_is_that_of_either(two):
    truth, weak, strong = two
    mean = mean_area_difference(*_compared(weak, strong, truth))
    cell = class_differences(*_compared(weak, strong, truth))[1]
    assert mean is not None
    assert mean["difference"] == pytest.approx(cell["difference"])
    assert mean["ci"] == pytest.approx(cell["ci"], abs=0.01)


def test_the_mean_is_over_the_classes_that_have_cases_and_others(two):
    truth, weak, strong = two
    empty = np.zeros((80, 1))
    rows = [
        _rows(np.concatenate([table, empty], 1), truth, ("no", "yes", "never")) for table in (weak, strong)
    ]
    mean = mean_area_difference(*rows, Scoring())
    assert mean is not None
    assert mean["difference"] == pytest.approx(
        mean_area_difference(*_compared(weak, strong, truth))["difference"]  # type: ignore[index]
    )


def test_only_cases_that_both_predict_are_compared(two):
    truth, weak, strong = two
    first, second = _rows(weak, truth, skip={3}), _rows(strong, truth, skip={5, 6})[:-4]
    assert {cell["n"] for cell in class_differences(first, second, Scoring(repeats=100))} == {80 - 1 - 2 - 1}
    nothing = _rows(weak, truth, skip=set(range(80)))
    assert class_differences(nothing, second, Scoring()) == []
    assert mean_area_difference(nothing, second, Scoring()) is None


def test_a_classifier_is_no_better_than_itself(two):
    truth, weak, _ = two
    mean = mean_area_difference(*_compared(weak, weak, truth))
    assert mean is not None and mean["difference"] == 0
    assert class_differences(*_compared(weak, weak, truth))[0]["p"] == 1.0
