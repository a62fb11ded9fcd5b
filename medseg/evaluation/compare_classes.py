"""Two classifications of the same cases: areas under the ROC curve by DeLong, accuracy by McNemar."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.core.errors import MedsegError
from medseg.evaluation.areas import auroc_difference, auroc_influence, auroc_interval
from medseg.evaluation.classification import ClassTable
from medseg.evaluation.paired import paired_difference
from medseg.evaluation.pairs import Row
from medseg.evaluation.policy import Scoring
from medseg.evaluation.statistics import patient_numbers, standard_error, z_of


@dataclass(frozen=True, eq=False)
class _Pair:
    """Two tables on the cases both have predicted, in one order."""

    classes: tuple[str, ...]
    patients: list[str]
    truth: NDArray[np.bool_]
    probabilities: tuple[NDArray[np.float64], NDArray[np.float64]]
    right: tuple[NDArray[np.bool_], NDArray[np.bool_]]


def class_differences(a: Sequence[Row], b: Sequence[Row], scoring: Scoring) -> list[dict[str, Any]]:
    """A row for the AUROC of each class and one for the accuracy, on the cases both have predicted.

    Raises
    ------
    MedsegError
        The tables do not have the same classes, or disagree on the class of a case.
    """
    pair = _paired(a, b, scoring)
    if not pair.patients:
        return []
    first, second = pair.probabilities
    areas = [
        _area(name, pair.truth[:, j], first[:, j], second[:, j], pair.patients, scoring.confidence)
        for j, name in enumerate(pair.classes)
    ]
    return [*(cell for cell in areas if cell), _accuracy(*pair.right, pair.patients, scoring)]


def mean_area_difference(a: Sequence[Row], b: Sequence[Row], scoring: Scoring) -> dict[str, Any] | None:
    """Mean over classes of the AUROC of B less that of A, with a normal interval over patients.

    None where no class has both cases and others, or with fewer than two patients.
    """
    pair = _paired(a, b, scoring)
    gaps = []
    for truth, first, second in zip(pair.truth.T, *(p.T for p in pair.probabilities), strict=True):
        one, other = (auroc_influence(truth, score) for score in (first, second))
        if one is not None and other is not None:
            value = auroc_difference(truth, first, second, scoring.confidence, pair.patients)[0]
            gaps.append((value, other - one))
    if not gaps or len(set(pair.patients)) < 2:
        return None
    values, influences = zip(*gaps, strict=True)
    each = np.bincount(patient_numbers(pair.patients), np.mean(influences, axis=0)).astype(float)
    middle, half = float(np.mean(values)), z_of((1 + scoring.confidence) / 2) * standard_error(each)
    n, patients = len(pair.patients), len(set(pair.patients))
    return {"difference": middle, "ci": [middle - half, middle + half], "n": n, "patients": patients}


def _paired(a: Sequence[Row], b: Sequence[Row], scoring: Scoring) -> _Pair:
    first, second = (ClassTable.of(rows, scoring.classes) for rows in (a, b))
    if first.classes != second.classes:
        raise MedsegError(
            "the two tables do not have the same classes",
            evidence=f"A: {', '.join(first.classes)}; B: {', '.join(second.classes)}",
        )
    there = {case: i for i, case in enumerate(second.cases) if second.predicted[i]}
    mine = [i for i, case in enumerate(first.cases) if first.predicted[i] and case in there]
    theirs = [there[first.cases[i]] for i in mine]
    if (first.truth[mine] != second.truth[theirs]).any():
        i = int(np.flatnonzero((first.truth[mine] != second.truth[theirs]).any(axis=1))[0])
        raise MedsegError("the two tables disagree on the class of a case", case=first.cases[mine[i]])
    right, also = ((t.called(scoring.classes) == t.truth).all(axis=1) for t in (first, second))
    return _Pair(
        tuple(first.classes),
        [first.patients[i] for i in mine],
        first.truth[mine],
        (first.probabilities[mine], second.probabilities[theirs]),
        (right[mine], also[theirs]),
    )


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
