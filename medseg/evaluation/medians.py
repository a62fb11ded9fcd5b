"""The interval of a median, from order statistics; right for cases that belong to patients."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from medseg.evaluation.statistics import Floats, Interval, patient_numbers, standard_error, t_of


def median_interval(values: Floats, patients: Sequence[str], *, confidence: float = 0.95) -> Interval:
    """Confidence interval of a median by order statistics: distribution-free, no random numbers.

    Parameters
    ----------
    values : array (n,)
    patients : sequence of str (n,)
        With several cases of a patient the ranks are moved outwards by the variance between patients of
        the share of cases below the median (Woodruff 1952), with t quantiles.

    Returns
    -------
    Interval
        None with a note where there are too few cases or patients for the level: below 6 for 95 %.
    """
    n = len(values)
    if n > 1 and np.ptp(values) == 0:
        return Interval(float(values[0]), float(values[0]), "point", "all values are equal")
    several = len(set(patients)) < n
    rank = _clustered_rank(values, patients, confidence) if several else _binomial_rank(n, confidence)
    if rank < 1:
        few = f"{len(set(patients))} patients" if several else f"{n} cases"
        return Interval(None, None, "none", f"{few} are too few for an interval of the median")
    ordered = np.sort(values)
    how = "order statistics, ranks widened for patients with several cases" if several else "order statistics"
    return Interval(float(ordered[rank - 1]), float(ordered[n - rank]), how)


def _binomial_rank(n: int, confidence: float) -> int:
    """The largest rank r such that the interval from the r-th to the r-th last value has the level."""
    from scipy.stats import binom

    rank = int(binom.ppf((1 - confidence) / 2, n, 0.5))
    while rank > 0 and 2 * binom.cdf(rank - 1, n, 0.5) > 1 - confidence:
        rank -= 1
    return rank


def _clustered_rank(values: Floats, patients: Sequence[str], confidence: float) -> int:
    who = patient_numbers(patients)
    middle = np.median(values)
    below = (values < middle) + 0.5 * (values == middle)
    error = standard_error(np.bincount(who, below - below.mean()) / len(values))
    if not np.isfinite(error):  # one patient
        return 0
    if error == 0:  # every patient has as much above as below: as if cases were independent
        return _binomial_rank(len(values), confidence)
    share = 0.5 - t_of((1 + confidence) / 2, int(who.max())) * error
    return int(np.floor(len(values) * share + 0.5))
