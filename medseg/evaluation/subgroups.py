"""Subgroups: does it work as well for every site, scanner, sex, age, slice thickness and size."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from medseg.evaluation.paired import holm
from medseg.evaluation.statistics import (
    Bounds,
    Floats,
    Interval,
    Sample,
    mean_interval,
    patient_numbers,
    standard_error,
    t_of,
)

UNKNOWN = "unknown"
AGE_YEARS = (18.0, 40.0, 60.0, 80.0)
THICKNESS_MM = (1.0, 3.0, 5.0)
MOST = 20
"""A column with more texts than this describes cases, not groups of cases."""
FEW_NUMBERS = 6
"""A column with more numbers than this is cut into thirds."""


def subgroup_rows(
    values: Floats,
    patients: Sequence[str],
    groups: Sequence[str],
    *,
    bounds: Bounds = (None, None),
    minimum: int = 10,
    confidence: float = 0.95,
    repeats: int = 2000,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """A row for each group: its mean, and its difference to all other cases.

    Parameters
    ----------
    values : array (n,)
    patients, groups : sequences of str (n,)
        ``unknown`` is a group that is shown and not tested.
    bounds : (low, high)
        Possible range of the metric.
    minimum : int
        Groups of fewer patients get ``small``: True.
    confidence, repeats, seed
        Of the intervals of the means (see `mean_interval`).

    Returns
    -------
    list of dict
        group, n, patients, small, mean, mean_ci, mean_ci_method, difference, difference_ci, p: sorted by
        group. Empty for no case. Without a second patient on a side there is no interval and no p.

    Notes
    -----
    The difference has Welch's t interval with the variance between patients on each side (and their
    covariance, where a patient has cases on both).
    """
    who, names = np.asarray(patients, dtype=object), np.asarray(groups, dtype=object)
    how = {"confidence": confidence, "repeats": repeats, "seed": seed}
    rows = []
    for name in sorted(set(groups)):
        inside = names == name
        sample = Sample.of([(values[inside], list(who[inside]))])
        interval = mean_interval(sample, bounds=bounds, **how)
        row = {
            "group": name,
            "n": int(inside.sum()),
            "patients": sample.patients,
            "small": sample.patients < minimum,
            "mean": sample.mean(),
            "mean_ci": interval.limits,
            "mean_ci_method": interval.method,
        }
        rest = ~inside & (names != UNKNOWN)
        rows.append(row | _to_the_rest(values, who, inside, rest, confidence, tested=name != UNKNOWN))
    return rows


def difference_of_groups(
    values: Floats, patients: Sequence[str], inside: np.ndarray, rest: np.ndarray, confidence: float = 0.95
) -> tuple[float, Interval, float | None]:
    """Mean inside less mean of the rest, Welch's t interval over patients, and its two-sided p value.

    Parameters
    ----------
    values : array (n,)
    patients : sequence of str (n,)
    inside, rest : bool arrays (n,)
        The two sides; neither empty.
    """
    from scipy.special import stdtr

    who = patient_numbers(patients)
    n = int(who.max()) + 1
    influences, squares, freedoms = [], [], []
    for side in (inside, rest):
        parts = np.bincount(who[side], values[side] - values[side].mean(), minlength=n) / side.sum()
        there = np.bincount(who[side], minlength=n) > 0
        influences.append(parts)
        squares.append(standard_error(parts[there]) ** 2)
        freedoms.append(int(there.sum()) - 1)
    difference = float(values[inside].mean() - values[rest].mean())
    if min(freedoms) < 1:
        return difference, Interval(None, None, "none", "one patient on a side: no interval"), None
    shared = float(np.sum(influences[0] * influences[1])) * n / (n - 1)
    variance = sum(squares) - 2 * shared
    if variance <= 1e-24:
        return difference, Interval(difference, difference, "point", "no case differs from its group"), None
    freedom = sum(squares) ** 2 / sum(s**2 / f for s, f in zip(squares, freedoms, strict=True))
    error = float(np.sqrt(variance))
    half = t_of((1 + confidence) / 2, freedom) * error
    p = 2 * float(stdtr(freedom, -abs(difference) / error))
    return difference, Interval(difference - half, difference + half, "Welch t over patients"), p


def adjust(rows: Sequence[dict[str, Any]]) -> None:
    """Give every row ``p_holm``: Holm over all comparisons of `rows`; two halves of one count once."""
    tested = Counter(_family(row) for row in rows if row["p"] is not None)
    keys = [(*_family(row), "" if tested[_family(row)] == 2 else row["group"]) for row in rows]
    p_values = {key: row["p"] for key, row in zip(keys, rows, strict=True) if row["p"] is not None}
    adjusted = dict(zip(p_values, holm(list(p_values.values())), strict=True))
    for key, row in zip(keys, rows, strict=True):
        row["p_holm"] = None if row["p"] is None else adjusted[key]


def spread_of_groups(rows: Sequence[Mapping[str, Any]], *, share: bool = False) -> dict[str, float | None]:
    """How far the means of groups lie apart: their standard deviation, and the skewed error ratio.

    The ratio ``max(1 - mean) / min(1 - mean)`` (Puyol-Anton 2021) is for metrics from 0 to 1 with 1 the best
    (`share`); None elsewhere, and where a group has no error. Small and unknown groups are left out.
    """
    means = [row["mean"] for row in rows if not row["small"] and row["group"] != UNKNOWN]
    if len(means) < 2:
        return {"groups": len(means), "sd": None, "skewed_error_ratio": None}
    errors = [1 - m for m in means]
    ratio = max(errors) / min(errors) if share and min(errors) > 1e-9 else None
    return {"groups": len(means), "sd": float(np.std(means, ddof=1)), "skewed_error_ratio": ratio}


def groups_of(name: str, values: Mapping[str, Any]) -> dict[str, str]:
    """Case -> group for one column of a table: ages and slice thicknesses in bands, other numbers in thirds.

    Parameters
    ----------
    name : str
        The column: ``age`` (years, or DICOM's ``067Y``) and ``slice_thickness`` (mm) have their own bands.
    values : mapping
        Case -> value; None and empty are ``unknown``.

    Returns
    -------
    dict
        Empty where there are no two groups, or more than `MOST`.
    """
    plain = {case: str(v).strip() if v is not None else "" for case, v in values.items()}
    numbers = {case: _number(text) for case, text in plain.items() if text}
    known = [x for x in numbers.values() if x is not None]
    if numbers and len(known) == len(numbers) and (edges := _edges(name, known)) is not None:
        found = {case: _band(x, *edges) for case, x in numbers.items() if x is not None}
    else:
        found = {case: text for case, text in plain.items() if text}
    if not 2 <= len(Counter(found.values())) <= MOST:
        return {}
    return {case: found.get(case, UNKNOWN) for case in values}


def thirds(values: Mapping[str, float], unit: str = "ml") -> dict[str, str]:
    """Case -> ``small``, ``medium`` or ``large``, cut at the terciles (values equal to one go down)."""
    if len(set(values.values())) < 3:
        return {}
    low, high = np.quantile(list(values.values()), [1 / 3, 2 / 3])
    names = (f"1 small (up to {low:.3g} {unit})", "2 medium", f"3 large (above {high:.3g} {unit})")
    return {case: names[int(x > low) + int(x > high)] for case, x in values.items()}


def _to_the_rest(
    values: Floats, who: np.ndarray, inside: np.ndarray, rest: np.ndarray, confidence: float, *, tested: bool
) -> dict[str, Any]:
    if not tested or not rest.any():
        return {"difference": None, "difference_ci": None, "p": None}
    difference, interval, p = difference_of_groups(values, list(who), inside, rest, confidence)
    return {"difference": difference, "difference_ci": interval.limits, "p": p}


def _family(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """Groups that share this are the parts of one whole."""
    return tuple(row.get(key) for key in ("grouping", "label", "metric"))


def _edges(name: str, known: Sequence[float]) -> tuple[tuple[float, ...], str] | None:
    """Where a column of numbers is cut, and the unit; None: every number is its own group."""
    key = re.sub(r"[^a-z]", "", name.lower())
    if key in ("age", "ageyears", "patientage"):
        return AGE_YEARS, "years"
    if key.removesuffix("mm") in ("slicethickness", "thickness"):
        return THICKNESS_MM, "mm"
    if len(set(known)) <= FEW_NUMBERS:
        return None
    low, high = np.quantile(known, [1 / 3, 2 / 3])
    return (float(low), float(high)), ""


def _band(x: float, edges: tuple[float, ...], unit: str) -> str:
    """The band of a number: from an edge (included) to below the next; numbered, so that they sort."""
    at = int(np.searchsorted(edges, x, side="right"))
    unit = f" {unit}" if unit else ""
    if at == 0:
        return f"1 below {edges[0]:.4g}{unit}"
    if at == len(edges):
        return f"{at + 1} {edges[-1]:.4g}{unit} and above"
    return f"{at + 1} {edges[at - 1]:.4g} to below {edges[at]:.4g}{unit}"


def _number(text: str) -> float | None:
    """The number a text is; DICOM's ages (``067Y``, ``018M``) in years."""
    if found := re.fullmatch(r"(\d{3})([YMWD])", text):
        return int(found[1]) / {"Y": 1, "M": 12, "W": 52.18, "D": 365.25}[found[2]]
    try:
        number = float(text)
    except ValueError:
        return None
    return number if np.isfinite(number) else None
