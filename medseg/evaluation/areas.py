"""Areas under the ROC and the precision-recall curve, their intervals, and the difference of two."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.evaluation.statistics import Floats, Interval, bca, patient_numbers, resamples, z_of

Bool = NDArray[np.bool_]


def auroc_interval(
    positive: Bool, score: Floats, confidence: float = 0.95, patients: Sequence[str] | None = None
) -> tuple[float | None, Interval]:
    """Area under the ROC curve with DeLong's interval on the logit scale.

    Parameters
    ----------
    positive : bool array (n,)
    score : array (n,)
        Higher means more likely positive; ties count half.
    confidence : float
    patients : sequence of str (n,), optional
        Where patients have several cases, the variance is over patients (Obuchowski 1997).

    Returns
    -------
    area, interval
        None and no interval when a side is empty; a point with a note when the variance is zero.

    Notes
    -----
    DeLong, DeLong and Clarke-Pearson 1988. On the scale of the area itself the interval covers 84 to 93 % at
    50 cases (``benchmarks/interval_coverage.py``), and it can leave the range from 0 to 1; on the logit scale
    neither.
    """
    if positive.all() or not positive.any():
        return None, Interval(None, None, "none", "the cohort has no case on one side")
    area, above, below = _placements(positive, score)
    variance = _variance(above - area, below - area, *_sides(positive, patients))
    if not np.isfinite(variance):
        return area, Interval(None, None, "none", "one patient on a side: no interval can be given")
    if variance == 0 or area in (0.0, 1.0):
        return area, Interval(area, area, "point", "the classes are separated: the interval is a point")
    centre = np.log(area / (1 - area))
    half = z_of((1 + confidence) / 2) * np.sqrt(variance) / (area * (1 - area))
    low, high = (float(1 / (1 + np.exp(-x))) for x in (centre - half, centre + half))
    return area, Interval(low, high, "DeLong, logit scale")


def auroc_difference(
    positive: Bool,
    first: Floats,
    second: Floats,
    confidence: float = 0.95,
    patients: Sequence[str] | None = None,
) -> tuple[float | None, Interval, float]:
    """Area of the second score less that of the first on the same cases: DeLong's paired interval, p value.

    None, no interval and 1.0 when a side is empty; a point and 1.0 when the two order the cases alike.
    """
    if positive.all() or not positive.any():
        return None, Interval(None, None, "none", "the cohort has no case on one side"), 1.0
    a, b = _placements(positive, first), _placements(positive, second)
    difference = b[0] - a[0]
    above, below = b[1] - a[1] - difference, b[2] - a[2] - difference
    variance = _variance(above, below, *_sides(positive, patients))
    if not np.isfinite(variance):
        return difference, Interval(None, None, "none", "one patient on a side: no interval"), 1.0
    if variance <= 1e-24:
        return difference, Interval(difference, difference, "point", "no variance between cases"), 1.0
    error = float(np.sqrt(variance))
    half = z_of((1 + confidence) / 2) * error
    p = 2 * _tail(abs(difference) / error)
    return difference, Interval(difference - half, difference + half, "DeLong, paired"), p


def auroc_influence(positive: Bool, score: Floats) -> Floats | None:
    """What each case adds to the error of the area, array (n,); None when a side is empty."""
    if positive.all() or not positive.any():
        return None
    area, above, below = _placements(positive, score)
    found = np.empty(positive.size)
    found[positive], found[~positive] = (above - area) / above.size, (below - area) / below.size
    return found


def average_precision(positive: Bool, score: Floats) -> float | None:
    """Average precision: the sum over thresholds of precision x gain in recall; None without positives.

    Cases of equal score pass a threshold together. It is the area under the precision-recall curve
    without interpolation; by chance it is the prevalence.
    """
    if not positive.any():
        return None
    return float(_precisions(positive, score, np.ones((1, positive.size)))[0])


def auprc_interval(
    positive: Bool,
    score: Floats,
    patients: Sequence[str],
    *,
    confidence: float = 0.95,
    repeats: int = 2000,
    seed: int = 0,
) -> tuple[float | None, Interval]:
    """Average precision with its BCa bootstrap interval over patients.

    None and no interval without positives; a point with a note where no draw differs.
    """
    area = average_precision(positive, score)
    if area is None:
        return None, Interval(None, None, "none", "the cohort has no case of the class")
    who = patient_numbers(patients)
    n = int(who.max()) + 1
    if np.unique(who[positive]).size < 2 or n < 3:
        return area, Interval(None, None, "none", "one patient with the class: no interval can be given")

    def statistic(weights: Floats) -> Floats:
        return _precisions(positive, score, weights[:, who])

    draws = statistic(resamples(n, 100, seed))
    if np.nanmax(draws) - np.nanmin(draws) < 1e-12:
        return area, Interval(area, area, "point", "no draw of patients differs: the interval is a point")
    low, high = bca(statistic, n, confidence=confidence, repeats=repeats, seed=seed)
    return area, Interval(low, high, "BCa bootstrap over patients")


def _placements(positive: Bool, score: Floats) -> tuple[float, Floats, Floats]:
    """The area; for each positive the share of the others below it, for each other of positives above it."""
    from scipy.stats import rankdata

    of_positive, of_rest = score[positive], score[~positive]
    m, n = of_positive.size, of_rest.size
    ranks = rankdata(np.concatenate([of_positive, of_rest]))
    above = (ranks[:m] - rankdata(of_positive)) / n
    below = 1 - (ranks[m:] - rankdata(of_rest)) / m
    return float(above.mean()), above, below


def _sides(positive: Bool, patients: Sequence[str] | None) -> tuple[Any, Any]:
    who = np.arange(positive.size) if patients is None else patient_numbers(patients)
    return who[positive], who[~positive]


def _variance(above: Floats, below: Floats, who_above: Any, who_below: Any) -> float:
    """Variance of an area from its centred components, over patients; infinite for one patient on a side."""
    n = int(max(who_above.max(), who_below.max())) + 1
    a, b = (np.bincount(w, x, minlength=n) for w, x in ((who_above, above), (who_below, below)))
    with_a, with_b, either = (
        np.unique(w).size for w in (who_above, who_below, np.append(who_above, who_below))
    )
    if with_a < 2 or with_b < 2:
        return float("inf")
    own = with_a / (with_a - 1) * np.sum(a**2) / above.size**2
    other = with_b / (with_b - 1) * np.sum(b**2) / below.size**2
    shared = either / (either - 1) * np.sum(a * b) / (above.size * below.size)
    return max(0.0, float(own + other + 2 * shared))


def _precisions(positive: Bool, score: Floats, weights: Floats) -> Floats:
    """Average precision for each row of case weights (rows, n); NaN for a row without positives."""
    order = np.argsort(-score, kind="stable")
    last = np.append(np.flatnonzero(np.diff(score[order])), score.size - 1)
    seen = np.cumsum(weights[:, order], axis=1)[:, last]
    true = np.cumsum(weights[:, order] * positive[order], axis=1)[:, last]
    gains = np.diff(true, axis=1, prepend=0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.sum(gains * np.where(seen > 0, true / seen, 0), axis=1) / true[:, -1]


def _tail(z: float) -> float:
    from scipy.special import ndtr

    return float(ndtr(-z))
