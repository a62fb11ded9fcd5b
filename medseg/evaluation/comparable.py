"""Whether two tables of scores may be held against each other, and whose cases theirs are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medseg.core.errors import MedsegError
from medseg.core.files import read_json, sha256_of
from medseg.core.values import validated
from medseg.evaluation.metrics import METRICS
from medseg.evaluation.pairs import Row
from medseg.evaluation.policy import Scoring

SUMMARY, TABLE = "summary.json", "scores.csv"
OF_LESIONS = ("pq", "sq")
"""Metrics that count lesions and do not say so in their name."""


def same_choices(a: Path, b: Path, first: Sequence[Row], second: Sequence[Row]) -> None:
    """Complain where two tables were measured by other rules, as far as their summaries tell.

    Parameters
    ----------
    a, b : path
        Tables; what lies beside them as ``summary.json`` counts when it names their sha256.
    first, second : sequence of rows
        Of both: what no common label and metric depends on may differ.

    Raises
    ------
    MedsegError
        A tolerance, the policy for missed structures, the rule for lesions, a region, or the ignored value
        differs.
    """
    ours, theirs = _scoring(a), _scoring(b)
    if ours is None or theirs is None:
        return
    common = {(r["label"], r["metric"]) for r in first} & {(r["label"], r["metric"]) for r in second}
    labels, metrics = ({one[i] for one in common} for i in (0, 1))
    one, other = (_deciding(scoring, sorted(labels), metrics) for scoring in (ours, theirs))
    if wrong := [name for name in one if one[name] != other[name]]:
        raise MedsegError(
            "the two tables were not measured alike: their numbers cannot be compared",
            evidence="; ".join(f"{name}: A {one[name]}, B {other[name]}" for name in wrong),
            mend="measure both with the same settings",
        )


def patients_of(a: Sequence[Row], b: Sequence[Row]) -> dict[str, str]:
    """Case -> patient, by the table that knows more of them: the one with fewer patients on the same cases.

    A table made from folders of masks takes every case for a patient of its own.
    """
    first, second = ({row["case"]: row["patient"] for row in rows} for rows in (a, b))
    both = [case for case in first if case in second]
    chosen = min((first, second), key=lambda who: len({who[case] for case in both}))
    return {case: chosen[case] for case in both}


def _deciding(scoring: Scoring, labels: Sequence[str], metrics: set[str]) -> dict[str, Any]:
    """The choices that the numbers of these labels and metrics depend on, by name."""
    found: dict[str, Any] = {"ignored value": scoring.ignore}
    found |= {f"region {n}": tuple(scoring.regions.get(n, ())) for n in labels}
    if "nsd" in metrics:
        found |= {f"NSD tolerance of {n} (mm)": scoring.tolerance_of(n) for n in labels}
    if any(METRICS[m].one_sided == "diagonal" for m in metrics if m in METRICS):
        found["missed structures"] = scoring.missed
    if any("lesion" in m or m in OF_LESIONS for m in metrics):
        rule = scoring.lesions
        found["lesions"] = f"IoU > {rule.iou:g}, {rule.connectivity} neighbours, from {rule.minimum_ml:g} ml"
    return found


def _scoring(table: Path) -> Scoring | None:
    """How a table was measured; None where nothing beside it tells."""
    try:
        told = read_json(table.with_name(SUMMARY))
        return validated(Scoring, told["scoring"]) if told["digests"][TABLE] == sha256_of(table) else None
    except (OSError, ValueError, KeyError, TypeError, MedsegError):
        return None
