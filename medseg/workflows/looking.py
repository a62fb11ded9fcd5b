"""Looking before leaping: what is wrong in a cohort, and what a plan for it would be."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from medseg.core.config import load_config
from medseg.core.files import write_json
from medseg.core.run import Run
from medseg.data.audit import audit as find_faults
from medseg.data.audit import must_fix, table
from medseg.data.cohort import Cohort
from medseg.workflows.journey import Ingested, ingest_all, make_plan, reopen
from medseg.workflows.outcome import Outcome, named_failures
from medseg.workflows.settings import TrainSettings


def audit_cases(run: Run, raw: Ingested) -> Outcome:
    """Findings over ingested cases, worst first; written to ``audit.json``. Exit code 3 when one must be fixed."""
    findings = find_faults(dict(raw.artifacts), raw.cohort)
    rows = [finding.model_dump(mode="json") for finding in findings]
    run.lock()
    write_json(run.root / "audit.json", {"findings": rows})
    return Outcome({"findings": rows}, table(findings), 3 if must_fix(findings) else 0)


def audit(folder: str | Path, opened: Callable[[], Cohort], run: Run) -> Outcome:
    """``medseg audit DIR``: of a run folder that was ingested, or of a data set (ingested first)."""
    raw = _there_or_ingested(folder, opened, run)
    found = audit_cases(run, raw)
    code = 3 if run.failures or any(r.status == "refused" for r in raw.cohort.refused) else found.exit_code
    refused = [f"refused: {r.case or r.series}: {r.reason}" for r in raw.cohort.refused if r.status == "refused"]
    return Outcome(found.summary, "\n".join([found.text, *refused]) + named_failures(run), code)


def plan(folder: str | Path, opened: Callable[[], Cohort], run: Run, overrides: Sequence[str] = ()) -> Outcome:
    """``medseg plan DIR [key=value]``: choices with their reasons; `key` is a choice or a budget."""
    raw = _there_or_ingested(folder, opened, run)
    given = load_config(TrainSettings, None, [f"plan.{text}" for text in overrides])
    chosen = make_plan(run, raw, **given.plan)
    lines = [f"{name:<18} {getattr(chosen, name)}\n{'':<18} {why}" for name, why in chosen.why.items()]
    text = "\n".join([*lines, "", f"written to {run.root / 'plan.yaml'}"])
    return Outcome(chosen.model_dump(mode="json"), text, 3 if run.failures else 0)


def _there_or_ingested(folder: str | Path, opened: Callable[[], Cohort], run: Run) -> Ingested:
    if (Path(folder) / "cohort.json").is_file():
        run.root = Path(folder)
        return reopen(folder)
    return ingest_all(run, opened())
