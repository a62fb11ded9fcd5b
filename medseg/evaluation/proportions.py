"""Proportions and their intervals: Wilson, with fewer effective cases where patients have several."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from medseg.evaluation.statistics import Floats, Interval, patient_numbers, standard_error, z_of


def wilson(hits: float, n: float, confidence: float = 0.95) -> Interval:
    """Wilson score interval of a proportion (1927); none for n = 0.

    >>> limits = wilson(8, 10)
    >>> round(limits.low, 3), round(limits.high, 3)
    (0.49, 0.943)
    """
    if n <= 0:
        return Interval(None, None, "none", "no cases")
    z = z_of((1 + confidence) / 2)
    p, denominator = hits / n, 1 + z**2 / n
    centre = (p + z**2 / (2 * n)) / denominator
    half = z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2)) / denominator
    return Interval(max(0.0, float(centre - half)), min(1.0, float(centre + half)), "Wilson")


def proportion(hits: NDArray[np.bool_], patients: Sequence[str], confidence: float = 0.95) -> Interval:
    """Wilson interval of the share of True among cases that belong to patients: see `ratio`."""
    who = patient_numbers(patients)
    found, of = (np.bincount(who, x).astype(float) for x in (hits.astype(float), np.ones(hits.size)))
    return ratio(found, of, confidence=confidence)


def ratio(hits: Floats, of: Floats, *, confidence: float = 0.95) -> Interval:
    """Wilson interval of ``sum(hits) / sum(of)``, both counted by patient: arrays (patients,).

    With several cases of a patient the number of cases is divided by the design effect - the variance
    between patients over that of independent cases, at least 1 (Rao and Scott 1992). Where all or none are
    hits it cannot be told from the data, and patients are counted in place of cases.
    """
    total, found = float(np.sum(of)), float(np.sum(hits))
    if total == 0 or np.max(of, initial=0) <= 1:
        return wilson(found, total, confidence)
    p = found / total
    if found in (0.0, total):
        effect = total / np.count_nonzero(of)
    else:
        error = standard_error((hits - p * of) / total)
        effect = max(1.0, error**2 / (p * (1 - p) / total)) if np.isfinite(error) else total
    limits = wilson(found / effect, total / effect, confidence)
    return Interval(limits.low, limits.high, "Wilson", f"design effect {effect:.2f}: patients have several")
