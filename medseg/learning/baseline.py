"""The plain rival of a network: ridge-penalised logistic regression on features of shape and grey values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.core.errors import MedsegError

Floats = NDArray[np.float64]

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Inverse penalties that are tried."""
_INNER = 5
_FAR = 6.0
"""Standard deviations from the mean beyond which a feature says no more."""


@dataclass(frozen=True, eq=False)
class Baseline:
    """A fitted rival.

    Parameters
    ----------
    mean, scale : array (features,)
        Of the training cases; a scale of 0 marks a feature that never varied.
    weights, offset : arrays (outputs, features) and (outputs,)
        One output a class; of two classes that exclude each other, one for the second.
    strength : tuple of float
        The inverse penalty chosen by inner cross-validation; one a class where a case may have several.
    """

    mean: Floats
    scale: Floats
    weights: Floats
    offset: Floats
    strength: tuple[float, ...]
    classes: tuple[str, ...]
    multilabel: bool

    def probabilities(self, table: Floats) -> Floats:
        """``[cases, features]`` -> ``[cases, classes]``."""
        x = standardised(table, self.mean, self.scale)
        logits = x @ self.weights.T + self.offset
        if self.multilabel:
            return 1 / (1 + np.exp(-logits))
        if logits.shape[1] == 1:
            logits = np.concatenate([np.zeros_like(logits), logits], axis=1)
        raised = np.exp(logits - logits.max(1, keepdims=True))
        return raised / raised.sum(1, keepdims=True)


def fit_baseline(
    table: Floats,
    truth: Sequence[Sequence[str]],
    patients: Sequence[str],
    classes: Sequence[str],
    multilabel: bool = False,
) -> Baseline:
    """Standardise, choose the penalty by inner cross-validation over patients, fit on all.

    Parameters
    ----------
    table : array (cases, features)
        Of the training cases alone.
    truth : sequence of the classes of each case

    Raises
    ------
    MedsegError
        Fewer than two classes among the cases.
    """
    mean, sd = table.mean(0), table.std(0)
    scale = np.where(sd > 1e-9 * np.maximum(1.0, np.abs(mean)), sd, 0.0)
    x = standardised(table, mean, scale)
    flags = np.array([[name in names for name in classes] for names in truth])
    if multilabel:
        fits = [_fitted(x, flags[:, j].astype(int), patients, 2) for j in range(len(classes))]
        weights, offset, strengths = (np.stack(parts) for parts in zip(*fits, strict=True))
        return Baseline(
            mean, scale, weights[:, 0], offset[:, 0], tuple(strengths.tolist()), tuple(classes), True
        )
    weights, offset, strength = _fitted(x, flags.argmax(1), patients, len(classes))
    return Baseline(mean, scale, weights, offset, (strength,), tuple(classes), False)


def standardised(table: Floats, mean: Floats, scale: Floats) -> Floats:
    """Features less their mean over their scale; far values are cut off, constant features are 0."""
    usable = scale > 0
    return np.clip((table - mean) / np.where(usable, scale, 1), -_FAR, _FAR) * usable


def _fitted(x: Floats, y: NDArray[np.int64], patients: Sequence[str], n: int) -> tuple[Floats, Floats, float]:
    """Weights, offset and strength for ``n`` classes; classes without a case get no chance."""
    there = np.unique(y)
    if len(there) < 2:
        if n == 2:  # of several classes a case may have: always, or never
            return np.zeros((1, x.shape[1])), np.array([9.0 if there[0] else -9.0]), 0.0
        raise MedsegError("a baseline needs training cases of two classes")
    strength = _strength(x, y, patients)
    model = _logistic(strength).fit(x, y)
    if n == 2:
        return model.coef_, model.intercept_, strength
    weights, offset = np.zeros((n, x.shape[1])), np.full(n, -30.0)
    if len(there) == 2:  # scikit-learn gives one row: the second against the first
        weights[there[1]], offset[there] = model.coef_[0], (0.0, model.intercept_[0])
    else:
        weights[there], offset[there] = model.coef_, model.intercept_
    return weights, offset, strength


def _strength(x: Floats, y: NDArray[np.int64], patients: Sequence[str]) -> float:
    """The inverse penalty of the smallest log-loss over inner folds; the stronger penalty of equals."""
    from sklearn.model_selection import StratifiedGroupKFold

    groups = np.unique(np.array(patients), return_inverse=True)[1]
    folds = min(_INNER, int(np.bincount(y)[np.unique(y)].min()), len(np.unique(groups)))
    if folds < 2:
        return 0.1
    parts = list(StratifiedGroupKFold(folds, shuffle=True, random_state=0).split(x, y, groups))
    parts = [(a, b) for a, b in parts if len(b) and set(y[b]) <= set(y[a]) and len(set(y[a])) > 1]
    if not parts:
        return 0.1
    costs = [sum(_cost(x, y, a, b, c) for a, b in parts) for c in STRENGTHS]
    return STRENGTHS[int(np.argmin(np.round(costs, 9)))]


def _cost(x: Floats, y: NDArray[np.int64], a: Any, b: Any, strength: float) -> float:
    model = _logistic(strength).fit(x[a], y[a])
    found = model.predict_proba(x[b])[np.arange(len(b)), np.searchsorted(model.classes_, y[b])]
    return float(-np.log(np.clip(found, 1e-12, None)).sum())


def _logistic(strength: float) -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=strength, max_iter=2000, tol=1e-4)
