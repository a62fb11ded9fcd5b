"""Images as they come (DICOM, NIfTI, PNG; any layout) -> one folder a case, checked and de-identified.

    python pipelines/ingest.py cohort.root=../shared/data/hippocampus --run runs/hippocampus

Reads   the folder, file or manifest `cohort.root`
Writes  RUN/ingest/<case>/{image.nii.gz, reference.nii.gz, source.json}, cohort.json, ingest.csv, audit.json
"""

from __future__ import annotations

import sys

from medseg.cli import launch
from medseg.core.run import Run
from medseg.workflows.journey import ingest_all
from medseg.workflows.looking import audit_cases
from medseg.workflows.opening import open_cohort
from medseg.workflows.outcome import Outcome, named_failures
from medseg.workflows.settings import TrainSettings


def main(settings: TrainSettings, run: Run, device: str) -> Outcome:
    """Ingest and look: what was taken, what was refused and why, what is unusual."""
    cohort = open_cohort(settings.cohort, settings.task, run.quiet)
    raw = ingest_all(run, cohort, settings.ingest)
    findings = audit_cases(run, raw)
    text = f"{len(raw)} cases in {run.root / 'ingest'}\n{findings.text}"
    return Outcome(findings.summary, text + named_failures(run), 3 if run.failures else findings.exit_code)


if __name__ == "__main__":
    sys.exit(launch(main, TrainSettings))
