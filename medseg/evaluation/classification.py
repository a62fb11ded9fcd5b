"""Scores of classification: which class, how sure, and what that amounts to over cases."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medseg.core.errors import MedsegError
from medseg.core.run import Failure
from medseg.evaluation.areas import auroc_interval
from medseg.evaluation.metrics import CLASS_METRICS
from medseg.evaluation.pairs import Row
from medseg.evaluation.policy import STATUSES, Scoring
from medseg.evaluation.proportions import wilson
from medseg.evaluation.statistics import Interval

if TYPE_CHECKING:
    from medseg.evaluation.scoring import Scores

Floats = NDArray[np.float64]


def class_rows(
    case: str, patient: str, probabilities: Mapping[str, float] | None, truth: str, classes: Sequence[str]
) -> list[Row]:
    """Rows of one case: for each class its ``probability`` and whether it is the ``truth`` (1 or 0).

    Without a prediction the probabilities have no value and status ``not_predicted``.

    Raises
    ------
    MedsegError
        A class that is not among `classes`.
    """
    strange = [c for c in (truth, *(probabilities or ())) if c not in classes]
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
        rows.append(base | {"label": name, "metric": "truth", "value": float(name == truth)})
    return rows


def is_classification(rows: Sequence[Row]) -> bool:
    """Whether rows are those of `class_rows`."""
    return any(row["metric"] == "probability" for row in rows)


def class_table(rows: Sequence[Row]) -> tuple[list[str], list[str], Floats, NDArray[np.int64]]:
    """Patients, classes, probabilities (cases, classes; NaN unpredicted), true class index (cases,)."""
    classes = list(dict.fromkeys(row["label"] for row in rows))
    patients = {row["case"]: row["patient"] for row in rows}
    at = {case: i for i, case in enumerate(patients)}
    probabilities = np.full((len(at), len(classes)), np.nan)
    truth = np.zeros(len(at), np.int64)
    for row in rows:
        i, j = at[row["case"]], classes.index(row["label"])
        if row["metric"] == "probability" and row["value"] is not None:
            probabilities[i, j] = row["value"]
        if row["metric"] == "truth" and row["value"] == 1:
            truth[i] = j
    return list(patients.values()), classes, probabilities, truth


def chosen_classes(probabilities: Floats) -> NDArray[np.int64]:
    """Most probable class of each case, the first of equals; -1 where there is no prediction."""
    known = np.isfinite(probabilities).all(axis=1)
    return np.where(known, np.argmax(np.nan_to_num(probabilities, nan=-1.0), axis=1), -1)


def confusion(truth: NDArray[np.int64], chosen: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """Counts (true class, chosen class); the last column is for cases without a prediction."""
    table = np.zeros((n, n + 1), np.int64)
    np.add.at(table, (truth, np.where(chosen < 0, n, chosen)), 1)
    return table


def summarise_classes(rows: Sequence[Row], scoring: Scoring) -> dict[str, Any]:
    """The parts of summary.json that are particular to classification.

    Returns
    -------
    dict
        ``labels[class][metric]`` and ``mean_over_labels[metric]`` with ``mean`` and ``mean_ci`` as for masks
        (``mean`` is the estimate), and ``confusion``.
    """
    patients, classes, probabilities, truth = class_table(rows)
    chosen = chosen_classes(probabilities)
    table = confusion(truth, chosen, len(classes))
    note = "" if len(set(patients)) == len(patients) else "cases of one patient are taken as independent"
    cells = {
        name: _of_class(j, table, probabilities, truth, scoring.confidence, note)
        for j, name in enumerate(classes)
    }
    hits, n = int(np.trace(table)), int(table.sum())
    overall = {
        "accuracy": _estimate(hits / n if n else None, wilson(hits, n, scoring.confidence), n, note),
        "balanced_accuracy": _over(cells, "sensitivity"),
        "auroc": _over(cells, "auroc"),
    }
    shown = {"classes": classes, "rows": "reference", "columns": [*classes, "not predicted"]}
    return {
        "labels": cells,
        "mean_over_labels": overall,
        "confusion": {**shown, "counts": table.tolist()},
        "conventions": {
            "metrics": {name: metric.definition for name, metric in CLASS_METRICS.items()},
            "intervals": "Wilson for proportions, DeLong for areas; none for means over classes",
        },
    }


def _of_class(
    j: int, table: NDArray[np.int64], probabilities: Floats, truth: NDArray[np.int64], level: float, note: str
) -> dict[str, Any]:
    """Metrics of one class against the rest."""
    n, hit, of_class, given = table.sum(), table[j, j], table[j].sum(), table[:, j].sum()
    predicted = np.isfinite(probabilities[:, j])
    missing = int(len(truth) - predicted.sum())
    status = dict.fromkeys(STATUSES, 0) | {
        "ok": int(of_class - table[j, -1]),
        "not_predicted": int(table[j, -1]),
    }
    left_out = f"{missing} case(s) without a prediction left out" if missing else ""
    area, limits = auroc_interval(truth[predicted] == j, probabilities[predicted, j], level)
    rest = int(n - of_class - given + hit)
    found = {
        "sensitivity": (int(hit), int(of_class)),
        "specificity": (rest, int(n - of_class)),
        "ppv": (int(hit), int(given)),
        "npv": (rest, int(n - given)),
    }
    cells = {
        name: _estimate(a / b if b else None, wilson(a, b, level), b, note) for name, (a, b) in found.items()
    }
    notes = "; ".join(x for x in (limits.note, left_out, note) if x)
    first = {"auroc": _estimate(area, limits, int(predicted.sum()), notes)}
    return {k: v | {"status": status, "cases": int(of_class)} for k, v in (first | cells).items()}


def _estimate(value: float | None, limits: Interval, n: int, note: str = "") -> dict[str, Any]:
    ci = None if limits.low is None else [limits.low, limits.high]
    said = {"n": n, "unit": "", "mean": value, "mean_ci": ci, "mean_ci_method": limits.method}
    return said | ({"mean_ci_note": note} if note else {})


def _over(cells: Mapping[str, Mapping[str, Any]], metric: str) -> dict[str, Any]:
    values = [c[metric]["mean"] for c in cells.values() if c[metric]["mean"] is not None]
    mean = float(np.mean(values)) if values else None
    return {"labels": len(values), "unit": "", "mean": mean, "mean_ci": None, "mean_ci_method": "none"}


def evaluate_tables(
    pred: Path, ref: Path, out: Path, scoring: Scoring, patients: Mapping[str, str] | None = None
) -> tuple[Scores, list[Failure], Path]:
    """Score a table of predicted classes or probabilities against a table of classes, matched by case."""
    from medseg.evaluation.evaluate import write_results
    from medseg.evaluation.scoring import Scores

    truth = {case: cells["class"] for case, cells in read_table(ref, needs="class").items()}
    predicted = {case: _probabilities(cells, case) for case, cells in read_table(pred).items()}
    named = {name for cells in predicted.values() for name in cells}
    classes = sorted({*truth.values(), *named})
    who = patients or {}
    rows = [
        row
        for case, name in truth.items()
        for row in class_rows(case, who.get(case, case), predicted.get(case), name, classes)
    ]
    failures = [
        _problem(c, "there is no prediction; it counts as wrong") for c in truth if c not in predicted
    ]
    extra = sorted(set(predicted) - set(truth))
    failures += [_problem(c, "a prediction without a reference; it is not measured") for c in extra]
    notes = [f"{len(extra)} prediction(s) without a reference: {', '.join(extra)}"] if extra else []
    scores = Scores(rows, scoring, facts={"notes": notes})
    return scores, failures, write_results(out, scores, failures, (), [])


def read_table(file: Path, needs: str = "") -> dict[str, dict[str, str]]:
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
    for name in ("case", *([needs] if needs else [])):
        if name not in columns:
            raise MedsegError(
                f"the class table has no column '{name}'",
                file=str(file),
                evidence=f"columns: {', '.join(columns)}",
            )
    table = {row["case"]: {k: v for k, v in row.items() if k != "case"} for row in rows}
    if len(table) < len(rows):
        raise MedsegError("a case is given twice in the class table", file=str(file))
    return table


def _probabilities(cells: Mapping[str, str], case: str) -> dict[str, float]:
    if set(cells) == {"class"}:
        return {cells["class"]: 1.0}
    try:
        return {name: float(text) for name, text in cells.items() if name not in ("class", "patient")}
    except ValueError as error:
        raise MedsegError("a probability is not a number", case=case, evidence=str(error)) from error


def _problem(case: str, said: str) -> Failure:
    return Failure("evaluate", case, f"case {case}: {said}", f"case {case}: {said}")
