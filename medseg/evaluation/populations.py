"""Training cases and test cases side by side, and what in a test case lies outside of what was trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

SLACK = 0.01
"""A value this share of the range (of the value where the range is a point) outside counts as inside."""
Numbers = Mapping[str, Mapping[str, float | str | None]]
"""Case -> quantity -> value (None where it is not known)."""


def ranges_of(fingerprint: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, dict[str, float]]:
    """Ranges of a model's training cases by quantity, from the summary in its plan or card.

    Parameters
    ----------
    fingerprint : mapping
        ``spacing_mm`` and ``shape`` with min, median, max by axis; ``intensity[channel]`` with low and high;
        ``volume_ml[value]`` with min, median, max. What is not there is left out.
    names : mapping
        Label value (as text) -> name.

    Returns
    -------
    dict
        Quantity -> ``low``, ``high`` and, where known, ``median``.
    """
    found: dict[str, dict[str, float]] = {}
    for key, title in (("spacing_mm", "spacing {} (mm)"), ("shape", "size {} (voxels)")):
        for axis, name in enumerate(_AXES):
            if isinstance(fingerprint.get(key), Mapping):
                found[title.format(name)] = _range({k: v[axis] for k, v in fingerprint[key].items()})
    for channel, limits in (fingerprint.get("intensity") or {}).items():
        found[f"{channel} intensity, 0.5 %"] = {"low": limits["low"], "high": limits["high"]}
        found[f"{channel} intensity, 99.5 %"] = {"low": limits["low"], "high": limits["high"]}
    for value, limits in (fingerprint.get("volume_ml") or {}).items():
        found[f"volume of {names.get(str(value), value)} (ml)"] = _range(limits)
    return {name: cell for name, cell in found.items() if {"low", "high"} <= set(cell)}


def numbers_of(case: Any, names: Mapping[str, str]) -> dict[str, float | str | None]:
    """The same quantities of one test case, from its `CaseFingerprint`.

    A label that the case lacks has no volume: it is not out of range for being absent.
    """
    found: dict[str, float | str | None] = {}
    for axis, name in enumerate(_AXES):
        found[f"spacing {name} (mm)"] = case.spacing_mm[axis]
        found[f"size {name} (voxels)"] = case.shape[axis]
    for channel, facts in case.channels.items():
        found[f"{channel} intensity, 0.5 %"] = facts.low
        found[f"{channel} intensity, 99.5 %"] = facts.high
    for value, ml in case.volume_ml.items():
        found[f"volume of {names.get(str(value), value)} (ml)"] = ml or None
    return found


def populations(ranges: Mapping[str, Mapping[str, float]], cases: Numbers, trained_on: int | None) -> dict:
    """Both populations side by side.

    Parameters
    ----------
    ranges : mapping
        Of `ranges_of`; empty when nothing is known of the training.
    cases : mapping
        Case -> quantity -> number.
    trained_on : int or None
        Cases the model was trained on.

    Returns
    -------
    dict
        ``train_cases``, ``test_cases``; ``rows``: ``quantity``, ``train`` and ``test`` (``low``, ``median``,
        ``high``; None where nothing is known), ``outside`` (n test cases outside the training range; None
        where that is not known). ``note`` where the training is not known.
    """
    quantities = dict.fromkeys(name for numbers in cases.values() for name in numbers)
    rows = []
    for name in quantities:
        values = [v for numbers in cases.values() if (v := _number(numbers.get(name))) is not None]
        limits = ranges.get(name)
        rows.append(
            {
                "quantity": name,
                "train": None if limits is None else {"median": None, **limits},
                "test": _spread(values),
                "outside": None if limits is None else sum(_outside(v, limits) for v in values),
            }
        )
    note = {} if ranges else {"note": "nothing is known of the cases this model was trained on"}
    return {"train_cases": trained_on, "test_cases": len(cases), "rows": rows, **note}


def out_of_range(ranges: Mapping[str, Mapping[str, float]], cases: Numbers) -> list[dict[str, Any]]:
    """A row for each number of a test case that lies outside the training range, cases in their order.

    Returns
    -------
    list of dict
        case, quantity, value, low, high (the training range), ``beyond``: how far outside, as a share of the
        range's width (of its end, where the range is a point).
    """
    rows = []
    for case, numbers in cases.items():
        for quantity, limits in ranges.items():
            value = _number(numbers.get(quantity))
            if value is not None and _outside(value, limits):
                row = {"case": case, "quantity": quantity, "value": value}
                rows.append(
                    row | {k: limits[k] for k in ("low", "high")} | {"beyond": _beyond(value, limits)}
                )
    return rows


_AXES = ("left-right", "front-back", "head-foot")


def _range(cell: Mapping[str, float]) -> dict[str, float]:
    names = {"min": "low", "median": "median", "max": "high"}
    return {ours: float(cell[theirs]) for theirs, ours in names.items() if theirs in cell}


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and np.isfinite(value) else None


def _spread(values: Sequence[float]) -> dict[str, float] | None:
    if not values:
        return None
    return {"low": min(values), "median": float(np.median(values)), "high": max(values)}


def _slack(limits: Mapping[str, float]) -> float:
    return SLACK * ((limits["high"] - limits["low"]) or abs(limits["high"]))


def _outside(value: float, limits: Mapping[str, float]) -> bool:
    slack = _slack(limits)
    return not limits["low"] - slack <= value <= limits["high"] + slack


def _beyond(value: float, limits: Mapping[str, float]) -> float:
    width = (limits["high"] - limits["low"]) or abs(limits["high"]) or 1.0
    return float(max(limits["low"] - value, value - limits["high"]) / width)
