"""Areas under curves: against their definitions, scikit-learn, and what clustering must do to them."""

from __future__ import annotations

import numpy as np
import pytest

from medseg.evaluation.areas import (
    auprc_interval,
    auroc_difference,
    auroc_interval,
    average_precision,
)


def drawn(n, seed=0, shift=1.0, ties=True):
    rng = np.random.default_rng(seed)
    truth = rng.random(n) < 0.4
    score = rng.normal(truth * shift, 1)
    return truth, np.round(score, 1) if ties else score


def delong_variance(truth, score, other=None):
    """The textbook definition, pair by pair."""

    def kernel(s):
        x, y = s[truth][:, None], s[~truth][None]
        return (x > y) + 0.5 * (x == y)

    k = kernel(score) - (kernel(other) if other is not None else 0)
    m, n = k.shape
    return k.mean(1).var(ddof=1) / m + k.mean(0).var(ddof=1) / n


def test_the_interval_is_delongs_on_the_logit_scale():
    truth, score = drawn(70)
    area, interval = auroc_interval(truth, score)
    error = np.sqrt(delong_variance(truth, score)) / (area * (1 - area))
    centre = np.log(area / (1 - area))
    wanted = 1 / (1 + np.exp(-(centre + np.array([-1.959964, 1.959964]) * error)))
    assert interval.limits == pytest.approx(wanted, abs=1e-6)


def test_patients_with_a_case_each_change_nothing_and_copies_count_once():
    truth, score = drawn(60)
    names = [f"p{i}" for i in range(60)]
    once = auroc_interval(truth, score)
    assert auroc_interval(truth, score, patients=names)[1].limits == pytest.approx(once[1].limits)
    twice = auroc_interval(np.repeat(truth, 2), np.repeat(score, 2), patients=np.repeat(names, 2).tolist())
    assert twice[0] == pytest.approx(once[0])
    assert twice[1].limits == pytest.approx(once[1].limits)
    naive = auroc_interval(np.repeat(truth, 2), np.repeat(score, 2))[1]
    assert naive.high - naive.low < 0.8 * (twice[1].high - twice[1].low)


def test_two_sides_of_one_patient_can_make_the_interval_narrower():
    rng = np.random.default_rng(1)
    shared = np.repeat(rng.normal(size=60), 2)
    truth = np.tile([True, False], 60)
    score = shared + truth * 0.8 + rng.normal(0, 0.3, 120)
    names = np.repeat([f"p{i}" for i in range(60)], 2).tolist()
    paired, loose = auroc_interval(truth, score, patients=names)[1], auroc_interval(truth, score)[1]
    assert paired.high - paired.low < loose.high - loose.low


def test_the_difference_of_two_areas_is_paired():
    truth, first = drawn(80, ties=False)
    second = first + np.random.default_rng(2).normal(truth * 0.5, 0.3)
    difference, interval, p = auroc_difference(truth, first, second)
    assert difference == pytest.approx(auroc_interval(truth, second)[0] - auroc_interval(truth, first)[0])
    error = np.sqrt(delong_variance(truth, second, first))
    assert interval.high - interval.low == pytest.approx(2 * 1.959964 * error, rel=1e-6)
    assert (p < 0.05) == (interval.low > 0 or interval.high < 0)
    back = auroc_difference(truth, second, first)
    assert (back[0], back[2]) == (pytest.approx(-difference), pytest.approx(p))
    assert auroc_difference(truth, first, first * 2)[1].method == "point"
    assert auroc_difference(np.ones(4, bool), first[:4], second[:4])[0] is None


def test_average_precision_agrees_with_scikit_learn_and_by_hand():
    from sklearn.metrics import average_precision_score

    assert average_precision(np.array([True, False, True]), np.array([3.0, 2.0, 1.0])) == pytest.approx(5 / 6)
    for seed in range(5):
        truth, score = drawn(50, seed)
        assert average_precision(truth, score) == pytest.approx(average_precision_score(truth, score))
    assert average_precision(np.zeros(3, bool), np.arange(3.0)) is None
    truth, _ = drawn(50)
    assert average_precision(truth, np.zeros(50)) == pytest.approx(truth.mean())


def test_the_interval_of_average_precision_is_over_patients():
    truth, score = drawn(80)
    names = [f"p{i}" for i in range(80)]
    area, interval = auprc_interval(truth, score, names)
    assert interval.low < area < interval.high
    twice = auprc_interval(np.repeat(truth, 2), np.repeat(score, 2), np.repeat(names, 2).tolist())[1]
    assert twice.limits == pytest.approx(interval.limits)
    perfect = auprc_interval(truth, truth * 1.0, names)
    assert (perfect[0], perfect[1].method) == (1, "point")
    assert auprc_interval(truth[:1] | True, score[:1], names[:1])[1].low is None
    assert auprc_interval(np.zeros(5, bool), score[:5], names[:5])[0] is None


def test_one_case_on_a_side_has_an_area_and_no_interval():
    area, interval = auroc_interval(np.array([True, False, False]), np.array([0.5, 0.2, 0.9]))
    assert (area, interval.low, interval.method) == (0.5, None, "none")
