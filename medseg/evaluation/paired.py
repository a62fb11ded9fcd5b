"""Two or more models on the same cases: differences, tests, who wins how often, how sure a ranking is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from medseg.core.errors import MedsegError
from medseg.evaluation.statistics import Floats, Interval, Sample, mean_interval, patient_numbers, resamples

Verdict = Literal["superior", "non-inferior", "inferior", "inconclusive"]
EXACT = 25
"""Up to so many differences the signed-rank test is exact."""


@dataclass(frozen=True)
class Difference:
    """The second model less the first, on the cases both have.

    ``wins``, ``ties``, ``losses`` count cases, seen from the second model: a win is a better value.
    """

    mean: float
    interval: Interval
    p: float
    test: str
    wins: int
    ties: int
    losses: int


def paired_difference(
    first: Floats,
    second: Floats,
    patients: Sequence[str],
    *,
    low_is_good: bool = False,
    confidence: float = 0.95,
    repeats: int = 2000,
    seed: int = 0,
) -> Difference:
    """Mean of second - first with its interval over patients, and Wilcoxon's test.

    Parameters
    ----------
    first, second : array (n,)
        Values of the same cases, at least one.
    patients : sequence of str (n,)
        The interval is that of `mean_interval`; the test is over patients' mean differences, because cases
        of one patient are not independent.
    low_is_good : bool
        For counting wins: the lower value is the better one.
    """
    moved = np.asarray(second, float) - np.asarray(first, float)
    sample = Sample.of([(moved, patients)])
    interval = mean_interval(sample, confidence=confidence, repeats=repeats, seed=seed)
    p, test = signed_rank((sample.sums / sample.counts)[0])
    better = -moved if low_is_good else moved
    counts = [int(np.sum(x)) for x in (better > 0, better == 0, better < 0)]
    return Difference(sample.mean(), interval, p, test, *counts)


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
    if moved.size > EXACT:
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
    """Holm's step-down adjustment of p values over their family (1979), in the order given.

    >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    adjusted, running = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(np.argsort(p_values, kind="stable")):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[int(i)] = running
    return adjusted


def verdict_of(limits: Sequence[float] | None, margin: float, *, low_is_good: bool = False) -> Verdict:
    """What an interval of second - first says of the second model, given a margin set in advance.

    ``superior``: the whole interval is better than no difference; ``non-inferior``: the whole interval is
    better than the margin; ``inferior``: the whole interval is worse than the margin; else
    ``inconclusive`` (and so without an interval).

    Raises
    ------
    MedsegError
        A margin that is not a positive number.
    """
    if not margin > 0:
        raise MedsegError("a non-inferiority margin is a positive number", evidence=f"{margin:g}")
    if limits is None:
        return "inconclusive"
    worst, best = (-limits[1], -limits[0]) if low_is_good else (limits[0], limits[1])
    if worst > 0:
        return "superior"
    if worst > -margin:
        return "non-inferior"
    return "inferior" if best < -margin else "inconclusive"


@dataclass(frozen=True, eq=False)
class Ranking:
    """How models rank by their mean, and how that holds when patients are drawn again.

    Parameters
    ----------
    ranks : int array (models,)
        1 is the best; of equals the first gets the better rank.
    first : array (models,)
        Share of draws in which a model has the best mean; equals share the draw.
    low, high : int arrays (models,)
        Limits of the ranks over the draws.
    tau : float
        Mean of Kendall's tau between the ranking and that of a draw: 1 is a ranking that never moves.
    """

    ranks: NDArray[np.int64]
    first: Floats
    low: NDArray[np.int64]
    high: NDArray[np.int64]
    tau: float


def rank_stability(
    values: Floats,
    patients: Sequence[str],
    *,
    low_is_good: bool = False,
    confidence: float = 0.95,
    repeats: int = 2000,
    seed: int = 0,
) -> Ranking:
    """Rank models by their mean over cases (aggregate, then rank), in the data and in bootstrap draws.

    Parameters
    ----------
    values : array (n, models)
        The same cases for all models; n and models at least 1.
    patients : sequence of str (n,)
        Patients are drawn with all their cases.

    Notes
    -----
    The bootstrap of rankings follows Wiesenfarth et al. 2021 (challengeR); for two models ``first`` is the
    share of draws in which the model wins.
    """
    who = patient_numbers(patients)
    weights = np.vstack([np.ones(who.max() + 1), resamples(int(who.max()) + 1, repeats, seed)])[:, who]
    means = weights @ (-values if low_is_good else values) / weights.sum(axis=1, keepdims=True)
    means = np.round(means, 12)
    order = np.argsort(-means, axis=1, kind="stable")
    ranks = np.argsort(order, axis=1, kind="stable") + 1
    best = means[1:] == means[1:].max(axis=1, keepdims=True)
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    low, high = np.quantile(ranks[1:], tails, axis=0, method="inverted_cdf").astype(np.int64)
    return Ranking(ranks[0], (best / best.sum(axis=1, keepdims=True)).mean(axis=0), low, high, _tau(means))


def _tau(means: Floats) -> float:
    """Mean Kendall tau-a of each later row with the first, over pairs of models; 1 for a single model."""
    a, b = np.triu_indices(means.shape[1], 1)
    if not a.size:
        return 1.0
    signs = np.sign(means[:, a] - means[:, b])
    return float((signs[1:] * signs[0]).mean())
