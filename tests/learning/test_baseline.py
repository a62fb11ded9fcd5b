"""The plain rival: what it learns, how it is judged beside a network."""

from __future__ import annotations

import numpy as np
import pytest

from medseg.core.errors import MedsegError
from medseg.learning.baseline import STRENGTHS, fit_baseline, standardised


def _table(n: int, classes: str, shift: float, seed: int = 0):
    """Ten features, of which the first tells the class; the last never varies."""
    rng = np.random.default_rng(seed)
    truth = [(classes[i % len(classes)],) for i in range(n)]
    table = rng.normal(size=(n, 10)) * 3 + 50
    table[:, 0] += shift * np.array([classes.index(t[0]) for t in truth])
    table[:, -1] = 7
    return table, truth, [f"p{i}" for i in range(n)]


@pytest.mark.parametrize("classes", ["ab", "abc"])
def test_it_finds_the_feature_that_tells(classes):
    table, truth, who = _table(150, classes, 12.0)
    model = fit_baseline(table, truth, who, classes)
    other, right, _ = _table(150, classes, 12.0, seed=1)
    found = model.probabilities(other)
    assert found.shape == (150, len(classes))
    assert np.allclose(found.sum(1), 1)
    assert np.mean([classes[i] == t[0] for i, t in zip(found.argmax(1), right, strict=True)]) > 0.9
    assert np.abs(model.weights).sum(0).argmax() == 0
    assert (model.weights[:, -1] == 0).all()


def test_it_equals_scikit_learn_s_own_probabilities():
    from sklearn.linear_model import LogisticRegression

    table, truth, who = _table(90, "abc", 4.0)
    model = fit_baseline(table, truth, who, "abc")
    x = standardised(table, model.mean, model.scale)
    theirs = LogisticRegression(C=model.strength[0], max_iter=2000, tol=1e-4).fit(x, [t[0] for t in truth])
    assert np.allclose(model.probabilities(table), theirs.predict_proba(x), atol=1e-5)


def test_noise_is_answered_with_a_strong_penalty():
    table, truth, who = _table(80, "ab", 0.0)
    assert fit_baseline(table, truth, who, "ab").strength[0] <= STRENGTHS[2]


def test_several_classes_a_case_have_probabilities_of_their_own():
    rng = np.random.default_rng(0)
    table = rng.normal(size=(120, 4))
    truth = [tuple(n for n, x in zip("ab", row[:2], strict=True) if x > 0) for row in table]
    model = fit_baseline(table, truth, [f"p{i}" for i in range(120)], ("a", "b", "never"), multilabel=True)
    found = model.probabilities(table)
    assert ((found[:, :2] > 0.5) == (table[:, :2] > 0)).mean() > 0.9
    assert (found[:, 2] < 0.01).all()


def test_a_class_without_training_cases_gets_no_chance():
    table, truth, who = _table(60, "ac", 12.0)
    found = fit_baseline(table, truth, who, "abc").probabilities(table)
    assert (found[:, 1] < 1e-6).all()
    assert np.allclose(found.sum(1), 1)


def test_one_class_is_not_enough():
    table, _, who = _table(20, "ab", 1.0)
    with pytest.raises(MedsegError, match="two classes"):
        fit_baseline(table, [("a",)] * 20, who, "abc")
