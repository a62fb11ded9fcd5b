"""What a report is made of: values handed in, nothing read from elsewhere."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medseg.evaluation.pairs import Row
from medseg.imaging.labels import Label, Labels

if TYPE_CHECKING:
    from medseg.evaluation.report.looked import Looked
    from medseg.evaluation.report.overlays import Overlay


@dataclass(frozen=True)
class ReportContext:
    """Everything the page shows. No path, patient's name or date belongs into any of it.

    Parameters
    ----------
    title, subtitle : str
        Headline, and one line under it.
    rows, summary
        Scores (as in scores.csv) and what `summarise` makes of them. A part of the summary that is there is
        drawn: ``agreement``, ``lesions`` (with ``by_size``: rows of ``size``, ``lesions``, ``found``,
        ``sensitivity``, ``ci``), ``froc`` (by label: ``false_positives``, ``sensitivity``, ``mean``, ``ci``,
        ``rates``), ``subgroups``, ``sample_size``, ``readers``, ``quality``, ``confusion``, ``curves``,
        ``validation`` (which fills the fields from `flow` on where they are empty).
    labels : Labels
        With their colours; labels found only in the rows are added.
    passed, verdict
        Outcome of acceptance criteria (None: there were none) and the sentence of the header; a sentence
        is made from the summary when empty.
    criteria : sequence of dict
        ``{"criterion": ..., "measured": ..., "passed": bool}``.
    facts : mapping
        What was run. Values that are mappings become blocks of their own.
    cohort : sequence of dict
        One per case: case, patient, part (``test``, ``fold 1`` ...), spacing_mm, shape, groups (dict).
    refusals : sequence of dict
        series or case, status (``skipped``/``refused``), reason.
    failures : sequence of dict
        case, stage, message.
    histories : mapping
        Fold name -> history.csv, its text, or its rows.
    overlays : sequence of Overlay
        Worst first.
    looked : sequence of Looked
        Maps of where the model looked.
    flow : sequence of dict
        Cohort flow, a box each: ``{"n": 40, "what": "received", "patients": 38, "note": "3 sites"}``, and
        under a box what left there: ``"lost": [{"n": 2, "why": "gaps between slices"}]``. Made from `cohort`,
        `refusals` and `failures` when empty.
    beside : mapping
        Training and test cohort side by side: ``{"columns": ["Training", "External test"], "rows":
        [{"what": "Age (years)", "cells": ["61 (18-88)", "58 (20-90)"], "flag": "differs"}]}``.
    leakage : mapping
        Proof that no patient was trained on: ``{"passed": True, "checks": [{"what": "patients in both",
        "n": 0, "of": 40, "passed": True, "note": "keyed hashes compared"}]}``.
    ranges : sequence of dict
        Cases outside what the model was trained on: ``{"case", "what", "value", "low", "high"}``.
    checklists : sequence of dict
        ``{"name": "CLAIM 2024", "cite": "...", "items": [{"number": "7", "item": "...", "said": "...",
        "status": "filled" | "partly" | "author" | "not applicable"}]}``.
    methods : str
        Paragraphs for a methods section (blank lines between them); made from the summary when empty.
    """

    title: str
    rows: Sequence[Row]
    summary: Mapping[str, Any]
    labels: Labels = ()
    subtitle: str = ""
    passed: bool | None = None
    verdict: str = ""
    criteria: Sequence[Mapping[str, Any]] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    cohort: Sequence[Mapping[str, Any]] = ()
    refusals: Sequence[Mapping[str, Any]] = ()
    failures: Sequence[Mapping[str, Any]] = ()
    histories: Mapping[str, Path | str | Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    overlays: Sequence[Overlay] = ()
    looked: Sequence[Looked] = ()
    flow: Sequence[Mapping[str, Any]] = ()
    beside: Mapping[str, Any] = field(default_factory=dict)
    leakage: Mapping[str, Any] = field(default_factory=dict)
    ranges: Sequence[Mapping[str, Any]] = ()
    checklists: Sequence[Mapping[str, Any]] = ()
    methods: str = ""

    def all_labels(self) -> Labels:
        """The labels given, and after them those that only the rows name."""
        known = {label.name for label in self.labels}
        names = [n for n in dict.fromkeys(row["label"] for row in self.rows) if n not in known]
        first = max((label.value for label in self.labels), default=0) + 1
        return (*self.labels, *(Label(value=first + i, name=n) for i, n in enumerate(names)))

    def knows_cohort(self) -> bool:
        """Whether there is anything to say about who was tested."""
        return any((self.cohort, self.refusals, self.flow, self.beside, self.leakage, self.ranges))

    def metrics(self) -> list[str]:
        """Metric names in the order of the rows."""
        return list(dict.fromkeys(row["metric"] for row in self.rows))


def history_of(source: Path | str | Sequence[Mapping[str, Any]]) -> dict[str, list[float | None]]:
    """Columns of a training history as numbers; what is not a number is None. Empty when unreadable."""
    rows = _read(source) if isinstance(source, Path | str) else source
    names = list(dict.fromkeys(name for row in rows for name in row))
    return {name: [_number(row.get(name)) for row in rows] for name in names}


def _read(source: Path | str) -> list[dict[str, str]]:
    try:
        text = source.read_text(encoding="utf-8") if isinstance(source, Path) else source
    except OSError:
        return []
    return list(csv.DictReader(text.splitlines()))


def _number(text: Any) -> float | None:
    try:
        return float(text)
    except (TypeError, ValueError):
        return None
