"""From two masks to rows: every metric of every label of a case."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from medseg.evaluation.metrics import metric_of
from medseg.evaluation.policy import Scoring, Status, status_of
from medseg.evaluation.structures import (
    Array,
    Structure,
    box_of,
    placed,
    structures_of,
    union,
    without_ignored,
)
from medseg.evaluation.surface import Pair
from medseg.imaging.grid import Grid
from medseg.imaging.image import Image
from medseg.imaging.labels import Labels
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
    """Every metric of every label and region of one case.

    Parameters
    ----------
    prediction : Image or None
        Label map [1, I, J, K]; None when there is no prediction (counted as missed).
    reference : Image
        Label map on the same grid.
    labels : Labels
        Labels to measure; other values are background. Regions and the ignored value are the scoring's.
    scoring : Scoring
    case, patient : str
        Ids for the rows; the case stands for the patient when none is given.

    Returns
    -------
    list of rows
        Keys `COLUMNS`. A prediction on another grid gives rows with status ``invalid`` and no value,
        unless resampling was asked for.
    """
    who = (case, patient if patient is not None else case)
    if prediction is not None and not prediction.grid.matches(reference.grid):
        if not scoring.resample:
            return invalid_rows(labels, scoring, case, patient)
        prediction, _ = placed(prediction, reference, resample=True)
    rows: list[Row] = []
    for structure, pair, status in pairs_of(prediction, reference, labels, scoring):
        rows += _rows_of(pair, structure, status, scoring, who)
    return rows


def pairs_of(
    prediction: Image | None, reference: Image, labels: Labels, scoring: Scoring
) -> Iterator[tuple[Structure, Pair, Status]]:
    """Each label and region of a case with both its masks, on one grid, and its status."""
    mask, there = without_ignored(prediction, reference, scoring.ignore)
    boxes = ({} if mask is None else boxes_of(mask), boxes_of(there))
    for structure in structures_of(labels, scoring):
        predicted, referred = (box_of(side, structure) for side in boxes)
        pair = _pair(mask, there, structure, _common(predicted, referred), reference.grid)
        status = status_of(predicted is not None, referred is not None)
        yield structure, pair, status if mask is not None else "not_predicted"


def invalid_rows(labels: Labels, scoring: Scoring, case: str, patient: str | None = None) -> list[Row]:
    """Rows without values for a case that cannot be measured."""
    who = (case, patient if patient is not None else case)
    found = structures_of(labels, scoring)
    return [_row(who, s.name, name, None, "invalid") for s in found for name in scoring.metrics]


def _pair(mask: Array | None, there: Array, structure: Structure, box: Box | None, grid: Grid) -> Pair:
    """Both masks of a structure in their common box; one empty voxel when neither has it."""
    where = box or (slice(0, 1),) * 3
    reference = structure.inside(there[where])
    predicted = np.zeros_like(reference) if mask is None else structure.inside(mask[where])
    i, j, k = (s.start for s in where)
    return Pair(predicted, reference, grid, (i, j, k))


def _rows_of(
    pair: Pair, structure: Structure, status: Status, scoring: Scoring, who: tuple[str, str]
) -> list[Row]:
    values = {name: _value(name, pair, structure, status, scoring) for name in scoring.metrics}
    return [_row(who, structure.name, name, value, status) for name, value in values.items()]


def _value(name: str, pair: Pair, structure: Structure, status: Status, scoring: Scoring) -> float | None:
    metric = metric_of(name)
    if not (pair.mask.any() or pair.reference.any()):
        return None
    if status == "ok" or metric.one_sided == "measure":
        value = float(metric.measure(pair, scoring.choices_of(structure.name)))
        return value if math.isfinite(value) else None
    if metric.one_sided == "zero":
        return 0.0
    return pair.grid.diagonal_mm if scoring.missed == "worst" else None


def _row(who: tuple[str, str], label: str, name: str, value: float | None, status: Status) -> Row:
    case, patient = who
    return {
        "case": case,
        "patient": patient,
        "label": label,
        "metric": name,
        "value": value,
        "unit": metric_of(name).unit,
        "status": status,
    }


def _common(one: Box | None, other: Box | None) -> Box | None:
    return union(one, other) if one and other else one or other
