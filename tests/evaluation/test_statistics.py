"""Intervals: against scipy, by coverage, and where they must say that there is none."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from medseg.evaluation.areas import auroc_interval
from medseg.evaluation.medians import median_interval
from medseg.evaluation.paired import holm, signed_rank
from medseg.evaluation.proportions import proportion, wilson
from medseg.evaluation.statistics import Sample, mean_interval


def sample(values, patients=None) -> Sample:
    values = np.asarray(values, float)
    return Sample.of([(values, patients or [str(i) for i in range(values.size)])])


@pytest.mark.parametrize("n", [16, 60])
def test_the_bootstrap_is_bca_as_in_scipy_at_levels_widened_for_few_patients(n):
    values = np.random.default_rng(0).gamma(1.5, size=n)
    ours = mean_interval(sample(values), repeats=100_000, seed=1)
    wide = stats.t.ppf(0.975, n - 1) * np.sqrt(n / (n - 1))
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=100_000, method="BCa", rng=np.random.default_rng(2), batch=10_000,
        confidence_level=2 * stats.norm.cdf(wide) - 1,
    ).confidence_interval  # fmt: skip
    assert (ours.low, ours.high) == pytest.approx(
        (theirs.low, theirs.high), abs=0.008 * (theirs.high - theirs.low)
    )
    assert ours.method.startswith("BCa")
    assert 2 * stats.norm.cdf(wide) - 1 == pytest.approx(0.95, abs=1.3 / n)


def test_few_patients_get_a_t_interval_and_a_note():
    values = [0.8, 0.9, 0.85, 0.7, 0.95]
    ours = mean_interval(sample(values))
    theirs = stats.t.interval(0.95, 4, np.mean(values), stats.sem(values))
    assert (ours.low, ours.high) == pytest.approx(theirs)
    assert "5 patients" in ours.note
    assert mean_interval(sample(values), bounds=(0, 0.9)).high == 0.9


def test_equal_values_give_a_point_and_one_patient_gives_none():
    assert mean_interval(sample([0.9] * 40)).method == "point"
    assert mean_interval(sample([0.9, 0.8], ["p", "p"])).low is None


def test_cases_of_one_patient_do_not_make_the_interval_narrower():
    values = np.random.default_rng(1).normal(0.85, 0.05, 40)
    once = mean_interval(sample(values))
    twice = mean_interval(sample(np.repeat(values, 2), [str(i // 2) for i in range(80)]))
    assert (twice.low, twice.high) == pytest.approx((once.low, once.high))


def test_the_mean_over_labels_is_the_mean_of_label_means():
    found = Sample.of([(np.array([1.0, 0.5]), ["a", "b"]), (np.array([0.25]), ["b"])])
    assert found.mean() == pytest.approx((0.75 + 0.25) / 2)


def test_intervals_do_not_depend_on_the_order_of_cases_and_repeat_exactly():
    values = np.random.default_rng(5).random(50)
    names = [f"p{i:02d}" for i in range(50)]
    order = np.random.default_rng(6).permutation(50)
    one = mean_interval(Sample.of([(values, names)]))
    other = mean_interval(Sample.of([(values[order], [names[i] for i in order])]))
    assert (one.low, one.high) == pytest.approx((other.low, other.high), abs=1e-12)


@pytest.mark.slow
def test_the_interval_covers_the_mean_about_as_often_as_it_says():
    rng, hits = np.random.default_rng(0), 0
    for _ in range(400):
        found = mean_interval(sample(rng.beta(8, 2, 40)), repeats=1000)
        hits += found.low <= 0.8 <= found.high
    assert 0.91 <= hits / 400 <= 0.98


def test_the_median_has_an_interval_by_order_statistics():
    values = np.arange(1.0, 26)
    found = median_interval(values, [str(v) for v in values])
    assert (found.low, found.high) == (8, 18)
    assert median_interval(values[:4], list("abcd")).low is None
    clustered = median_interval(values, [str(int(v) // 2) for v in values])
    assert clustered.low <= 13 <= clustered.high
    assert "patients" in clustered.method


def test_the_median_of_patients_with_several_cases_counts_patients():
    values, names = np.repeat(np.arange(1.0, 41), 2), np.repeat([f"p{i}" for i in range(40)], 2).tolist()
    found = median_interval(values, names)
    error = np.sqrt(40 / 39 * 40) / 80  # every patient is one case off the middle, of 80
    rank = int(80 * (0.5 - stats.t.ppf(0.975, 39) * error) + 0.5)
    assert found.limits == [values[rank - 1], values[80 - rank]] == [14, 27]
    single = median_interval(values, [str(i) for i in range(80)])
    assert single.high - single.low < found.high - found.low


def test_ties_at_the_median_count_half():
    values = np.concatenate([np.zeros(8), np.ones(24), np.full(8, 2.0)])
    names = np.repeat([f"p{i}" for i in range(20)], 2).tolist()
    assert median_interval(values, names).limits == [1, 1]
    thirds = np.repeat([0.0, 1.0, 2.0], [26, 24, 26])  # of 38 patients; as all or nothing they give 0
    assert median_interval(thirds, np.repeat([f"p{i}" for i in range(38)], 2).tolist()).limits == [1, 1]
    assert median_interval(np.ones(12), names[:12]).method == "point"
    balanced = median_interval(np.tile([0.0, 1.0], 20) + np.arange(40) / 100, names)
    assert balanced.low < balanced.high
    assert median_interval(values[:9:2], ["a"] * 5).low is None


def test_copies_of_cases_leave_a_proportion_as_sure_as_it_was():
    hits = np.arange(40) % 5 > 0
    names = [f"p{i}" for i in range(40)]
    once = proportion(hits, names)
    assert once.limits == wilson(32, 40).limits
    twice = proportion(np.repeat(hits, 2), np.repeat(names, 2).tolist())
    assert twice.limits == pytest.approx(once.limits, abs=0.003)  # 39 and 40 in the variance
    assert "design effect 2.05" in twice.note
    all_hit = proportion(np.ones(80, bool), np.repeat(names, 2).tolist())
    assert all_hit.limits == wilson(40, 40).limits
    spread = np.tile([True, False], 40)  # one of two in every patient: no wider than independent cases
    assert proportion(spread, np.repeat(names, 2).tolist()).limits == wilson(40, 80).limits
    assert proportion(hits[:4], ["a"] * 4).limits == wilson(0.75, 1).limits


def test_wilson_agrees_with_scipy():
    theirs = stats.binomtest(17, 20).proportion_ci(method="wilson")
    ours = wilson(17, 20)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high))
    assert wilson(0, 0).low is None


def test_holm_adjusts_step_by_step():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])


@given(st.lists(st.integers(-8, 8), min_size=1, max_size=12))
@settings(max_examples=40, deadline=None)
def test_the_exact_signed_rank_counts_every_pattern_of_signs(differences):
    moved = np.array([d for d in differences if d != 0], float)
    p, how = signed_rank(np.array(differences, float))
    if not moved.size:
        assert (p, how) == (1.0, "no case differs")
        return
    ranks = stats.rankdata(np.abs(moved))
    signs = np.array(np.meshgrid(*[[0, 1]] * moved.size)).reshape(moved.size, -1)
    sums, seen, middle = ranks @ signs, ranks[moved > 0].sum(), ranks.sum() / 2
    assert p == pytest.approx(np.mean(np.abs(sums - middle) >= abs(seen - middle) - 1e-9))


def test_the_area_under_the_curve_agrees_with_scikit_learn():
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(0)
    truth = rng.random(80) > 0.6
    score = np.round(truth * 0.5 + rng.normal(0, 0.5, 80), 1)
    area, interval = auroc_interval(truth, score)
    assert area == pytest.approx(roc_auc_score(truth, score))
    assert interval.low < area < interval.high
    assert (
        auroc_interval(np.array([True, True, False, False]), np.array([0.9, 0.8, 0.1, 0.2]))[1].method
        == "point"
    )
    assert auroc_interval(np.array([True]), np.array([0.3]))[0] is None


def test_delong_matches_the_spread_of_the_area_over_repeated_samples():
    rng = np.random.default_rng(3)
    areas, widths = [], []
    for _ in range(300):
        truth = np.repeat([True, False], 60)
        area, interval = auroc_interval(truth, rng.normal(truth * 1.0, 1))
        areas.append(area)
        widths.append((interval.high - interval.low) / 3.92)
    assert np.std(areas) == pytest.approx(np.mean(widths), rel=0.15)
