"""Curves of a class against the rest: ROC, precision-recall, net benefit; thresholds read off them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medseg.core.errors import MedsegError
from medseg.evaluation.statistics import Floats

Bool = NDArray[np.bool_]
POINTS = 200
"""Most points of a curve that is stored."""


@dataclass(frozen=True, eq=False)
class Counts:
    """True and false positives at each distinct score, from the highest down: arrays (thresholds,)."""

    thresholds: Floats
    true: Floats
    false: Floats
    positives: int
    negatives: int


def counts_at(positive: Bool, score: Floats) -> Counts:
    """How many cases are called at each threshold ``score >= t``."""
    order = np.argsort(-score, kind="stable")
    last = (
        np.append(np.flatnonzero(np.diff(score[order])), score.size - 1) if score.size else np.zeros(0, int)
    )
    true = np.cumsum(positive[order])[last].astype(float)
    return Counts(score[order][last], true, last + 1 - true, int(positive.sum()), int((~positive).sum()))


def roc_curve(positive: Bool, score: Floats) -> dict[str, list[float]]:
    """``threshold``, ``fpr``, ``tpr`` from (0, 0) to (1, 1), thinned; empty when a side is empty.

    The first threshold (nothing is called) is that of the highest score plus 1.
    """
    found = counts_at(positive, score)
    if not found.positives or not found.negatives:
        return {"threshold": [], "fpr": [], "tpr": []}
    false, true = np.append(0, found.false), np.append(0, found.true)
    thresholds = np.append(found.thresholds[0] + 1, found.thresholds)
    turn = _turns(false, true)
    curve = {"threshold": thresholds, "fpr": false / found.negatives, "tpr": true / found.positives}
    return _thinned({name: values[turn] for name, values in curve.items()})


def precision_recall_curve(positive: Bool, score: Floats) -> dict[str, list[float]]:
    """``threshold``, ``recall``, ``precision``, thinned; empty without positives."""
    found = counts_at(positive, score)
    if not found.positives:
        return {"threshold": [], "recall": [], "precision": []}
    precision = found.true / (found.true + found.false)
    return _thinned(
        {"threshold": found.thresholds, "recall": found.true / found.positives, "precision": precision}
    )


def decision_curve(
    positive: Bool, probability: Floats, thresholds: tuple[float, float] = (0.01, 0.99), step: float = 0.01
) -> dict[str, list[float]]:
    """Net benefit of treating the cases whose probability reaches a threshold, against all and none.

    Parameters
    ----------
    positive : bool array (n,)
    probability : array (n,)
    thresholds : (low, high)
        Range of threshold probabilities, within 0 and 1, ends excluded.

    Returns
    -------
    dict
        ``threshold``, ``model``, ``all`` (treating everybody); treating nobody has net benefit 0. Empty for
        no case.

    Notes
    -----
    Vickers and Elkin 2006: ``TP / n - FP / n x t / (1 - t)``.

    Raises
    ------
    MedsegError
        A range that is not one within 0 and 1.
    """
    low, high = thresholds
    if not 0 < low <= high < 1:
        raise MedsegError("a decision curve needs a range within 0 and 1", evidence=f"{low:g} to {high:g}")
    n = positive.size
    if not n:
        return {"threshold": [], "model": [], "all": []}
    at = np.round(np.arange(low, high + step / 2, step), 6)
    odds = at / (1 - at)
    called = probability[:, None] >= at - 1e-12
    true, false = (np.sum(called & side[:, None], axis=0) for side in (positive, ~positive))
    everybody = positive.mean() - (1 - positive.mean()) * odds
    return _listed({"threshold": at, "model": true / n - false / n * odds, "all": everybody})


def youden_threshold(positive: Bool, score: Floats) -> float | None:
    """The highest threshold with the largest sensitivity + specificity; None when a side is empty.

    To be chosen on training cases and set before the cases it is judged on; half-way to the next lower score.
    """
    found = counts_at(positive, score)
    if not found.positives or not found.negatives:
        return None
    index = np.round(found.true / found.positives - found.false / found.negatives, 12)
    return _between(found, int(np.argmax(index)))


def threshold_at_sensitivity(positive: Bool, score: Floats, wanted: float) -> float | None:
    """The highest threshold that reaches a sensitivity on training cases; None without positives."""
    found = counts_at(positive, score)
    if not found.positives:
        return None
    return _between(found, int(np.argmax(found.true / found.positives >= wanted - 1e-12)))


def _between(found: Counts, i: int) -> float:
    after = found.thresholds[i + 1] if i + 1 < found.thresholds.size else found.thresholds[i]
    return float((found.thresholds[i] + after) / 2)


def _turns(x: Floats, y: Floats) -> Bool:
    """Which points are needed: the first, the last, and those where a rising curve turns."""
    dx, dy = np.diff(x), np.diff(y)
    return np.concatenate([[True], dx[:-1] * dy[1:] != dx[1:] * dy[:-1], [True]])


def _thinned(curve: dict[str, Floats]) -> dict[str, list[float]]:
    """At most `POINTS` points, the first and the last among them."""
    n = len(next(iter(curve.values())))
    kept = np.unique(np.linspace(0, n - 1, POINTS).round().astype(int)) if n > POINTS else slice(None)
    return _listed({name: values[kept] for name, values in curve.items()})


def _listed(curve: dict[str, Floats]) -> dict[str, list[float]]:
    return {name: [float(f"{v:.6g}") for v in values] for name, values in curve.items()}
