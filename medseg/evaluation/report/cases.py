"""The cases of a report: where each has its place on the page, what it is filed under, and its numbers."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medseg.evaluation.classification import ClassTable, is_classification
from medseg.evaluation.policy import ClassRule
from medseg.evaluation.report.context import ReportContext
from medseg.evaluation.report.gallery import kinds, ranked
from medseg.evaluation.report.overlays import Overlay


@dataclass(frozen=True)
class CaseEntry:
    """One case: its place, its rank by `ranked` (from 1; 0 without a value), and what it is filtered by.

    `overlay` is None where the case has no picture: it then has a line in the table of all cases only.
    """

    case: str
    anchor: str
    rank: int
    value: float | None
    kind: str
    tags: tuple[str, ...]
    labels: tuple[str, ...]
    groups: tuple[str, ...]
    status: str
    overlay: Overlay | None = None

    @property
    def worst_label(self) -> str:
        """The label with the lowest value; empty for one label."""
        return self.labels[0] if self.labels else ""


def entries(context: ReportContext) -> list[CaseEntry]:
    """Every case of the rows, the worst first; those without a value (nothing to measure) at the end."""
    order, kind = ranked(context.rows), kinds(context.rows)
    cases = [*order, *(c for c in dict.fromkeys(r["case"] for r in context.rows) if c not in order)]
    drawn = {overlay.case: overlay for overlay in context.overlays}
    groups = {str(c.get("case")): _groups(c) for c in context.cohort}
    by_case, wrong = _by_case(context.rows), _wrongly_called(context)
    return [
        CaseEntry(
            case=case,
            anchor=f"case-{i}-" + re.sub(r"[^A-Za-z0-9-]", "-", case)[:40],
            rank=i if case in order else 0,
            value=order.get(case),
            kind=kind.get(case, ""),
            tags=wrong.get(
                case, tuple(dict.fromkeys(t.name for t in drawn[case].tags)) if case in drawn else ()
            ),
            labels=_labels(by_case[case], drawn.get(case)),
            groups=groups.get(case, ()),
            status=_status(by_case[case]),
            overlay=drawn.get(case),
        )
        for i, case in enumerate(cases, 1)
    ]


def tag_counts(found: Sequence[CaseEntry]) -> list[tuple[str, int]]:
    """How many cases carry each tag, the most frequent first."""
    seen = Counter(tag for entry in found for tag in entry.tags)
    return sorted(seen.items(), key=lambda item: (-item[1], item[0]))


def choices(found: Sequence[CaseEntry]) -> dict[str, list[str]]:
    """What the cases can be filtered by: ``tag``, ``label`` and ``group``, each with its values."""
    shown = [entry for entry in found if entry.overlay]
    tags = [tag for tag, _ in tag_counts(shown)]
    labels = sorted({label for entry in shown for label in entry.labels})
    groups = sorted({group for entry in shown for group in entry.groups})
    lists = {"tag": tags, "label": labels if len(labels) > 1 else [], "group": groups}
    return {name: values for name, values in lists.items() if values}


def _wrongly_called(context: ReportContext) -> dict[str, tuple[str, ...]]:
    """Of a classification: case -> ``called x`` for each class it was given and does not have."""
    if not is_classification(context.rows):
        return {}
    rule = ClassRule.model_validate(context.summary.get("scoring", {}).get("classes", {}))
    table = ClassTable.of(context.rows, rule)
    called = table.called(rule) & ~table.truth
    found = {}
    for case, given in zip(table.cases, called, strict=True):
        found[case] = tuple(f"called {name}" for name, so in zip(table.classes, given, strict=True) if so)
    return found


def _by_case(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    found: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        found.setdefault(row["case"], []).append(row)
    return found


def _labels(rows: Sequence[Mapping[str, Any]], overlay: Overlay | None) -> tuple[str, ...]:
    """The label that is worst in this case, or its true classes; then those its tags name."""
    dice = [
        (row["value"], row["label"]) for row in rows if row["metric"] == "dice" and row["value"] is not None
    ]
    true = [row["label"] for row in rows if row["metric"] == "truth" and row["value"] == 1]
    tagged = [] if overlay is None else [tag.label for tag in overlay.tags if " and " not in tag.label]
    return tuple(dict.fromkeys([*(label for _, label in sorted(dice)[:1]), *true, *tagged]))


def _status(rows: Sequence[Mapping[str, Any]]) -> str:
    bad = {row["status"] for row in rows if row["status"] not in ("ok", "both_empty")}
    return ", ".join(sorted(s.replace("_", " ") for s in bad))


def _groups(case: Mapping[str, Any]) -> tuple[str, ...]:
    known = {name: str(value) for name, value in case.get("groups", {}).items() if value not in (None, "")}
    return tuple(f"{name}: {value}" for name, value in known.items() if len(value) <= 40)
