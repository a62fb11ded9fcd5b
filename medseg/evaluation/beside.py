"""What may stand beside two folders of masks: groups of cases, quality scores, more readers, marks."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar

from medseg.core.errors import MedsegError
from medseg.data.review import read_marks
from medseg.evaluation.class_tables import read_table
from medseg.evaluation.folders import find_masks

Groups = Mapping[str, Mapping[str, Any]]
T = TypeVar("T")


def read_groups(source: Groups | str | Path | None) -> dict[str, dict[str, Any]]:
    """Case -> column -> value, from a mapping, a CSV with a column ``case``, or a ``cohort.json``.

    Raises
    ------
    MedsegError
        A file that cannot be read as one of these.
    """
    if source is None:
        return {}
    if isinstance(source, Mapping):
        return {case: dict(cells) for case, cells in source.items()}
    file = Path(source)
    if file.suffix.lower() != ".json":
        return {case: {k: v for k, v in c.items() if k != "patient"} for case, c in read_table(file).items()}
    try:
        cases = json.loads(file.read_text(encoding="utf-8"))["cases"]
        return {case["id"]: dict(case.get("groups") or {}) for case in cases}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise MedsegError(
            "the groups cannot be read",
            file=str(file),
            evidence=type(error).__name__,
            mend="give a CSV with a column 'case', or a cohort.json",
        ) from error


def read_quality(source: Mapping[str, float] | str | Path | None) -> dict[str, float]:
    """Case -> quality score (higher is better), from a mapping or a CSV with ``case`` and ``quality``.

    Raises
    ------
    MedsegError
        No such column, or a score that is not a number.
    """
    if source is None or isinstance(source, Mapping):
        return dict(source or {})
    try:
        return {case: float(cells["quality"]) for case, cells in read_table(Path(source)).items()}
    except (KeyError, TypeError, ValueError) as error:
        raise MedsegError(
            "the quality scores cannot be read",
            file=str(source),
            evidence=str(error),
            mend="give a CSV with the columns 'case' and 'quality', a number in each",
        ) from error


def reader_files(readers: Mapping[str, str | Path] | None) -> dict[str, dict[str, Path]]:
    """Case -> reader -> mask file, for the folders of further readers.

    Raises
    ------
    MedsegError
        A reader called as the reference or the model are called, or a folder without masks.
    """
    found: dict[str, dict[str, Path]] = {}
    for name, folder in (readers or {}).items():
        if name in ("reference", "model"):
            raise MedsegError(f"a reader cannot be called '{name}'", mend="give the reader another name")
        for case, file in find_masks(Path(folder)).items():
            found.setdefault(case, {})[name] = file
    return found


def marked_out(marks: Mapping[str, str] | str | Path | None, cases: Collection[str]) -> list[str]:
    """The cases that a reader marked ``fail``, from a mapping or a ``marks.yaml``; sorted.

    Raises
    ------
    MedsegError
        Marks that cannot be read, or name none of the cases; or every case is marked ``fail``.
    """
    told = dict(marks) if isinstance(marks, Mapping) else read_marks(marks) if marks else {}
    if told and not set(told) & set(cases):
        raise MedsegError(
            "the marks name none of these cases",
            evidence=f"marked: {', '.join(sorted(told)[:3])}; cases: {', '.join(sorted(cases)[:3])}",
            mend="take the marks of a report on these cases",
        )
    found = sorted(case for case in cases if told.get(case) == "fail")
    if found and len(found) == len(cases):
        raise MedsegError("every case is marked fail: nothing is left to measure")
    return found


def without(files: Mapping[str, T], excluded: Collection[str]) -> dict[str, T]:
    """The files (or rows) of all other cases."""
    return {case: file for case, file in files.items() if case not in excluded}
