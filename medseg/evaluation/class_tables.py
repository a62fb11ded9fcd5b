"""Two tables of classes (CSV), matched by case: predictions and references of a classification."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from medseg.core.errors import MedsegError
from medseg.core.run import Failure
from medseg.evaluation.classification import class_rows
from medseg.evaluation.policy import Scoring

if TYPE_CHECKING:
    from medseg.evaluation.scoring import Scores

ASIDE = ("class", "patient")
"""Columns that are no probability."""
Table = dict[str, dict[str, str]]


def evaluate_tables(
    pred: Path, ref: Path, out: Path, scoring: Scoring, patients: Mapping[str, str] | None = None
) -> tuple[Scores, list[Failure], Path]:
    """Score a table of predicted classes or probabilities against a table of references, matched by case.

    Parameters
    ----------
    pred : path
        ``case,<class>,<class>...`` with probabilities, or ``case,class``.
    ref : path
        ``case,class``, or, where a case may have several classes, ``case,<class>,<class>...`` with 0 and 1.
        A column ``patient`` is used when `patients` is not given.
    """
    from medseg.evaluation.evaluate import write_results
    from medseg.evaluation.scoring import Scores

    references = read_table(ref)
    several = bool(references) and "class" not in next(iter(references.values()))
    if several:
        scoring = scoring.but(classes=scoring.classes.but(several=True))
    truth = {case: _truth(cells, case, several) for case, cells in references.items()}
    predicted = {case: _probabilities(cells, case) for case, cells in read_table(pred).items()}
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
    scores = Scores(rows, scoring, facts={"notes": notes})
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
        return (cells["class"],)
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


def _probabilities(cells: Mapping[str, str], case: str) -> dict[str, float]:
    names = [name for name in cells if name not in ASIDE]
    if not names:
        return {cells["class"]: 1.0}
    try:
        return {name: float(cells[name]) for name in names}
    except (TypeError, ValueError) as error:
        raise MedsegError("a probability is not a number", case=case, evidence=str(error)) from error


def _problem(case: str, said: str) -> Failure:
    return Failure("evaluate", case, f"case {case}: {said}", f"case {case}: {said}")
