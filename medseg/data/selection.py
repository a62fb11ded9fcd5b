"""Choosing among the series of a study: what each rule took, and why it took nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from medseg.data.selection_rules import Preference, Rule, Selection, why_not
from medseg.imaging.deidentify import keyed_hash, project_key
from medseg.imaging.dicom_facts import Facts, facts_of
from medseg.imaging.dicom_series import Series

TAKEN = "taken"


@dataclass(frozen=True)
class Looked:
    """A series and what became of it under each rule: `TAKEN`, or the first reason why not."""

    series: Series
    facts: Facts
    verdicts: Mapping[str, str]
    study: str
    """Keyed hash of the study (or patient) among whose series it was chosen."""

    @property
    def taken(self) -> bool:
        """Whether any rule took it."""
        return TAKEN in self.verdicts.values()

    def reason(self) -> str:
        """Why no rule took it, in words fit to be stored."""
        several = [f"rule {name}: {why}" if name else why for name, why in self.verdicts.items()]
        return "not selected: " + "; ".join(several)


@dataclass(frozen=True)
class Picked:
    """A case to be: its id and the series of each channel. Of a single rule the channel's name is empty."""

    id: str
    series: Mapping[str, Series]


@dataclass(frozen=True)
class Unfit:
    """A study that cannot become a case, and why."""

    id: str
    reason: str
    mend: str


@dataclass(frozen=True)
class Chosen:
    """What a selection makes of the series found."""

    picked: list[Picked] = field(default_factory=list)
    unfit: list[Unfit] = field(default_factory=list)
    looked: list[Looked] = field(default_factory=list)


def choose(found: Sequence[Series], selection: Selection) -> Chosen:
    """Try every rule on every series, study by study (or patient by patient).

    Of several series that fit a rule for one, the preferred one is taken; at equal rank the one with
    the lower series number, then the first of its volumes, then the lower hash. A study is unfit when
    several fit and nothing is said of which to prefer, when it lacks a channel while it has another, or
    when one series would serve two channels.

    Returns
    -------
    Chosen
        Cases to be, studies that are unfit, and every series with its verdicts.
    """
    chosen = Chosen()
    for group in _groups(found, selection).values():
        _choose_in(group, selection, chosen)
    return chosen


def _choose_in(group: Sequence[Series], selection: Selection, chosen: Chosen) -> None:
    facts = {s.uid_hash: facts_of(s.files[0]) for s in group}
    verdicts: dict[str, dict[str, str]] = {s.uid_hash: {} for s in group}
    kept: dict[str, list[Series]] = {}
    for name, rules in selection.rules().items():
        fitting = []
        for one in group:
            why = _first_reason(rules, one, facts[one.uid_hash])
            verdicts[one.uid_hash][name] = why or TAKEN
            fitting += [] if why else [one]
        kept[name] = _preferred(fitting, facts, selection, name, verdicts)
    study = _study_id(group[0], selection)
    chosen.looked.extend(Looked(s, facts[s.uid_hash], verdicts[s.uid_hash], study) for s in group)
    fault = _fault(kept, group, selection)
    if fault is not None:
        chosen.unfit.append(Unfit(study, *fault))
    elif selection.channels:
        if any(kept.values()):
            chosen.picked.append(Picked(study, {name: some[0] for name, some in kept.items()}))
    else:
        chosen.picked.extend(Picked(s.uid_hash, {"": s}) for s in kept[""])


def _first_reason(rules: Sequence[Rule], series: Series, facts: Facts) -> str | None:
    return next((why for rule in rules if (why := why_not(rule, series, facts))), None)


def _preferred(
    fitting: list[Series],
    facts: Mapping[str, Facts],
    selection: Selection,
    name: str,
    verdicts: Mapping[str, dict[str, str]],
) -> list[Series]:
    """The series that are taken of those that fit: all, or the preferred one."""
    prefer = selection.preference(name)
    if not selection.takes_one() or len(fitting) < 2 or prefer is None:
        return fitting
    best = min(fitting, key=lambda s: (_rank(s, facts[s.uid_hash], prefer), *_order(s, facts[s.uid_hash])))
    for other in fitting:
        if other is not best:
            verdicts[other.uid_hash][name] = f"fits, but another was preferred ({prefer})"
    return [best]


def _rank(series: Series, facts: Facts, prefer: Preference) -> float:
    """The lower, the better."""
    i, j, k = (n * mm for n, mm in zip(series.shape, series.spacing_mm, strict=True))
    number = _order(series, facts)[0]
    ranks: dict[str, float] = {
        "most_slices": -series.shape[2],
        "thinnest": round(series.spacing_mm[2], 3),
        "largest_field": -round(i * j * k),
        "first": number,
        "last": -number if np.isfinite(number) else number,
    }
    return ranks[prefer]


def _order(series: Series, facts: Facts) -> tuple[float, int, str]:
    return (float("inf") if facts.number is None else facts.number), series.number, series.uid_hash


def _fault(
    kept: Mapping[str, Sequence[Series]], group: Sequence[Series], selection: Selection
) -> tuple[str, str] | None:
    """Why the study cannot become a case (with the mend), or None."""
    if selection.takes_one() and len({s.patient_key for s in group}) > 1:
        return "one study UID covers several patients", "send the studies again"
    for name, some in kept.items():
        if selection.takes_one() and len(some) > 1:
            which = f"rule {name}" if name else "the rule"
            return (
                f"{len(some)} series fit {which}, and nothing is said of which to take",
                "add prefer: most_slices (or thinnest, largest_field, first, last), or narrow the rule",
            )
    missing = [name for name, some in kept.items() if not some]
    if missing and len(missing) < len(kept):
        return (
            f"the study lacks a series for {', '.join(missing)}: none of {len(group)} fits",
            "loosen the rule (see medseg ingest --dry-run), or leave the study out",
        )
    taken = [some[0].uid_hash for some in kept.values() if some]
    if selection.channels and len(set(taken)) < len(taken):
        return "one series fits the rules of two channels", "make the rules exclude each other"
    return None


def _groups(found: Sequence[Series], selection: Selection) -> dict[str, list[Series]]:
    """Series by study or by patient, in the order they were found."""
    groups: dict[str, list[Series]] = {}
    for series in found:
        groups.setdefault(_owner(series, selection), []).append(series)
    return groups


def _owner(series: Series, selection: Selection) -> str:
    """Whose series it is: one without a study UID is the patient's, one without a patient its own."""
    whose = (series.study_uid if selection.per == "study" else "") or series.patient_key
    return whose or series.uid_hash


def _study_id(series: Series, selection: Selection) -> str:
    return keyed_hash(f"{selection.per}|{_owner(series, selection)}", project_key())
