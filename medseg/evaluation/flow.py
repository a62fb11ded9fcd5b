"""Who came, who left and why: the flow of a cohort from what was received to what was evaluated."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

STEPS = ("received", "readable", "tested", "predicted", "evaluated")
"""Steps of the flow, in order; each holds the cases of the one before less those that left."""


@dataclass(frozen=True)
class Left:
    """A case that left the flow after a step: why in a word, and the reason in a sentence."""

    after: str
    why: str
    reason: str
    case: str


def cohort_flow(
    received: Collection[str], left: Iterable[Left], patients: Mapping[str, str], skipped: int = 0
) -> dict[str, Any]:
    """The flow as plain data, for summary.json and the report.

    Parameters
    ----------
    received : collection of str
        Cases, and the names of the series that were refused before they became one.
    left : iterable of Left
        Each case at most once counts; the first reason stands.
    patients : mapping
        Case -> patient, where that is known.
    skipped : int
        Series found beside the images that are none of the study (localisers, reports).

    Returns
    -------
    dict
        ``steps``: list of ``{"name", "cases", "patients"}`` in the order of `STEPS` (``patients`` counts
        those that are known); ``left``: list of ``{"after", "why", "reason", "cases", "n"}``, gathered
        by reason, most first; ``skipped``.
    """
    gone: dict[str, Left] = {}
    for one in left:
        gone.setdefault(one.case, one)
    there, steps = list(received), []
    for name in STEPS:
        steps.append({"name": name, "cases": len(there), "patients": _patients(there, patients)})
        there = [case for case in there if not (case in gone and gone[case].after == name)]
    return {"steps": steps, "left": _gathered(gone.values()), "skipped": skipped}


def flow_rows(flow: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The flow as a tidy table: ``step,why,cases,patients,reason``, a row a step and a reason to leave."""
    rows = []
    for step in flow["steps"]:
        head = {"step": step["name"], "why": "", "cases": step["cases"], "patients": step["patients"]}
        rows.append(head | {"reason": ""})
        for one in flow["left"]:
            if one["after"] == step["name"]:
                row = {"step": step["name"], "why": one["why"], "cases": one["n"], "patients": ""}
                rows.append(row | {"reason": one["reason"]})
    return rows


def _patients(cases: Iterable[str], patients: Mapping[str, str]) -> int:
    return len({patients[case] for case in cases if case in patients})


def _gathered(gone: Iterable[Left]) -> list[dict[str, Any]]:
    groups: dict[tuple[str, str, str], list[str]] = {}
    for one in gone:
        groups.setdefault((one.after, one.why, one.reason), []).append(one.case)
    rows = [
        {"after": after, "why": why, "reason": reason, "n": len(cases), "cases": sorted(cases)}
        for (after, why, reason), cases in groups.items()
    ]
    return sorted(rows, key=lambda r: (STEPS.index(r["after"]), -r["n"], r["why"], r["reason"]))
