"""The rules behind a plan. Each: ``(fingerprints, cohort, chosen so far, budget) -> (value, reason)``.

They know spacing, extent, intensity and what may be spent; they do not know any data set by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from medseg.data import rules_classes, rules_view
from medseg.data.budget import BASE_GB, Budget, unet_gb, unet_gflop, voxel_bytes
from medseg.data.fingerprint import CaseFingerprint
from medseg.data.plan import Plan
from medseg.data.rules_networks import arguments_of

Cases = Sequence[CaseFingerprint]
Chosen = Mapping[str, Any]

MIN_SIDE = 4
"""Smallest side of the coarsest feature map, in voxels."""
UNETS = ("unet", "joint_unet", "residual_unet", "attention_unet", "unetpp")
"""Networks with levels and widths of our own."""
ANISOTROPIC = 3.0
"""Spacing ratio from which the coarse axis is treated with care."""


def spacing(cases: Cases, cohort: Any, chosen: Chosen, budget: Budget) -> tuple[Any, str]:
    """Median spacing; along a much coarser axis a finer one, to lose no detail of the better scans."""
    all_mm = np.array([c.spacing_mm for c in cases])
    middle = np.median(all_mm, axis=0)
    why = f"median of {len(cases)} cases{_in_pixels(cases)}"
    coarse = int(np.argmax(middle))
    if middle[coarse] > ANISOTROPIC * np.delete(middle, coarse).min():
        finer = float(np.percentile(all_mm[:, coarse], 10))
        middle[coarse] = max(finer, float(np.delete(middle, coarse).max()))
        why += f"; axis {'IJK'[coarse]} is coarse: 10th percentile there"
    if cohort.task == "classification":
        extent = np.median([np.multiply(c.shape, c.spacing_mm) for c in cases], axis=0)
        shrink = max(1.0, float((extent / middle).max()) / _class_side(cases, budget))
        middle = middle * shrink
        why += f"; coarser by {shrink:.2g} so that the whole image is one patch" if shrink > 1 else ""
    return tuple(float(f"{s:.4g}") for s in middle), why


def _in_pixels(cases: Cases) -> str:
    """What must be known of lengths where images do not say how large their pixels are."""
    bare = sum(not c.spacing_known for c in cases)
    if bare == len(cases):
        return ", in pixels: no image says how large its pixels are, and mm means pixels throughout"
    return (
        f"; {bare} of them do not say how large their pixels are: 1 mm stands for a pixel there"
        if bare
        else ""
    )


def patch(cases: Cases, cohort: Any, chosen: Chosen, budget: Budget) -> tuple[Any, str]:
    """The median image, rounded up, when it fits; else a box of equal sides in mm that does."""
    extent = extent_voxels(cases, chosen["spacing_mm"])
    if cohort.task == "classification":
        side = _class_side(cases, budget)
        return tuple(_up(min(e, side), chosen["spacing_mm"], a) for a, e in enumerate(extent)), (
            "the whole image, shrunk where it is larger"
        )
    flat = rules_view.thick_slices(cases, chosen["spacing_mm"])
    seen = (*extent[:2], 1) if flat else extent
    most = patch_voxels(budget, len(cohort.channels))
    full = tuple(_up(e, chosen["spacing_mm"], a) for a, e in enumerate(seen))
    why = [flat] if flat else []
    if np.prod(full) <= most:
        return full, "; ".join([*why, f"covers the median extent {_x(seen)}, rounded up for pooling"])
    sides = _equal_mm(seen, chosen["spacing_mm"], most)
    down = tuple(_down(s, chosen["spacing_mm"], a) for a, s in enumerate(sides))
    why.append(
        f"median extent {_x(seen)} is more than {most} voxels, what {budget.device} and "
        f"{budget.memory_gb:g} GB allow: equal sides in mm within that"
    )
    return down, "; ".join(why)


def network(cases: Cases, cohort: Any, chosen: Chosen, budget: Budget) -> tuple[Any, str]:
    """One good network a task."""
    dimensions = 2 if chosen["patch"][2] == 1 else 3
    if cohort.task == "classification":
        return "resnet", f"{dimensions}-D residual network for whole images"
    return "unet", f"{dimensions}-D U-Net (the patch is {_x(chosen['patch'])})"


def network_arguments(cases: Cases, cohort: Any, chosen: Chosen, budget: Budget) -> tuple[Any, str]:
    """Levels from patch and spacing; width from the arithmetic that the time allows."""
    if cohort.task == "classification":
        return rules_classes.network_arguments(cases, cohort, chosen, budget)
    strides, kernels = levels(chosen["patch"], chosen["spacing_mm"])
    if chosen["network"] not in UNETS:
        return arguments_of(chosen["network"], chosen["patch"], budget.device, strides, kernels)
    slices = _slices(cases, chosen)
    base, gflop, wanted, arguments = WIDTHS[-1], 0.0, 0, {}
    for base in WIDTHS:
        wanted = _WANTED_PATCHES[base > _USUAL] * slices
        arguments = {"widths": widths(base, len(strides)), "strides": strides, "kernels": kernels}
        gflop = _training_gflop(arguments, cohort, chosen)
        if gflop * wanted <= budget.gflop and _fits(arguments, 2, cohort, chosen, budget):
            break
    return arguments, (
        f"{len(strides)} levels, halving an axis while it keeps {MIN_SIDE} voxels and is not coarser than "
        f"twice the finest; width {base}: the widest of {', '.join(map(str, sorted(WIDTHS)))} that sees "
        f"{wanted} patches at {gflop:.3g} GFLOP each in {budget.minutes:g} minutes at {budget.said}, and "
        f"trains two patches in {budget.memory_gb:g} GB"
    )


def members(cases: Cases, cohort: Any, chosen: Chosen, budget: Budget) -> tuple[Any, str]:
    """Several networks in place of one long training, as long as each still sees enough patches.

    Small sets are learned by heart in a long training; the mean of several short ones is better.
    """
    arguments = chosen["network_arguments"]
    if budget.budget_minutes is None or cohort.task == "classification" or "widths" not in arguments:
        return 1, "one network a fold, unless a budget of minutes leaves room for more"
    patches = budget.gflop / _training_gflop(arguments, cohort, chosen)
    slices = _slices(cases, chosen)
    enough = max(_ENOUGH_PATCHES, _ENOUGH_PASSES * len(cases)) * slices
    number = int(np.clip(patches / enough, 1, _MOST_MEMBERS))
    return number, (
        f"about {patches:.0f} patches are seen in {budget.budget_minutes:g} minutes at {budget.said}; "
        f"{enough} are enough for one network, {_MOST_MEMBERS} at most"
    )


def _training_gflop(arguments: Mapping[str, Any], cohort: Any, chosen: Chosen) -> float:
    return unet_gflop(chosen["patch"], arguments, len(cohort.channels), len(cohort.labels) + 1)


def plan_gflop(plan: Plan) -> float | None:
    """Arithmetic of training on one patch of a plan; None for networks whose arithmetic is not counted."""
    arguments = plan.network_arguments
    if plan.network in UNETS and {"widths", "strides", "kernels"} <= set(arguments):
        return unet_gflop(plan.patch, arguments, plan.inputs, plan.outputs)
    return rules_classes.training_gflop(plan) if plan.network == "resnet" else None


def batch(cases: Cases, cohort: Any, chosen: Chosen, budget: Budget) -> tuple[Any, str]:
    """About as many voxels a step as pay; at least two patches, for the batch's statistics."""
    voxels = int(np.prod(chosen["patch"]))
    if cohort.task == "classification":
        return rules_classes.batch(cases, cohort, chosen, budget)
    aim = _STEP_VOXELS[budget.device]
    wanted = size = int(np.clip(aim // voxels, 2, 32))
    arguments = chosen["network_arguments"]
    while chosen["network"] in UNETS and size > 2 and not _fits(arguments, size, cohort, chosen, budget):
        size -= 1
    less = f"; {size} of {wanted} fit into {budget.memory_gb:g} GB" if size < wanted else ""
    return size, f"about {aim} voxels a step, from 2 to 32 patches{less}"


def patch_voxels(budget: Budget, inputs: int) -> int:
    """Voxels one patch may have: what a step of two pays off with, and what memory holds of a usual width."""
    usual = 16 if budget.device == "cpu" else 32
    most = 2**17 if budget.device == "cpu" else 2**21
    held = 0.5 * (budget.memory_gb - BASE_GB[budget.device]) * 1e9 / voxel_bytes(usual, inputs)
    return int(np.clip(held, MIN_SIDE**3, most))


def _fits(arguments: Mapping[str, Any], batch: int, cohort: Any, chosen: Chosen, budget: Budget) -> bool:
    sizes = len(cohort.channels), len(cohort.labels) + 1
    return unet_gb(chosen["patch"], batch, arguments, *sizes, budget.device) <= budget.memory_gb


WIDTHS = (32, 24, 16, 12, 8)
_USUAL = 16
_WANTED_PATCHES = (2500, 4500)
"""Patches all networks of a fold should see: 160 images of one patch each, 15 times; 28 times before they are
wider than `_USUAL`: the mean of two networks of that width was seen to pay, a wider one not yet."""
_ENOUGH_PATCHES, _ENOUGH_PASSES = 1400, 4
"""Patches one network should see before a second one is worth more (measured with Muon), and how often each
case."""
_MOST_MEMBERS = 3
_STEP_VOXELS = {"cpu": 2**17 + 2**16, "gpu": 2**22}


def widths(base: int, depth: int, largest: int = 320) -> list[int]:
    """Channels a level: doubling from `base`."""
    return [min(base * 2**level, largest) for level in range(depth)]


def levels(patch: Sequence[int], spacing_mm: Sequence[float], deepest: int = 6) -> tuple[list, list]:
    """Strides and kernels of each level, first level included (stride 1).

    An axis is halved while it stays even and at least `MIN_SIDE` voxels, and while its spacing is
    within a factor of two of the finest axis still to be halved; a kernel reaches along an axis from
    the level on where its spacing is within that factor of the finest.
    """
    size, mm = np.array(patch), np.array(spacing_mm, float)
    reach = _reaches(size, mm)
    strides, kernels = [[1, 1, 1]], [_kernel(reach)]
    while len(strides) < deepest:
        can = (size % 2 == 0) & (size // 2 >= MIN_SIDE)
        if not can.any():
            break
        halve = can & (mm < 2 * mm[can].min())
        step = np.where(halve, 2, 1)
        size, mm = size // step, mm * step
        reach = reach | _reaches(size, mm)
        strides.append(step.tolist())
        kernels.append(_kernel(reach))
    return strides, kernels


def extent_voxels(cases: Cases, spacing_mm: Sequence[float]) -> tuple[int, int, int]:
    """Median image size at the plan's spacing."""
    mm = np.array([np.multiply(c.shape, c.spacing_mm) for c in cases])
    i, j, k = np.maximum(1, np.round(np.median(mm / np.array(spacing_mm), axis=0))).astype(int)
    return int(i), int(j), int(k)


def _reaches(size: np.ndarray, mm: np.ndarray) -> np.ndarray:
    return (size > 1) & (mm < 2 * mm[size > 1].min()) if (size > 1).any() else size > 1


def _kernel(reach: np.ndarray) -> list[int]:
    return [3 if r else 1 for r in reach]


def _poolings(size: float) -> int:
    return int(np.clip(np.floor(np.log2(max(size, 1) / MIN_SIDE)), 0, 5))


def _up(size: float, spacing_mm: Sequence[float], axis: int) -> int:
    step = 2 ** min(_poolings(size), _cap(spacing_mm, axis))
    return int(np.ceil(size / step) * step)


def _down(size: float, spacing_mm: Sequence[float], axis: int) -> int:
    step = 2 ** min(_poolings(size), _cap(spacing_mm, axis))
    return max(1, int(size // step) * step)


def _cap(spacing_mm: Sequence[float], axis: int) -> int:
    """At most three to four halvings: rounding to more only pads."""
    behind = np.log2(spacing_mm[axis] / min(spacing_mm))
    return max(0, 4 - round(float(behind)))


def _equal_mm(extent: Sequence[int], spacing_mm: Sequence[float], voxels: int) -> np.ndarray:
    """Sides in voxels of the largest box of equal sides in mm, cut to `extent`, with at most `voxels`."""
    low, high = 0.0, float(np.max(np.multiply(extent, spacing_mm)))
    for _ in range(50):
        side = (low + high) / 2
        fits = np.prod(np.minimum(side / np.array(spacing_mm), extent)) <= voxels
        low, high = (side, high) if fits else (low, side)
    return np.maximum(1, np.minimum(low / np.array(spacing_mm), extent))


def _class_side(cases: Cases, budget: Budget) -> int:
    flat = np.median([c.shape[2] for c in cases]) == 1
    return (128 if flat else 64) * (1 if budget.device == "cpu" else 2)


def _slices(cases: Cases, chosen: Chosen) -> int:
    """Patches that an image is cut into along its depth: 2-D plans see one slice at a time."""
    return 1 if chosen["patch"][2] > 1 else extent_voxels(cases, chosen["spacing_mm"])[2]


def _x(sizes: Sequence[int]) -> str:
    return " x ".join(str(int(s)) for s in sizes)
