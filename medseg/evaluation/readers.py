"""Several references of a case: how well readers agree with each other, and the model with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from medseg.evaluation.metrics import metric_of
from medseg.evaluation.paired import paired_difference
from medseg.evaluation.pairs import Row, score_pair
from medseg.evaluation.policy import Scoring
from medseg.evaluation.proportions import proportion
from medseg.evaluation.statistics import Sample, mean_interval
from medseg.imaging.image import Image
from medseg.imaging.labels import Labels

SYMMETRIC = ("dice", "iou", "nsd", "hd95", "hd", "assd", "masd", "lesion_f1", "pq", "sq")
"""Metrics that do not ask who of two readers is the reference."""
MODEL = "model"


def reader_rows(
    prediction: Image | None,
    references: Mapping[str, Image],
    labels: Labels,
    scoring: Scoring,
    case: str,
    patient: str | None = None,
) -> list[Row]:
    """Every pair of readers of one case, and the model against every reader, by the symmetric metrics.

    Parameters
    ----------
    prediction : Image or None
        Label map; None counts as missed.
    references : mapping
        Reader -> label map, all on one grid. With fewer than two there are no pairs of readers.

    Returns
    -------
    list of rows
        As `score_pair` gives them, with ``first`` (a reader, or ``model``) and ``second`` (a reader).
    """
    chosen = scoring.but(metrics=tuple(n for n in scoring.metrics if n in SYMMETRIC))
    rows: list[Row] = []
    for a, b in combinations(sorted(references), 2):
        found = score_pair(references[a], references[b], labels, chosen, case, patient)
        rows += [row | {"first": a, "second": b} for row in found]
    for name in sorted(references):
        found = score_pair(prediction, references[name], labels, chosen, case, patient)
        rows += [row | {"first": MODEL, "second": name} for row in found]
    return rows


def ceiling(rows: Sequence[Row], scoring: Scoring) -> dict[str, dict[str, Any]]:
    """The agreement of readers with each other beside the model's with them, by label and metric.

    Parameters
    ----------
    rows : sequence of rows
        As `reader_rows` gives them. Cases with fewer than two readers are left out.

    Returns
    -------
    dict
        ``[label][metric]``: ``n`` cases, ``between_readers`` and ``model_with_readers`` (mean and interval of
        the case means over pairs), ``difference`` (model - readers, paired), ``within``: the share of
        cases in which the model agrees with the readers at least as well as their worst pair.
    """
    cells: dict[tuple[str, str], dict[str, tuple[list[float], list[float], str]]] = {}
    for row in rows:
        if row["value"] is not None:
            case = cells.setdefault((row["label"], row["metric"]), {})
            between, model, _ = case.setdefault(row["case"], ([], [], row["patient"]))
            (model if row["first"] == MODEL else between).append(row["value"])
    found: dict[str, dict[str, Any]] = {}
    for (label, metric), cases in cells.items():
        both = {name: sides for name, sides in cases.items() if sides[0] and sides[1]}
        if both:
            found.setdefault(label, {})[metric] = _cell(metric, both, scoring)
    return found


def _cell(
    metric: str, cases: Mapping[str, tuple[list[float], list[float], str]], scoring: Scoring
) -> dict[str, Any]:
    low_is_good = metric_of(metric).better == "low"
    between = np.array([float(np.mean(a)) for a, _, _ in cases.values()], np.float64)
    model = np.array([float(np.mean(b)) for _, b, _ in cases.values()], np.float64)
    worst = np.array([(max if low_is_good else min)(a) for a, _, _ in cases.values()])
    patients = [patient for _, _, patient in cases.values()]
    how = {"confidence": scoring.confidence, "repeats": scoring.repeats, "seed": scoring.seed}
    difference = paired_difference(between, model, patients, low_is_good=low_is_good, **how)
    inside = model <= worst + 1e-12 if low_is_good else model >= worst - 1e-12
    return {
        "n": len(cases),
        "between_readers": _mean(between, patients, metric, how),
        "model_with_readers": _mean(model, patients, metric, how),
        "difference": {"mean": difference.mean, "ci": difference.interval.limits, "p": difference.p},
        "within": {
            "share": float(inside.mean()),
            "ci": proportion(inside, patients, scoring.confidence).limits,
        },
    }


def _mean(values: np.ndarray, patients: Sequence[str], metric: str, how: Mapping[str, Any]) -> dict[str, Any]:
    interval = mean_interval(Sample.of([(values, patients)]), bounds=metric_of(metric).bounds, **how)
    return {"mean": float(values.mean()), "ci": interval.limits, "ci_method": interval.method}
