"""``ingest.csv``: what was found, and what became of it."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from pathlib import Path

from medseg.core.files import write_text
from medseg.data.cohort import Case, Cohort

COLUMNS = ("series", "case", "status", "reason")


def write_ingest_table(file: Path, cohort: Cohort, failures: Mapping[str, str]) -> None:
    """Write one row a series found: ``series,case,status,reason``, status taken, skipped or refused.

    Parameters
    ----------
    file : Path
    cohort : Cohort
    failures : mapping of case id to str
        Public messages of the cases that the ingest stage refused.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([harmless(cell) for cell in row] for row in ingest_rows(cohort, failures))
    write_text(file, text.getvalue())


def ingest_rows(cohort: Cohort, failures: Mapping[str, str]) -> Iterator[tuple[str, str, str, str]]:
    """The rows of the table: cases first, then what discovery left out."""
    for case in cohort.cases:
        reason = _one_line(failures.get(case.id, "").removeprefix(f"case {case.id}: "))
        for series in _series(case):
            yield series, case.id, "refused" if reason else "taken", reason
    for row in cohort.refused:
        yield row.series, row.case or "", row.status, _one_line(row.reason)


def _series(case: Case) -> list[str]:
    """A name for each file or series of a case: its id, with the channel when there are several files."""
    files = {source.sha256 for source in case.images.values()}
    return [case.id] if len(files) == 1 else [f"{case.id}:{channel}" for channel in case.images]


def _one_line(text: str) -> str:
    return "; ".join(part.strip() for part in text.splitlines() if part.strip())


def harmless(cell: str) -> str:
    """A cell that a spreadsheet does not take for a formula."""
    return f"'{cell}" if cell.startswith(("=", "+", "-", "@", "\t")) else cell
