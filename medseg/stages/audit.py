"""Stage ``audit``: all ingested cases -> what is wrong or unusual among them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from medseg.core.files import read_json, write_json
from medseg.core.stage import Artifact, stage
from medseg.data.audit import Finding
from medseg.data.audit import audit as find_faults
from medseg.data.cohort import Cohort


@stage(version=1)
def audit(item: Mapping[str, Artifact], *, cohort: Cohort, failures: Mapping[str, str], out: Path) -> None:
    """Write ``audit.json``: a list of findings, those that must be fixed first.

    Parameters
    ----------
    item : mapping of case id to Artifact
        The ingested cases.
    cohort : Cohort
        What was found, with what was refused at discovery.
    failures : mapping of case id to str
        Public messages of the cases that ingest refused.
    """
    found = find_faults(item, cohort, failures, quiet=True)
    write_json(out / "audit.json", [finding.model_dump(mode="json") for finding in found])


def read_findings(audited: Artifact) -> list[Finding]:
    """The findings of an audit."""
    return [Finding.model_validate(row) for row in read_json(audited / "audit.json")]
