"""What the page says: the verdict, what good and bad look like, methods."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medseg.evaluation.report.context import ReportContext

GUIDE: dict[str, str] = {
    "run": "Good: every version and digest is filled in, so that this page can be made again. "
    "Bad: anything unknown here makes the numbers below unrepeatable.",
    "cohort": "Good: few refusals, each with a reason, and test cases that look like the training cases. "
    "Bad: a group, scanner or spacing that only one part has.",
    "curves": "Good: loss falls and flattens, Dice on the monitor cases rises and stays. "
    "Bad: Dice falls again while loss still falls (overfitting), jumps (rate too high), or both still "
    "improve at the end (stopped too early).",
    "table": "Good: narrow intervals and no missed or invented structure. Bad: a wide interval (too "
    "few patients to tell), or a good mean with counts beside it that are not zero.",
    "distribution": "Good: a tight cloud at the good end. Bad: a long tail or a second cloud: a group of "
    "cases the model does not understand. Hollow dots are missed, invented or unpredicted structures.",
    "volumes": "Good: dots scattered evenly about zero, inside the dashed limits. Bad: a bias off zero "
    "(over- or under-segmentation), or a slope (large structures cut short).",
    "gallery": "Good: even the first cases here are nearly right. Bad: a contour in the wrong place, on the "
    "wrong side, or missing. The dashed white line is the reference, the coloured line the prediction.",
    "looked": "Good: the mark lies on the structure that matters, and hiding what it marks takes the answer "
    "away faster than hiding places at random. Bad: a mark on borders, lettering or instruments, or a map "
    "no better than random: such a picture explains nothing. Yellow is the strongest evidence. "
    "The small plots show the probability while blocks are hidden: orange in the order of the map, grey at "
    "random (mean and range).",
    "failures": "Good: nothing here. Bad: any case here is missing from the numbers above, or "
    "counts as missed in them.",
}
"""Section -> what good and bad look like."""


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


def methods(context: ReportContext) -> str:
    """A paragraph for the methods section of a paper, made from what was done."""
    summary = context.summary
    if "confusion" in summary:
        return _class_methods(summary)
    made, choice = summary.get("conventions", {}), summary.get("scoring", {})
    names = ", ".join(label.name for label in context.all_labels())
    many = f"{count(summary['cases'], 'case')} of {count(summary['patients'], 'patient')}"
    worst = choice.get("missed") == "worst"
    tolerance = choice.get("tolerance_mm", 1.0)
    version = summary.get("versions", {}).get("medseg", "")
    return (
        f"Predicted masks ({names}) were compared with the reference standard on {many}, on the grid of the "
        "reference and without resampling. Overlap was measured by the Dice coefficient, distance by the "
        "95th percentile Hausdorff distance (the larger of the two directed percentiles over border voxels) "
        "and the average symmetric surface distance, and agreement of the boundary by the normalised surface "
        f"Dice at {tolerance:g} mm (area-weighted). Volumes were taken from voxel counts. "
        f"A structure that was missed or invented has Dice 0 and "
        f"{'the diagonal of the image as its distance' if worst else 'no distance'}; "
        "a structure absent from both sides is undefined and left out. Means are given with "
        f"{made.get('mean_interval', 'their intervals')}. Evaluation by medseg {version}."
    )


def _class_methods(summary: Mapping[str, Any]) -> str:
    return (
        f"Predicted classes were compared with the reference standard on {count(summary['cases'], 'case')} "
        f"of {count(summary['patients'], 'patient')}. A case was given its most probable class. Accuracy, "
        "sensitivity, specificity and predictive values are given with Wilson intervals, areas under the ROC "
        "curve (each class against the rest) with DeLong intervals. A case without a prediction counts as "
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
