"""Judging: folders of masks, a model on an unseen cohort, two score tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medseg.core.config import load_config
from medseg.core.files import write_json
from medseg.core.lock import lock_folder
from medseg.core.run import Run
from medseg.core.stage import Artifact, artifact_of
from medseg.data.cohort import Cohort, Ingesting
from medseg.evaluation.policy import Scoring
from medseg.imaging.labels import Labels
from medseg.imaging.masks import Postprocessing
from medseg.learning.settings import Prediction
from medseg.workflows.acceptance import Acceptance, Criterion, verdicts
from medseg.workflows.journey import ingest_all
from medseg.workflows.outcome import Outcome, named_failures


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


def validate(
    model: str | Path,
    cohort: Cohort,
    run: Run,
    *,
    accept: str | Path | Sequence[Criterion] | None = None,
    device: str = "auto",
    prediction: Prediction | None = None,
    postprocessing: Postprocessing | None = None,
    scoring: Scoring | None = None,
) -> Outcome:
    """Predict and score a cohort the model has never seen, and hold it against acceptance criteria.

    Exit code 0 PASS, 1 FAIL, 3 PASS or no criteria but some cases were quarantined.
    """
    from medseg.learning.model import model_folders
    from medseg.workflows.reporting import report_validation
    from medseg.workflows.training import postprocess_all, predict_cases, score_all

    criteria = _criteria(accept)
    raw = ingest_all(run, cohort, Ingesting(require_reference=True))
    models: tuple[Artifact, ...] = tuple(artifact_of(folder) for folder in model_folders(Path(model)))
    predicted = predict_cases(run, raw, dict.fromkeys(raw, models), prediction or Prediction(), device)
    masks = postprocess_all(run, raw, predicted, postprocessing)
    scores = score_all(run, raw, masks, list(raw), scoring)
    summary = scores.summary()
    judged = verdicts(summary, criteria)
    write_json(run.root / "acceptance.json", {"criteria": judged, "passed": all(v["passed"] for v in judged)})
    page = report_validation(run, raw, models, masks, scores, judged)
    return _verdict(run, summary, judged, page)


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


def _criteria(accept: str | Path | Sequence[Criterion] | None) -> tuple[Criterion, ...]:
    if accept is None:
        return ()
    if isinstance(accept, str | Path):
        return load_config(Acceptance, accept).accept
    return tuple(accept)


def _verdict(run: Run, summary: dict[str, Any], judged: list[dict[str, Any]], page: Path) -> Outcome:
    passed = all(v["passed"] for v in judged)
    said = [
        f"  {'PASS' if v['passed'] else 'FAIL'}  {v['metric']} of {v['label']} {v['criterion']}: "
        f"{v['value']:.4g} ({v['judged_at'].replace('_', ' ')})"
        for v in judged
    ]
    head = ("PASS" if passed else "FAIL") if judged else "no acceptance criteria were given"
    text = "\n".join([*summary_lines(summary), *said, head, f"report: {page}"]) + named_failures(run)
    code = 1 if not passed else (3 if run.failures else 0)
    return Outcome({"passed": passed, "criteria": judged, "summary": summary}, text, code)


def _table(path: str | Path) -> Path:
    path = Path(path)
    return path / "scores.csv" if path.is_dir() else path
