"""What a reader marked in a report, for the next run: cases to leave out, and cases to be corrected."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from medseg.core.errors import MedsegError
from medseg.core.values import Value, validated
from medseg.data.cohort import Cohort, Refusal

log = logging.getLogger("medseg")

Marks = dict[str, Literal["pass", "fail", "fix"]]
"""Case -> ``pass`` (kept), ``fail`` (left out) or ``fix`` (kept, and listed as waiting for a correction)."""
EXCLUDED = "excluded by review"


class _Mark(Value):
    case: str
    mark: Literal["pass", "fail", "fix", "none"] = "none"
    note: str = ""


class _Marks(Value):
    format: Literal["medseg-marks"]
    version: Literal[1]
    report: str = ""
    marks: tuple[_Mark, ...] = Field(default=())


def read_marks(file: str | Path) -> Marks:
    """The marks of a file that the report saved; notes stay in the file.

    Raises
    ------
    MedsegError
        No such file, no marks in it, or a case marked twice.
    """
    import yaml

    try:
        said = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise MedsegError(
            "the marks cannot be read", file=str(file), mend="give the marks.yaml that a report saved"
        ) from error
    found = validated(_Marks, said if isinstance(said, Mapping) else {})
    names = [one.case for one in found.marks]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise MedsegError("a case is marked twice", file=str(file), evidence=", ".join(twice[:5]))
    return {one.case: one.mark for one in found.marks if one.mark != "none"}


def given_marks(given: Any) -> Any:
    """Marks written in place, or the path of a file of them: what they say counts, not where they lie."""
    return read_marks(given) if isinstance(given, str) and given else given or {}


def reviewed(cohort: Cohort, marks: Mapping[str, str]) -> Cohort:
    """The cohort without the cases marked ``fail``: each is a row ``excluded by review`` in the table.

    Cases marked ``fix`` stay and are named in the log.

    Raises
    ------
    MedsegError
        There are marks, and none is of a case of this cohort.
    """
    if not marks:
        return cohort
    known = {case.id for case in cohort.cases} | {r.case for r in cohort.refused}
    if not known & set(marks):
        raise MedsegError(
            "the marks name no case of this cohort",
            evidence=f"marked: {', '.join(sorted(marks)[:3])} ...",
            mend="take the marks of a report on these cases; ids=names keeps the names of files",
        )
    out = [case.id for case in cohort.cases if marks.get(case.id) == "fail"]
    waiting = [case.id for case in cohort.cases if marks.get(case.id) == "fix"]
    if waiting:
        log.warning("%d case(s) wait for a correction: %s", len(waiting), ", ".join(waiting))
    rows = tuple(Refusal(series=name, case=name, status="skipped", reason=EXCLUDED) for name in out)
    kept = cohort.subset([case.id for case in cohort.cases if case.id not in set(out)])
    return kept.but(refused=(*cohort.refused, *rows))
