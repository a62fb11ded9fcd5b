"""The tables of the page, as plain rows of strings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from medseg.evaluation.metrics import CLASS_METRICS, described
from medseg.evaluation.report.context import ReportContext
from medseg.evaluation.report.words import level_of, status_counts

MAIN = ("dice", "nsd", "hd95", "assd", "volume_error")
OF_CLASSES = ("auroc", "sensitivity", "specificity", "ppv", "npv")
CARDS = ("dice", "nsd", "hd95", "volume_error", "accuracy", "balanced_accuracy", "auroc")
NONE = "–"
_BLANK = {"mean": "", "ci": "", "median": "", "note": ""}


def key_numbers(context: ReportContext) -> list[dict[str, str]]:
    """The handful of numbers of the header."""
    overall = context.summary.get("mean_over_labels", {})
    level = level_of(context.summary)
    cards = [_card(name, overall[name], level) for name in CARDS if name in overall]
    seen = status_counts(context.summary)
    wrong = sum(seen.get(s, 0) for s in ("missed", "false_positive", "not_predicted", "invalid"))
    by_class = "confusion" in context.summary
    name, what = ("Not predicted", "cases") if by_class else ("Missed or invented", "structures")
    return [*cards, {"name": name, "value": f"{wrong}", "note": f"of {sum(seen.values())} {what}"}]


def results(context: ReportContext) -> dict[str, Any]:
    """Label by metric: mean, interval, median; and counts by status that are not ``ok``."""
    by_class = "confusion" in context.summary
    names = list(OF_CLASSES) if by_class else [n for n in MAIN if n in context.metrics()]
    rows = []
    for label in context.all_labels():
        cells = context.summary["labels"].get(label.name)
        if not cells:
            continue
        first = next(iter(cells.values()))
        bad = {s.replace("_", " "): n for s, n in first["status"].items() if n and s != "ok"}
        rows.append(
            {
                "name": label.name,
                "colour": label.shown_colour(),
                "n": f"{first['status']['ok']} / {first['cases']}",
                "cells": [_cell(cells[n], n) for n in names],
                "bad": ", ".join(f"{n} {s}" for s, n in bad.items()) or "none",
            }
        )
    overall = context.summary.get("mean_over_labels", {})
    mean = [_cell(overall[n], n) if n in overall else _BLANK for n in names] if len(rows) > 1 else []
    words = (
        ("Class", "Predicted / cases", "Estimate")
        if by_class
        else ("Label", "Found / cases", "Mean over cases")
    )
    return {"heads": [_head(n, context) for n in names], "rows": rows, "mean": mean, "words": words}


def all_numbers(context: ReportContext) -> list[list[str]]:
    """Label, metric, n, mean, interval, sd, median, IQR, min, max, worst case: all of summary.json."""
    table = []
    for label, cells in context.summary.get("labels", {}).items():
        for name, cell in cells.items():
            d = _digits(name)
            worst = cell.get("worst") or {}
            table.append(
                [
                    label,
                    described(name).title + _unit(name),
                    str(cell["n"]),
                    number(cell.get("mean"), d),
                    _range(cell.get("mean_ci"), d),
                    number(cell.get("sd"), d),
                    number(cell.get("median"), d),
                    _range(cell.get("iqr"), d),
                    number(cell.get("min"), d),
                    number(cell.get("max"), d),
                    worst.get("case", NONE),
                ]
            )
    return table


def flow(context: ReportContext) -> list[dict[str, Any]]:
    """Boxes of the cohort flow: those given, or found, taken (by part), measured."""
    if context.flow:
        return [_given(box) for box in context.flow]
    counts = Counter(str(r.get("status", "left out")) for r in context.refusals)
    boxes = []
    if context.refusals:
        note = ", ".join(f"{n} {status}" for status, n in sorted(counts.items()))
        boxes.append(_box(len(context.cohort) + len(context.refusals), "found", note))
    if context.cohort:
        by_part = ", ".join(f"{len(cases)} {part}" for part, cases in parts(context).items() if part)
        boxes.append(
            _box(
                len(context.cohort), "taken", "; ".join(x for x in (_patients(context.cohort), by_part) if x)
            )
        )
    problems = f"{len(context.failures)} with a problem" if context.failures else "none with a problem"
    return [*boxes, _box(context.summary.get("cases", 0), "measured", problems)]


def _given(box: Mapping[str, Any]) -> dict[str, Any]:
    """A box as it is shown: patients where they are not as many as the cases, then the note."""
    patients = box.get("patients")
    who = _count(patients, "patient") if patients and patients != box["n"] else ""
    note = "; ".join(x for x in (who, box.get("note", "")) if x)
    return {"n": str(box["n"]), "what": box["what"], "note": note, "lost": box.get("lost", ())}


def _box(n: int, what: str, note: str) -> dict[str, Any]:
    return {"n": str(n), "what": what, "note": note, "lost": ()}


def cohort(context: ReportContext) -> dict[str, Any]:
    """What the cases are like, a column for each part."""
    by_part = parts(context)
    heads = [part or "all cases" for part in by_part]
    groups = list(dict.fromkeys(g for case in context.cohort for g in case.get("groups", {})))
    lines: list[list[str]] = [
        ["Cases", *(str(len(cases)) for cases in by_part.values())],
        ["Patients", *(str(len({_patient(c) for c in cases})) for cases in by_part.values())],
    ]
    for key, title, digits in (
        ("spacing_mm", "Spacing (mm), median (range)", 2),
        ("shape", "Voxels, median (range)", 0),
    ):
        if any(case.get(key) for case in context.cohort):
            lines.append(
                [title, *(_axes([c[key] for c in cases if c.get(key)], digits) for cases in by_part.values())]
            )
    lines += [[group, *(_shares(cases, group) for cases in by_part.values())] for group in groups]
    return {"heads": heads, "rows": lines}


def parts(context: ReportContext) -> dict[str, list[Mapping[str, Any]]]:
    """Cases by part: training, then folds, then test, then whatever else there is."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for case in context.cohort:
        found.setdefault(str(case.get("part", "")), []).append(case)
    rank = {"training": 0, "fold": 1, "test": 2}
    return dict(sorted(found.items(), key=lambda item: (rank.get(item[0].split(" ")[0], 3), item[0])))


