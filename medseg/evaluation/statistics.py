"""Means, medians and their intervals, for cases that belong to patients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

FEW = 15
"""Below so many patients a mean gets a t interval: a bootstrap of few is too narrow."""


@dataclass(frozen=True)
class Interval:
    """A confidence interval (None where there is none), how it was made, and what to know about it."""

    low: float | None
    high: float | None
    method: str
    note: str = ""


@dataclass(frozen=True)
class Sample:
    """Values of one or several labels, gathered by patient: sums and counts, arrays (labels, patients)."""

    sums: Floats
    counts: Floats

    @classmethod
    def of(cls, groups: Sequence[tuple[Floats, Sequence[str]]]) -> Sample:
        """From the values and their patients, one pair for each label."""
        patients = {p: i for i, p in enumerate(sorted({p for _, who in groups for p in who}))}
        sums, counts = (np.zeros((len(groups), len(patients))) for _ in range(2))
        for row, (values, who) in enumerate(groups):
            columns = [patients[p] for p in who]
            np.add.at(sums[row], columns, values)
            np.add.at(counts[row], columns, 1)
        return cls(sums, counts)

    @property
    def patients(self) -> int:
        """Number of patients the rows come from."""
        return self.sums.shape[1]

    def mean(self) -> float:
        """Mean over labels of the mean over cases."""
        return float(self.means(np.ones((1, self.patients)))[0])

    def means(self, weights: Floats) -> Floats:
        """The same for each row of patient weights (repeats, patients); labels without cases are left out."""
        counts = weights @ self.counts.T
        with np.errstate(invalid="ignore", divide="ignore"):
            by_label = weights @ self.sums.T / counts
        there = counts > 0
        labels = np.maximum(there.sum(axis=1), 1)
        return np.where(there, by_label, 0).sum(axis=1) / labels

    def influence(self) -> Floats:
        """What each patient adds to the error of the mean, shape (patients,)."""
        totals = self.counts.sum(axis=1, keepdims=True)
        residuals = self.sums - self.counts * (self.sums.sum(axis=1, keepdims=True) / totals)
        return (residuals / totals).mean(axis=0)


def mean_interval(
    sample: Sample,
    *,
    confidence: float = 0.95,
    repeats: int = 2000,
    seed: int = 0,
    bounds: tuple[float | None, float | None] = (None, None),
) -> Interval:
    """Confidence interval of a mean: BCa bootstrap over patients, t interval below 15 patients.

    Parameters
    ----------
    sample : Sample
        Every label must have at least one case.
    confidence : float
    repeats, seed : int
        Of the bootstrap.
    bounds : (low, high)
        Possible range of the metric; an interval is cut there.

    Returns
    -------
    Interval
        A point with a note when all patients agree; none with a note for a single patient.
    """
    mean = sample.mean()
    if sample.patients < 2:
        return Interval(None, None, "none", "one patient: no interval can be given")
    if np.abs(sample.influence()).max() <= 1e-12 * max(1.0, abs(mean)):
        return Interval(mean, mean, "point", "no patient differs from the mean: the interval is a point")
    if sample.patients < FEW:
        low, high = _t_interval(sample, mean, confidence)
        note = f"{sample.patients} patients: t interval instead of the bootstrap"
        return Interval(*_cut(low, high, bounds), "t", note)
    low, high = _bca(sample, mean, confidence, repeats, seed)
    return Interval(*_cut(low, high, bounds), "BCa bootstrap over patients")


def median_interval(
    values: Floats, patients: Sequence[str], *, confidence: float = 0.95, repeats: int = 2000, seed: int = 0
) -> Interval:
    """Confidence interval of a median: by order statistics; by bootstrap when patients have several cases."""
    if len(set(patients)) < len(values):
        return _clustered_median(values, patients, confidence, repeats, seed)
    from scipy.stats import binom

    n = len(values)
    rank = int(binom.ppf((1 - confidence) / 2, n, 0.5))
    while rank > 0 and 2 * binom.cdf(rank - 1, n, 0.5) > 1 - confidence:
        rank -= 1
    if rank < 1:
        return Interval(None, None, "none", f"{n} cases are too few for an interval of the median")
    ordered = np.sort(values)
    return Interval(float(ordered[rank - 1]), float(ordered[n - rank]), "order statistics")


def wilson(hits: int, n: int, confidence: float = 0.95) -> Interval:
    """Wilson score interval of a proportion; none for n = 0."""
    if n == 0:
        return Interval(None, None, "none", "no cases")
    z = _z(1 - (1 - confidence) / 2)
    p, denominator = hits / n, 1 + z**2 / n
    centre = (p + z**2 / (2 * n)) / denominator
    half = z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2)) / denominator
    return Interval(max(0.0, float(centre - half)), min(1.0, float(centre + half)), "Wilson")


def auroc_interval(
    positive: NDArray[np.bool_], score: Floats, confidence: float = 0.95
) -> tuple[float | None, Interval]:
    """Area under the ROC curve with DeLong's interval.

    Parameters
    ----------
    positive : bool array (n,)
    score : array (n,)
        Higher means more likely positive; ties count half.

    Returns
    -------
    area, interval
        None and no interval when a side is empty; a point with a note when the variance is zero.
    """
    from scipy.stats import rankdata

    of_positive, of_rest = score[positive], score[~positive]
    m, n = of_positive.size, of_rest.size
    if m == 0 or n == 0:
        return None, Interval(None, None, "none", "the cohort has no case on one side")
    ranks = rankdata(np.concatenate([of_positive, of_rest]))
    above = (ranks[:m] - rankdata(of_positive)) / n
    below = 1 - (ranks[m:] - rankdata(of_rest)) / m
    area = float(above.mean())
    if m < 2 or n < 2:
        return area, Interval(None, None, "none", "one case on a side: no interval can be given")
    error = float(np.sqrt(above.var(ddof=1) / m + below.var(ddof=1) / n))
    if error == 0:
        return area, Interval(area, area, "point", "the classes are separated: the interval is a point")
    half = _z((1 + confidence) / 2) * error
    return area, Interval(*_cut(area - half, area + half, (0, 1)), "DeLong")


def signed_rank(differences: Floats) -> tuple[float, str]:
    """Wilcoxon's signed-rank test of paired differences: two-sided p value, and how it was found.

    Differences of zero are left out. Exact (ties included) up to 25 differences, a normal approximation
    beyond; 1.0 when no case differs.
    """
    from scipy.stats import rankdata, wilcoxon

    moved = np.asarray(differences, float)
    moved = moved[moved != 0]
    if not moved.size:
        return 1.0, "no case differs"
    if moved.size > 25:
        return float(wilcoxon(moved, method="approx").pvalue), "normal approximation"  # type: ignore[attr-defined]
    doubled = np.rint(2 * rankdata(np.abs(moved))).astype(int)
    return _exact_signed_rank(doubled, int(doubled[moved > 0].sum())), "exact"


def _exact_signed_rank(ranks: NDArray[np.int64], seen: int) -> float:
    """Share of all sign patterns whose positive rank sum is at least as far from the middle as `seen`."""
    total = int(ranks.sum())
    ways = np.zeros(total + 1)
    ways[0] = 1
    for rank in ranks:
        ways[rank:] = ways[rank:] + ways[: total + 1 - rank]
    far = np.abs(2 * np.arange(total + 1) - total) >= abs(2 * seen - total)
    return float(ways[far].sum() / ways.sum())


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment of p values over their family, in the order given."""
    adjusted, running = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(np.argsort(p_values, kind="stable")):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[int(i)] = running
    return adjusted


