"""Risk and coverage: counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from medseg.core.errors import MedsegError
from medseg.evaluation.quality import caught, risk_coverage

DICE = np.array([0.9, 0.5, 0.8, 0.2])
NAMES = list("abcd")


def test_a_score_that_knows_reaches_the_ideal():
    found = risk_coverage(DICE * 10, DICE, NAMES)
    assert found.coverage.tolist() == [0.25, 0.5, 0.75, 1]
    assert found.risk == pytest.approx([0.1, 0.15, 0.8 / 3, 0.4])
    assert found.aurc == found.ideal == pytest.approx(np.mean([0.1, 0.15, 0.8 / 3, 0.4]))
    assert (found.random, found.spearman, found.failures) == (pytest.approx(0.4), 1, 2)


def test_a_score_that_is_wrong_is_worse_than_chance():
    found = risk_coverage(-DICE, DICE, NAMES)
    assert found.aurc > found.random > found.ideal
    assert found.spearman == -1


def test_equal_scores_are_handed_over_together():
    found = risk_coverage(np.array([1.0, 0, 0, 0]), DICE, NAMES)
    assert found.coverage.tolist() == [0.25, 1]
    assert found.aurc == pytest.approx(0.25 * 0.1 + 0.75 * 0.4)
    constant = risk_coverage(np.zeros(4), DICE, NAMES)
    assert (constant.aurc, constant.spearman) == (pytest.approx(0.4), None)


def test_reviewing_the_worst_catches_failures():
    failed = DICE < 0.6
    assert caught(DICE, failed, 0.25) == (1, 2, 1)
    assert caught(DICE, failed, 0.5) == (2, 2, 2)
    assert caught(np.zeros(4), failed, 0.5) == (0, 2, 2)  # ties are not counted in its favour
    assert caught(DICE, failed, 0.01)[2] == 1
    assert caught(np.zeros(0), np.zeros(0, bool), 0.1) == (0, 0, 0)


def test_the_area_has_an_interval_over_patients():
    rng = np.random.default_rng(0)
    dice = rng.beta(8, 2, 60)
    quality = dice + rng.normal(0, 0.1, 60)
    names = [f"p{i}" for i in range(60)]
    once = risk_coverage(quality, dice, names)
    assert once.interval.low < once.aurc < once.interval.high
    twice = risk_coverage(np.repeat(quality, 2), np.repeat(dice, 2), np.repeat(names, 2).tolist())
    assert twice.interval.limits == pytest.approx(once.interval.limits)
    assert risk_coverage(DICE, DICE, NAMES).interval.low is None
    assert risk_coverage(quality, np.full(60, 0.9), names).interval.method == "point"


def test_scores_must_be_numbers():
    for quality in (np.array([np.nan, 1, 1, 1]), np.zeros(0)):
        with pytest.raises(MedsegError, match="must be a number"):
            risk_coverage(quality, DICE[: quality.size], NAMES[: quality.size])
