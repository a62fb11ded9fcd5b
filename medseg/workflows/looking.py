"""Looking before leaping: what is wrong in a cohort, and what a plan for it would be."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from medseg.core.config import load_config
from medseg.core.errors import MedsegError
from medseg.core.run import Run
from medseg.data.audit import must_fix, summary, table
from medseg.data.budget import Budget
from medseg.data.cohort import Cohort, Fold, Split
from medseg.data.overrides import Fixed
from medseg.data.plan import Plan
from medseg.learning.settings import Training
from medseg.workflows.journey import Ingested, ingest_all, make_plan, prepare_all, reopen
from medseg.workflows.opening import check_references
from medseg.workflows.outcome import Outcome, named_failures
from medseg.workflows.settings import SplitSettings, TrainSettings

log = logging.getLogger("medseg")

_SHOWN = 5
"""Cases of which a preview shows a patch."""


def audit_cases(run: Run, raw: Ingested) -> Outcome:
    """Findings over ingested cases, those that must be fixed first; kept in ``audit/cohort``.

    Exit code 3 when anything must be fixed before training.
    """
    from medseg.stages.audit import audit as look
    from medseg.stages.audit import read_findings

    failures = {f.item: f.public for f in run.failures if f.stage == "ingest"}
    made = run.map(look, {"cohort": dict(raw.artifacts)}, cohort=raw.cohort, failures=failures)
    findings = read_findings(made["cohort"])
    told = summary(findings)
    log.info("%-12s %d to fix, %d to look at", "", told["fix"], told["look"])
    return Outcome(told, table(findings), 3 if must_fix(findings) else 0)


def audit(folder: str | Path, opened: Callable[[], Cohort], run: Run) -> Outcome:
    """``medseg audit DIR``: of a run folder that was ingested, or of a data set (ingested first)."""
    return audit_cases(run, _there_or_ingested(folder, opened, run))


def plan(
    folder: str | Path,
    opened: Callable[[], Cohort],
    run: Run,
    overrides: Sequence[str] = (),
    device: str = "auto",
    preview: bool = False,
) -> Outcome:
    """``medseg plan DIR [key=value]``: choices with their reasons; `key` is a choice or a budget.

    ``epochs=30``, ``training.<name>=value`` or ``split.<name>=value`` sets what the expectation and the
    `preview` (a picture of what augmentation does) reckon with.
    """
    from medseg.workflows.cascading import FIRST, planned_first
    from medseg.workflows.pacing import expectation, said

    settings = _settings(overrides)
    raw = _there_or_ingested(folder, opened, run)
    check_references(raw.cohort)
    choices, place = settings.choices(device), run.root / FIRST / "plan.yaml"
    chosen = make_plan(run, raw, **choices)
    first = (planned_first(run, raw, place, chosen, choices),) if chosen.cascade else ()
    how = {"split": _folds(raw, settings.split), "training": settings.training, "device": device}
    cost = expectation(chosen, *first, **how)
    values = chosen.model_dump(mode="json")
    lines = [f"{name:<18} {in_words(values[name])}\n{'':<18} {why}" for name, why in chosen.why.items()]
    expected = "\n".join(
        f"{name:<18} {text}" for name, text in zip(("expected", "", ""), said(cost), strict=True)
    )
    drawn = [f"drawn to   {_preview(run, raw, chosen, settings.training)}"] if preview else []
    text = "\n".join([*lines, expected, "", f"written to {run.root / 'plan.yaml'}", *drawn])
    told = values | {"expected": cost.model_dump(mode="json")}
    return Outcome(told, text + named_failures(run), 3 if run.failures or raw.refused else 0)


def in_words(value: Any) -> str:
    """A choice as it would be written in a recipe, on one line: ``{foreground: 0.5, label_weights: []}``."""
    import yaml

    if isinstance(value, dict | list):
        return yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10**6).strip()
    return "none" if value is None else str(value)


def _settings(overrides: Sequence[str]) -> TrainSettings:
    """What was said on the command line: choices of the plan and its budget, or settings of the training."""
    whole = ("training.", "split.")
    named = [text if text.startswith(whole) else f"{_part(text)}.{text}" for text in overrides]
    settings = load_config(TrainSettings, None, named)
    minutes, told = settings.plan.get("budget_minutes"), settings.training
    if minutes is None or told.epochs is not None or told.budget_minutes is not None:
        return settings
    return settings.but(training=settings.training.but(budget_minutes=minutes, epochs=None))


def _folds(raw: Ingested, settings: SplitSettings) -> Split:
    """The folds of a training; all cases in one where there are too few patients for them."""
    try:
        return raw.cohort.split(test=settings.test, folds=settings.folds, seed=settings.seed)
    except MedsegError:
        return Split(test=(), folds=(Fold(train=tuple(raw), valid=()),), seed=settings.seed)


def _part(text: str) -> str:
    """Where a setting without its part belongs: to the plan, unless only the training knows its name."""
    name = re.split(r"[.=]", text, maxsplit=1)[0]
    planned = {**Fixed.model_fields, **Budget.model_fields}
    return "training" if name in Training.model_fields and name not in planned else "plan"


def _preview(run: Run, raw: Ingested, plan: Plan, training: Training) -> Path:
    """Patches of the first cases as they are drawn, and as training sees them."""
    from medseg.learning.contact_sheet import draw_augmentation
    from medseg.learning.sampling import PreparedCase

    prepared = prepare_all(run, raw.only(list(raw)[:_SHOWN]), plan)
    cases = [PreparedCase(case, made.path) for case, made in prepared.items()]
    return draw_augmentation(cases, plan, training, run.root / "preview.png")


def _there_or_ingested(folder: str | Path, opened: Callable[[], Cohort], run: Run) -> Ingested:
    if (Path(folder) / "cohort.json").is_file():
        run.root = Path(folder)
        return reopen(folder)
    return ingest_all(run, opened())
