"""Looking before leaping: what is wrong in a cohort, and what a plan for it would be."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from medseg.core.config import load_config
from medseg.core.run import Run
from medseg.data.audit import must_fix, summary, table
from medseg.data.cohort import Cohort
from medseg.learning.settings import Training
from medseg.workflows.journey import Ingested, ingest_all, make_plan, reopen
from medseg.workflows.outcome import Outcome
from medseg.workflows.settings import TrainSettings

log = logging.getLogger("medseg")


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
) -> Outcome:
    """``medseg plan DIR [key=value]``: choices with their reasons; `key` is a choice or a budget."""
    from medseg.learning.devices import hardware
    from medseg.learning.estimate import expect
    from medseg.workflows.pacing import said

    raw = _there_or_ingested(folder, opened, run)
    given = load_config(TrainSettings, None, [f"plan.{text}" for text in overrides]).plan
    chosen = make_plan(run, raw, **{"device": hardware(device), **given})
    cost = expect(chosen, len(raw), Training(budget_minutes=given.get("budget_minutes")), device)
    lines = [f"{name:<18} {getattr(chosen, name)}\n{'':<18} {why}" for name, why in chosen.why.items()]
    expected = "\n".join(
        f"{name:<18} {text}" for name, text in zip(("expected", "", ""), said(cost), strict=True)
    )
    text = "\n".join([*lines, expected, "", f"written to {run.root / 'plan.yaml'}"])
    told = chosen.model_dump(mode="json") | {"expected": cost.model_dump(mode="json")}
    return Outcome(told, text, 3 if run.failures else 0)


def _there_or_ingested(folder: str | Path, opened: Callable[[], Cohort], run: Run) -> Ingested:
    if (Path(folder) / "cohort.json").is_file():
        run.root = Path(folder)
        return reopen(folder)
    return ingest_all(run, opened())
