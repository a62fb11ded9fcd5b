"""Fingerprints -> Plan: general rules, each choice with its reason. No data set is named here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from medseg.core.errors import MedsegError
from medseg.core.values import Value, nearest, validated
from medseg.data import rules
from medseg.data.cohort import Task
from medseg.data.fingerprint import CaseFingerprint
from medseg.data.plan import Plan
from medseg.data.rules import Budget
from medseg.imaging.labels import Labels

_FREE = ("spacing_mm", "patch", "batch", "intensity", "network", "network_arguments", "members")


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
    why: dict[str, str] = {}
    chosen: dict[str, Any] = {}
    for name, rule in _ORDER:
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
            fingerprint=summary(fingerprints), why=why, **chosen,
        ),
    )  # fmt: skip


_ORDER = (
    ("spacing_mm", rules.spacing),
    ("intensity", rules.intensity),
    ("patch", rules.patch),
    ("network", rules.network),
    ("network_arguments", rules.network_arguments),
    ("batch", rules.batch),
    ("members", rules.members),
)


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

    spacing_mm: tuple[float, float, float] | None = None
    patch: tuple[int, int, int] | None = None
    batch: int | None = None
    members: int | None = None
    intensity: dict[str, Any] | None = None
    network: str | None = None
    network_arguments: dict[str, Any] | None = None
