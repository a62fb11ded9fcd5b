"""The summary of a classification: each class against the rest, means over classes, curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from medseg.evaluation.areas import auprc_interval, auroc_influence, auroc_interval
from medseg.evaluation.calibration import brier, recalibration, reliability
from medseg.evaluation.classification import ClassTable, confusion, confusion_by_class
from medseg.evaluation.curves import decision_curve, precision_recall_curve, roc_curve
from medseg.evaluation.metrics import CLASS_METRICS
from medseg.evaluation.pairs import Row
from medseg.evaluation.policy import STATUSES, Scoring
from medseg.evaluation.proportions import proportion, ratio
from medseg.evaluation.statistics import (
    Floats,
    Interval,
    Sample,
    cut,
    mean_interval,
    patient_numbers,
    standard_error,
    z_of,
)

NONE = Interval(None, None, "none")
Cell = dict[str, Any]


def summarise_classes(rows: Sequence[Row], scoring: Scoring) -> dict[str, Any]:
    """The parts of summary.json that are particular to classification.

    Returns
    -------
    dict
        ``labels[class][metric]`` and ``mean_over_labels[metric]`` with ``mean`` and ``mean_ci`` as for masks
        (``mean`` is the estimate), ``confusion``, ``curves``, ``conventions``.
    """
    table = ClassTable.of(rows, scoring.classes)
    called = table.called(scoring.classes)
    cells = {name: _of_class(j, table, called, scoring) for j, name in enumerate(table.classes)}
    return {
        "labels": cells,
        "mean_over_labels": _overall(table, called, cells, scoring),
        "confusion": _confusion(table, called),
        "curves": _curves(table, scoring),
        "conventions": _conventions(table, scoring),
    }


def _of_class(j: int, table: ClassTable, called: np.ndarray, scoring: Scoring) -> dict[str, Cell]:
    """Metrics of one class against the rest."""
    of_class = table.truth[:, j]
    missing = of_class & ~table.predicted
    status = dict.fromkeys(STATUSES, 0) | {
        "ok": int((of_class & table.predicted).sum()),
        "not_predicted": int(missing.sum()),
    }
    cells = _areas(j, table, scoring) | _rates(j, table, called, scoring) | _calibrated(j, table, scoring)
    return {k: v | {"status": status, "cases": int(of_class.sum())} for k, v in cells.items()}


def _areas(j: int, table: ClassTable, scoring: Scoring) -> dict[str, Cell]:
    known, level = table.predicted, scoring.confidence
    truth, score = table.truth[known, j], table.probabilities[known, j]
    patients = _patients(table, known)
    missing = int((~known).sum())
    left_out = f"{missing} case(s) without a prediction left out" if missing else ""
    area, limits = auroc_interval(truth, score, level, patients)
    how = {"confidence": level, "repeats": scoring.repeats, "seed": scoring.seed}
    precision, around = auprc_interval(truth, score, patients, **how)
    prevalence = {"prevalence": float(truth.mean()) if truth.size else None}
    return {
        "auroc": _estimate(area, limits, truth.size, left_out),
        "auprc": _estimate(precision, around, truth.size, left_out) | prevalence,
    }


def _rates(j: int, table: ClassTable, called: np.ndarray, scoring: Scoring) -> dict[str, Cell]:
    """Proportions at the threshold, over all cases; an unpredicted case is not called."""
    truth, given = table.truth[:, j], called[:, j]
    limit = table.threshold(j, scoring.classes)
    words = {"threshold": limit if limit is not None else _called_how(j, table, scoring)}
    prevalence = {"prevalence": float(truth.mean()) if truth.size else None}
    parts = {
        "sensitivity": (given, truth, {}),
        "specificity": (~given, ~truth, {}),
        "ppv": (truth, given, prevalence),
        "npv": (~truth, ~given, prevalence),
    }
    return {
        name: _share(hits, of, table.patients, scoring.confidence) | words | more
        for name, (hits, of, more) in parts.items()
    }


def _called_how(j: int, table: ClassTable, scoring: Scoring) -> str:
    """How a class without a threshold of its own is called."""
    two = len(table.classes) == 2 and table.threshold(1 - j, scoring.classes) is not None
    return f"{table.classes[1 - j]} is not called" if two else "most probable class"


def _share(hits: np.ndarray, of: np.ndarray, patients: Sequence[str], level: float) -> Cell:
    who = patient_numbers(patients)
    found, total = (np.bincount(who[side]).astype(float) for side in (hits & of, of))
    found = np.pad(found, (0, total.size - found.size))
    limits = ratio(found, total, confidence=level)
    n = int(of.sum())
    return _estimate(float((hits & of).sum() / n) if n else None, limits, n)


def _calibrated(j: int, table: ClassTable, scoring: Scoring) -> dict[str, Cell]:
    """Brier score, ECE and recalibration of a class; without values where there are no probabilities."""
    known = table.predicted
    names = ("brier", "ece", "calibration_slope", "calibration_intercept", "calibration_in_the_large")
    if not table.are_probabilities:
        said = "the table holds no probabilities"
        return {name: _estimate(None, Interval(None, None, "none", said), 0) for name in names}
    truth, p = table.truth[known, j], table.probabilities[known, j]
    patients, n = _patients(table, known), int(known.sum())
    squared = brier(truth, p)
    how = {"confidence": scoring.confidence, "repeats": scoring.repeats, "seed": scoring.seed}
    around = mean_interval(Sample.of([(squared, patients)]), bounds=(0, 1), **how)
    fit = recalibration(truth, p, patients, scoring.confidence)
    upwards = Interval(None, None, "none", "biased upwards when cases are few: no interval")
    return {
        "brier": _estimate(float(squared.mean()), around, n),
        "ece": _estimate(reliability(truth, p, scoring.classes.bins).ece(), upwards, n)
        | {"bins": scoring.classes.bins},
        "calibration_slope": _estimate(fit.slope, fit.slope_interval, n),
        "calibration_intercept": _estimate(fit.intercept, fit.intercept_interval, n),
        "calibration_in_the_large": _estimate(fit.in_the_large, fit.in_the_large_interval, n),
    }


def _overall(
    table: ClassTable, called: np.ndarray, cells: Mapping[str, Mapping[str, Cell]], scoring: Scoring
) -> dict[str, Cell]:
    level, n = scoring.confidence, len(table.cases)
    chosen = called if len(table.classes) == 2 or table.several else _one_hot(table)
    right = (chosen == table.truth).all(axis=1) & table.predicted
    accuracy = _estimate(float(right.mean()) if n else None, proportion(right, table.patients, level), n)
    names = ("auprc", "brier", "ece")
    rates = [(table.truth[:, j] & called[:, j], table.truth[:, j]) for j in range(len(table.classes))]
    sensitivities = [(hit - hit[of].mean()) * of / of.sum() for hit, of in rates if of.any()]
    areas = [
        auroc_influence(table.truth[table.predicted, j], table.probabilities[table.predicted, j])
        for j in range(len(table.classes))
    ]
    known = _patients(table, table.predicted)
    return {
        "accuracy": accuracy,
        "balanced_accuracy": _macro(cells, "sensitivity", sensitivities, table.patients, level),
        "auroc": _macro(cells, "auroc", [x for x in areas if x is not None], known, level),
        **{name: _macro(cells, name, [], known, level) for name in names},
    }


def _macro(
    cells: Mapping[str, Mapping[str, Cell]],
    metric: str,
    influences: Sequence[Floats],
    patients: Sequence[str],
    level: float,
) -> Cell:
    """Mean over classes; its interval by the influence of each case, summed over patients."""
    values = [c[metric]["mean"] for c in cells.values() if c[metric]["mean"] is not None]
    mean = float(np.mean(values)) if values else None
    found = {"labels": len(values), "unit": "", "mean": mean, "mean_ci": None, "mean_ci_method": "none"}
    if mean is None or not influences or len(set(patients)) < 2:
        return found
    error = standard_error(np.bincount(patient_numbers(patients), np.mean(influences, axis=0)).astype(float))
    first = next(iter(cells.values()))[metric]
    if metric == "auroc" and len(cells) == 2 and all(abs(v - mean) < 1e-12 for v in values):
        return found | {k: first[k] for k in ("mean_ci", "mean_ci_method")}  # both are one and the same area
    half = z_of((1 + level) / 2) * error
    method = "normal, variance between patients" if error > 0 else "point"
    return found | {"mean_ci": list(cut(mean - half, mean + half, (0, 1))), "mean_ci_method": method}


def _one_hot(table: ClassTable) -> np.ndarray:
    return table.most_probable()[:, None] == np.arange(len(table.classes))


def _confusion(table: ClassTable, called: np.ndarray) -> dict[str, Any]:
    if table.several:
        columns = ["found", "missed", "wrongly called", "rightly not called", "not predicted"]
        counts = confusion_by_class(table, called)
        return {"classes": table.classes, "rows": "class", "columns": columns, "counts": counts.tolist()}
    shown = {"classes": table.classes, "rows": "reference", "columns": [*table.classes, "not predicted"]}
    return shown | {"counts": confusion(table, called).tolist()}


def _curves(table: ClassTable, scoring: Scoring) -> dict[str, dict[str, Any]]:
    """Points of the curves, by kind and class; some kinds only where there are probabilities."""
    known = table.predicted
    found: dict[str, dict[str, Any]] = {"roc": {}, "pr": {}, "reliability": {}, "decision": {}}
    for j, name in enumerate(table.classes):
        truth, p = table.truth[known, j], table.probabilities[known, j]
        found["roc"][name] = roc_curve(truth, p)
        found["pr"][name] = precision_recall_curve(truth, p)
        if table.are_probabilities:
            bins = reliability(truth, p, scoring.classes.bins)
            found["reliability"][name] = {k: getattr(bins, k).tolist() for k in _BINS}
            found["decision"][name] = decision_curve(truth, p, scoring.classes.decisions)
    return found


_BINS = ("low", "predicted", "observed", "n")


def _conventions(table: ClassTable, scoring: Scoring) -> dict[str, Any]:
    rule, bins = scoring.classes, scoring.classes.bins
    used = {name: table.threshold(j, rule) for j, name in enumerate(table.classes)}
    used = {name: limit for name, limit in used.items() if limit is not None}
    said = ", ".join(f"{name} {limit:g}" for name, limit in used.items())
    where = (
        "0.5" if table.several and rule.threshold is None and not rule.thresholds else rule.threshold_source
    )
    return {
        "metrics": {name: metric.definition for name, metric in CLASS_METRICS.items()},
        "threshold": f"{said} ({where})" if said else "the most probable class is called",
        "classes": "a case may have several" if table.several else "they exclude each other",
        "calibration": f"ECE and reliability over {bins} bins of equal width, each class against the rest; "
        "logistic recalibration by maximum likelihood",
        "decision_curve": "net benefit TP/n - FP/n x t/(1 - t); treating nobody is 0",
        "intervals": "Wilson for proportions (effective cases where patients have several), DeLong on the "
        "logit scale for areas under the ROC curve (over patients), BCa bootstrap over patients for areas "
        "under the precision-recall curve and Brier scores, Wald for recalibration; means over classes: "
        "normal, from the variance between patients",
    }


def _patients(table: ClassTable, known: np.ndarray) -> list[str]:
    return [p for p, k in zip(table.patients, known, strict=True) if k]


def _estimate(value: float | None, limits: Interval, n: int, note: str = "") -> Cell:
    said = {"n": int(n), "unit": "", "mean": value, "mean_ci": limits.limits, "mean_ci_method": limits.method}
    notes = "; ".join(x for x in (limits.note, note) if x)
    return said | ({"mean_ci_note": notes} if notes else {})
