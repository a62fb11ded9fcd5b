"""summary.json: what a table of scores amounts to, with intervals, counts and conventions."""

from __future__ import annotations

import hashlib
import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from medseg.evaluation.class_summary import summarise_classes
from medseg.evaluation.classification import is_classification
from medseg.evaluation.medians import median_interval
from medseg.evaluation.metrics import Metric, metric_of
from medseg.evaluation.pairs import Row
from medseg.evaluation.policy import STATUS_WORDS, STATUSES, Scoring
from medseg.evaluation.scoring import rows_to_csv
from medseg.evaluation.statistics import Interval, Sample, mean_interval

SUMMARY_VERSION = 1


def summarise(
    rows: Sequence[Row], scoring: Scoring | None = None, facts: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The content of summary.json; it depends on rows, settings and facts alone.

    Parameters
    ----------
    rows : sequence of rows
        As `score_pair` gives them.
    scoring : Scoring
    facts : mapping, optional
        Digests, notes and other plain values to be kept (``notes``: list of sentences).

    Returns
    -------
    dict
        ``labels[label][metric]``: n (values in the mean), status (counts), mean, mean_ci, sd, median,
        median_ci, iqr, min, max, worst. ``mean_over_labels[metric]``: the mean of the label means.
        ``conventions``, ``scoring``, ``versions``, ``digests``, ``notes``.
    """
    scoring, facts = scoring or Scoring(), dict(facts or {})
    body = summarise_classes(rows, scoring) if is_classification(rows) else _of_masks(rows, scoring)
    head = {
        "format": SUMMARY_VERSION,
        "cases": len({row["case"] for row in rows}),
        "patients": len({row["patient"] for row in rows}),
    }
    return head | body | _made_of(rows, scoring, facts)


def _of_masks(rows: Sequence[Row], scoring: Scoring) -> dict[str, Any]:
    labels = list(dict.fromkeys(row["label"] for row in rows))
    names = list(dict.fromkeys(row["metric"] for row in rows))
    cells: dict[str, dict[str, list[Row]]] = {label: {name: [] for name in names} for label in labels}
    for row in rows:
        cells[row["label"]][row["metric"]].append(row)
    return {
        "labels": {label: {n: _cell(cells[label][n], n, scoring) for n in names} for label in labels},
        "mean_over_labels": {n: _over_labels([cells[x][n] for x in labels], n, scoring) for n in names},
        "conventions": conventions(scoring, names),
    }


def _made_of(rows: Sequence[Row], scoring: Scoring, facts: dict[str, Any]) -> dict[str, Any]:
    """What the numbers come from: settings, seed, versions, digests, notes."""
    notes = list(facts.pop("notes", []))
    return {
        "scoring": scoring.model_dump(mode="json"),
        "seed": scoring.seed,
        "versions": versions(),
        "digests": {"scores.csv": _digest(rows), **facts.pop("digests", {})},
        "notes": notes,
        "facts": facts,
    }


def conventions(scoring: Scoring, names: Sequence[str]) -> dict[str, Any]:
    """Every choice behind the numbers, in words."""
    level = f"{100 * scoring.confidence:g} %"
    distance = "the diagonal of the image" if scoring.missed == "worst" else "left out of the mean, counted"
    return {
        "metrics": {name: metric_of(name).definition for name in names},
        "units": {name: metric_of(name).unit or "1" for name in names},
        "nsd_tolerance_mm": {"all": scoring.tolerance_mm, **scoring.tolerances_mm},
        "geometry": _geometry(scoring),
        **_lesion_words(scoring, names),
        **_region_words(scoring),
        "statuses": STATUS_WORDS,
        "missed_or_false_positive": f"overlap metrics 0; distances {distance}",
        "mean": "mean over cases for each label; the mean over labels is the mean of these means",
        "mean_interval": f"{level} BCa bootstrap over patients, {scoring.repeats} repeats; "
        "t interval below 15 patients; a point where all values agree",
        "median_interval": f"{level} by order statistics (ranks widened when patients have several cases)",
        "iqr": "25th and 75th percentile, linear between ranks",
        "sd": "over cases, n - 1",
    }


def _geometry(scoring: Scoring) -> str:
    resampled = (
        "predictions on another grid are resampled onto the reference's: each voxel goes to the label with "
        "the largest share of it, what lies outside the prediction is background"
        if scoring.resample
        else "nothing resampled, another grid is refused"
    )
    return (
        f"prediction and reference on the same grid (affine within 1e-3), {resampled}; "
        "a single slice is measured in its plane"
    )


def _lesion_words(scoring: Scoring, names: Sequence[str]) -> dict[str, str]:
    if not any(n in ("pq", "sq") or n.startswith("lesion") for n in names):
        return {}
    rule = scoring.lesions
    flat = {6: 4, 18: 8, 26: 8}[rule.connectivity]
    least = f"of at least {rule.minimum_ml:g} ml, on both sides" if rule.minimum_ml else "of any size"
    return {
        "lesions": f"{rule.connectivity}-connected components ({flat}-connected in a single slice) {least}; "
        f"matched one-to-one where their IoU is above {rule.iou:g}: the most pairs, then the largest IoU"
    }


def _region_words(scoring: Scoring) -> dict[str, Any]:
    ignored = f"voxels where the reference is {scoring.ignore} are left out of both sides"
    regions = {name: "+".join(map(str, values)) for name, values in scoring.regions.items()}
    return ({"regions": regions} if regions else {}) | ({"ignored": ignored} if scoring.ignore else {})


def versions() -> dict[str, str]:
    """Versions that a number may depend on."""
    from medseg.core.version import __version__

    found = {"medseg": __version__, "python": platform.python_version()}
    for package in ("numpy", "scipy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "unknown"
    return found


def badness(metric: Metric, value: float) -> float:
    """The larger, the worse: for finding the worst case."""
    return {"high": -value, "low": value, "zero": abs(value), "none": 0.0}[metric.better]


def _cell(rows: Sequence[Row], name: str, scoring: Scoring) -> dict[str, Any]:
    metric = metric_of(name)
    counted = [row for row in rows if row["value"] is not None]
    seen = Counter(row["status"] for row in rows)
    status = {s: seen.get(s, 0) for s in STATUSES}
    head = {"n": len(counted), "cases": len(rows), "status": status, "unit": metric.unit}
    if not counted:
        return head | {"mean": None, "note": "no case has a value"}
    values = np.array([row["value"] for row in counted], float)
    patients = [row["patient"] for row in counted]
    return head | _spread(values) | _intervals(values, patients, metric, scoring) | _worst(counted, metric)


def _spread(values: np.ndarray) -> dict[str, Any]:
    low, middle, high = (float(q) for q in np.percentile(values, [25, 50, 75]))
    return {
        "sd": float(values.std(ddof=1)) if values.size > 1 else None,
        "median": middle,
        "iqr": [low, high],
        "min": float(values.min()),
        "max": float(values.max()),
    }


def _intervals(
    values: np.ndarray, patients: Sequence[str], metric: Metric, scoring: Scoring
) -> dict[str, Any]:
    how = {"confidence": scoring.confidence, "repeats": scoring.repeats, "seed": scoring.seed}
    sample = Sample.of([(values, patients)])
    mean = mean_interval(sample, bounds=metric.bounds, **how)
    median = median_interval(values, patients, confidence=scoring.confidence)
    return {
        "patients": sample.patients,
        "mean": sample.mean(),
        **_said(mean, "mean"),
        **_said(median, "median"),
    }


def _said(interval: Interval, of: str) -> dict[str, Any]:
    limits = None if interval.low is None else [interval.low, interval.high]
    said = {f"{of}_ci": limits, f"{of}_ci_method": interval.method}
    return said | ({f"{of}_ci_note": interval.note} if interval.note else {})


def _worst(rows: Sequence[Row], metric: Metric) -> dict[str, Any]:
    if metric.better == "none":
        return {"worst": None}
    row = max(rows, key=lambda r: (badness(metric, r["value"]), r["case"]))
    return {"worst": {"case": row["case"], "value": row["value"], "status": row["status"]}}


def _over_labels(cells: Sequence[Sequence[Row]], name: str, scoring: Scoring) -> dict[str, Any]:
    counted = [[row for row in rows if row["value"] is not None] for rows in cells]
    groups = [
        (np.array([r["value"] for r in rows], float), [r["patient"] for r in rows])
        for rows in counted
        if rows
    ]
    head = {"labels": len(groups), "unit": metric_of(name).unit}
    if not groups:
        return head | {"mean": None, "note": "no case has a value"}
    sample = Sample.of(groups)
    how = {"confidence": scoring.confidence, "repeats": scoring.repeats, "seed": scoring.seed}
    interval = mean_interval(sample, bounds=metric_of(name).bounds, **how)
    return head | {"patients": sample.patients, "mean": sample.mean(), **_said(interval, "mean")}


def _digest(rows: Sequence[Row]) -> str:
    return hashlib.sha256(rows_to_csv(rows).encode()).hexdigest()
