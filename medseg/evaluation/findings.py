"""What a table of scores says beyond means: agreement of volumes, lesions over all cases, sample size."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from medseg.evaluation.agreement import bland_altman, icc
from medseg.evaluation.grouped import PRIMARY, Cells
from medseg.evaluation.pairs import Row
from medseg.evaluation.policy import Scoring
from medseg.evaluation.proportions import ratio
from medseg.evaluation.statistics import (
    FEW,
    Floats,
    Interval,
    Sample,
    bca,
    mean_interval,
    patient_numbers,
)


def cells_of(rows: Sequence[Row]) -> dict[tuple[str, str], list[Row]]:
    """Rows by (label, metric), in the order they come."""
    found: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        found.setdefault((row["label"], row["metric"]), []).append(row)
    return found


def volume_agreement(cells: Cells, scoring: Scoring) -> dict[str, Any]:
    """Bland-Altman and ICC of predicted against reference volume, by label.

    Missed and invented structures count with their 0 ml; cases without a prediction are left out and
    counted. Labels without a case are left out.
    """
    found = {}
    for label in dict.fromkeys(label for label, _ in cells):
        there = {row["case"]: row for row in cells.get((label, "volume_ref"), ()) if row["value"] is not None}
        pairs = [row for row in cells.get((label, "volume_pred"), ()) if row["case"] in there]
        kept = [row for row in pairs if row["status"] != "not_predicted" and row["value"] is not None]
        if kept:
            volumes = np.array([[row["value"], there[row["case"]]["value"]] for row in kept])
            patients = [row["patient"] for row in kept]
            found[label] = _agreement(volumes, patients, scoring) | {"left_out": len(pairs) - len(kept)}
    return found


def lesion_totals(cells: Cells, scoring: Scoring) -> dict[str, Any]:
    """Lesions pooled over all cases, by label; empty unless ref, pred and found were counted.

    Unlike the means over cases a case with many lesions weighs more. A case where neither side has the label
    is a scan without a false positive.
    """
    found = {}
    for label in dict.fromkeys(label for label, _ in cells):
        sides = [cells.get((label, f"lesions_{side}"), ()) for side in ("ref", "pred", "found")]
        rows = [r for r in sides[0] if r["status"] != "invalid"]
        if all(sides) and rows:
            counts = np.array(
                [[r["value"] or 0.0 for r in side if r["status"] != "invalid"] for side in sides]
            )
            found[label] = _lesions(counts, [r["patient"] for r in rows], scoring)
    return found


def sample_size(labels: Mapping[str, Mapping[str, Any]], scoring: Scoring) -> list[dict[str, Any]]:
    """How precise the means are, and how many patients another precision takes.

    The half-width falls with the root of the number of patients: ``needed = patients (reached / wanted)^2``.
    What is wanted is half of what was reached where `Scoring.half_widths` does not say.
    """
    rows = []
    for label, cells in labels.items():
        for metric, cell in cells.items():
            wanted = scoring.half_widths.get(metric)
            limits = cell.get("mean_ci")
            if not limits or limits[1] <= limits[0] or (metric not in PRIMARY and wanted is None):
                continue
            half = (limits[1] - limits[0]) / 2
            goal = wanted or half / 2
            needed = math.ceil(cell["patients"] * (half / goal) ** 2 - 1e-9)
            found = {"label": label, "metric": metric, "patients": cell["patients"], "half_width": half}
            rows.append(found | {"wanted": goal, "patients_needed": needed})
    return rows


def _agreement(volumes: Floats, patients: Sequence[str], scoring: Scoring) -> dict[str, Any]:
    level = scoring.confidence
    found = bland_altman(volumes[:, 0], volumes[:, 1], patients, confidence=level)
    assert found is not None  # there is a case
    apart = Sample.of([(np.abs(volumes[:, 0] - volumes[:, 1]), patients)])
    error = mean_interval(
        apart, bounds=(0, None), confidence=level, repeats=scoring.repeats, seed=scoring.seed
    )
    forms = {
        each.form: {"value": each.value, "ci": each.interval.limits, "words": each.words}
        | ({"note": each.interval.note} if each.interval.note else {})
        for each in icc(volumes, confidence=level)
    }
    return {
        "unit": "ml",
        "n": found.n,
        "patients": found.patients,
        "bias": found.bias,
        "bias_ci": found.bias_interval.limits,
        "sd": found.sd,
        "limits": [found.lower, found.upper],
        "lower_ci": found.lower_interval.limits,
        "upper_ci": found.upper_interval.limits,
        "slope": found.slope,
        "slope_ci": found.slope_interval.limits,
        "mean_absolute_error": apart.mean(),
        "mean_absolute_error_ci": error.limits,
        "icc": forms,
        **({"note": found.note} if found.note else {}),
    }


def _lesions(counts: Floats, patients: Sequence[str], scoring: Scoring) -> dict[str, Any]:
    who = patient_numbers(patients)
    ref, pred, found = (np.bincount(who, side).astype(float) for side in counts)
    how = {"confidence": scoring.confidence, "repeats": scoring.repeats, "seed": scoring.seed}
    false = Sample.of([(counts[1] - counts[2], patients)])
    around = mean_interval(false, bounds=(0, None), **how)
    total = float(ref.sum() + pred.sum())
    return {
        "scans": counts.shape[1],
        "patients": false.patients,
        "reference": int(ref.sum()),
        "predicted": int(pred.sum()),
        "found": int(found.sum()),
        "sensitivity": _share(found, ref, scoring.confidence),
        "precision": _share(found, pred, scoring.confidence),
        "f1": {
            "value": 2 * float(found.sum()) / total if total else None,
            **_said(_f1_interval(ref + pred, found, how)),
        },
        "false_positives_per_scan": {"value": false.mean(), **_said(around)},
    }


def _f1_interval(sizes: Floats, found: Floats, how: Mapping[str, Any]) -> Interval:
    if sizes.size < FEW or found.sum() in (0, sizes.sum() / 2):
        return Interval(None, None, "none", "too few patients, or no spread, for a bootstrap")

    def statistic(weights: Floats) -> Floats:
        with np.errstate(invalid="ignore"):
            return 2 * (weights @ found) / (weights @ sizes)

    return Interval(*bca(statistic, sizes.size, **how), "BCa bootstrap over patients")


def _share(hits: Floats, of: Floats, level: float) -> dict[str, Any]:
    value = float(hits.sum() / of.sum()) if of.sum() else None
    return {"value": value, **_said(ratio(hits, of, confidence=level))}


def _said(interval: Interval) -> dict[str, Any]:
    said = {"ci": interval.limits, "ci_method": interval.method}
    return said | ({"note": interval.note} if interval.note else {})
