"""A validation on disk: tables, methods, checklists, DICOM SEG, the page.

``summary["validation"]`` holds, as plain data:

- ``model``: ``kind`` (medseg, bundle, masks, classes) and sentences: ``what``, ``identity`` (sha256),
  ``task``, ``network``, ``input``, ``preparation``, ``prediction``, ``ensemble``, ``weights``,
  ``training``, ``choice``;
- ``flow``: see `medseg.evaluation.flow.cohort_flow`;
- ``populations`` and ``out_of_range``: see `medseg.evaluation.populations`;
- ``leakage``: ``status`` (``none``, ``found``, ``possible``, ``unchecked``), ``said`` (a sentence), ``how``,
  ``images`` and ``patients`` (cases), ``cases`` (how many were checked), ``kept`` (whether they count);
- ``acceptance``: see `medseg.workflows.acceptance.verdicts`;
- ``methods``: paragraphs, ``title`` and ``text``;
- ``checklists``: see `medseg.evaluation.checklists.checklists`.

``summary["quality"]`` beside it is the risk-coverage curve of the model's own quality score
(`medseg.evaluation.quality.quality_control`).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medseg.core.files import write_json, write_text
from medseg.core.run import Run
from medseg.evaluation.checklists import checklist_rows, checklists
from medseg.evaluation.flow import flow_rows
from medseg.evaluation.lesion_list import lesions_to_csv
from medseg.evaluation.methods_text import methods_text
from medseg.evaluation.policy import tolerance_notes
from medseg.workflows.reporting import cohort_rows, show_page

if TYPE_CHECKING:
    from medseg.evaluation.scoring import Scores
    from medseg.workflows.tested import Tested

FLOW = ("step", "why", "cases", "patients", "reason")
RANGES = ("case", "quantity", "value", "low", "high", "beyond")
ITEMS = ("checklist", "item", "topic", "asks", "answer", "by")


def write_validation(
    run: Run, tested: Tested, scores: Scores, summary: dict[str, Any], parts: dict[str, Any]
) -> Path:
    """Write everything; gives the page.

    `summary` gets the part ``validation`` (see this module).
    """
    summary["validation"] = parts
    summary["notes"] = [*summary.get("notes", []), *_notes(tested)]
    parts["methods"] = methods_text(summary)
    parts["checklists"] = checklists(summary)
    judged = parts["acceptance"]
    passed = all(v["passed"] for v in judged)
    if "lesion list" in scores.facts:
        write_text(run.root / "lesions.csv", lesions_to_csv(scores.facts["lesion list"]))
    write_json(run.root / "summary.json", summary)
    write_json(run.root / "acceptance.json", {"criteria": judged, "passed": passed})
    _write_table(run.root / "flow.csv", FLOW, flow_rows(parts["flow"]))
    _write_table(run.root / "out_of_range.csv", RANGES, parts["out_of_range"])
    _write_table(run.root / "checklists.csv", ITEMS, checklist_rows(parts["checklists"]))
    paragraphs = "\n\n".join(f"**{p['title']}.** {p['text']}" for p in parts["methods"])
    write_text(run.root / "methods.md", paragraphs + "\n")
    _export(run, tested)
    return _page(run, tested, scores, summary, parts)


def _notes(tested: Tested) -> list[str]:
    raw = tested.raw
    if raw.cohort.task != "segmentation":
        return []
    largest = max((max(raw.source(case)["spacing_mm"]) for case in tested.cases), default=0.0)
    return tolerance_notes(tested.settings.scoring, raw.cohort.labels, largest)


def _export(run: Run, tested: Tested) -> None:
    """DICOM SEG of the cases that came as DICOM, for a viewer."""
    from medseg.workflows.exporting import export_objects

    if not tested.settings.seg or tested.raw.cohort.task != "segmentation":
        return
    kinds = {c.id: {s.kind for s in c.images.values()} for c in tested.raw.cohort.cases}
    if cases := [case for case in tested.masks if kinds[case] == {"dicom"}]:
        export_objects(run, tested.raw, tested.masks, ("seg",), cases)


def _page(
    run: Run, tested: Tested, scores: Scores, summary: Mapping[str, Any], parts: Mapping[str, Any]
) -> Path:
    model = parts["model"]
    content = {
        "title": "Validation",
        "subtitle": str(model["what"]),
        "summary": dict(summary),
        "facts": {"model": {k: v for k, v in model.items() if v}},
        "cohort": cohort_rows(tested.raw, dict.fromkeys(tested.cases, "external test")),
        "criteria": list(parts["acceptance"]),
        "passed": all(v["passed"] for v in parts["acceptance"]) if parts["acceptance"] else None,
    }
    return show_page(run, tested.raw, tested.masks, scores, content)


def _write_table(file: Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    from medseg.data.tables import harmless

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        cells = (row[c] for c in columns)
        writer.writerow([f"{x:.9g}" if isinstance(x, float) else harmless(str(x)) for x in cells])
    write_text(file, text.getvalue())
