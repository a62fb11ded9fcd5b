"""Two tables of classes (CSV), matched by case: predictions and references of a classification."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medseg.core.errors import MedsegError
from medseg.core.run import Failure
from medseg.data.classes import SEVERAL, classes_of, several_classes
from medseg.data.review import EXCLUDED
from medseg.evaluation.classification import class_rows
from medseg.evaluation.policy import Scoring

if TYPE_CHECKING:
    from medseg.evaluation.scoring import Scores

ASIDE = ("class", "patient")
"""Columns that are no probability."""
Table = dict[str, dict[str, str]]


def evaluate_tables(
    pred: Path,
    ref: Path,
    out: Path,
    scoring: Scoring,
    patients: Mapping[str, str] | None = None,
    groups: Mapping[str, Mapping[str, Any]] | None = None,
    marks: Mapping[str, str] | str | Path | None = None,
) -> tuple[Scores, list[Failure], Path]:
    """Score a table of predicted classes or probabilities against a table of references, matched by case.

    Parameters
    ----------
    pred : path
        ``case,<class>,<class>...`` with probabilities, or ``case,class``.
    ref : path
        ``case,class`` (``a;b`` where a case has several, ``;`` for none), or ``case,<class>,<class>...`` with
        0 and 1 where a case may have several.
        A column ``patient`` is used when `patients` is not given.
    groups : mapping, optional
        Case -> column -> value: for subgroups.
    marks : mapping or path, optional
        Cases marked ``fail`` are left out.
    """
    from medseg.evaluation.beside import marked_out, without
    from medseg.evaluation.evaluate import write_results
    from medseg.evaluation.scoring import Scores

    references, answers = read_table(ref), read_table(pred)
    excluded = marked_out(marks, references)
    references, answers = (without(table, excluded) for table in (references, answers))
    several = bool(references) and "class" not in next(iter(references.values()))
    if several or several_classes(cells["class"] for cells in references.values()):
        scoring = scoring.but(classes=scoring.classes.but(several=True))
    truth = {case: _truth(cells, case, several) for case, cells in references.items()}
    predicted = {case: probabilities_of(cells, case) for case, cells in answers.items()}
    classes = _classes(references, truth, predicted, several)
    who = {case: cells["patient"] for case, cells in references.items() if cells.get("patient")}
    who |= patients or {}
    rows = [
        row
        for case, names in truth.items()
        for row in class_rows(case, who.get(case, case), predicted.get(case), names, classes)
    ]
    failures = [
        _problem(c, "there is no prediction; it counts as wrong") for c in truth if c not in predicted
    ]
    extra = sorted(set(predicted) - set(truth))
    failures += [_problem(c, "a prediction without a reference; it is not measured") for c in extra]
    notes = [f"{len(extra)} prediction(s) without a reference: {', '.join(extra)}"] if extra else []
    notes += _odd(predicted, several=bool(scoring.classes.several))
    facts = {"groups": dict(groups) if groups else {}, EXCLUDED: excluded}
    scores = Scores(rows, scoring, facts={"notes": notes, **{k: v for k, v in facts.items() if v}})
    return scores, failures, write_results(out, scores, failures, (), [])


def read_table(file: Path) -> Table:
    """Rows of a CSV by its ``case`` column.

    Raises
    ------
    MedsegError
        Missing file or column, or a case given twice.
    """
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            rows = list(csv.DictReader(stream))
    except OSError as error:
        raise MedsegError(
            "the class table cannot be read", file=str(file), evidence=error.strerror
        ) from error
    columns = list(rows[0]) if rows else []
    if "case" not in columns or len(columns) < 2:
        raise MedsegError(
            "the class table needs a column 'case' and one more",
            file=str(file),
            evidence=f"columns: {', '.join(columns) or 'none'}",
        )
    table = {row["case"]: {k: v for k, v in row.items() if k != "case"} for row in rows}
    if len(table) < len(rows):
        raise MedsegError("a case is given twice in the class table", file=str(file))
    return table


def _classes(
    references: Table, truth: Mapping[str, tuple[str, ...]], predicted: Mapping[str, dict], several: bool
) -> list[str]:
    """All classes by name; those that only a column names among them."""
    columns = set(next(iter(references.values()))) - set(ASIDE) if several else set()
    named = {name for cells in predicted.values() for name in cells}
    return sorted({name for names in truth.values() for name in names} | columns | named)


def _truth(cells: Mapping[str, str], case: str, several: bool) -> tuple[str, ...]:
    if not several:
        return classes_of(cells["class"]) if SEVERAL in cells["class"] else (cells["class"],)
    flags = {name: (text or "").strip() for name, text in cells.items() if name not in ASIDE}
    wrong = [name for name, text in flags.items() if text not in ("0", "1")]
    if wrong:
        raise MedsegError(
            "a reference with a column for each class holds 0 and 1",
            case=case,
            evidence=f"{wrong[0]}: '{flags[wrong[0]]}'",
            mend="or give one column 'class' with the name of the class",
        )
    return tuple(name for name, text in flags.items() if text == "1")


def probabilities_of(cells: Mapping[str, str], case: str) -> dict[str, float]:
    """The number a row gives to each class; 1 for the class that a column ``class`` names.

    Raises
    ------
    MedsegError
        Something that is no number.
    """
    names = [name for name in cells if name not in ASIDE]
    if not names:
        return {cells["class"]: 1.0}
    try:
        found = {name: float(cells[name]) for name in names}
        if not all(math.isfinite(value) for value in found.values()):
            raise ValueError("nan or infinite")
        return found
    except (TypeError, ValueError) as error:
        raise MedsegError("a probability is not a number", case=case, evidence=str(error)) from error


def _odd(predicted: Mapping[str, Mapping[str, float]], *, several: bool) -> list[str]:
    """A sentence for numbers that can be no probabilities."""
    outside = [case for case, cells in predicted.items() if any(not 0 <= p <= 1 for p in cells.values())]
    sums = {case: sum(cells.values()) for case, cells in predicted.items() if len(cells) > 1}
    apart = [] if several or outside else [case for case, total in sums.items() if abs(total - 1) > 0.01]
    said = []
    if outside:
        said.append(
            f"{len(outside)} case(s) with numbers outside 0 to 1, such as {outside[0]}: they are scores "
            "and no probabilities; areas are measured, calibration is not"
        )
    if apart:
        said.append(
            f"{len(apart)} case(s) whose probabilities do not add up to 1, such as {apart[0]} "
            f"({sums[apart[0]]:.3g}): calibration is that of the numbers as they stand"
        )
    return said


def _problem(case: str, said: str) -> Failure:
    return Failure("evaluate", case, f"case {case}: {said}", f"case {case}: {said}")
