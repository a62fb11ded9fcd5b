"""Two classifications of the same cases: areas under the ROC curve by DeLong, accuracy by McNemar."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from medseg.core.errors import MedsegError
from medseg.evaluation.areas import auroc_difference, auroc_interval
from medseg.evaluation.classification import ClassTable
from medseg.evaluation.paired import paired_difference
from medseg.evaluation.pairs import Row
from medseg.evaluation.policy import Scoring


def class_differences(a: Sequence[Row], b: Sequence[Row], scoring: Scoring) -> list[dict[str, Any]]:
    """A row for the AUROC of each class and one for the accuracy, on the cases both have predicted.

    Raises
    ------
    MedsegError
        The tables do not have the same classes, or disagree on the class of a case.
    """
    first, second = (ClassTable.of(rows, scoring.classes) for rows in (a, b))
    if first.classes != second.classes:
        raise MedsegError(
            "the two tables do not have the same classes",
            evidence=f"A: {', '.join(first.classes)}; B: {', '.join(second.classes)}",
        )
    there = {case: i for i, case in enumerate(second.cases) if second.predicted[i]}
    mine = [i for i, case in enumerate(first.cases) if first.predicted[i] and case in there]
    theirs = [there[first.cases[i]] for i in mine]
    if not mine:
        return []
    if (first.truth[mine] != second.truth[theirs]).any():
        i = int(np.flatnonzero((first.truth[mine] != second.truth[theirs]).any(axis=1))[0])
        raise MedsegError("the two tables disagree on the class of a case", case=first.cases[mine[i]])
    patients = [first.patients[i] for i in mine]
    areas = [
        _area(name, first.truth[mine, j], first.probabilities[mine, j], second.probabilities[theirs, j],
              patients, scoring.confidence)
        for j, name in enumerate(first.classes)
    ]  # fmt: skip
    right, also = ((t.called(scoring.classes) == t.truth).all(axis=1) for t in (first, second))
    return [*(cell for cell in areas if cell), _accuracy(right[mine], also[theirs], patients, scoring)]


def mcnemar(only_first: int, only_second: int) -> float:
    """Exact two-sided McNemar test of two counts of discordant cases; 1.0 when there are none.

    >>> round(mcnemar(1, 9), 4)
    0.0215
    """
    from scipy.stats import binom

    n = only_first + only_second
    return min(1.0, 2 * float(binom.cdf(min(only_first, only_second), n, 0.5))) if n else 1.0


def _area(
    name: str,
    truth: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    patients: Sequence[str],
    confidence: float,
) -> dict[str, Any] | None:
    difference, interval, p = auroc_difference(truth, first, second, confidence, patients)
    if difference is None:
        return None
    means = [auroc_interval(truth, score, confidence, patients)[0] for score in (first, second)]
    cell = _head(name, "auroc", truth.size, patients) | {"mean_a": means[0], "mean_b": means[1]}
    return cell | {
        "difference": difference,
        "ci": interval.limits,
        "ci_method": interval.method,
        "note": interval.note,
        "p": p,
        "test": "DeLong",
    }


def _accuracy(
    first: np.ndarray, second: np.ndarray, patients: Sequence[str], scoring: Scoring
) -> dict[str, Any]:
    how = {"confidence": scoring.confidence, "repeats": scoring.repeats, "seed": scoring.seed}
    found = paired_difference(first.astype(float), second.astype(float), patients, **how)
    single = len(set(patients)) == len(patients)
    cell = _head("all classes", "accuracy", first.size, patients)
    return cell | {
        "mean_a": float(first.mean()),
        "mean_b": float(second.mean()),
        "difference": found.mean,
        "ci": found.interval.limits,
        "ci_method": found.interval.method,
        "note": found.interval.note,
        "p": mcnemar(found.losses, found.wins) if single else found.p,
        "test": "McNemar, exact" if single else f"Wilcoxon over patients, {found.test}",
        "b_better": found.wins,
        "ties": found.ties,
        "a_better": found.losses,
    }


def _head(label: str, metric: str, n: int, patients: Sequence[str]) -> dict[str, Any]:
    return {"label": label, "metric": metric, "n": n, "patients": len(set(patients)), "unit": ""}
