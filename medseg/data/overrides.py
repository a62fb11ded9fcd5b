"""Choices of a plan made by hand: sorted, checked, merged with derived ones, refused where at odds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import ConfigDict, Field

from medseg.core.errors import MedsegError
from medseg.core.values import Value, nearest, validated
from medseg.data.budget import Budget, unet_gb
from medseg.data.plan import Balance, Cascade, Intensity, Plan, Sampling
from medseg.data.prepare import check_intensity
from medseg.data.rules import UNETS, widths

Positive = Annotated[float, Field(gt=0)]
Side = Annotated[int, Field(ge=1)]
LEVELS = ("widths", "strides", "kernels")
"""Network arguments that hold something for each level."""
_MOST_VOXELS = 2**31


class Fixed(Value):
    """Types of what may be fixed by hand, checked before any rule uses them."""

    model_config = ConfigDict(title="choices of the plan")

    region: str | None = None
    region_margin_mm: float | None = None
    balance: Balance | None = None
    class_weights: tuple[float, ...] | None = None
    spacing_mm: tuple[Positive, Positive, Positive] | None = None
    patch: tuple[Side, Side, Side] | None = None
    batch: Side | None = None
    members: Side | None = None
    intensity: dict[str, Intensity] | None = None
    network: str | None = None
    network_arguments: dict[str, Any] | None = None
    sampling: dict[str, Any] | None = None
    cascade: Cascade | Literal["none"] | None = None


def sorted_out(overrides: Mapping[str, Any]) -> tuple[Budget, dict[str, Any]]:
    """Split overrides into what may be spent and what is fixed; None means 'not set'.

    Raises
    ------
    MedsegError
        A name that is neither (the nearest one is proposed), or a value of the wrong type.
    """
    given = {k: v for k, v in overrides.items() if v is not None and (k, v) != ("cascade", "auto")}
    spend = {k: v for k, v in given.items() if k in Budget.model_fields}
    fixed = {k: v for k, v in given.items() if k not in spend}
    for name in fixed:
        if name not in Fixed.model_fields:
            guess = nearest(name, [*Fixed.model_fields, *Budget.model_fields])
            raise MedsegError(
                f"the plan has no choice '{name}'",
                evidence=f"choices: {', '.join([*Fixed.model_fields, *Budget.model_fields])}",
                mend=f"did you mean '{guess}'?" if guess else "take one of these names",
            )
    if isinstance(fixed.get("cascade"), str) and fixed["cascade"] != "none":
        raise MedsegError(
            f"plan.cascade = {fixed['cascade']} is no cascade",
            mend="give none, auto, true, or its settings (plan.cascade.spacing_mm=[2,2,2])",
        )
    checked = validated(Fixed, fixed)
    return validated(Budget, spend), {name: getattr(checked, name) for name in fixed}


def merged(name: str, given: Any, derived: Any, chosen: Mapping[str, Any], cohort: Any) -> tuple[Any, str]:
    """A choice by hand, filled up with what the rules derive where it says a part; and how it is told.

    What is told begins with ``;`` where the reason of the rules still holds, and stands alone elsewhere.
    """
    by_hand = f"set by hand: {', '.join(given)}" if isinstance(given, Mapping) else ""
    if name == "network_arguments":
        whole = _arguments(given, derived, chosen)
        anew = set(LEVELS) & set(given) and isinstance(whole.get("widths"), Sequence)
        fits = f"; the rest fits its {len(whole['widths'])} levels" if anew else ""
        return whole, by_hand + fits if anew else f"; {by_hand}"
    if name == "intensity":
        _known(given, cohort.channels, "channel")
        for rule in given.values():
            check_intensity(rule)
        return {**derived, **given}, f"; {by_hand}"
    if name == "sampling":
        whole = validated(Sampling, {**dict(derived), **given})
        if len(whole.label_weights) not in (0, len(cohort.labels)):
            raise MedsegError(
                "plan.sampling.label_weights does not have a number for each label",
                evidence=f"{len(whole.label_weights)} numbers, {len(cohort.labels)} labels",
                mend="give one a label, in their order, or leave it out",
            )
        return whole, f"; {by_hand}"
    return None if given == "none" else given, ""


def refuse_misfits(plan: Plan, memory_gb: float | None) -> None:
    """Refuse what cannot be trained, before anything is: levels that the patch does not have, memory.

    Parameters
    ----------
    memory_gb : float or None
        What was given or measured; None where nobody knows.
    """
    if plan.class_weights and len(plan.class_weights) != len(plan.classes):
        raise MedsegError(
            "plan.class_weights does not have a number for each class",
            evidence=f"{len(plan.class_weights)} numbers, {len(plan.classes)} classes",
            mend="give one a class, in their order, or leave it out",
        )
    if plan.cascade and plan.task == "classification":
        raise MedsegError("a plan of classes has no cascade", mend="leave plan.cascade out")
    if plan.cascade and plan.dimensions == 2:
        raise MedsegError("a 2-D plan has no cascade", mend="leave plan.cascade out, or set a deep patch")
    _refuse_grid(plan)
    if plan.network not in UNETS:
        return
    _refuse_patch(plan)
    if memory_gb is not None:
        _refuse_memory(plan, memory_gb)


def _arguments(given: Mapping[str, Any], derived: Mapping[str, Any], chosen: Mapping[str, Any]) -> Any:
    """Arguments by hand over derived ones; of our U-Nets, all with as many levels as the hand says."""
    both = {**derived, **given}
    counts = {name: len(given[name]) for name in LEVELS if isinstance(given.get(name), Sequence)}
    if chosen["network"] not in UNETS or not counts or not {"strides", "kernels"} <= set(both):
        return both
    depth = min(counts.values())
    if len(set(counts.values())) > 1:
        said = ", ".join(f"{name} {n}" for name, n in counts.items())
        raise MedsegError(
            "the levels set by hand are not equally many", evidence=said, mend="give each as many entries"
        )
    if "strides" not in given and depth > len(derived["strides"]):
        patch, mm = _x(chosen["patch"]), _x(chosen["spacing_mm"])
        raise MedsegError(
            f"the network has more levels than the patch: {depth} are set by hand",
            evidence=f"a patch of {patch} voxels of {mm} mm gives {len(derived['strides'])} levels",
            mend=f"give {len(derived['strides'])} widths, a larger plan.patch, or strides and kernels too",
        )
    kernels = [*both["kernels"], *[both["kernels"][-1]] * depth][:depth]
    base = both.get("widths", [16])[0]
    found = {"strides": list(both["strides"])[:depth], "kernels": kernels}
    return {**both, **found, "widths": list(given.get("widths") or widths(base, depth))}


def _refuse_grid(plan: Plan) -> None:
    """Refuse a spacing at which a usual image would fill a disk."""
    sides = (np.array(plan.fingerprint[name]["median"]) for name in ("shape", "spacing_mm"))
    voxels = float(np.prod(np.multiply(*sides) / plan.spacing_mm))
    if voxels > _MOST_VOXELS:
        raise MedsegError(
            f"at {_x(plan.spacing_mm)} mm the median image has {voxels:.2g} voxels",
            evidence=f"images of up to {_MOST_VOXELS:.2g} can be prepared",
            mend="set a coarser plan.spacing_mm; lengths are in mm",
        )


def _refuse_patch(plan: Plan) -> None:
    strides = plan.network_arguments.get("strides")
    if not strides:
        return
    padded = [tuple(s) + (1,) * (3 - len(s)) for s in strides]
    total = np.where(np.equal(plan.patch, 1), 1, np.prod(padded, axis=0))  # 2-D: the flat axis stays
    odd = [n for n in range(3) if plan.patch[n] % total[n]]
    if odd:
        needed = [int(np.ceil(p / t) * t) for p, t in zip(plan.patch, total, strict=True)]
        raise MedsegError(
            f"the patch of {_x(plan.patch)} cannot be halved as often as the network does",
            evidence=f"its strides multiply to {_x(total)}",
            mend=f"set plan.patch=[{', '.join(map(str, needed))}], or fewer levels",
        )


def _refuse_memory(plan: Plan, memory_gb: float) -> None:
    if not set(LEVELS) <= set(plan.network_arguments):
        return
    sizes = plan.inputs, plan.outputs
    needed = unet_gb(plan.patch, plan.batch, plan.network_arguments, *sizes, plan.spent.device)
    if needed > memory_gb:
        raise MedsegError(
            f"the plan needs about {needed:.2g} GB, and {memory_gb:.2g} GB may be used",
            evidence=f"{plan.batch} patches of {_x(plan.patch)}, width {plan.network_arguments['widths'][0]}",
            mend="set a smaller plan.patch, plan.batch or width, or a larger plan.memory_gb",
        )


def _known(given: Mapping[str, Any], names: Sequence[str], what: str) -> None:
    for name in given:
        if name not in names:
            raise MedsegError(
                f"there is no {what} '{name}'", evidence=f"{what}s: {', '.join(names)}",
                mend="take one of these names",
            )  # fmt: skip


def _x(sides: Sequence[float] | np.ndarray) -> str:
    return " x ".join(f"{s:g}" for s in sides)
