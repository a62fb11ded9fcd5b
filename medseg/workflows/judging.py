"""Judging: folders of masks, two score tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medseg.core.lock import lock_folder
from medseg.evaluation.policy import Scoring
from medseg.imaging.labels import Labels
from medseg.workflows.outcome import Outcome


def evaluate(
    pred: str | Path,
    ref: str | Path,
    out: str | Path,
    *,
    labels: Labels | str | None = None,
    tolerance_mm: float | None = None,
    workers: int = 1,
    quiet: bool = False,
    **options: Any,
) -> Outcome:
    """``medseg evaluate PRED REF OUT``: see `medseg.evaluation.evaluate.evaluate_folders`."""
    from medseg.evaluation.evaluate import evaluate_folders

    lock_folder(Path(out))
    done = evaluate_folders(
        pred, ref, out, labels, tolerance_mm, workers if workers > 1 else None, quiet=quiet, **options
    )
    lines = [*summary_lines(done.scores.summary()), f"report: {done.report}"]
    bad = [f"  {f.item}: {f.message}" for f in done.failures]
    text = "\n".join([*lines, *(["not measured:", *bad] if bad else [])])
    return Outcome(done.scores.summary(), text, 3 if bad else 0)


def compare(a: str | Path, b: str | Path, out: str | Path, scoring: Scoring | None = None) -> Outcome:
    """``medseg compare A B OUT``: paired differences of two score tables on the same cases.

    `scoring` holds confidence, repeats and seed of the intervals, and the margins of non-inferiority.
    """
    from medseg.evaluation.compare import compare as paired

    done = paired(_table(a), _table(b), Path(out), scoring)
    return Outcome(done.summary, done.text)


HEADLINES = {"dice": "Dice", "auroc": "AUROC"}
"""The number a task is first judged by: masks by Dice, classes by the area under the ROC curve."""


def headlines(summary: dict[str, Any]) -> dict[str, float]:
    """The means over labels, and each label's headline, by the names MLflow shows."""
    found = {f"mean_{metric}": cell["mean"] for metric, cell in summary["mean_over_labels"].items()}
    for label, cells in summary["labels"].items():
        found |= {f"{metric}_{label}": cells[metric]["mean"] for metric in HEADLINES if metric in cells}
    return {name: value for name, value in found.items() if value is not None}


def summary_lines(summary: dict[str, Any]) -> list[str]:
    """A line a label or class: its headline number with the interval, and counts of what is not ``ok``."""
    metric = next((m for m in HEADLINES if m in summary["mean_over_labels"]), None)
    if metric is None:
        return []
    lines = [_line(label, metric, cells[metric]) for label, cells in summary["labels"].items()]
    over = summary["mean_over_labels"]
    if len(lines) > 1 and over[metric]["mean"] is not None:
        lines.append(_line("mean over labels", metric, over[metric]))
    if "accuracy" in over:
        lines.append(_line("all cases", "accuracy", over["accuracy"]))
    return lines


def _line(name: str, metric: str, cell: dict[str, Any]) -> str:
    title = HEADLINES.get(metric, metric)
    if cell["mean"] is None:
        return f"  {name:<18} {title} undefined"
    ci = cell.get("mean_ci")
    interval = f" [{ci[0]:.3f}, {ci[1]:.3f}]" if ci else ""
    odd = {k: n for k, n in cell.get("status", {}).items() if n and k != "ok"}
    counts = "".join(f", {n} {k}" for k, n in odd.items())
    n = f" n = {cell['n']}" if "n" in cell else ""
    return f"  {name:<18} {title} {cell['mean']:.3f}{interval}{n}{counts}"


def _table(path: str | Path) -> Path:
    path = Path(path)
    return path / "scores.csv" if path.is_dir() else path
