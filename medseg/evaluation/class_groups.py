"""Subgroups of a classification: accuracy and area under the ROC curve, each group against the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from medseg.evaluation.areas import auroc_influence, auroc_interval
from medseg.evaluation.classification import ClassTable
from medseg.evaluation.grouped import groupings
from medseg.evaluation.pairs import Row
from medseg.evaluation.policy import Scoring
from medseg.evaluation.statistics import patient_numbers, standard_error, z_of
from medseg.evaluation.subgroups import UNKNOWN, adjust, spread_of_groups, subgroup_rows

ALL = "all classes"


def class_subgroups(rows: Sequence[Row], scoring: Scoring, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Every group held against all other cases; empty without groups.

    Parameters
    ----------
    rows : sequence of rows
        As `class_rows` gives them.
    facts : mapping
        ``groups``: case -> column -> value.

    Returns
    -------
    dict
        ``rows`` as those of masks (see `medseg.evaluation.subgroups.subgroup_rows`) with ``metric``
        ``accuracy`` (label ``all classes``) and ``auroc`` (each class; of two that exclude each other the
        last); ``spread``.

    Notes
    -----
    The difference of two areas is normal, with the variance between patients of each side (DeLong's influence
    of each case), so that a patient with cases on both sides is counted right. p by Holm over groups and
    classes.
    """
    table = ClassTable.of(rows, scoring.classes)
    found: list[dict[str, Any]] = []
    for name, groups in groupings(facts).items():
        inside = np.array([groups.get(case, UNKNOWN) for case in table.cases], dtype=object)
        found += [
            {"grouping": name, "label": ALL, "metric": "accuracy"} | row
            for row in _right(table, inside, scoring)
        ]
        for j in _judged(table):
            head = {"grouping": name, "label": table.classes[j], "metric": "auroc"}
            found += [head | row for row in _areas(table, j, inside, scoring)]
    for metric in ("accuracy", "auroc"):
        adjust([row for row in found if row["metric"] == metric])
    return {"rows": found, "spread": _spreads(found), "minimum": scoring.subgroup_minimum} if found else {}


def _judged(table: ClassTable) -> Sequence[int]:
    n = len(table.classes)
    return [n - 1] if n == 2 and not table.several else range(n)


def _right(table: ClassTable, inside: np.ndarray, scoring: Scoring) -> list[dict[str, Any]]:
    called = table.called(scoring.classes)
    if len(table.classes) != 2 and not table.several:
        called = table.most_probable()[:, None] == np.arange(len(table.classes))
    right = ((called == table.truth).all(axis=1) & table.predicted).astype(float)
    how = {"confidence": scoring.confidence, "repeats": scoring.repeats, "seed": scoring.seed}
    return subgroup_rows(
        right, table.patients, list(inside), bounds=(0, 1), minimum=scoring.subgroup_minimum, **how
    )


def _areas(table: ClassTable, j: int, inside: np.ndarray, scoring: Scoring) -> list[dict[str, Any]]:
    known = table.predicted
    truth, score, groups = table.truth[known, j], table.probabilities[known, j], inside[known]
    patients = np.asarray(table.patients, dtype=object)[known]
    rows = []
    for name in sorted(set(groups)):
        here = groups == name
        area, interval = auroc_interval(truth[here], score[here], scoring.confidence, list(patients[here]))
        count = len(set(patients[here]))
        row = {
            "group": name,
            "n": int(here.sum()),
            "patients": count,
            "small": count < scoring.subgroup_minimum,
        }
        row |= {"mean": area, "mean_ci": interval.limits, "mean_ci_method": interval.method}
        rows.append(
            row | _to_the_rest(truth, score, patients, here, scoring.confidence, tested=name != UNKNOWN)
        )
    return [row for row in rows if row["mean"] is not None]


def _to_the_rest(
    truth: np.ndarray,
    score: np.ndarray,
    patients: np.ndarray,
    here: np.ndarray,
    level: float,
    *,
    tested: bool,
) -> dict[str, Any]:
    none: dict[str, Any] = {"difference": None, "difference_ci": None, "p": None}
    sides = [auroc_influence(truth[side], score[side]) for side in (here, ~here)]
    if not tested or sides[0] is None or sides[1] is None:
        return none
    areas = [auroc_interval(truth[side], score[side])[0] or 0.0 for side in (here, ~here)]
    who = patient_numbers(list(patients))
    total = np.zeros(int(who.max()) + 1)
    for side, influence, sign in ((here, sides[0], 1.0), (~here, sides[1], -1.0)):
        total += sign * np.bincount(who[side], influence, minlength=total.size)
    difference, error = areas[0] - areas[1], standard_error(total)
    if not np.isfinite(error) or error <= 1e-12:
        return none | {"difference": difference}
    half = z_of((1 + level) / 2) * error
    from scipy.special import ndtr

    limits = [max(-1.0, difference - half), min(1.0, difference + half)]
    return {"difference": difference, "difference_ci": limits, "p": float(2 * ndtr(-abs(difference) / error))}


def _spreads(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    tables: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        tables.setdefault((row["grouping"], row["label"], row["metric"]), []).append(row)
    return [
        dict(zip(("grouping", "label", "metric"), key, strict=True)) | spread_of_groups(table, share=True)
        for key, table in tables.items()
    ]
