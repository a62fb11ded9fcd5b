"""From two masks to rows: every metric of every label of a case."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from medseg.evaluation.metrics import metric_of
from medseg.evaluation.policy import Scoring, Status, status_of
from medseg.evaluation.surface import Pair
from medseg.imaging.image import Image
from medseg.imaging.labels import Label, Labels
from medseg.imaging.masks import Box, boxes_of

Row = dict[str, Any]
"""case, patient, label, metric, value (float or None), unit, status."""

COLUMNS = ("case", "patient", "label", "metric", "value", "unit", "status")


def score_pair(
    prediction: Image | None,
    reference: Image,
    labels: Labels,
    scoring: Scoring,
    case: str,
    patient: str | None = None,
) -> list[Row]:
    """Every metric of every label of one case.

    Parameters
    ----------
    prediction : Image or None
        Label map [1, I, J, K]; None when there is no prediction (counted as missed).
    reference : Image
        Label map on the same grid.
    labels : Labels
        Labels to measure; other values are background.
    scoring : Scoring
    case, patient : str
        Ids for the rows; the case stands for the patient when none is given.

    Returns
    -------
    list of rows
        Keys `COLUMNS`. A prediction on another grid gives rows with status ``invalid`` and no value.
    """
    who = (case, patient if patient is not None else case)
    if prediction is not None and not prediction.grid.matches(reference.grid):
        return invalid_rows(labels, scoring, case, patient)
    there = boxes_of(reference.array[0])
    predicted = boxes_of(prediction.array[0]) if prediction is not None else {}
    rows: list[Row] = []
    for label in labels:
        box = _union(predicted.get(label.value), there.get(label.value))
        pair = _pair(prediction, reference, label, box)
        status = status_of(label.value in predicted, label.value in there)
        rows += _label_rows(pair, label, status if prediction is not None else "not_predicted", scoring, who)
    return rows


def invalid_rows(labels: Labels, scoring: Scoring, case: str, patient: str | None = None) -> list[Row]:
    """Rows without values for a case that cannot be measured."""
    who = (case, patient if patient is not None else case)
    return [_row(who, label, name, None, "invalid") for label in labels for name in scoring.metrics]


def _pair(prediction: Image | None, reference: Image, label: Label, box: Box | None) -> Pair:
    """Both masks of a label in their common box; one empty voxel when neither has it."""
    where = box or (slice(0, 1),) * 3
    there = reference.array[0][where] == label.value
    mask = np.zeros_like(there) if prediction is None else prediction.array[0][where] == label.value
    i, j, k = (s.start for s in where)
    return Pair(mask, there, reference.grid, (i, j, k))


def _label_rows(
    pair: Pair, label: Label, status: Status, scoring: Scoring, who: tuple[str, str]
) -> list[Row]:
    values = {name: _value(name, pair, label, status, scoring) for name in scoring.metrics}
    return [_row(who, label, name, value, status) for name, value in values.items()]


def _value(name: str, pair: Pair, label: Label, status: Status, scoring: Scoring) -> float | None:
    metric = metric_of(name)
    if not (pair.mask.any() or pair.reference.any()):
        return None
    if status == "ok" or metric.one_sided == "measure":
        value = float(metric.measure(pair, scoring.tolerance_of(label.name)))
        return value if math.isfinite(value) else None
    if metric.one_sided == "zero":
        return 0.0
    return pair.grid.diagonal_mm if scoring.missed == "worst" else None


def _row(who: tuple[str, str], label: Label, name: str, value: float | None, status: Status) -> Row:
    case, patient = who
    return {
        "case": case,
        "patient": patient,
        "label": label.name,
        "metric": name,
        "value": value,
        "unit": metric_of(name).unit,
        "status": status,
    }


def _union(one: Box | None, other: Box | None) -> Box | None:
    if one is None or other is None:
        return one or other
    i, j, k = (slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(one, other, strict=True))
    return i, j, k
