"""The part ``validation`` of a summary as the fields that the page draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from medseg.evaluation.methods_text import shown
from medseg.evaluation.report.context import ReportContext

NAMES = {
    "readable": "readable, with a reference",
    "tested": "tested",
    "predicted": "with a prediction",
}
CITES = {
    "CLAIM 2024": "Tejani et al., Radiology: Artificial Intelligence 2024",
    "STARD-AI": "Sounderajah et al., Nature Medicine 2025",
    "TRIPOD+AI": "Collins et al., BMJ 2024;385:e078378",
}
LOOKED_FOR = (
    ("images", "copies of training images"),
    ("patients", "patients of the training, by other images"),
)


def with_validation(context: ReportContext) -> ReportContext:
    """The context with the fields that its summary's ``validation`` fills and nobody gave."""
    parts = context.summary.get("validation") or {}
    makers = {
        "flow": lambda: _flow(parts["flow"]),
        "beside": lambda: _beside(parts["populations"]),
        "leakage": lambda: _leakage(parts["leakage"]),
        "ranges": lambda: [dict(r, what=r["quantity"]) for r in parts["out_of_range"]],
        "checklists": lambda: [_checklist(name, rows) for name, rows in parts["checklists"].items()],
        "methods": lambda: "\n\n".join(f"{p['title']}. {p['text']}" for p in parts["methods"]),
    }
    source = {"beside": "populations", "ranges": "out_of_range"}
    given = [n for n in makers if not getattr(context, n) and parts.get(source.get(n, n))]
    return replace(context, **{name: makers[name]() for name in given})


def _flow(flow: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A box a step, and what left after it."""
    boxes = []
    for i, step in enumerate(flow["steps"]):
        skipped = flow.get("skipped", 0) if not i else 0
        gone = [one for one in flow["left"] if one["after"] == step["name"]]
        lost = [{"n": one["n"], "why": f"{one['why']}: {one['reason']}"} for one in gone]
        note = f"{skipped} series beside them were no images of the study" if skipped else ""
        what = NAMES.get(step["name"], step["name"])
        head = {"n": step["cases"], "what": what, "patients": step["patients"]}
        boxes.append(head | {"note": note, "lost": lost})
    return boxes


def _beside(populations: Mapping[str, Any]) -> dict[str, Any]:
    rows = [
        {
            "what": row["quantity"],
            "cells": [shown(row[side]) if row[side] else "not known" for side in ("train", "test")],
            "flag": f"{row['outside']} outside" if row["outside"] else "",
        }
        for row in populations["rows"]
    ]
    sides = [populations.get(side) for side in ("train_cases", "test_cases")]
    counts = [str(n) if n else "not known" for n in sides]
    head = {"what": "Cases", "cells": counts, "flag": ""}
    return {"columns": ["Training", "Test cohort"], "rows": [head, *rows]}


def _leakage(leakage: Mapping[str, Any]) -> dict[str, Any]:
    said, of = leakage["said"], leakage["cases"]
    if leakage["status"] == "unchecked":
        check = {"what": "training images and patients", "n": None, "of": of, "passed": None, "note": said}
        return {"passed": None, "said": said, "checks": [check]}
    checks = [
        {
            "what": what,
            "n": len(leakage[key]),
            "of": of,
            "passed": not leakage[key],
            "note": leakage["how"] + (f": {', '.join(leakage[key])}" if leakage[key] else ""),
        }
        for key, what in LOOKED_FOR
    ]
    return {"passed": leakage["status"] == "none", "said": said, "checks": checks}


def _checklist(name: str, rows: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    items = [
        {
            "number": row["item"],
            "item": f"{row['topic']}: {row['asks']}",
            "said": row["answer"],
            "status": "filled" if row["by"] == "run" else "author",
        }
        for row in rows
    ]
    return {"name": name, "cite": CITES.get(name, ""), "items": items}
