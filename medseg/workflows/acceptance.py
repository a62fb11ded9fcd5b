"""Acceptance criteria: stated before, judged at the interval's bad end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import model_validator

from medseg.core.errors import MedsegError
from medseg.core.values import Value
from medseg.data.cohort import Cohort
from medseg.evaluation.metrics import CLASS_METRICS, METRICS, described
from medseg.evaluation.policy import STATUSES, Scoring

EVERY = "every"


class Criterion(Value):
    """One bar to pass: the mean of a metric or the bad end of its interval; a count; a group's mean."""

    label: str = "mean"
    """A label's name, ``mean`` for the mean over labels, ``every`` for each label in turn."""
    metric: str = "dice"
    """Of the scoring; what is not among them is measured too. Or ``missed``, ``false_positive``,
    ``not_predicted``, ``invalid``: how many cases have this status."""
    at_least: float | None = None
    at_most: float | None = None
    judged_at: Literal["bad_end", "mean"] = "bad_end"
    """``bad_end``: the confidence interval's unfavourable limit; ``mean``: the point estimate."""
    statistic: Literal["mean", "median"] = "mean"
    group: str = ""
    """A subgroup as ``sex=F``; ``sex`` alone: each of its groups. Small groups are judged like the others."""

    @model_validator(mode="after")
    def _one_bar(self) -> Criterion:
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError("give at_least or at_most, one of them")
        if self.group and (self.label == "mean" or self.statistic != "mean" or self.metric in STATUSES):
            raise ValueError("a group is judged by the mean of a metric of one label, or of every label")
        return self

    @property
    def words(self) -> str:
        """The bar: ``>= 0.8``."""
        return f">= {self.at_least:g}" if self.at_least is not None else f"<= {self.at_most:g}"


class Acceptance(Value):
    """The criteria of a validation; all must hold."""

    name: str = "acceptance"
    accept: tuple[Criterion, ...] = (Criterion(metric="dice", at_least=0.8),)


def check_criteria(criteria: Sequence[Criterion], cohort: Cohort, scoring: Scoring) -> Scoring:
    """The scoring with every metric that a criterion asks for; complains before anything is predicted.

    Raises
    ------
    MedsegError
        A criterion names a label that the cohort does not have, or a metric that is not known.
    """
    segmented = cohort.task == "segmentation"
    names = [x.name for x in cohort.labels] + list(scoring.regions) if segmented else list(cohort.classes)
    known = set(METRICS) if segmented else set(CLASS_METRICS)
    for criterion in criteria:
        if criterion.label not in ("mean", EVERY, *names) and names:
            _unmeasured(criterion, names, sorted(known))
        if criterion.metric not in known | set(STATUSES) | set(scoring.metrics):
            _unmeasured(criterion, names, sorted(known))
    more = [c.metric for c in criteria if segmented and c.metric not in (*scoring.metrics, *STATUSES)]
    return scoring.but(metrics=(*scoring.metrics, *dict.fromkeys(more)))


def verdicts(summary: Mapping[str, Any], criteria: Sequence[Criterion]) -> list[dict[str, Any]]:
    """Each criterion with the value it was judged at and whether it passed; ``every`` gives a row each.

    Returns
    -------
    list of dict
        label, metric, title, criterion (the bar in words), judged_at, value (None: not measured,
        which fails), passed, and ``note`` where there is no interval.

    Raises
    ------
    MedsegError
        A criterion names a label or metric that was not measured.
    """
    found = []
    for criterion in criteria:
        labels = list(summary.get("labels", {})) if criterion.label == EVERY else [criterion.label]
        found += [v for label in labels for v in _verdicts(summary, criterion.but(label=label))]
    return found


def _verdicts(summary: Mapping[str, Any], criterion: Criterion) -> list[dict[str, Any]]:
    if criterion.metric in STATUSES:
        return [_verdict(criterion, {"mean": _count(summary, criterion)}, counted=True)]
    if not criterion.group:
        return [_verdict(criterion, _statistics(summary, criterion))]
    rows = _groups(summary, criterion)
    return [_verdict(criterion, row, f" ({row['grouping']}: {row['group']})") for row in rows]


def _verdict(
    criterion: Criterion, found: Mapping[str, Any], of: str = "", *, counted: bool = False
) -> dict[str, Any]:
    what = criterion.statistic
    middle, limits = found.get(what), found.get(f"{what}_ci")
    low, high = limits or (middle, middle)
    bad_end = criterion.judged_at == "bad_end" and not counted
    if criterion.at_least is not None:
        value = low if bad_end else middle
        passed = value is not None and value >= criterion.at_least
    else:
        value = high if bad_end else middle
        passed = value is not None and value <= float(criterion.at_most or 0.0)
    row = {
        "label": criterion.label + of,
        "metric": criterion.metric if what == "mean" else f"median {criterion.metric}",
        "title": _title(criterion),
        "criterion": criterion.words,
        "judged_at": "count" if counted else criterion.judged_at,
        "value": value,
        "passed": bool(passed),
    }
    none = bad_end and not limits and middle is not None
    return row | ({"note": "there is no interval: judged at the estimate itself"} if none else {})


def _title(criterion: Criterion) -> str:
    """What is judged, for people: ``Median HD95 (mm)``."""
    if criterion.metric in STATUSES:
        return f"Structures {criterion.metric.replace('_', ' ')}"
    metric = described(criterion.metric)
    unit = f" ({metric.unit})" if metric.unit else ""
    return f"{'Median ' if criterion.statistic == 'median' else ''}{metric.title}{unit}"


def _count(summary: Mapping[str, Any], criterion: Criterion) -> float:
    labels = summary.get("labels", {})
    cells = list(labels.values()) if criterion.label == "mean" else [labels.get(criterion.label)]
    if None in cells:
        _unmeasured(criterion, list(labels), list(STATUSES))
    return float(sum(next(iter(cell.values()))["status"].get(criterion.metric, 0) for cell in cells if cell))


def _groups(summary: Mapping[str, Any], criterion: Criterion) -> list[Mapping[str, Any]]:
    rows = summary.get("subgroups", {}).get("rows", ())
    name, _, group = (part.strip() for part in criterion.group.partition("="))
    found = [
        row
        for row in rows
        if (row["grouping"], row["label"], row["metric"]) == (name, criterion.label, criterion.metric)
        and (not group or row["group"] == group)
    ]
    if not found:
        there = sorted({f"{r['grouping']}={r['group']}" for r in rows})
        raise MedsegError(
            f"the criterion asks for the group '{criterion.group}', which the cohort does not have",
            evidence=f"groups: {', '.join(there) or 'none'}",
            mend="correct the acceptance file, or give the cohort that column",
        )
    return found


def _statistics(summary: Mapping[str, Any], criterion: Criterion) -> Mapping[str, Any]:
    groups = {"mean": summary.get("mean_over_labels", {}), **summary.get("labels", {})}
    known = groups.get(criterion.label)
    if known is None or criterion.metric not in known:
        _unmeasured(criterion, list(groups), list(groups["mean"]))
    assert known is not None
    return known[criterion.metric]


def _unmeasured(criterion: Criterion, labels: Sequence[str], metrics: Sequence[str]) -> None:
    raise MedsegError(
        f"the criterion asks for {criterion.metric} of '{criterion.label}', which was not measured",
        evidence=f"labels: {', '.join(labels)}; metrics: {', '.join(metrics)}",
        mend="correct the acceptance file, or add the metric to the scoring",
    )
