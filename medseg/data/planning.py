"""Fingerprints -> Plan: general rules, each choice with its reason. No data set is named here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from medseg.core.errors import MedsegError
from medseg.core.values import validated
from medseg.data import overrides as overriding
from medseg.data import rules, rules_classes, rules_intensity, rules_view
from medseg.data.budget import Budget
from medseg.data.cohort import Task
from medseg.data.fingerprint import CaseFingerprint
from medseg.data.plan import IMAGE, MASK, Plan, Spent
from medseg.imaging.labels import Labels

_LOOKED_AT = ("region", "region_margin_mm")
_IN_PART = ("network_arguments", "intensity", "sampling")
"""Choices of which a part may be set by hand: the rest of them is derived."""


class Facts(Protocol):
    """What planning asks of a cohort (`Cohort` has it)."""

    @property
    def task(self) -> Task: ...
    @property
    def channels(self) -> tuple[str, ...]: ...
    @property
    def labels(self) -> Labels: ...
    @property
    def classes(self) -> tuple[str, ...]: ...
    @property
    def multilabel(self) -> bool: ...
    @property
    def cases(self) -> Sequence[Any]: ...


def make_plan(
    fingerprints: Sequence[CaseFingerprint],
    cohort: Facts,
    overrides: Mapping[str, Any] | None = None,
) -> Plan:
    """Choose spacing, intensity, patch, network and batch, in this order, each from those before.

    Parameters
    ----------
    fingerprints : sequence of CaseFingerprint
        Of the training cases only: what is planned must not have seen the test part.
    cohort : Cohort
        Task, channels, labels, classes.
    overrides : mapping, optional
        Plan fields to fix (``{"patch": (64, 64, 1)}``): everything later in the order derives itself
        again. `Budget` fields (``budget_minutes``, ``device``, ``cores``, ``memory_gb``,
        ``rate_gflops``) set what may be spent.

    Raises
    ------
    MedsegError
        No fingerprint, an unknown override (the nearest name is proposed), or choices by hand that
        do not go together or not into the memory.
    """
    if not fingerprints:
        raise MedsegError("a plan needs at least one case", mend="check ingest.csv for what was refused")
    budget, fixed = overriding.sorted_out(overrides or {})
    cases = [f for f in fingerprints if f.box is not None] or list(fingerprints)
    chosen: dict[str, Any] = {name: fixed[name] for name in _LOOKED_AT if name in fixed}
    why: dict[str, str] = dict.fromkeys(chosen, "set by hand")
    cases = [_looked_at(f, chosen) for f in cases]
    for name, rule in _order(cohort, fixed):
        if name not in fixed or name in _IN_PART:
            chosen[name], why[name] = rule(cases, cohort, chosen, budget)
        if name in fixed:
            chosen[name], said = overriding.merged(name, fixed[name], chosen.get(name), chosen, cohort)
            why[name] = why[name] + said if said.startswith(";") else said or "set by hand"
    plan = validated(
        Plan,
        dict(
            task=cohort.task, channels=cohort.channels, labels=cohort.labels, classes=cohort.classes,
            ignore=getattr(cohort, "ignore", None),
            multilabel=cohort.multilabel,
            fingerprint=summary(fingerprints), why=why, spent=_spent(budget), **chosen,
        ),
    )  # fmt: skip
    overriding.refuse_misfits(plan, (overrides or {}).get("memory_gb"))
    return plan


_ORDER = (
    ("spacing_mm", rules.spacing),
    ("intensity", rules_intensity.intensity),
    ("patch", rules.patch),
    ("network", rules.network),
    ("network_arguments", rules.network_arguments),
    ("balance", rules_classes.balance),
    ("class_weights", rules_classes.class_weights),
    ("batch", rules.batch),
    ("members", rules.members),
    ("sampling", rules_view.sampling),
    ("cascade", rules_view.cascade),
)


_OF_CLASSES = ("balance", "class_weights")


def _order(cohort: Facts, fixed: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """The choices to make, one after another; those of classes where there are some and somebody asks."""
    asked = [name for name in _OF_CLASSES if name in fixed]
    if asked and not cohort.classes:
        raise MedsegError(f"plan.{asked[0]} is for classes, and the cohort has none", mend="leave it out")
    left_out = () if cohort.task == "classification" else set(_OF_CLASSES) - set(asked)
    return [choice for choice in _ORDER if choice[0] not in left_out]


def _spent(budget: Budget) -> Spent:
    return Spent(
        device=budget.device,
        budget_minutes=budget.budget_minutes,
        rate_gflops=budget.rate,
        memory_gb=budget.memory_gb,
    )


def _looked_at(case: CaseFingerprint, chosen: Mapping[str, Any]) -> CaseFingerprint:
    """The fingerprint of the region that the plan looks at."""
    region = chosen.get("region", IMAGE)
    if region not in (IMAGE, MASK, *case.channels):
        raise MedsegError(
            f"plan.region = {region} is no region",
            evidence=f"regions: {', '.join((IMAGE, MASK, *case.channels))}",
            mend="take the image, the reference mask, or a channel that is a mask",
        )
    margin = chosen.get("region_margin_mm", Plan.model_fields["region_margin_mm"].default)
    return rules_classes.cut_to_region(case, region, margin)


def summary(fingerprints: Sequence[CaseFingerprint]) -> dict[str, Any]:
    """Ranges over the cohort: what a new image can be compared with (and the model card shows)."""
    shapes = np.array([f.shape for f in fingerprints])
    spacings = np.array([f.spacing_mm for f in fingerprints])
    names = list(fingerprints[0].channels)
    return {
        "cases": len(fingerprints),
        "shape": _range(shapes),
        "spacing_mm": _range(spacings),
        "intensity": {name: _intensity_range([f.channels[name] for f in fingerprints]) for name in names},
        "volume_ml": {
            str(v): _range(np.array([f.volume_ml.get(v, 0.0) for f in fingerprints]))
            for v in fingerprints[0].voxels
        },
        "modality": sorted({f.modality for f in fingerprints if f.modality}),
    }


def _range(values: np.ndarray) -> dict[str, Any]:
    low, mid, high = values.min(0), np.median(values, 0), values.max(0)
    return {"min": low.tolist(), "median": mid.tolist(), "max": high.tolist()}


def _intensity_range(facts: Sequence[Any]) -> dict[str, float]:
    return {"low": min(f.low for f in facts), "high": max(f.high for f in facts)}
