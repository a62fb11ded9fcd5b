"""Acceptance criteria: stated before, judged at the interval's bad end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field, model_validator

from medseg.core.errors import MedsegError
from medseg.core.values import Value


class Criterion(Value):
    """One bar to pass: the mean of a metric, or the bad end of its interval."""

    label: str = "mean"
    """A label's name, or ``mean`` for the mean over labels."""
    metric: str = "dice"
    at_least: float | None = None
    at_most: float | None = None
    judged_at: str = Field(default="bad_end", pattern="^(bad_end|mean)$")
    """``bad_end``: the confidence interval's unfavourable limit; ``mean``: the point estimate."""

    @model_validator(mode="after")
    def _one_bar(self) -> Criterion:
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError("give at_least or at_most, one of them")
        return self


class Acceptance(Value):
    """The criteria of a validation; all must hold."""

    name: str = "acceptance"
    accept: tuple[Criterion, ...] = (Criterion(metric="dice", at_least=0.8),)


def verdicts(summary: Mapping[str, Any], criteria: Sequence[Criterion]) -> list[dict[str, Any]]:
    """Each criterion with the value it was judged at and whether it passed.

    Raises
    ------
    MedsegError
        A criterion names a label or metric that was not measured.
    """
    return [_verdict(summary, criterion) for criterion in criteria]


def _verdict(summary: Mapping[str, Any], criterion: Criterion) -> dict[str, Any]:
    found = _statistics(summary, criterion)
    low, high = found.get("mean_ci") or (found["mean"], found["mean"])
    if criterion.at_least is not None:
        value, bar, word = (
            (low if criterion.judged_at == "bad_end" else found["mean"]),
            criterion.at_least,
            ">=",
        )
        passed = value is not None and value >= bar
    else:
        bar, word = float(criterion.at_most or 0.0), "<="
        value = high if criterion.judged_at == "bad_end" else found["mean"]
        passed = value is not None and value <= bar
    return {
        "label": criterion.label,
        "metric": criterion.metric,
        "criterion": f"{word} {bar:g}",
        "judged_at": criterion.judged_at,
        "value": value,
        "passed": bool(passed),
    }


def _statistics(summary: Mapping[str, Any], criterion: Criterion) -> Mapping[str, Any]:
    groups = {"mean": summary.get("mean_over_labels", {}), **summary.get("labels", {})}
    known = groups.get(criterion.label)
    if known is None or criterion.metric not in known:
        raise MedsegError(
            f"the criterion asks for {criterion.metric} of '{criterion.label}', which was not measured",
            evidence=f"labels: {', '.join(groups)}; metrics: {', '.join(groups['mean'])}",
            mend="correct the acceptance file, or add the metric to the scoring",
        )
    return known[criterion.metric]
