"""Agreement: published worked examples, and what clustering must do."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from medseg.evaluation.agreement import bland_altman, icc

JUDGES = np.array(
    [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]], float
)
"""Shrout and Fleiss 1979, table 2: six targets, four judges."""

WRIGHT = np.array([494, 395, 516, 434, 476, 557, 413, 442, 650, 433, 417, 656, 267, 478, 178, 423, 427.0])
MINI = np.array([512, 430, 520, 428, 500, 600, 364, 380, 658, 445, 432, 626, 260, 477, 259, 350, 451.0])
"""Bland and Altman 1986, table 1: peak expiratory flow by two meters, first measurement of each."""


def test_icc_of_the_published_example():
    agreement, consistency = icc(JUDGES)
    assert (agreement.form, consistency.form) == ("ICC(2,1)", "ICC(3,1)")
    assert agreement.value == pytest.approx(0.29, abs=0.005)
    assert agreement.interval.limits == pytest.approx([0.019, 0.761], abs=0.0005)
    assert consistency.value == pytest.approx(0.71, abs=0.005)
    assert consistency.interval.limits == pytest.approx([0.342, 0.946], abs=0.0005)


def test_a_constant_offset_lowers_agreement_and_not_consistency():
    one = np.arange(10.0)
    agreement, consistency = icc(np.stack([one, one + 3], axis=1))
    assert consistency.value == pytest.approx(1)
    assert consistency.interval.method == "point"
    assert agreement.value < 0.9
    same = icc(np.stack([one, one], axis=1))[0]
    assert (same.value, same.interval.limits) == (1, [1, 1])


@pytest.mark.parametrize(
    "table",
    [np.zeros((0, 2)), np.ones((2, 2)), np.ones((5, 1)), np.full((5, 2), 3.0), np.tile([3.0, 4.0], (5, 1))],
)
def test_icc_of_too_little_has_no_value(table):
    assert [x.value for x in icc(table)] == [None, None]
    assert icc(table)[0].interval.note


def test_bland_altman_of_the_published_example():
    found = bland_altman(WRIGHT, MINI)
    assert (found.n, found.bias, found.sd) == (
        17,
        pytest.approx(-2.1, abs=0.05),
        pytest.approx(38.8, abs=0.05),
    )
    assert found.bias_interval.limits == pytest.approx([-22.0, 17.8], abs=0.05)
    assert [found.lower, found.upper] == pytest.approx([-78.1, 73.9], abs=0.05)  # 1.96 sd; there 2 sd


def test_the_limits_of_agreement_have_exact_intervals():
    found = bland_altman(WRIGHT, MINI)
    low, high = found.upper_interval.limits
    for limit, level in ((low, 0.975), (high, 0.025)):
        centre = np.sqrt(17) * (limit - found.bias) / found.sd
        assert stats.nct.cdf(centre, 16, 1.959964 * np.sqrt(17)) == pytest.approx(1 - level, abs=1e-4)
    mirrored = [2 * found.bias - x for x in found.lower_interval.limits[::-1]]
    assert mirrored == pytest.approx(found.upper_interval.limits)


def test_intervals_of_many_cases_come_near_the_well_known_approximation():
    rng = np.random.default_rng(0)
    second = rng.uniform(10, 90, 1000)
    found = bland_altman(second + rng.normal(1, 2, 1000), second)
    half = 1.96 * found.sd * np.sqrt(1 / 1000 + 1.96**2 / (2 * 999))
    assert found.upper_interval.limits == pytest.approx([found.upper - half, found.upper + half], abs=0.01)


def test_proportional_bias_is_the_slope():
    rng = np.random.default_rng(1)
    truth = rng.uniform(10, 90, 60)
    found = bland_altman(1.1 * truth + rng.normal(0, 0.5, 60), truth)
    assert found.slope == pytest.approx(0.1 / 1.05, abs=0.01)
    assert found.slope_interval.low < 0.1 / 1.05 < found.slope_interval.high
    by_scipy = stats.linregress((1.1 * truth + truth) / 2, 0.1 * truth)
    assert bland_altman(1.1 * truth, truth).slope == pytest.approx(by_scipy.slope)


def test_copies_of_a_case_do_not_make_the_intervals_narrower():
    names = [f"p{i}" for i in range(17)]
    once = bland_altman(WRIGHT, MINI, names)
    twice = bland_altman(np.repeat(WRIGHT, 2), np.repeat(MINI, 2), np.repeat(names, 2).tolist())
    assert (twice.bias, twice.sd) == (pytest.approx(once.bias), pytest.approx(once.sd))
    assert twice.upper_interval.limits == pytest.approx(once.upper_interval.limits)
    assert twice.slope_interval.limits == pytest.approx(once.slope_interval.limits)


def test_independent_cases_of_patients_count_almost_fully():
    rng = np.random.default_rng(3)
    difference = rng.normal(0, 1, 400)
    alone = bland_altman(difference, np.zeros(400))
    inside = bland_altman(difference, np.zeros(400), [f"p{i // 4}" for i in range(400)])
    assert inside.sd == pytest.approx(alone.sd, rel=0.02)
    widths = [x.upper_interval.high - x.upper_interval.low for x in (alone, inside)]
    assert widths[1] == pytest.approx(widths[0], rel=0.2)


def test_partly_alike_cases_of_a_patient_count_in_between():
    rng = np.random.default_rng(4)
    names = np.repeat([f"p{i:02d}" for i in range(30)], 2)
    difference = np.repeat(rng.normal(0, 1, 30), 2) + rng.normal(0, 1, 60)
    found = bland_altman(difference, np.zeros(60), names.tolist())
    pairs = difference.reshape(30, 2)
    within = np.sum((pairs - pairs.mean(1, keepdims=True)) ** 2) / 30
    shared = (2 * np.var(pairs.mean(1), ddof=1) - within) / 2
    correlation = shared / (shared + within)
    mean_size, sd_size = (60 / (1 + c) for c in (correlation, correlation**2))
    assert found.sd == pytest.approx(np.sqrt(shared + within))
    error = found.sd / np.sqrt(mean_size)
    far = stats.nct.ppf(0.975, sd_size - 1, 1.959964 * np.sqrt(mean_size)) * error
    assert found.upper_interval.high == pytest.approx(found.bias + far, rel=1e-4)
    assert found.bias_interval.high == pytest.approx(found.bias + stats.t.ppf(0.975, 29) * error)


def test_nothing_and_almost_nothing():
    assert bland_altman(np.zeros(0), np.zeros(0)) is None
    two = bland_altman(np.array([1.0, 2.0]), np.array([1.0, 1.0]))
    assert (two.bias, two.bias_interval.low, two.slope) == (0.5, None, None)
    equal = bland_altman(np.arange(5.0) + 1, np.arange(5.0))
    assert (equal.sd, equal.bias_interval.limits, equal.note != "") == (0, [1, 1], True)
    assert bland_altman(np.full(5, 2.0), np.full(5, 1.0)).slope is None
