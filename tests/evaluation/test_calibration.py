"""Calibration and curves: against scikit-learn, scipy and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit, logit

from medseg.core.errors import MedsegError
from medseg.evaluation.calibration import brier, recalibration, reliability
from medseg.evaluation.curves import (
    POINTS,
    decision_curve,
    precision_recall_curve,
    roc_curve,
    threshold_at_sensitivity,
    youden_threshold,
)


def drawn(n=400, seed=0, slope=1.0, intercept=0.0):
    rng = np.random.default_rng(seed)
    p = rng.beta(1.5, 2.5, n)
    return rng.random(n) < expit(intercept + slope * logit(p)), p


def names(n):
    return [f"p{i:04d}" for i in range(n)]


def test_bins_and_their_error_by_hand():
    truth = np.array([False, True, False, True, True])
    p = np.array([0.05, 0.15, 0.15, 1.0, 0.95])
    found = reliability(truth, p, bins=10)
    assert found.low == pytest.approx([0, 0.1, 0.9])
    assert found.n.tolist() == [1, 2, 2]
    assert found.predicted == pytest.approx([0.05, 0.15, 0.975])
    assert found.observed.tolist() == [0, 0.5, 1]
    assert found.ece() == pytest.approx((0.05 + 2 * 0.35 + 2 * 0.025) / 5)
    assert reliability(np.zeros(0, bool), np.zeros(0)).ece() is None


def test_the_curve_agrees_with_scikit_learn():
    from sklearn.calibration import calibration_curve
    from sklearn.metrics import brier_score_loss

    truth, p = drawn()
    observed, predicted = calibration_curve(truth, p, n_bins=10)
    found = reliability(truth, p, 10)
    assert found.observed == pytest.approx(observed)
    assert found.predicted == pytest.approx(predicted)
    assert brier(truth, p).mean() == pytest.approx(brier_score_loss(truth, p))


def test_recalibration_is_the_logistic_regression_on_the_logit():
    from sklearn.linear_model import LogisticRegression

    truth, p = drawn(slope=0.6, intercept=0.4)
    found = recalibration(truth, p, names(400))
    fit = LogisticRegression(C=np.inf, tol=1e-10).fit(logit(p)[:, None], truth)
    assert (found.slope, found.intercept) == pytest.approx((fit.coef_[0, 0], fit.intercept_[0]), abs=1e-4)
    assert found.slope_interval.low < 0.6 < found.slope_interval.high < 1
    assert expit(logit(p) + found.in_the_large).mean() == pytest.approx(truth.mean())


def test_the_intervals_of_recalibration_are_over_patients():
    truth, p = drawn(150)
    once = recalibration(truth, p, names(150))
    twice = recalibration(np.repeat(truth, 2), np.repeat(p, 2), np.repeat(names(150), 2).tolist())
    for name in ("slope_interval", "intercept_interval", "in_the_large_interval"):
        assert getattr(twice, name).limits == pytest.approx(getattr(once, name).limits, abs=1e-6)


def test_the_variance_is_the_sandwich_over_patients():
    truth, p = drawn(60)
    found = recalibration(truth, p, names(60))
    x = np.stack([np.ones(60), logit(p)], axis=1)
    fitted = expit(x @ [found.intercept, found.slope])
    bread = np.linalg.inv(x.T @ (x * (fitted * (1 - fitted))[:, None]))
    scores = x * (truth - fitted)[:, None]
    variance = bread @ (scores.T @ scores) @ bread * 60 / 59
    half = 1.959964 * np.sqrt(np.diag(variance))
    assert found.intercept_interval.high - found.intercept == pytest.approx(half[0], rel=1e-5)
    assert found.slope_interval.high - found.slope == pytest.approx(half[1], rel=1e-5)


@pytest.mark.slow
def test_the_intervals_of_recalibration_cover():
    hits = np.zeros(3)
    for seed in range(300):
        truth, p = drawn(150, seed, slope=0.8, intercept=-0.3)
        found = recalibration(truth, p, names(150))
        hits += [found.slope_interval.low < 0.8 < found.slope_interval.high,
                 found.intercept_interval.low < -0.3 < found.intercept_interval.high, 1]  # fmt: skip
    assert (hits[:2] / hits[2] > 0.91).all()


def test_where_there_is_no_finite_fit_it_is_said():
    truth = np.array([False, False, True, True])
    apart = recalibration(truth, np.array([0.1, 0.2, 0.8, 0.9]), names(4))
    assert (apart.slope, apart.intercept) == (None, None)
    assert "separated" in apart.note
    assert apart.in_the_large is not None
    assert recalibration(truth | True, np.full(4, 0.5), names(4)).in_the_large is None
    equal = recalibration(truth, np.full(4, 0.3), names(4))
    assert (equal.slope, equal.in_the_large) == (None, pytest.approx(logit(0.5) - logit(0.3)))
    hard = recalibration(np.array([True, False, True, False]), np.array([1.0, 0.0, 0.0, 1.0]), names(4))
    assert hard.slope == pytest.approx(0, abs=1e-6)


def test_the_roc_curve_agrees_with_scikit_learn():
    from sklearn.metrics import auc
    from sklearn.metrics import roc_curve as theirs

    truth, p = drawn(60)
    p = np.round(p, 1)
    fpr, tpr, _ = theirs(truth, p, drop_intermediate=False)
    found = roc_curve(truth, p)
    for x, y in zip(found["fpr"], found["tpr"], strict=True):
        assert np.hypot(fpr - x, tpr - y).min() < 1e-5
    assert auc(found["fpr"], found["tpr"]) == pytest.approx(auc(fpr, tpr), abs=1e-5)
    assert found["threshold"][0] > 1


def test_the_precision_recall_curve_by_hand():
    found = precision_recall_curve(np.array([True, False, True]), np.array([0.9, 0.5, 0.5]))
    assert found == {
        "threshold": [0.9, 0.5],
        "recall": [0.5, 1.0],
        "precision": [1.0, pytest.approx(2 / 3, abs=1e-5)],
    }
    assert precision_recall_curve(np.zeros(3, bool), np.zeros(3))["recall"] == []
    assert roc_curve(np.ones(3, bool), np.zeros(3))["fpr"] == []


def test_long_curves_are_thinned_with_their_ends():
    truth, p = drawn(5000)
    found = roc_curve(truth, p)
    assert len(found["fpr"]) <= POINTS
    assert (found["fpr"][0], found["tpr"][0], found["fpr"][-1], found["tpr"][-1]) == (0, 0, 1, 1)


def test_net_benefit_by_hand():
    truth = np.array([True, True, False, False])
    found = decision_curve(truth, np.array([0.9, 0.4, 0.6, 0.1]), (0.2, 0.5), step=0.3)
    assert found["threshold"] == [0.2, 0.5]
    assert found["model"] == pytest.approx([2 / 4 - 1 / 4 * 0.25, 1 / 4 - 1 / 4])
    assert found["all"] == pytest.approx([0.5 - 0.5 * 0.25, 0])
    assert len(decision_curve(truth, np.full(4, 0.5))["threshold"]) == 99
    assert decision_curve(np.zeros(0, bool), np.zeros(0))["model"] == []
    for wrong in ((0.0, 0.5), (0.5, 1.0), (0.6, 0.5)):
        with pytest.raises(MedsegError, match="decision curve"):
            decision_curve(truth, np.full(4, 0.5), wrong)


def test_thresholds_are_read_off_training_cases():
    truth = np.array([False, False, True, False, True, True])
    score = np.array([0.1, 0.2, 0.3, 0.4, 0.6, 0.8])
    assert youden_threshold(truth, score) == pytest.approx(0.5)
    assert threshold_at_sensitivity(truth, score, 0.66) == pytest.approx(0.5)
    assert threshold_at_sensitivity(truth, score, 1.0) == pytest.approx(0.25)
    assert threshold_at_sensitivity(truth, score, 0.01) == pytest.approx(0.7)
    assert youden_threshold(truth & False, score) is None
    assert threshold_at_sensitivity(truth & False, score, 0.5) is None
