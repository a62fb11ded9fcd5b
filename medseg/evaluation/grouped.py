"""The subgroups of a table of scores: which groupings there are, and every group held against the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from medseg.evaluation.metrics import metric_of
from medseg.evaluation.pairs import Row
from medseg.evaluation.policy import Scoring
from medseg.evaluation.subgroups import adjust, groups_of, spread_of_groups, subgroup_rows, thirds

PRIMARY = ("dice", "nsd", "hd95", "lesion_f1")
"""Metrics that subgroups are compared by, and that the sample size is stated for."""
LEAST = 15
"""Fewer cases are not cut into groups by size and slice thickness of their own accord."""
Cells = Mapping[tuple[str, str], Sequence[Row]]


def subgroups(cells: Cells, scoring: Scoring, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Groups of cases held against the rest, by label and metric.

    Parameters
    ----------
    facts : mapping
        ``groups``: case -> column -> value; ``images``: ``case`` and ``spacing_mm`` of each. Columns of the
        one, slice thickness of the other, and the size of each label in the reference make the groups.

    Returns
    -------
    dict
        ``rows`` (see `subgroup_rows`, with grouping, label, metric, p_holm) and ``spread``.
    """
    by_case = groupings(facts)
    rows: list[dict[str, Any]] = []
    for (label, metric), seen in cells.items():
        if metric not in PRIMARY:
            continue
        with_sizes = by_case | _sizes(cells.get((label, "volume_ref"), ()))
        for name, groups in with_sizes.items():
            rows += _grouped(seen, groups, {"grouping": name, "label": label, "metric": metric}, scoring)
    for metric in PRIMARY:
        adjust([row for row in rows if row["metric"] == metric])
    return {"rows": rows, "spread": _spreads(rows), "minimum": scoring.subgroup_minimum} if rows else {}


def groupings(facts: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Column -> case -> group, for the columns that gather cases into groups."""
    table: Mapping[str, Mapping[str, Any]] = facts.get("groups") or {}
    columns = {name: None for cells in table.values() for name in cells}
    found = {c: groups_of(c, {case: cells.get(c) for case, cells in table.items()}) for c in columns}
    images = facts.get("images") or ()
    if len(images) >= LEAST and "slice_thickness" not in found:
        spacing = {image["case"]: max(image["spacing_mm"]) for image in images}
        found["slice_thickness"] = groups_of("slice_thickness", spacing)
    return {name: groups for name, groups in found.items() if groups}


def _sizes(volumes: Sequence[Row]) -> dict[str, dict[str, str]]:
    """The thirds of a label by its volume in the reference; cases without it are in none."""
    known = {row["case"]: row["value"] for row in volumes if row["value"]}
    groups = thirds(known) if len(known) >= LEAST else {}
    return {"size in the reference": groups} if groups else {}


def _grouped(
    seen: Sequence[Row], groups: Mapping[str, str], head: Mapping[str, Any], scoring: Scoring
) -> list[dict[str, Any]]:
    kept = [row for row in seen if row["value"] is not None and row["case"] in groups]
    values = np.array([row["value"] for row in kept], float)
    found = subgroup_rows(
        values,
        [row["patient"] for row in kept],
        [groups[row["case"]] for row in kept],
        bounds=metric_of(head["metric"]).bounds,
        minimum=scoring.subgroup_minimum,
        confidence=scoring.confidence,
        repeats=scoring.repeats,
        seed=scoring.seed,
    )
    return [dict(head) | row for row in found]


def _spreads(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    tables: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        tables.setdefault((row["grouping"], row["label"], row["metric"]), []).append(row)
    return [
        dict(zip(("grouping", "label", "metric"), key, strict=True))
        | spread_of_groups(table, share=metric_of(key[2]).bounds == (0, 1))
        for key, table in tables.items()
    ]
