"""summary.json: what a table of scores amounts to, with intervals, counts and conventions."""

from __future__ import annotations

import hashlib
import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from medseg.evaluation.class_groups import class_subgroups
from medseg.evaluation.class_summary import summarise_classes
from medseg.evaluation.classification import is_classification
from medseg.evaluation.conventions import conventions
from medseg.evaluation.findings import cells_of, lesion_totals, sample_size, volume_agreement
from medseg.evaluation.grouped import subgroups
from medseg.evaluation.lesion_list import by_size, froc_parts
from medseg.evaluation.medians import median_interval
from medseg.evaluation.metrics import Metric, metric_of
from medseg.evaluation.pairs import Row
from medseg.evaluation.policy import STATUSES, Scoring
from medseg.evaluation.quality import quality_control
from medseg.evaluation.readers import ceiling
from medseg.evaluation.scoring import rows_to_csv
from medseg.evaluation.statistics import Interval, Sample, mean_interval

SUMMARY_VERSION = 1
TABLES = ("groups", "readers", "quality", "lesion list", "detections")
"""Facts that the summary is made from and does not repeat."""


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
        Digests, notes and other plain values to be kept (``notes``: list of sentences). Not kept, but
        used: ``groups`` (case -> column -> value), ``quality`` (case -> score), ``readers`` (rows, see
        `medseg.evaluation.readers`).

    Returns
    -------
    dict
        ``labels[label][metric]``: n (values in the mean), status (counts), mean, mean_ci, sd, median,
        median_ci, iqr, min, max, worst. ``mean_over_labels[metric]``: the mean of the label means.
        ``conventions``, ``scoring``, ``versions``, ``digests``, ``notes``. Where there are data for them:
        ``agreement`` of volumes, ``lesions`` pooled over cases, ``subgroups``, ``sample_size``, ``readers``,
        ``quality``.
    """
    scoring, facts = scoring or Scoring(), dict(facts or {})
    body = summarise_classes(rows, scoring) if is_classification(rows) else _of_masks(rows, scoring)
    if not is_classification(rows):
        body |= _findings(rows, scoring, facts, body["labels"])
    elif groups := class_subgroups(rows, scoring, facts):
        body["subgroups"] = groups
    facts = {name: value for name, value in facts.items() if name not in TABLES}
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


def _findings(
    rows: Sequence[Row], scoring: Scoring, facts: Mapping[str, Any], labels: Mapping[str, Any]
) -> dict[str, Any]:
    """What the rows say beyond means; a part without data is left out."""
    cells = cells_of(rows)
    found = {
        "agreement": volume_agreement(cells, scoring),
        "lesions": _lesions(cells, scoring, facts.get("lesion list") or ()),
        "froc": froc_parts(facts.get("detections") or {}, scoring),
        "subgroups": subgroups(cells, scoring, facts),
        "sample_size": sample_size(labels, scoring),
        "readers": ceiling(facts.get("readers") or (), scoring),
        "quality": quality_control(rows, scoring, facts.get("quality") or {}),
    }
    return {name: part for name, part in found.items() if part}


def _lesions(cells: Any, scoring: Scoring, lesions: Sequence[Row]) -> dict[str, Any]:
    """Lesions pooled over cases, and their sensitivity by size."""
    found = lesion_totals(cells, scoring)
    for label, part in found.items():
        if sizes := by_size([row for row in lesions if row["label"] == label], scoring):
            part["by_size"] = sizes
    return found


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