def _bca(sample: Sample, mean: float, confidence: float, repeats: int, seed: int) -> tuple[float, float]:
    """Bias-corrected and accelerated bootstrap limits, patients drawn with replacement."""
    draws = np.sort(sample.means(_resamples(sample.patients, repeats, seed)))
    below = (np.sum(draws < mean) + np.sum(draws <= mean)) / (2 * repeats)
    bias = _z(float(np.clip(below, 0.5 / repeats, 1 - 0.5 / repeats)))
    left_out = sample.means(1 - np.eye(sample.patients))
    spread = left_out.mean() - left_out
    acceleration = np.sum(spread**3) / (6 * max(np.sum(spread**2), 1e-300) ** 1.5)
    levels = [_level(bias, acceleration, z) for z in (_z((1 - confidence) / 2), _z((1 + confidence) / 2))]
    low, high = np.quantile(draws, levels)
    return float(low), float(high)


def _level(bias: float, acceleration: Any, z: float) -> float:
    from scipy.special import ndtr

    return float(ndtr(bias + (bias + z) / (1 - acceleration * (bias + z))))


def _t_interval(sample: Sample, mean: float, confidence: float) -> tuple[float, float]:
    """t limits with the variance between patients (equal to the usual ones for a case a patient)."""
    from scipy.stats import t

    n = sample.patients
    error = np.sqrt(n / (n - 1) * np.sum(sample.influence() ** 2))
    half = float(t.ppf((1 + confidence) / 2, n - 1) * error)
    return mean - half, mean + half


def _clustered_median(
    values: Floats, patients: Sequence[str], confidence: float, repeats: int, seed: int
) -> Interval:
    names = {p: i for i, p in enumerate(sorted(set(patients)))}
    if len(names) < 6:
        return Interval(
            None, None, "none", f"{len(names)} patients are too few for an interval of the median"
        )
    order = np.argsort(values, kind="stable")
    who = np.array([names[p] for p in patients])[order]
    reached = np.cumsum(_resamples(len(names), repeats, seed)[:, who], axis=1)
    middle = np.argmax(reached * 2 >= reached[:, -1:], axis=1)
    low, high = np.quantile(values[order][middle], [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(low), float(high), "percentile bootstrap over patients")


@lru_cache(maxsize=8)
def _resamples(patients: int, repeats: int, seed: int) -> Floats:
    """How often each patient is drawn in each repeat, array (repeats, patients)."""
    rng = np.random.default_rng([seed, patients])
    return rng.multinomial(patients, np.full(patients, 1 / patients), size=repeats).astype(np.float64)


def _z(level: float) -> float:
    from scipy.special import ndtri

    return float(ndtri(level))


def _cut(low: float, high: float, bounds: tuple[float | None, float | None]) -> tuple[float, float]:
    least, most = bounds
    low = low if least is None else max(low, least)
    return low, high if most is None else min(high, most)