def blocks(facts: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str, str]]]]:
    """Facts as titled lists of (name, value, reason); nested values in dotted names."""
    plain = [(k, _said(v), "") for k, v in facts.items() if not isinstance(v, Mapping)]
    nested = [
        (k[:1].upper() + k[1:], list(_flat(v))) for k, v in facts.items() if isinstance(v, Mapping) and v
    ]
    return ([("Run", plain)] if plain else []) + nested


def confusion(context: ReportContext) -> dict[str, Any] | None:
    """The confusion matrix with its heads and the share of each row; None for masks."""
    found = context.summary.get("confusion")
    if not found:
        return None
    lines = []
    for name, counts in zip(found["classes"], found["counts"], strict=True):
        total, columns = max(1, sum(counts)), found["columns"]
        pairs = zip(counts, columns, strict=True)
        cells = [{"n": n, "share": n / total, "right": c == name} for n, c in pairs]
        lines.append({"name": name, "cells": cells})
    return {"columns": found["columns"], "rows": lines}


def criteria(context: ReportContext) -> list[dict[str, Any]]:
    """Acceptance criteria: what was asked for, what was measured, and whether it held."""
    found = []
    for line in context.criteria:
        of = "mean over labels" if line["label"] == "mean" else line["label"]
        bar = str(line["criterion"]).replace(">=", "≥").replace("<=", "≤")
        where = {"bad_end": "unfavourable end of the interval", "mean": "mean", "count": "count"}.get(
            line.get("judged_at", ""), ""
        )
        value = "not measured" if line.get("value") is None else f"{line['value']:.4g}"
        title = line.get("title") or described(line["metric"]).title + _unit(line["metric"])
        asked = f"{title} {bar}, {of}"
        found.append({"asked": asked, "measured": value, "where": where, "passed": line["passed"]})
    return found


def definitions(context: ReportContext) -> list[tuple[str, str]]:
    """Title and definition of each metric, the tolerance of NSD included."""
    made = context.summary.get("conventions", {})
    found = []
    for name, words in made.get("metrics", {}).items():
        tolerance = made.get("nsd_tolerance_mm", {}) if name == "nsd" else {}
        said = ", ".join(
            f"{'' if label == 'all' else label + ' '}{mm:g} mm" for label, mm in tolerance.items()
        )
        found.append((described(name).title, f"{words}; tolerance {said}" if said else words))
    return found


