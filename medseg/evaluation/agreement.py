"""Agreement of measurements: Bland-Altman limits, proportional bias, intraclass correlation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from medseg.evaluation.statistics import Floats, Interval, patient_numbers, standard_error, t_of, z_of


@dataclass(frozen=True)
class BlandAltman:
    """Differences of two measurements (first - second), their limits of agreement, and proportional bias.

    Parameters
    ----------
    n, patients : int
    bias, sd : float
        Mean and standard deviation (n - 1; with several cases a patient: of a single new case) of the
        differences.
    lower, upper : float
        Limits of agreement, bias -+ 1.96 sd (for 95 %).
    bias_interval, lower_interval, upper_interval : Interval
    slope : float or None
        Of the difference against the mean of the two: proportional bias; None without spread in the means.
    slope_interval : Interval
    note : str
        What to know; empty when there is nothing.
    """

    n: int
    patients: int
    bias: float
    sd: float
    lower: float
    upper: float
    bias_interval: Interval
    lower_interval: Interval
    upper_interval: Interval
    slope: float | None
    slope_interval: Interval
    note: str = ""


def bland_altman(
    first: Floats, second: Floats, patients: Sequence[str] | None = None, *, confidence: float = 0.95
) -> BlandAltman | None:
    """Bland-Altman analysis of two measurements of the same cases; None for no case.

    Parameters
    ----------
    first, second : array (n,)
    patients : sequence of str (n,), optional
        Where patients have several cases, the variance is split into between and within patients (one-way
        analysis of variance), the limits are those of a single case of a new patient, and their intervals
        count fewer effective cases: ``n / (1 + (cases a patient - 1) x correlation)``, for the variance with
        the square of the correlation.
    confidence : float
        Of the limits of agreement and of all intervals.

    Notes
    -----
    Bland and Altman 1986, 2007 (several cases a patient). The intervals of the limits are exact under
    normal differences, from the noncentral t distribution (Carkeet 2015); the bias has a t interval. The
    slope's interval is by ordinary least squares with the variance between patients.
    """
    difference = np.asarray(first, float) - np.asarray(second, float)
    n = difference.size
    if not n:
        return None
    who = np.arange(n) if patients is None else patient_numbers(patients)
    groups = int(who.max()) + 1
    bias = float(difference.mean())
    none = Interval(None, None, "none", "too few patients for an interval")
    if groups < 3:
        sd = float(difference.std(ddof=1)) if n > 1 else 0.0
        z = z_of((1 + confidence) / 2)
        limits = (bias - z * sd, bias + z * sd)
        return BlandAltman(n, groups, bias, sd, *limits, none, none, none, None, none, none.note)
    sd, sizes = _spread(difference, who)
    slope, slope_interval = _slope(difference, (np.asarray(first) + np.asarray(second)) / 2, who, confidence)
    intervals = _limits(bias, sd, sizes, groups, confidence)
    z = z_of((1 + confidence) / 2)
    note = "all differences are equal: intervals are points" if sd == 0 else ""
    return BlandAltman(
        n, groups, bias, sd, bias - z * sd, bias + z * sd, *intervals, slope, slope_interval, note
    )


@dataclass(frozen=True)
class Icc:
    """An intraclass correlation: its form, value, and interval."""

    form: Literal["ICC(2,1)", "ICC(3,1)"]
    words: str
    value: float | None
    interval: Interval


FEW_RATERS = 3
"""Up to so many raters ICC(2,1) gets the generalised interval."""
_DRAWS = 20_000

_FORMS = {
    "ICC(2,1)": "two-way random effects, absolute agreement, single measurement",
    "ICC(3,1)": "two-way mixed effects, consistency, single measurement",
}


def icc(ratings: Floats, *, confidence: float = 0.95) -> tuple[Icc, Icc]:
    """ICC(2,1) and ICC(3,1) of a complete table of measurements, with their F-based intervals.

    Parameters
    ----------
    ratings : array (cases, raters)
        Two or more raters; without cases, or with fewer than three, the values are None.

    Returns
    -------
    ICC(2,1), ICC(3,1)
        None with a note also where no case differs from another.

    Notes
    -----
    Shrout and Fleiss 1979; interval of ICC(2,1) by McGraw and Wong 1996 (Satterthwaite). With two or three
    raters that one held the truth in 89 % of samples; there the generalised interval of Weerahandi 1993 is
    taken, which holds it in 95 % and is wide: so few raters say little about raters in general. Two given
    raters (a model, a reference) are ICC(3,1).
    """
    n, k = ratings.shape
    cases, raters, rest = _mean_squares(ratings) if n >= 3 and k >= 2 else (0.0, 0.0, 0.0)
    if max(cases, rest) <= 1e-18 * max(1.0, float(np.max(ratings**2, initial=0))):
        why = "no case differs from another" if n >= 3 and k >= 2 else "fewer than three cases, or one rater"
        none = Interval(None, None, "none", why)
        return Icc("ICC(2,1)", _FORMS["ICC(2,1)"], None, none), Icc(
            "ICC(3,1)", _FORMS["ICC(3,1)"], None, none
        )
    agreement = (cases - rest) / (cases + (k - 1) * rest + k * (raters - rest) / n)
    consistency = (cases - rest) / (cases + (k - 1) * rest)
    return (
        Icc("ICC(2,1)", _FORMS["ICC(2,1)"], float(agreement),
            _agreement_interval(agreement, cases, raters, rest, n, k, confidence)),
        Icc("ICC(3,1)", _FORMS["ICC(3,1)"], float(consistency),
            _consistency_interval(cases, rest, n, k, confidence)),
    )  # fmt: skip


def _spread(difference: Floats, who: np.ndarray) -> tuple[float, tuple[float, float]]:
    """Standard deviation of a case of a new patient; effective cases for the mean, and for that deviation."""
    n, groups = difference.size, int(who.max()) + 1
    if groups == n:
        return float(difference.std(ddof=1)), (float(n), float(n))
    counts = np.bincount(who)
    means = np.bincount(who, difference) / counts
    within = np.sum((difference - means[who]) ** 2) / (n - groups)
    between = np.sum(counts * (means - difference.mean()) ** 2) / (groups - 1)
    usual = (n - np.sum(counts**2) / n) / (groups - 1)
    shared = max(0.0, (between - within) / usual)
    total = shared + within
    correlation = shared / total if total > 0 else 0.0
    crowd = np.sum(counts**2) / n
    sizes = [float(n / (1 + (crowd - 1) * shared)) for shared in (correlation, correlation**2)]
    return float(np.sqrt(total)), (sizes[0], sizes[1])


def _limits(
    bias: float, sd: float, sizes: tuple[float, float], groups: int, confidence: float
) -> tuple[Interval, Interval, Interval]:
    """Intervals of the bias and of both limits, for so many effective cases (of the mean, of the sd)."""
    from scipy.stats import nct

    if sd == 0:
        point = Interval(bias, bias, "point", "all differences are equal")
        return point, point, point
    error = sd / np.sqrt(sizes[0])
    half = t_of((1 + confidence) / 2, groups - 1) * error
    shift = z_of((1 + confidence) / 2) * np.sqrt(sizes[0])
    near, far = (
        float(nct.ppf(q, sizes[1] - 1, shift)) * error for q in ((1 - confidence) / 2, (1 + confidence) / 2)
    )
    how = "exact, noncentral t"
    return (
        Interval(bias - half, bias + half, "t"),
        Interval(bias - far, bias - near, how),
        Interval(bias + near, bias + far, how),
    )


def _slope(
    difference: Floats, mean: Floats, who: np.ndarray, confidence: float
) -> tuple[float | None, Interval]:
    """Least-squares slope of difference on mean; its variance is that between patients (a sandwich)."""
    centred = mean - mean.mean()
    square = float(np.sum(centred**2))
    groups = int(who.max()) + 1
    if square <= 1e-18 * max(1.0, float(np.max(np.abs(mean))) ** 2):
        return None, Interval(None, None, "none", "all means are equal: no slope")
    slope = float(np.sum(centred * difference) / square)
    left = difference - difference.mean() - slope * centred
    error = standard_error(np.bincount(who, centred * left) / square)
    half = t_of((1 + confidence) / 2, groups - 2) * error * np.sqrt((groups - 1) / (groups - 2))
    return slope, Interval(slope - half, slope + half, "t, variance between patients")


def _mean_squares(ratings: Floats) -> tuple[float, float, float]:
    """Mean squares of cases, of raters, and of what is left, in a two-way table."""
    n, k = ratings.shape
    mean, by_case, by_rater = ratings.mean(), ratings.mean(axis=1), ratings.mean(axis=0)
    left = ratings - by_case[:, None] - by_rater + mean
    cases = k * np.sum((by_case - mean) ** 2) / (n - 1)
    raters = n * np.sum((by_rater - mean) ** 2) / (k - 1)
    return float(cases), float(raters), float(np.sum(left**2) / ((n - 1) * (k - 1)))


def _agreement_interval(
    value: float, cases: float, raters: float, rest: float, n: int, k: int, confidence: float
) -> Interval:
    from scipy.stats import f

    if max(rest, raters) <= 1e-12 * cases:
        return Interval(1.0, 1.0, "point", "the raters agree in every case")
    if k <= FEW_RATERS:
        return _generalised_interval(cases, raters, rest, n, k, confidence)
    a, b = k * value / (n * (1 - value)), 1 + k * value * (n - 1) / (n * (1 - value))
    freedom = (a * raters + b * rest) ** 2 / (
        (a * raters) ** 2 / (k - 1) + (b * rest) ** 2 / ((n - 1) * (k - 1))
    )
    level = (1 + confidence) / 2
    wide, narrow = f.ppf(level, n - 1, freedom), f.ppf(level, freedom, n - 1)
    noise = k * raters + (k * n - k - n) * rest
    low = n * (cases - wide * rest) / (wide * noise + n * cases)
    high = n * (narrow * cases - rest) / (noise + n * narrow * cases)
    return Interval(float(low), float(high), "F, Satterthwaite")


def _generalised_interval(
    cases: float, raters: float, rest: float, n: int, k: int, confidence: float
) -> Interval:
    """Percentiles of the ICC over what the variances may be, each mean square having its own chi-squared."""
    freedoms = ((n - 1) * (k - 1), k - 1, n - 1)
    rng, means = np.random.default_rng([n, k]), (rest, raters, cases)
    spread = [d * m / rng.chisquare(d, _DRAWS) for d, m in zip(freedoms, means, strict=True)]
    between = np.maximum(0, (spread[2] - spread[0]) / k)
    moved = np.maximum(0, (spread[1] - spread[0]) / n)
    low, high = np.quantile(
        between / (between + moved + spread[0]), [(1 - confidence) / 2, (1 + confidence) / 2]
    )
    return Interval(
        float(low), float(high), "generalised (Monte Carlo)", f"{k} raters say little about raters"
    )


def _consistency_interval(cases: float, rest: float, n: int, k: int, confidence: float) -> Interval:
    from scipy.stats import f

    if rest <= 1e-12 * cases:
        return Interval(1.0, 1.0, "point", "the raters differ by a constant")
    level, freedom = (1 + confidence) / 2, (n - 1) * (k - 1)
    seen = cases / rest
    low, high = seen / f.ppf(level, n - 1, freedom), seen * f.ppf(level, freedom, n - 1)
    return Interval(float((low - 1) / (low + k - 1)), float((high - 1) / (high + k - 1)), "F")
