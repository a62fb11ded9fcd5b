"""Pairs of models: differences, verdicts, rankings."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from medseg.core.errors import MedsegError
from medseg.evaluation.paired import holm, paired_difference, rank_stability, verdict_of

NAMES = [f"p{i:02d}" for i in range(40)]


def two(n=40, gain=0.02, seed=0):
    rng = np.random.default_rng(seed)
    first = rng.beta(8, 2, n)
    return first, first + gain + rng.normal(0, 0.01, n)


def test_the_difference_counts_wins_and_has_a_paired_interval():
    first, second = two()
    second[:3] = first[:3]
    found = paired_difference(first, second, NAMES)
    assert found.mean == pytest.approx(np.mean(second - first))
    assert found.interval.high - found.interval.low < 0.02 < np.std(first)
    assert (found.wins + found.ties + found.losses, found.ties) == (40, 3)
    assert found.wins > found.losses
    low = paired_difference(first, second, NAMES, low_is_good=True)
    assert (low.wins, low.losses) == (found.losses, found.wins)


def test_the_test_is_over_patients_not_cases():
    first, second = two(20)
    once = paired_difference(first, second, NAMES[:20])
    twice = paired_difference(np.repeat(first, 2), np.repeat(second, 2), np.repeat(NAMES[:20], 2).tolist())
    assert (twice.p, twice.test) == (pytest.approx(once.p), "exact")
    assert once.p == pytest.approx(stats.wilcoxon(second - first, method="exact").pvalue)


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.01, 0.05, "superior"),
        (-0.01, 0.05, "non-inferior"),
        (-0.015, -0.005, "non-inferior"),
        (-0.02, 0.05, "inconclusive"),
        (-0.05, -0.01, "inconclusive"),
        (-0.05, -0.03, "inferior"),
        (None, None, "inconclusive"),
    ],
)
def test_the_interval_decides_about_the_margin(low, high, said):
    assert verdict_of(None if low is None else [low, high], 0.02) == said
    if low is not None:
        assert verdict_of([-high, -low], 0.02, low_is_good=True) == said


def test_a_margin_is_a_positive_number():
    for margin in (0, -0.1, float("nan")):
        with pytest.raises(MedsegError, match="margin"):
            verdict_of([0, 1], margin)


def test_a_clear_order_never_moves_and_equals_share_the_first_place():
    base = np.random.default_rng(0).random(30)
    table = np.stack([base + 0.1, base + 0.3, base], axis=1)
    found = rank_stability(table, NAMES[:30])
    assert found.ranks.tolist() == [2, 1, 3]
    assert found.first.tolist() == [0, 1, 0]
    assert (found.tau, found.low.tolist(), found.high.tolist()) == (1, [2, 1, 3], [2, 1, 3])
    low = rank_stability(table, NAMES[:30], low_is_good=True)
    assert low.ranks.tolist() == [2, 3, 1]
    same = rank_stability(np.stack([base, base], axis=1), NAMES[:30])
    assert same.first.tolist() == [0.5, 0.5]


def test_a_close_order_is_said_to_be_unsure():
    first, second = two(40, gain=0.0005)
    found = rank_stability(np.stack([first, second], axis=1), NAMES)
    assert 0.05 < found.first[1] < 0.95
    assert (found.low.tolist(), found.high.tolist()) == ([1, 1], [2, 2])
    error = np.std(second - first, ddof=1) / np.sqrt(40)
    assert found.first[1] == pytest.approx(stats.norm.cdf(np.mean(second - first) / error), abs=0.04)


def test_a_ranking_is_drawn_over_patients():
    first, second = two(20, gain=0.001)
    once = rank_stability(np.stack([first, second], axis=1), NAMES[:20])
    twice = rank_stability(
        np.repeat(np.stack([first, second], axis=1), 2, axis=0), np.repeat(NAMES[:20], 2).tolist()
    )
    assert twice.first.tolist() == once.first.tolist()


def test_one_model_is_first():
    found = rank_stability(np.ones((3, 1)), list("abc"))
    assert (found.ranks.tolist(), found.first.tolist(), found.tau) == ([1], [1], 1)


def test_holm_of_nothing_is_nothing():
    assert holm([]) == []
