"""Mask steps that pay: each tried label by label on masks of cases the network had not seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from medseg.core.values import Value
from medseg.evaluation.choice import MASK_METRIC, Gain, Values, gain
from medseg.evaluation.pairs import score_pair
from medseg.evaluation.policy import Scoring
from medseg.imaging.image import Image
from medseg.imaging.labels import Labels
from medseg.imaging.masks import Step, apply_steps

SMALL = (0.01, 0.05, 0.2)
"""Smallest volumes that are tried, as shares of the label's median volume in the references."""
LARGEST, FILL, NOTHING = "keep_largest", "fill_holes", ""
RULE = (
    "for each label the removal (largest component, or a smallest volume) with the largest gain of those "
    "shown, then holes filled where that is a further gain that is shown"
)

Try = Mapping[str, Any]
"""case, patient, label, option, value: Dice of one case after the steps of one option."""


class Option(Value):
    """Steps that may be carried out on one label; ``removal`` and ``fill`` say which."""

    label: int
    name: str
    removal: str = NOTHING
    ml: float = 0.0
    fill: bool = False

    @property
    def steps(self) -> tuple[Step, ...]:
        """The mask steps, in the order they are carried out."""
        made: list[Step] = []
        if self.removal == LARGEST:
            made.append(Step(step=LARGEST, labels=(self.label,)))
        elif self.removal:
            made.append(Step(step="drop_below_ml", labels=(self.label,), settings={"ml": self.ml}))
        if self.fill:
            made.append(Step(step=FILL, labels=(self.label,)))
        return tuple(made)

    @property
    def said(self) -> str:
        """In words: ``keep_largest + fill_holes``; ``nothing`` for no step."""
        words = [*([self.removal] if self.removal else []), *([FILL] if self.fill else [])]
        return " + ".join(words) or "nothing"


def options_for(labels: Labels, typical_ml: Mapping[str, float]) -> tuple[Option, ...]:
    """What is tried on each label; `typical_ml` is the median volume of each value (as text), where known.

    That of a region is about the sum over its values.
    """
    found: list[Option] = []
    for label in labels:
        typical = sum(typical_ml.get(str(value), 0.0) for value in label.values)
        volumes = [float(f"{share * typical:.2g}") for share in SMALL] if typical > 0 else []
        removals = [(NOTHING, 0.0), (LARGEST, 0.0), *((f"below {ml:g} ml", ml) for ml in volumes)]
        found += [
            Option(label=label.value, name=label.name, removal=removal, ml=ml, fill=fill)
            for removal, ml in removals
            for fill in (False, True)
        ]
    return tuple(found)


def try_options(
    mask: Image,
    reference: Image,
    labels: Labels,
    options: Sequence[Option],
    scoring: Scoring,
    case: str,
    patient: str,
) -> list[dict[str, Any]]:
    """Dice of one case after each option, on the label of the option alone; 1 where neither mask has it."""
    how = scoring.but(metrics=(MASK_METRIC,), regions={})
    named = {label.value: label for label in labels}
    found = []
    for option in options:
        changed = apply_steps(mask, option.steps, labels)
        row = score_pair(changed, reference, (named[option.label],), how, case, patient)[0]
        value = 1.0 if row["status"] == "both_empty" else row["value"]
        if value is not None:
            said = {"case": case, "patient": patient, "label": option.name, "option": option.said}
            found.append(said | {"value": value})
    return found


def choose_steps(
    tries: Sequence[Try], options: Sequence[Option], scoring: Scoring, confidence: float = 0.95
) -> dict[str, Any]:
    """Which options are kept.

    Returns
    -------
    dict
        ``rule``, ``tried`` (a row each: label, option, against, gain with interval, kept), ``steps`` (kept),
        ``confidence`` of each interval: so wide that all together have the confidence asked for
        (Bonferroni), because the more is tried the more seems to pay by chance.
    """
    table = _table(tries)
    count = sum(1 for option in options if option.removal and not option.fill)
    count += len({option.label for option in options})
    each = 1 - (1 - confidence) / max(1, count)
    how = scoring.but(confidence=each)
    rows, kept = [], []
    for label in dict.fromkeys(option.label for option in options):
        of_label = [option for option in options if option.label == label]
        told, option = _of_label(of_label, table, how)
        rows += told
        kept += option.steps
    return {
        "rule": RULE,
        "confidence": each,
        "confidence_of_all": confidence,
        "tried": rows,
        "steps": [step.model_dump(mode="json") for step in kept],
    }


def _of_label(
    options: Sequence[Option], table: Mapping[tuple[str, str], Values], scoring: Scoring
) -> tuple[list[dict[str, Any]], Option]:
    """The rows of one label, and the option that is kept."""
    name, now = options[0].name, options[0]
    rows: list[dict[str, Any]] = []
    for group in (_removals(options), _fillings(options)):
        gains = [(o, _gain(table, name, now, o, scoring)) for o in group(now)]
        shown = [(o, g) for o, g in gains if g.shown]
        best = max(shown, key=lambda pair: pair[1].difference or 0.0)[0] if shown else now
        rows += [
            {"label": name, "option": o.said, "against": now.said, **g.told(), "kept": o is best}
            for o, g in gains
        ]
        now = best
    return rows, now


def _removals(options: Sequence[Option]) -> Any:
    return lambda now: [o for o in options if o.removal and not o.fill]


def _fillings(options: Sequence[Option]) -> Any:
    return lambda now: [o for o in options if o.fill and o.removal == now.removal]


def _gain(
    table: Mapping[tuple[str, str], Values], label: str, first: Option, second: Option, scoring: Scoring
) -> Gain:
    nothing: Values = {}
    return gain(table.get((label, first.said), nothing), table.get((label, second.said), nothing), scoring)


def _table(tries: Sequence[Try]) -> dict[tuple[str, str], Values]:
    """Values by label and option, as `gain` takes them."""
    found: dict[tuple[str, str], Any] = {}
    for one in tries:
        cells = found.setdefault((one["label"], one["option"]), {}).setdefault(one["label"], {})
        cells[one["case"]] = (one["patient"], one["value"])
    return dict(found)
