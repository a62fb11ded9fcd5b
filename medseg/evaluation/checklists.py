"""Reporting checklists filled from a run: what it can answer is answered, the rest is the author's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from medseg.evaluation.checklist_items import CHECKLISTS
from medseg.evaluation.methods_text import shown, tested_on, uncertainty_of
from medseg.evaluation.metrics import described

Summary = Mapping[str, Any]
AUTHOR = "author"


def checklists(summary: Summary) -> dict[str, list[dict[str, str]]]:
    """Every checklist, a row an item.

    Parameters
    ----------
    summary : mapping
        summary.json with the part ``validation`` (see `medseg.workflows.validation_report`).

    Returns
    -------
    dict
        Checklist -> rows ``item``, ``topic``, ``asks``, ``answer``, ``by``: ``run`` where the answer comes
        from the run, ``author`` where the row is blank.
    """
    known = {name: answer(summary) for name, answer in ANSWERS.items()}
    return {name: [_row(line, known) for line in _lines(text)] for name, text in CHECKLISTS.items()}


def checklist_rows(filled: Mapping[str, Sequence[Mapping[str, str]]]) -> list[dict[str, str]]:
    """The same as one tidy table: ``checklist,item,topic,asks,answer,by``."""
    return [{"checklist": name, **row} for name, rows in filled.items() for row in rows]


def _lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip()]


def _row(line: str, known: Mapping[str, str]) -> dict[str, str]:
    item, topic, asks, answer = (part.strip() for part in line.split("|"))
    said = known.get(answer, "")
    row = {"item": item, "topic": topic, "asks": asks, "answer": said}
    return row | {"by": "run" if said else AUTHOR}


def _of(summary: Summary, part: str) -> Any:
    return summary.get("validation", {}).get(part) or {}


def _kind(summary: Summary) -> str:
    model = _of(summary, "model")
    return f"{model.get('task', 'a model')} by {model['what']}" if model.get("what") else ""


def _goal(summary: Summary) -> str:
    return "testing of a finished model on a cohort; no part of it was trained or tuned here"


def _eligibility(summary: Summary) -> str:
    left = _of(summary, "flow").get("left", ())
    said = "; ".join(f"{one['n']} {one['why']}: {one['reason']}" for one in left)
    return f"criteria: author. Left out by the run: {said}" if said else ""


def _preprocessing(summary: Summary) -> str:
    return str(_of(summary, "model").get("preparation", ""))


def _subsets(summary: Summary) -> str:
    gone = [one for one in (_of(summary, "flow").get("left") or ()) if one["why"] == "excluded"]
    if not gone:
        return "none: every case of the cohort that could be read was tested"
    return "all that could be read but " + "; ".join(f"{one['n']} ({one['reason']})" for one in gone)


def _deidentified(summary: Summary) -> str:
    return "images are stored without header fields that identify; patients and DICOM series by keyed hashes"


def _missing(summary: Summary) -> str:
    flow = _of(summary, "flow")
    gone = [one for one in flow.get("left", ()) if one["after"] in ("tested", "predicted")]
    n = sum(one["n"] for one in gone)
    said = f"{n} case(s) could not be predicted or scored and are named" if n else "no case failed"
    if "confusion" in summary:
        return f"{said}; a case without a prediction counts as wrong"
    policy = summary.get("conventions", {}).get("missed_or_false_positive", "")
    return f"{said}; a structure missed or invented: {policy}"


def _acquisition(summary: Summary) -> str:
    rows = [r for r in _of(summary, "populations").get("rows", ()) if r["quantity"].startswith("spacing")]
    said = ", ".join(f"{shown(r['test'])}" for r in rows if r["test"])
    return f"voxel spacing (mm, median and range by axis): {said}" if said else ""


def _readers(summary: Summary) -> str:
    found = summary.get("readers", {})
    cells = [(label, cells["dice"]) for label, cells in found.items() if "dice" in cells]
    return "; ".join(
        f"{label}: Dice between readers {c['between_readers']['mean']:.3f}" for label, c in cells
    )


def _sample_size(summary: Summary) -> str:
    rows = summary.get("sample_size", ())[:3]
    said = "; ".join(
        f"{r['metric']} of {r['label']}: half-width {r['half_width']:.3g} with {r['patients']} patients, "
        f"{r['patients_needed']} for {r['wanted']:.3g}"
        for r in rows
    )
    return f"reached precision: {said}. Intended size: author" if said else ""


def _partitions(summary: Summary) -> str:
    trained = _of(summary, "populations").get("train_cases")
    return f"all {summary['cases']} cases are test cases" + (
        f"; the model was trained on {trained} others" if trained else ""
    )


def _disjoint(summary: Summary) -> str:
    return str(_of(summary, "leakage").get("said", ""))


def _model(summary: Summary) -> str:
    return str(_of(summary, "model").get("network", ""))


def _software(summary: Summary) -> str:
    return ", ".join(f"{name} {version}" for name, version in summary.get("versions", {}).items())


def _from_model(key: str) -> Callable[[Summary], str]:
    return lambda summary: str(_of(summary, "model").get(key, ""))


def _metrics(summary: Summary) -> str:
    made = summary.get("conventions", {}).get("metrics", {})
    names = [described(name).title for name in made if not name.startswith("volume_")]
    return f"{', '.join(names)}; each defined in the conventions of the run" if names else ""


def _robustness(summary: Summary) -> str:
    rows, n = _of(summary, "out_of_range"), summary["cases"]
    if not _of(summary, "populations").get("train_cases"):
        return ""
    if not rows:
        return f"all {n} cases lie within the ranges of spacing, size, intensity and volume of the training"
    cases = len({r["case"] for r in rows})
    kinds = ", ".join(sorted({r["quantity"] for r in rows}))
    return f"{cases} of {n} cases lie outside the ranges of the training: {kinds}"


def _external(summary: Summary) -> str:
    return "" if not _disjoint(summary) else f"tested on {tested_on(summary)}; {_disjoint(summary)}"


def _flow(summary: Summary) -> str:
    return ", ".join(f"{s['cases']} {s['name']}" for s in _of(summary, "flow").get("steps", ()))


def _demographics(summary: Summary) -> str:
    names = {r["grouping"] for r in summary.get("subgroups", {}).get("rows", ())}
    return f"tables by {', '.join(sorted(names))}; the rest: author" if names else ""


def _performance(summary: Summary) -> str:
    over = summary.get("mean_over_labels", {})
    cells = [(name, cell) for name, cell in over.items() if cell.get("mean") is not None]
    return "; ".join(
        f"{described(name).title} {cell['mean']:.3f}{_ci(cell)}"
        for name, cell in cells
        if not _is_volume(name)
    )


def _is_volume(name: str) -> bool:
    return name in ("volume_pred", "volume_ref")


def _ci(cell: Mapping[str, Any]) -> str:
    limits = cell.get("mean_ci")
    return f" ({limits[0]:.3f} to {limits[1]:.3f})" if limits else ""


def _failures(summary: Summary) -> str:
    worst = [
        f"{label}: {cells['dice']['worst']['case']} (Dice {cells['dice']['worst']['value']:.3f})"
        for label, cells in summary.get("labels", {}).items()
        if (cells.get("dice") or {}).get("worst")
    ]
    said = f"worst cases: {'; '.join(worst)}" if worst else ""
    if quality := summary.get("quality"):
        said += f"; {quality['failures']} of {quality['n']} cases below Dice {quality['failure_below']:g}"
    return said


def _subgroups(summary: Summary) -> str:
    rows = summary.get("subgroups", {}).get("rows", ())
    if not rows:
        return ""
    low = [r for r in rows if r.get("p_holm") is not None and r["p_holm"] < 0.05]
    said = f"{len(rows)} groups held against the rest, p adjusted by Holm; "
    return said + (f"{len(low)} differ at 0.05" if low else "none differs at 0.05")


def _threshold(summary: Summary) -> str:
    return str(summary.get("conventions", {}).get("threshold", ""))


def _severity(summary: Summary) -> str:
    rows = _of(summary, "populations").get("rows", ())
    said = [
        f"{r['quantity']} {shown(r['test'])}"
        for r in rows
        if r["quantity"].startswith("volume") and r["test"]
    ]
    return "; ".join(said)


def _availability(summary: Summary) -> str:
    model = _of(summary, "model")
    said = f"model {model['identity'][:16]}" if model.get("identity") else ""
    return f"{said}; medseg {summary.get('versions', {}).get('medseg', '')}" if said else ""


def _numbers(summary: Summary) -> str:
    return f"{summary['cases']} cases of {summary['patients']} patients"


ANSWERS: dict[str, Callable[[Summary], str]] = {
    "kind": _kind,
    "goal": _goal,
    "eligibility": _eligibility,
    "preprocessing": _preprocessing,
    "subsets": _subsets,
    "deidentified": _deidentified,
    "missing": _missing,
    "acquisition": _acquisition,
    "readers": _readers,
    "sample_size": _sample_size,
    "partitions": _partitions,
    "disjoint": _disjoint,
    "model": _model,
    "software": _software,
    "weights": _from_model("weights"),
    "training": _from_model("training"),
    "choice": _from_model("choice"),
    "ensemble": _from_model("ensemble"),
    "input": _from_model("input"),
    "metrics": _metrics,
    "uncertainty": uncertainty_of,
    "robustness": _robustness,
    "internal": lambda _: "not part of this run",
    "external": _external,
    "flow": _flow,
    "demographics": _demographics,
    "performance": _performance,
    "precision": _performance,
    "failures": _failures,
    "subgroups": _subgroups,
    "threshold": _threshold,
    "severity": _severity,
    "blinding": lambda _: "predictions were made by the software alone, without access to the reference",
    "updating": lambda _: "none: the weights were used as they are",
    "prediction": _from_model("prediction"),
    "availability": _availability,
    "numbers": _numbers,
}
