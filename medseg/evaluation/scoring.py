"""Scores: the tidy rows of a study, as a table, a summary, a list of the worst."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np

from medseg.core.errors import MedsegError
from medseg.core.files import write_text
from medseg.evaluation.metrics import metric_of
from medseg.evaluation.pairs import COLUMNS, Row, invalid_rows, score_pair
from medseg.evaluation.policy import STATUSES, Scoring

__all__ = ["Scores", "invalid_rows", "read_rows", "rows_to_csv", "score_pair", "sorted_rows"]


@dataclass
class Scores:
    """Tidy rows of a study and the choices behind them; `models` is filled by the workflow that trained them.

    >>> row = dict(case="a", patient="p", label="kidney", metric="dice", value=0.9, unit="", status="ok")
    >>> scores = Scores([row])
    >>> scores.worst(1)[0]["case"]
    'a'
    """

    rows: list[Row]
    scoring: Scoring = field(default_factory=Scoring)
    models: list[Any] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_csv(cls, file: str | Path, scoring: Scoring | None = None) -> Scores:
        """Read a scores.csv.

        Raises
        ------
        MedsegError
            Missing file, other columns, or a value that is not a number.
        """
        return cls(read_rows(Path(file)), scoring or Scoring())

    def to_csv(self, file: str | Path) -> None:
        """Write scores.csv: `COLUMNS`, one value a row, nine significant digits, empty where undefined."""
        write_text(Path(file), rows_to_csv(self.rows))

    def summary(self) -> dict[str, Any]:
        """Per label and metric: n, n by status, mean with interval, sd, median, IQR, extremes, worst case."""
        from medseg.evaluation.summary import summarise

        return summarise(self.rows, self.scoring, self.facts)

    def worst(self, n: int = 5, metric: str = "dice") -> list[Row]:
        """The n worst cases by their mean over labels, worst first; cases without a value are left out.

        Returns
        -------
        list of dict
            case, patient, value (mean over labels), label (the worst one), status (of that label).
        """
        sign = -1.0 if metric_of(metric).better == "low" else 1.0
        by_case: dict[str, list[Row]] = {}
        for row in self.rows:
            if row["metric"] == metric and row["value"] is not None:
                by_case.setdefault(row["case"], []).append(row)
        cases = [_worst_of(rows, sign) for rows in by_case.values()]
        return sorted(cases, key=lambda c: (sign * c["value"], c["case"]))[:n]

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        cases = len({row["case"] for row in self.rows})
        means = {
            label: np.mean([r["value"] for r in self.rows if _is(r, label, "dice")] or [math.nan])
            for label in dict.fromkeys(row["label"] for row in self.rows)
        }
        shown = ", ".join(f"{label} {mean:.3f}" for label, mean in means.items())
        return f"Scores({cases} cases; mean Dice: {shown})"


def rows_to_csv(rows: Iterable[Row], columns: Sequence[str] = COLUMNS) -> str:
    """scores.csv as text; cells that a spreadsheet would run as a formula get a leading apostrophe."""
    out = StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        value = "" if row["value"] is None else f"{row['value']:.9g}"
        words = {c: safe_cell(str(row[c])) for c in columns if c != "value"}
        writer.writerow([value if c == "value" else words[c] for c in columns])
    return out.getvalue()


def read_rows(file: Path) -> list[Row]:
    """The rows of a scores.csv."""
    try:
        with file.open(encoding="utf-8", newline="") as stream:
            reader = csv.DictReader(stream)
            if tuple(reader.fieldnames or ()) != COLUMNS:
                raise MedsegError(
                    "this is not a table of scores",
                    file=str(file),
                    evidence=f"columns {', '.join(reader.fieldnames or ['none'])}",
                    mend=f"the columns must be {','.join(COLUMNS)}",
                )
            return [_parsed(row, file) for row in reader]
    except OSError as error:
        raise MedsegError(
            "the table of scores cannot be read", file=str(file), evidence=error.strerror
        ) from error


def sorted_rows(rows: Iterable[Row]) -> list[Row]:
    """Rows by case name, the order of labels and metrics kept: blind to the order cases were made in."""
    return sorted(rows, key=lambda row: row["case"])


def _worst_of(rows: Sequence[Row], sign: float) -> Row:
    worst = min(rows, key=lambda row: sign * row["value"])
    mean = float(np.mean([row["value"] for row in rows]))
    kept = {key: worst[key] for key in ("case", "patient", "label", "status")}
    return kept | {"value": mean}


def _is(row: Mapping[str, Any], label: str, metric: str) -> bool:
    return row["label"] == label and row["metric"] == metric and row["value"] is not None


_RISKY = ("=", "+", "-", "@", "\t", "\r")


def safe_cell(cell: str) -> str:
    """A cell that a spreadsheet does not take for a formula."""
    return "'" + cell if cell.startswith(_RISKY) else cell


def _plain(cell: str) -> str:
    return cell[1:] if cell.startswith("'") and cell[1:].startswith(_RISKY) else cell


def _parsed(row: Mapping[str, str], file: Path) -> Row:
    try:
        value = float(row["value"]) if row["value"] else None
    except ValueError as error:
        raise MedsegError("a value is not a number", file=str(file), evidence=str(error)) from error
    if row["status"] not in STATUSES:
        raise MedsegError(
            "unknown status in the table of scores", file=str(file), evidence=str(row["status"])
        )
    return {c: value if c == "value" else _plain(row[c]) for c in COLUMNS}
