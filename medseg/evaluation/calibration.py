"""Calibration: does a probability of 0.8 come true in 8 of 10 cases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medseg.evaluation.statistics import Floats, Interval, patient_numbers, z_of

Bool = NDArray[np.bool_]

EDGE = 1e-6
"""Probabilities are kept this far from 0 and 1 where their logit is taken."""


@dataclass(frozen=True, eq=False)
class Reliability:
    """Bins of equal width that hold a case: arrays (bins,).

    ``low`` is where a bin begins, ``predicted`` the mean probability in it, ``observed`` the share of cases
    of the class, ``n`` the cases.
    """

    low: Floats
    predicted: Floats
    observed: Floats
    n: NDArray[np.int64]

    def ece(self) -> float | None:
        """Expected calibration error: the mean over cases of |observed - predicted| of their bin."""
        total = self.n.sum()
        return float(np.sum(self.n * np.abs(self.observed - self.predicted)) / total) if total else None


def reliability(positive: Bool, probability: Floats, bins: int = 10) -> Reliability:
    """The reliability curve over bins of equal width (1.0 belongs to the last); empty ones are left out.

    Parameters
    ----------
    positive : bool array (n,)
    probability : array (n,)
        From 0 to 1.
    """
    at = np.minimum((probability * bins).astype(int), bins - 1)
    n = np.bincount(at, minlength=bins)
    kept = n > 0
    sums = [np.bincount(at, x, minlength=bins)[kept] / n[kept] for x in (probability, positive.astype(float))]
    return Reliability(np.flatnonzero(kept) / bins, sums[0], sums[1], n[kept])


def brier(positive: Bool, probability: Floats) -> Floats:
    """Squared error of each case's probability; their mean is the Brier score of the class."""
    return (probability - positive) ** 2


@dataclass(frozen=True)
class Recalibration:
    """Logistic recalibration: ``logit P(class) = intercept + slope logit(p)``.

    ``in_the_large`` is the intercept with the slope held at 1. Slope 1 and intercepts 0 are perfect; a slope
    under 1 is overconfidence, an intercept in the large over 0 probabilities that are too low. None where
    there is no finite fit (``note`` says why).
    """

    slope: float | None
    slope_interval: Interval
    intercept: float | None
    intercept_interval: Interval
    in_the_large: float | None
    in_the_large_interval: Interval
    note: str = ""


def recalibration(
    positive: Bool, probability: Floats, patients: Sequence[str], confidence: float = 0.95
) -> Recalibration:
    """Fit the logistic recalibration by maximum likelihood; Wald intervals with the variance over patients.

    Parameters
    ----------
    positive : bool array (n,)
    probability : array (n,)
    patients : sequence of str (n,)
        With a case each the sandwich variance is over cases.

    Notes
    -----
    Cox 1958; Van Calster et al. 2019 for the words.
    """
    logit = _logit(probability)
    if positive.all() or not positive.any():
        return _nothing("the cohort has no case on one side")
    offset = _fit(np.ones((logit.size, 1)), positive, logit)
    both = None
    if np.ptp(logit) > 1e-9 and not _separated(positive, logit):
        both = _fit(np.stack([np.ones_like(logit), logit], axis=1), positive, np.zeros_like(logit))
    note = "" if both is not None else "the classes are separated, or all probabilities are equal: no slope"
    who = patient_numbers(patients)
    large = _wald(offset, 0, who, confidence)
    intercept, slope = (_wald(both, i, who, confidence) for i in (0, 1))
    return Recalibration(*slope, *intercept, *large, note)


@dataclass(frozen=True, eq=False)
class _Fit:
    beta: Floats
    scores: Floats
    bread: Floats


def _fit(design: Floats, positive: Bool, offset: Floats) -> _Fit | None:
    """Logistic regression by Newton's method: coefficients, scores (n, d), inverse information (d, d)."""
    from scipy.special import expit

    beta = np.zeros(design.shape[1])
    for _ in range(100):
        p = expit(design @ beta + offset)
        information = design.T @ (design * (p * (1 - p))[:, None])
        if np.linalg.cond(information) > 1e12:
            return None
        bread = np.linalg.inv(information)
        step = bread @ (design.T @ (positive - p))
        beta = beta + step / max(1.0, float(np.abs(step).max()) / 5)
        if np.abs(step).max() < 1e-10:
            return _Fit(beta, design * (positive - p)[:, None], bread)
    return None


def _wald(
    fit: _Fit | None, i: int, who: NDArray[np.int64], confidence: float
) -> tuple[float | None, Interval]:
    if fit is None:
        return None, Interval(None, None, "none", "no finite fit")
    groups = int(who.max()) + 1
    if groups < 3:
        return float(fit.beta[i]), Interval(None, None, "none", "too few patients for an interval")
    sums = np.zeros((groups, fit.scores.shape[1]))
    np.add.at(sums, who, fit.scores)
    variance = fit.bread @ (sums.T @ sums) @ fit.bread * groups / (groups - 1)
    half = z_of((1 + confidence) / 2) * float(np.sqrt(variance[i, i]))
    value = float(fit.beta[i])
    return value, Interval(value - half, value + half, "Wald, variance between patients")


def _logit(probability: Floats) -> Floats:
    kept = np.clip(probability, EDGE, 1 - EDGE)
    return np.log(kept / (1 - kept))


def _separated(positive: Bool, logit: Floats) -> bool:
    """Whether a threshold parts the classes (in either direction): the slope would be infinite."""
    return bool(
        logit[positive].min() >= logit[~positive].max() or logit[positive].max() <= logit[~positive].min()
    )


def _nothing(note: str) -> Recalibration:
    none = Interval(None, None, "none", note)
    return Recalibration(None, none, None, none, None, none, note)
