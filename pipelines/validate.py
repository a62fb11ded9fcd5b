"""A model on a cohort it has never seen: predict, score, report, and PASS or FAIL.

    python pipelines/validate.py configs/validation/default.yaml model=models/liver cohort.root=site_b

Reads   a model folder; a cohort with references
Writes  RUN/{ingest,predict,postprocess,score,report}, scores.csv, summary.json, acceptance.json
"""

from __future__ import annotations

import sys

from medseg import workflows as flow
from medseg.cli import launch
from medseg.core.run import Run
from medseg.workflows.acceptance import Acceptance
from medseg.workflows.outcome import Outcome
from medseg.workflows.settings import CohortSettings


class Settings(Acceptance):
    """Acceptance criteria, and the model and cohort they are for."""

    model: str
    cohort: CohortSettings


def main(settings: Settings, run: Run, device: str) -> Outcome:
    """Judge the model; exit code 1 when a criterion fails."""
    cohort = flow.open_cohort(settings.cohort, quiet=run.quiet)
    return flow.validate(settings.model, cohort, run, accept=settings.accept, device=device)


if __name__ == "__main__":
    sys.exit(launch(main, Settings))
