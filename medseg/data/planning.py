"""Fingerprints -> Plan: general rules, each choice with its reason. No data set is named here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from medseg.core.errors import MedsegError
from medseg.core.values import Value, nearest, validated
from medseg.data import rules, rules_classes, rules_intensity
from medseg.data.budget import Budget
from medseg.data.cohort import Task
from medseg.data.fingerprint import CaseFingerprint
from medseg.data.plan import IMAGE, MASK, Balance, Plan, Spent
from medseg.imaging.labels import Labels

_LOOKED_AT = ("region", "region_margin_mm")
_CHOICES = ("spacing_mm", "intensity", "patch", "network", "network_arguments", "balance", "class_weights")
_FREE = (*_CHOICES, "batch", "members", *_LOOKED_AT)


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
        again. `Budget` fields (``budget_minutes``, ``device``, ``cores``, ``memory_gb``) set what
        may be spent.

    Raises
    ------
    MedsegError
        No fingerprint, or an unknown override (the nearest name is proposed).
    """
    if not fingerprints:
        raise MedsegError("a plan needs at least one case", mend="check ingest.csv for what was refused")
    budget, fixed = _sorted_out(overrides or {})
    cases = [f for f in fingerprints if f.box is not None] or list(fingerprints)
    chosen: dict[str, Any] = {name: fixed[name] for name in _LOOKED_AT if name in fixed}
    why: dict[str, str] = dict.fromkeys(chosen, "set by hand")
    cases = [_looked_at(f, chosen) for f in cases]
    order = _ORDER if cohort.task == "classification" else [o for o in _ORDER if o[0] not in _OF_CLASSES]
    for name, rule in order:
        if name in fixed and name != "network_arguments":
            chosen[name], why[name] = fixed[name], "set by hand"
        else:
            chosen[name], why[name] = rule(cases, cohort, chosen, budget)
    if fixed.get("network_arguments"):
        chosen["network_arguments"] = chosen["network_arguments"] | dict(fixed["network_arguments"])
        why["network_arguments"] += f"; set by hand: {', '.join(fixed['network_arguments'])}"
    return validated(
        Plan,
        dict(
            task=cohort.task, channels=cohort.channels, labels=cohort.labels, classes=cohort.classes,
            multilabel=cohort.multilabel,
            fingerprint=summary(fingerprints), why=why, spent=_spent(budget), **chosen,
        ),
    )  # fmt: skip


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
)


_OF_CLASSES = ("balance", "class_weights")


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


def _sorted_out(overrides: Mapping[str, Any]) -> tuple[Budget, dict[str, Any]]:
    """Split overrides into what may be spent and what is fixed; None means 'not set'."""
    given = {k: v for k, v in overrides.items() if v is not None}
    spend = {k: v for k, v in given.items() if k in Budget.model_fields}
    fixed = {k: v for k, v in given.items() if k not in spend}
    for name in fixed:
        if name not in _FREE:
            guess = nearest(name, [*_FREE, *Budget.model_fields])
            raise MedsegError(
                f"the plan has no choice '{name}'",
                evidence=f"choices: {', '.join(_FREE)}",
                mend=f"did you mean '{guess}'?" if guess else "take one of these names",
            )
    checked = validated(_Fixed, fixed).model_dump(exclude_none=True)
    return validated(Budget, spend), checked


class _Fixed(Value):
    """Types of what may be fixed by hand, checked before any rule uses them."""

    region: str | None = None
    region_margin_mm: float | None = None
    balance: Balance | None = None
    class_weights: tuple[float, ...] | None = None
    spacing_mm: tuple[float, float, float] | None = None
    patch: tuple[int, int, int] | None = None
    batch: int | None = None
    members: int | None = None
    intensity: dict[str, Any] | None = None
    network: str | None = None
    network_arguments: dict[str, Any] | None = None
