"""Scores of classification: which class, how sure; the rows of cases and the table they make."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medseg.core.errors import MedsegError
from medseg.evaluation.pairs import Row
from medseg.evaluation.policy import ClassRule

Floats = NDArray[np.float64]
Bool = NDArray[np.bool_]


def class_rows(
    case: str,
    patient: str,
    probabilities: Mapping[str, float] | None,
    truth: str | Collection[str],
    classes: Sequence[str],
) -> list[Row]:
    """Rows of one case: for each class its ``probability`` and whether it is the ``truth`` (1 or 0).

    Without a prediction the probabilities have no value and status ``not_predicted``. The truth is one class,
    or a collection of them (which may be empty) where a case may have several.

    Raises
    ------
    MedsegError
        A class that is not among `classes`.
    """
    true = (truth,) if isinstance(truth, str) else tuple(truth)
    strange = [c for c in (*true, *(probabilities or ())) if c not in classes]
    if strange:
        raise MedsegError(
            "a class that is not in the list",
            case=case,
            evidence=f"{strange[0]}; known: {', '.join(classes)}",
        )
    status = "ok" if probabilities is not None else "not_predicted"
    base = {"case": case, "patient": patient, "unit": "", "status": status}
    rows: list[Row] = []
    for name in classes:
        value = None if probabilities is None else float(probabilities.get(name, 0.0))
        rows.append(base | {"label": name, "metric": "probability", "value": value})
        rows.append(base | {"label": name, "metric": "truth", "value": float(name in true)})
    return rows


def is_classification(rows: Sequence[Row]) -> bool:
    """Whether rows are those of `class_rows`."""
    return any(row["metric"] == "probability" for row in rows)


@dataclass(frozen=True, eq=False)
class ClassTable:
    """The rows of a classification as arrays.

    Parameters
    ----------
    cases, patients : lists of str (n,)
    classes : list of str (c,)
    probabilities : array (n, c)
        NaN where there is no prediction.
    truth : bool array (n, c)
    several : bool
        Whether a case may have several classes, or none.
    """

    cases: list[str]
    patients: list[str]
    classes: list[str]
    probabilities: Floats
    truth: Bool
    several: bool

    @classmethod
    def of(cls, rows: Sequence[Row], rule: ClassRule | None = None) -> ClassTable:
        """From the rows of `class_rows`."""
        classes = list(dict.fromkeys(row["label"] for row in rows))
        patients = {row["case"]: row["patient"] for row in rows}
        at_case, at_class = ({name: i for i, name in enumerate(x)} for x in (patients, classes))
        probabilities = np.full((len(patients), len(classes)), np.nan)
        truth = np.zeros(probabilities.shape, bool)
        for row in rows:
            where = at_case[row["case"]], at_class[row["label"]]
            if row["metric"] == "probability" and row["value"] is not None:
                probabilities[where] = row["value"]
            if row["metric"] == "truth":
                truth[where] = row["value"] == 1
        asked = rule.several if rule else None
        several = bool((truth.sum(axis=1) != 1).any()) if asked is None else asked
        return cls(list(patients), list(patients.values()), classes, probabilities, truth, several)

    @property
    def predicted(self) -> Bool:
        """Which cases have a prediction, array (n,)."""
        return np.asarray(np.isfinite(self.probabilities).all(axis=1))

    @property
    def are_probabilities(self) -> bool:
        """Whether the numbers lie from 0 to 1 and are not all 0 or 1."""
        known = self.probabilities[self.predicted]
        inside = bool(((known >= 0) & (known <= 1)).all())
        return inside and bool(((known > 0) & (known < 1)).any())

    def most_probable(self) -> NDArray[np.int64]:
        """Most probable class of each case, the first of equals; -1 where there is no prediction."""
        return np.where(self.predicted, np.argmax(np.nan_to_num(self.probabilities, nan=-1.0), axis=1), -1)

    def called(self, rule: ClassRule) -> Bool:
        """Which classes are called for each case, array (n, c); none where there is no prediction.

        Each class by its threshold, or the most probable class. Of two classes that exclude each other the
        threshold decides between them; a threshold for both is that of the last class.
        """
        known = np.nan_to_num(self.probabilities, nan=-np.inf)
        best = self.most_probable()[:, None] == np.arange(len(self.classes))
        found = np.zeros(self.truth.shape, bool)
        for j in range(len(self.classes)):
            limit = self.threshold(j, rule)
            found[:, j] = best[:, j] if limit is None else known[:, j] >= limit
        if (j := self._decided_by(rule)) is not None:
            found[:, 1 - j] = self.predicted & ~found[:, j]
        return found

    def threshold(self, j: int, rule: ClassRule) -> float | None:
        """The threshold of a class; None where the most probable class is called, or the other decides."""
        limit = rule.threshold_of(self.classes[j])
        if self.several:
            return 0.5 if limit is None else limit
        decided_by = self._decided_by(rule)
        return limit if decided_by is None or decided_by == j else None

    def _decided_by(self, rule: ClassRule) -> int | None:
        """Of two classes that exclude each other, the one whose threshold decides."""
        if self.several or len(self.classes) != 2:
            return None
        named = [j for j, name in enumerate(self.classes) if name in rule.thresholds]
        if named:
            return named[-1]
        return 1 if rule.threshold is not None else None


def confusion(table: ClassTable, called: Bool) -> NDArray[np.int64]:
    """Counts (true class, called class); the last column is for cases without a prediction.

    For classes that exclude each other. With thresholds for three classes and more (several or none may be
    called) it is the most probable class.
    """
    n = len(table.classes)
    chosen = np.argmax(called, axis=1) if n == 2 else table.most_probable()
    counts = np.zeros((n, n + 1), np.int64)
    np.add.at(counts, (np.argmax(table.truth, axis=1), np.where(table.predicted, chosen, n)), 1)
    return counts


def confusion_by_class(table: ClassTable, called: Bool) -> NDArray[np.int64]:
    """For each class: found, missed, wrongly called, rightly not called, not predicted; array (c, 5).

    The last column counts cases of the class without a prediction; the others are over predicted cases.
    """
    known = table.predicted[:, None]
    sides = [table.truth & called, table.truth & ~called, ~table.truth & called, ~table.truth & ~called]
    counts = [np.sum(side & known, axis=0) for side in sides]
    return np.stack([*counts, np.sum(table.truth & ~known, axis=0)], axis=1)
