"""What the page says: the verdict, what good and bad look like, methods."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medseg.evaluation.metrics import described
from medseg.evaluation.report.context import ReportContext
from medseg.evaluation.report.guide import GUIDE

__all__ = [
    "GUIDE",
    "brief",
    "count",
    "interval",
    "level_of",
    "methods",
    "status_counts",
    "verdict",
]


def verdict(context: ReportContext) -> str:
    """The sentence of the header: how good, on how many, how sure, what failed."""
    if context.verdict:
        return context.verdict
    summary = context.summary
    over_labels = summary.get("mean_over_labels", {})
    if "accuracy" in over_labels:
        return _class_verdict(summary)
    overall = over_labels.get("dice", {})
    if overall.get("mean") is None:
        return "No case has a value: there is nothing to judge."
    labels = overall["labels"]
    over = f"over {labels} labels " if labels > 1 else ""
    said = f"Mean Dice {over}is {overall['mean']:.3f}{interval(overall.get('mean_ci'), level_of(summary))}"
    who = f", on {count(summary['cases'], 'case')}"
    if summary["patients"] != summary["cases"]:
        who += f" of {count(summary['patients'], 'patient')}"
    return f"{said}{who}. {trouble(summary)}"


def _class_verdict(summary: Mapping[str, Any]) -> str:
    over = summary["mean_over_labels"]
    if over["accuracy"]["mean"] is None:
        return "No case has a value: there is nothing to judge."
    area = over["auroc"]["mean"]
    also = "" if area is None else f", macro AUROC {area:.3f}"
    n = sum(row[-1] for row in summary["confusion"]["counts"])
    missing = f" {count(n, 'case')} without a prediction, counted as wrong." if n else ""
    sure = interval(over["accuracy"].get("mean_ci"), level_of(summary))
    said = f"Accuracy is {over['accuracy']['mean']:.3f}{sure}{also}"
    return f"{said}, on {count(summary['cases'], 'case')} in {over['auroc']['labels']} classes.{missing}"


def trouble(summary: Mapping[str, Any]) -> str:
    """In a sentence: structures missed, invented, not predicted, invalid."""
    seen = status_counts(summary)
    parts = [f"{n} {words}" for status, words in _TROUBLE.items() if (n := seen.get(status, 0))]
    if not parts:
        return "Every structure was found, none was invented."
    return "Of all structures: " + ", ".join(parts) + "."


_TROUBLE = {
    "missed": "missed",
    "false_positive": "invented (false positive)",
    "not_predicted": "without a prediction",
    "invalid": "not measurable",
    "both_empty": "absent from both sides (undefined, left out)",
}


def status_counts(summary: Mapping[str, Any]) -> dict[str, int]:
    """Structures (case and label) by status, from the first metric of each label."""
    total: dict[str, int] = {}
    for metrics in summary.get("labels", {}).values():
        cell = next(iter(metrics.values()), {})
        for status, n in cell.get("status", {}).items():
            total[status] = total.get(status, 0) + n
    return total


def brief(context: ReportContext) -> list[tuple[str, str]]:
    """On what and how sure, in a line each: the part of the first screen that no number answers."""
    summary = context.summary
    found = [("On what", _on_what(context))]
    first = next((row for row in summary.get("sample_size", ()) if row["metric"] == "dice"), None)
    if first:
        found.append(
            (
                "How sure",
                f"Dice of {first['label']} to ± {first['half_width']:.3f} with "
                f"{count(first['patients'], 'patient')}; ± {first['wanted']:.3f} takes "
                f"{first['patients_needed']}",
            )
        )
    if context.leakage.get("said"):
        warned = {True: "", False: "NOT AN INDEPENDENT TEST: ", None: ""}[context.leakage.get("passed")]
        found.append(("Independent", warned + context.leakage["said"]))
    return [(name, said) for name, said in found if said]


def _on_what(context: ReportContext) -> str:
    summary = context.summary
    names = [label.name for label in context.all_labels()]
    kind = "classes" if "confusion" in summary else "labels"
    labels = ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
    who = f"{count(summary.get('cases', 0), 'case')} of {count(summary.get('patients', 0), 'patient')}"
    judged = {row["case"] for row in context.rows}
    groups: dict[str, set[str]] = {}
    for case in context.cohort:
        if case.get("case") in judged:
            for name, value in case.get("groups", {}).items():
                groups.setdefault(name, set()).add(str(value))
    told = [f"{len(v)} {k.replace('_', ' ')} groups" for k, v in groups.items() if 1 < len(v) <= 12]
    return "; ".join([who, *([f"{kind} {labels}"] if labels else []), *told[:3]])


def methods(context: ReportContext) -> list[dict[str, str]]:
    """Paragraphs for the methods section of a paper, made from what was done: ``title`` and ``text``."""
    if context.methods:
        return [_titled(part) for part in context.methods.split("\n\n") if part.strip()]
    summary = context.summary
    said = _class_methods(summary) if "confusion" in summary else _mask_methods(context)
    return [{"title": "", "text": said}]


def _titled(part: str) -> dict[str, str]:
    """``Data. The model was ...`` -> its first word as title."""
    title, _, text = part.strip().partition(". ")
    return {"title": title, "text": text} if text and " " not in title else {"title": "", "text": part}


def _mask_methods(context: ReportContext) -> str:
    summary = context.summary
    made, choice = summary.get("conventions", {}), summary.get("scoring", {})
    names = ", ".join(label.name for label in context.all_labels())
    many = f"{count(summary['cases'], 'case')} of {count(summary['patients'], 'patient')}"
    measured = [described(name) for name in made.get("metrics", {})]
    measures = "; ".join(f"{metric.title} ({metric.definition})" for metric in measured)
    tolerance = made.get("nsd_tolerance_mm", {})
    at = ", ".join(f"{'' if k == 'all' else k + ' '}{mm:g} mm" for k, mm in tolerance.items())
    nsd = f" The tolerance of NSD was {at}." if at and "nsd" in made.get("metrics", {}) else ""
    worst = choice.get("missed") == "worst"
    return (
        f"Predicted masks ({names}) were compared with the reference standard on {many}: "
        f"{made.get('geometry', 'on the grid of the reference')}. Measured were: {measures}.{nsd} "
        f"A structure that was missed or invented has Dice 0 and "
        f"{'the diagonal of the image as its distance' if worst else 'no distance'}; "
        "a structure absent from both sides is undefined and left out. Means are given with "
        f"{made.get('mean_interval', 'their intervals')}. "
        f"Evaluation by medseg {summary.get('versions', {}).get('medseg', '')}."
    )


def _class_methods(summary: Mapping[str, Any]) -> str:
    made = summary.get("conventions", {})
    return (
        f"Predicted classes were compared with the reference standard on {count(summary['cases'], 'case')} "
        f"of {count(summary['patients'], 'patient')}. Threshold: "
        f"{made.get('threshold', 'the most probable class is called')}. Intervals: "
        f"{made.get('intervals', 'see the conventions')}. A case without a prediction counts as "
        f"wrong. Evaluation by medseg {summary.get('versions', {}).get('medseg', '')}."
    )


def interval(limits: Any, level: str) -> str:
    """`` (95 % CI 0.1 to 0.2)``, or nothing."""
    if not limits:
        return ""
    return f" ({level} {limits[0]:.3f} to {limits[1]:.3f})"


def level_of(summary: Mapping[str, Any]) -> str:
    """``95 % CI``, as the scoring says."""
    return f"{100 * summary.get('scoring', {}).get('confidence', 0.95):g} % CI"


def count(n: int, word: str) -> str:
    """``1 case``, ``2 cases``."""
    return f"{n} {word}" + ("" if n == 1 else "s")
