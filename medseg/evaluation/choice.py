"""Choosing by cross-validation: paired differences over patients, and rules that are stated in advance."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from medseg.evaluation.classification import is_classification
from medseg.evaluation.compare_classes import mean_area_difference
from medseg.evaluation.metrics import METRICS, metric_of
from medseg.evaluation.pairs import Row
from medseg.evaluation.policy import Scoring
from medseg.evaluation.statistics import Sample, mean_interval

CLASS_METRIC, MASK_METRIC = "auroc", "dice"
RULE = (
    "the highest cross-validated mean; of the configurations whose paired difference to it has an interval "
    "that includes 0, the simplest (fewest networks, then fewest weights)"
)

Values = Mapping[str, Mapping[str, tuple[str, float]]]
"""Label -> case -> (patient, value)."""


@dataclass(frozen=True)
class Gain:
    """The second less the first on the same cases: positive is better, whatever the metric.

    ``ci`` is None where no interval can be given; then nothing is shown.
    """

    difference: float | None
    ci: tuple[float, float] | None
    confidence: float
    n: int
    patients: int
    method: str

    @property
    def shown(self) -> bool:
        """Whether the second is better: the whole interval lies above 0."""
        return self.ci is not None and self.ci[0] > 0

    def told(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self) | {"ci": None if self.ci is None else list(self.ci), "shown": self.shown}


def values_of(rows: Sequence[Row], metric: str) -> Values:
    """The values of a metric by label and case.

    Where neither mask has the label the value is perfect (Dice 1, distance 0): in a choice, to leave an
    empty image empty must count for something.
    """
    perfect = 1.0 if metric_of(metric).better == "high" else 0.0
    found: dict[str, dict[str, tuple[str, float]]] = {}
    for row in rows:
        if row["metric"] == metric:
            value = perfect if row["status"] == "both_empty" else row["value"]
            if value is not None:
                found.setdefault(row["label"], {})[row["case"]] = (row["patient"], float(value))
    return found


def gain(first: Values, second: Values, scoring: Scoring, *, low_is_good: bool = False) -> Gain:
    """Mean over labels of the mean difference over cases, with its interval over patients.

    Parameters
    ----------
    first, second : values by label and case
        Only what both have is compared.
    scoring : Scoring
        Its confidence, repeats and seed.

    Returns
    -------
    Gain
        Without a difference when nothing is in both.
    """
    sign, groups = -1.0 if low_is_good else 1.0, []
    for label, cells in first.items():
        both = sorted(set(cells) & set(second.get(label, {})))
        moved = [sign * (second[label][case][1] - cells[case][1]) for case in both]
        groups.append((np.array(moved), [cells[case][0] for case in both]))
    groups = [group for group in groups if group[0].size]
    if not groups:
        return Gain(None, None, scoring.confidence, 0, 0, "nothing is in both")
    sample = Sample.of(groups)
    how = {"confidence": scoring.confidence, "repeats": scoring.repeats, "seed": scoring.seed}
    found = mean_interval(sample, **how)
    limits = None if found.low is None or found.high is None else (float(found.low), float(found.high))
    most = max(values.size for values, _ in groups)
    return Gain(sample.mean(), limits, scoring.confidence, most, sample.patients, found.method)


def gain_of_rows(first: Sequence[Row], second: Sequence[Row], metric: str, scoring: Scoring) -> Gain:
    """`gain` of two tables of scores; of classes the difference of the areas, after DeLong."""
    if not is_classification(first):
        low = metric_of(metric).better == "low"
        return gain(values_of(first, metric), values_of(second, metric), scoring, low_is_good=low)
    mean = mean_area_difference(first, second, scoring)
    n, patients = (len({row[key] for row in first}) for key in ("case", "patient"))
    if mean is None:
        return Gain(None, None, scoring.confidence, n, patients, "no class has an area")
    return Gain(mean["difference"], tuple(mean["ci"]), scoring.confidence, n, patients, "DeLong")


def mean_of(rows: Sequence[Row], metric: str, scoring: Scoring) -> dict[str, Any]:
    """``mean`` over labels and its ``ci``, as `gain` counts them (of classes: the mean area)."""
    if is_classification(rows):
        from medseg.evaluation.class_summary import summarise_classes

        cell = summarise_classes(rows, scoring)["mean_over_labels"].get(metric, {})
        return {"mean": cell.get("mean"), "ci": cell.get("mean_ci")}
    values = values_of(rows, metric)
    nothing = {label: {c: (p, 0.0) for c, (p, _) in cells.items()} for label, cells in values.items()}
    found = gain(nothing, values, scoring)
    return {"mean": found.difference, "ci": None if found.ci is None else list(found.ci)}


def said_of(what: str, found: Mapping[str, Any]) -> Iterator[str]:
    """A line for each of the ``steps`` or ``thresholds`` that were kept, or one that says there is none."""
    line, none = _SAID[what]
    kept = [row for row in found["tried"] if row["kept"]]
    for row in kept:
        low, high = row["ci"]
        yield f"{line.format(**row)} {row['difference']:+.4f} [{low:+.4f}, {high:+.4f}]"
    if not kept:
        yield none.format(n=len(found["tried"]))


_SAID = {
    "steps": ("{label}: {option}, Dice", "none: of {n} tried none showed a gain"),
    "thresholds": ("{option}, mean Dice", "all at 0.5: of {n} others tried none showed a gain"),
}


def metric_for(rows: Sequence[Row], asked: str = "") -> str:
    """The metric that decides: the one asked for, else Dice, of classes the area under the ROC curve."""
    return asked or (CLASS_METRIC if is_classification(rows) else MASK_METRIC)


def metric_is_low(metric: str) -> bool:
    """Whether the lower value of a metric is the better one; not of those of classes."""
    return metric in METRICS and metric_of(metric).better == "low"


def choose_best(
    tables: Mapping[str, Sequence[Row]],
    costs: Mapping[str, Sequence[int]],
    scoring: Scoring,
    metric: str = "",
) -> dict[str, Any]:
    """Which of several configurations to take, by `RULE`.

    Parameters
    ----------
    tables : mapping
        Name -> rows of the same cases, judged out of fold.
    costs : mapping
        Name -> (networks, weights): what is simple comes first.

    Returns
    -------
    dict
        ``metric``, ``rule``, ``confidence``, ``candidates`` (best mean first: name, mean, ci, networks,
        weights, ``best_less_this``), ``best``, ``chosen``, ``reason``.
    """
    metric = metric_for(next(iter(tables.values())), metric)
    low = metric_is_low(metric)
    means = {name: mean_of(rows, metric, scoring) for name, rows in tables.items()}
    judged = [name for name in tables if means[name]["mean"] is not None]
    order = sorted(judged, key=lambda n: ((1 if low else -1) * means[n]["mean"], tuple(costs[n])))
    best = order[0]
    gaps = {n: gain_of_rows(tables[n], tables[best], metric, scoring) for n in order[1:]}
    equal = [best, *(name for name, gap in gaps.items() if not gap.shown)]
    chosen = min(equal, key=lambda name: tuple(costs[name]))
    rows = [
        {"name": n, **means[n], "networks": costs[n][0], "weights": costs[n][1]}
        | {"best_less_this": gaps[n].told() if n in gaps else None}
        for n in order
    ]
    return {
        "metric": metric,
        "rule": RULE,
        "confidence": scoring.confidence,
        "candidates": rows,
        "best": best,
        "chosen": chosen,
        "reason": _reason(best, chosen, gaps, len(order)),
    }


def _reason(best: str, chosen: str, gaps: Mapping[str, Gain], n: int) -> str:
    if n == 1:
        return f"{best} is the only one"
    if chosen != best:
        low, high = gaps[chosen].ci or (float("nan"),) * 2
        return (
            f"{best} has the highest mean, but its lead over {chosen} may be chance "
            f"({gaps[chosen].difference:+.4f} [{low:+.4f}, {high:+.4f}]), and {chosen} is simpler"
        )
    sure = [name for name, gap in gaps.items() if gap.shown]
    shown = f"its lead over {', '.join(sure)} is shown" if sure else "no lead is shown"
    rest = [name for name in gaps if name not in sure]
    others = f"{rest[0]} is not simpler" if len(rest) == 1 else f"none of {', '.join(rest)} is simpler"
    return f"{best} has the highest mean; {shown}" + (f", and {others}" if rest else "")