def failures(context: ReportContext) -> list[dict[str, str]]:
    """Problems by case: the message without the case's name in front, and its seen and mend lines."""
    found = []
    for failure in context.failures:
        case, text = str(failure.get("case", "")), str(failure.get("message", ""))
        first, *more = [line.strip() for line in text.removeprefix(f"case {case}: ").splitlines() or [""]]
        found.append(
            {"case": case, "stage": str(failure.get("stage", "")), "what": first, "more": "\n".join(more)}
        )
    return found


def number(value: float | None, digits: int) -> str:
    """Fixed decimals with a true minus sign; a dash for None."""
    return NONE if value is None else f"{value:.{digits}f}".replace("-", "−")


def _card(name: str, cell: Mapping[str, Any], level: str) -> dict[str, str]:
    d, unit = _digits(name), _unit(name, bare=True)
    value = number(cell.get("mean"), d) + unit
    limits = _range(cell.get("mean_ci"), d)
    title = described(name).title if name in CLASS_METRICS else f"Mean {_lower(described(name).title)}"
    return {"name": title, "value": value, "note": f"{level} {limits}" if cell.get("mean_ci") else ""}


def _lower(title: str) -> str:
    """``Volume error`` -> ``volume error``; names like HD95 and Dice stay."""
    return title[0].lower() + title[1:] if " " in title else title


def _cell(cell: Mapping[str, Any], name: str) -> dict[str, str]:
    d = _digits(name)
    note = cell.get("mean_ci_note") or cell.get("note") or cell.get("mean_ci_method", "")
    median = f"median {number(cell['median'], d)}" if cell.get("median") is not None else ""
    return {
        "mean": number(cell.get("mean"), d),
        "ci": _range(cell.get("mean_ci"), d),
        "median": median,
        "note": note,
    }


def _head(name: str, context: ReportContext) -> str:
    tolerance = context.summary.get("scoring", {}).get("tolerance_mm")
    at = f" at {tolerance:g} mm" if name == "nsd" and tolerance else ""
    return described(name).title + at + _unit(name)


def _unit(name: str, bare: bool = False) -> str:
    unit = described(name).unit
    return (f" {unit}" if bare else f" ({unit})") if unit else ""


def _digits(name: str) -> int:
    return {"": 3, "mm": 2, "ml": 2, "%": 1}[described(name).unit]


def _range(limits: Sequence[float] | None, digits: int) -> str:
    return NONE if not limits else f"{number(limits[0], digits)} to {number(limits[1], digits)}"


def _patient(case: Mapping[str, Any]) -> str:
    return str(case.get("patient") or case.get("case"))


def _patients(cases: Sequence[Mapping[str, Any]]) -> str:
    return _count(len({_patient(c) for c in cases}), "patient")


def _count(n: int, word: str) -> str:
    return f"{n} {word}" + ("" if n == 1 else "s")


def _axes(values: Sequence[Sequence[float]], digits: int) -> str:
    """Median and range along each axis, in one line."""
    if not values:
        return NONE
    array = np.array(values, float)
    low, middle, high = array.min(axis=0), np.median(array, axis=0), array.max(axis=0)
    shown = [
        f"{m:.{digits}f}" if a == b else f"{m:.{digits}f} ({a:.{digits}f}–{b:.{digits}f})"
        for a, m, b in zip(low, middle, high, strict=True)
    ]
    return " × ".join(shown)


def _shares(cases: Sequence[Mapping[str, Any]], group: str) -> str:
    seen = Counter(str(case.get("groups", {}).get(group, "unknown")) for case in cases)
    return ", ".join(f"{name} {n}" for name, n in sorted(seen.items(), key=lambda x: (-x[1], x[0]))[:6])


def _flat(values: Mapping[str, Any], before: str = "") -> list[tuple[str, str, str]]:
    """Name, value, reason; ``{"choice": ..., "why": ...}`` is a value with its reason."""
    found: list[tuple[str, str, str]] = []
    for key, value in values.items():
        name = f"{before}{key}"
        if isinstance(value, Mapping) and set(value) == {"choice", "why"}:
            found.append((name, _said(value["choice"]), str(value["why"])))
        elif isinstance(value, Mapping):
            found += _flat(value, name + ".")
        else:
            found.append((name, _said(value), ""))
    return found


def _said(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(_said(v) for v in value) or NONE
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: NONE}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)
