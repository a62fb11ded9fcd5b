"""Tables of the findings of a summary, as plain rows of strings: what is not there gives no row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from medseg.evaluation.metrics import described
from medseg.evaluation.report.context import ReportContext
from medseg.evaluation.report.tables import NONE, number

Summary = Mapping[str, Any]
Rows = list[list[str]]


def agreement(summary: Summary) -> Rows:
    """Label, n, bias, limits, slope, mean absolute error, ICC with its form: values with their intervals."""
    found = []
    for label, cell in summary.get("agreement", {}).items():
        low, high = cell["limits"]
        forms = [f"{form} {_with(one['value'], one['ci'], 3)}" for form, one in cell["icc"].items()]
        limits = f"{_with(low, cell['lower_ci'], 3)} and {_with(high, cell['upper_ci'], 3)}"
        plain = [_with(cell[k], cell[f"{k}_ci"], 3) for k in ("bias", "slope", "mean_absolute_error")]
        found.append([label, str(cell["n"]), plain[0], limits, plain[1], plain[2], "; ".join(forms) or NONE])
    return found


def icc_words(summary: Summary) -> list[str]:
    """What each form of the ICC measures."""
    cells = summary.get("agreement", {}).values()
    found = {form: one.get("words", "") for cell in cells for form, one in cell["icc"].items()}
    return [f"{form}: {words}" for form, words in found.items() if words]


def lesions(summary: Summary) -> Rows:
    """Label, scans, lesions of both sides and found, sensitivity, precision, F1, false positives a scan."""
    found = []
    for label, cell in summary.get("lesions", {}).items():
        counts = [str(cell[k]) for k in ("scans", "reference", "predicted", "found")]
        keys = ("sensitivity", "precision", "f1", "false_positives_per_scan")
        found.append([label, *counts, *(_with(cell[k]["value"], cell[k].get("ci"), 3) for k in keys)])
    return found


def froc(summary: Summary) -> Rows:
    """Label, scans, lesions, mean sensitivity over the rates of false positives, that at one a scan."""
    found = []
    for label, cell in summary.get("froc", {}).items():
        at = dict(zip(cell["rates"], cell["at_rates"], strict=True))
        counts = [str(cell[k]) for k in ("scans", "lesions")]
        found.append([label, *counts, _with(cell["mean"], cell.get("ci"), 3), number(at.get(1.0), 3)])
    return found


def froc_rates(summary: Summary) -> str:
    """The rates of false positives a scan that the mean sensitivity is taken over."""
    first = next(iter(summary.get("froc", {}).values()), {"rates": []})
    return ", ".join(f"{rate:g}" for rate in first["rates"])


def panoptic(summary: Summary) -> Rows:
    """Label and the means over cases of panoptic, segmentation and recognition quality."""
    found = []
    for label, cells in summary.get("labels", {}).items():
        if "pq" in cells:
            keys = [k for k in ("pq", "sq", "lesion_f1") if k in cells]
            said = [f"{described(k).title} {_cell(cells[k])} (n = {cells[k]['n']})" for k in keys]
            found.append([label, *said])
    return found


def readers(summary: Summary) -> Rows:
    """Label, metric, n, readers with each other, model with readers, difference, share within."""
    found = []
    for label, metrics in summary.get("readers", {}).items():
        for metric, cell in metrics.items():
            pairs = [cell[k] for k in ("between_readers", "model_with_readers", "difference")]
            within = cell["within"]
            share = _with(100 * within["share"], [100 * v for v in within["ci"]] if within["ci"] else None, 0)
            means = [_with(p["mean"], p["ci"], 3) for p in pairs]
            found.append([label, described(metric).title, str(cell["n"]), *means, f"{share} %"])
    return found


def sample_size(summary: Summary) -> Rows:
    """Label, metric, patients, half-width reached, half-width wanted, patients needed for it."""
    return [
        [
            row["label"],
            described(row["metric"]).title,
            str(row["patients"]),
            "± " + number(row["half_width"], 3),
            "± " + number(row["wanted"], 3),
            str(row["patients_needed"]),
        ]
        for row in summary.get("sample_size", ())
    ]


def quality(summary: Summary) -> Rows:
    """Share of cases reviewed, their number, failures caught, of how many."""
    found = summary.get("quality") or {}
    return [
        [f"{100 * r['share']:.0f} %", str(r["reviewed"]), f"{r['caught']} of {r['failures']}"]
        for r in found.get("reviews", ())
    ]


def quality_words(summary: Summary) -> str:
    """The area under the curve beside its best and worst, and the rank correlation."""
    found = summary.get("quality") or {}
    if not found:
        return ""
    rho = "" if found["spearman"] is None else f" Rank correlation of score and Dice {found['spearman']:.2f}."
    area = _with(found["aurc"], found["aurc_ci"], 4)
    return (
        f"{found['n']} cases. Area under the curve {area}; a score that knows the Dice would reach "
        f"{found['aurc_ideal']:.4f}, one that knows nothing {found['aurc_random']:.4f}.{rho} "
        f"Failures are cases with a mean Dice below {found['failure_below']:g}."
    ).replace("-", "−")


def probabilities(summary: Summary) -> Rows:
    """Class, AUPRC with prevalence, Brier, ECE, calibration slope and intercept."""
    keys = ("auprc", "brier", "ece", "calibration_slope", "calibration_intercept", "calibration_in_the_large")
    found = []
    for label, cells in summary.get("labels", {}).items():
        if "auprc" in cells:
            prevalence = cells["auprc"].get("prevalence")
            said = [_cell(cells[k]) if k in cells else NONE for k in keys]
            found.append([label, number(prevalence, 3), *said])
    return found


def spread(summary: Summary) -> Rows:
    """Grouping, label, metric, groups, sd of their means, skewed error ratio."""
    rows = (summary.get("subgroups") or {}).get("spread", ())
    return [
        [
            row["grouping"].replace("_", " "),
            row["label"],
            described(row["metric"]).title,
            str(row["groups"]),
            number(row["sd"], 3),
            number(row["skewed_error_ratio"], 2),
        ]
        for row in rows
        if row["sd"] is not None
    ]


def ranges(context: ReportContext) -> Rows:
    """Case, quantity, value, training range."""
    return [
        [str(r["case"]), str(r["what"]), f"{r['value']:.4g}", f"{r['low']:.4g} to {r['high']:.4g}"]
        for r in context.ranges
    ]


def leakage(context: ReportContext) -> Rows:
    """What was looked for, how many were found of how many, outcome, note."""
    outcome = {True: "passed", False: "found", None: "cannot be told"}
    found = []
    for check in context.leakage.get("checks", ()):
        n = NONE if check.get("n") is None else f"{check['n']} of {check['of']}"
        found.append([check["what"], n, outcome[check.get("passed")], check.get("note", "")])
    return found


def _cell(cell: Mapping[str, Any]) -> str:
    return _with(cell.get("mean"), cell.get("mean_ci"), 3)


def _with(value: float | None, limits: Sequence[float] | None, digits: int) -> str:
    """A value with its interval in brackets."""
    around = f" ({number(limits[0], digits)} to {number(limits[1], digits)})" if limits else ""
    return number(value, digits) + around
