"""Thresholds that pay: each tried label by label on probabilities of cases the network had not seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from medseg.core.values import Value
from medseg.evaluation.choice import Values, gain
from medseg.evaluation.policy import Scoring
from medseg.imaging.labels import Labels

NOTHING = "0.5"
RULE = (
    "for each label the threshold with the largest gain in the mean Dice over all labels, of those shown, "
    "with the other labels at 0.5"
)


class Threshold(Value):
    """The probability at which one label would be taken."""

    label: int
    name: str
    threshold: float

    @property
    def said(self) -> str:
        """In words: ``liver at 0.4``."""
        return f"{self.name} at {self.threshold:g}"


def thresholds_for(labels: Labels, thresholds: Sequence[float]) -> tuple[Threshold, ...]:
    """What is tried on each label; nothing where labels are regions that overlap."""
    if any(label.region for label in labels):
        return ()
    return tuple(
        Threshold(label=label.value, name=label.name, threshold=t)
        for label in labels
        for t in dict.fromkeys(thresholds)
        if t != float(NOTHING)
    )


def choose_thresholds(
    tries: Sequence[Mapping[str, Any]], options: Sequence[Threshold], scoring: Scoring, confidence: float
) -> dict[str, Any]:
    """Which thresholds are kept.

    Parameters
    ----------
    tries : sequence of mapping
        ``case``, ``patient``, ``option`` and ``dice`` by label: a row for each option and for `NOTHING`.

    Returns
    -------
    dict
        ``rule``, ``tried`` (a row each: label, option, gain with interval, kept), ``thresholds`` (kept, by
        value as text), ``confidence`` of each interval: so wide that all together have `confidence`
        (Bonferroni).
    """
    each = 1 - (1 - confidence) / max(1, len(options))
    how, plain = scoring.but(confidence=each), _values(tries, NOTHING)
    gains = {option: gain(plain, _values(tries, option.said), how) for option in options}
    kept: dict[int, Threshold] = {}
    for option, found in gains.items():
        best = kept.get(option.label)
        if found.shown and (best is None or (found.difference or 0) > (gains[best].difference or 0)):
            kept[option.label] = option
    rows = [
        {
            "label": option.name,
            "option": option.said,
            **found.told(),
            "kept": option in kept.values(),
        }
        for option, found in gains.items()
    ]
    thresholds = {str(option.label): option.threshold for option in kept.values()}
    return {
        "rule": RULE,
        "confidence": each,
        "confidence_of_all": confidence,
        "tried": rows,
        "thresholds": thresholds,
    }


def _values(tries: Sequence[Mapping[str, Any]], option: str) -> Values:
    found: dict[str, dict[str, tuple[str, float]]] = {}
    for row in tries:
        if row["option"] == option:
            for label, dice in row["dice"].items():
                found.setdefault(label, {})[row["case"]] = (row["patient"], dice)
    return found
