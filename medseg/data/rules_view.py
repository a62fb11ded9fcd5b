"""What a plan looks at: how much of the organ a patch shows, flat or deep, and where patches are taken.

As in `medseg.data.rules`: ``(fingerprints, cohort, chosen so far, budget) -> (value, reason)``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from medseg.core.values import validated
from medseg.data.budget import Budget
from medseg.data.fingerprint import CaseFingerprint
from medseg.data.plan import Cascade, Sampling

Cases = Sequence[CaseFingerprint]
Chosen = Mapping[str, Any]

FLAT_RATIO, FLAT_SLICES = 3.0, 12
"""Slices this many times as thick as pixels are wide, and fewer than this many of them: planned in 2-D."""
SEEN = 0.25
"""Share of the organ a patch must show; below it a coarse network looks first."""
SHOWN = 0.95
"""Share of it that the coarse network's patch shows."""
_COARSER = 1.25
_RARE = 0.5
_MOST_OFTEN = 10.0
_SELDOM_HIT, _MORE_FOREGROUND = 0.1, 0.67


def thick_slices(cases: Cases, spacing_mm: Sequence[float]) -> str:
    """Why the plan should be 2-D, or nothing: few thick slices tell little of each other."""
    ratio = spacing_mm[2] / max(spacing_mm[0], spacing_mm[1])
    slices = float(np.median([c.shape[2] * c.spacing_mm[2] / spacing_mm[2] for c in cases]))
    if ratio < FLAT_RATIO or not 1 < slices < FLAT_SLICES:
        return ""
    return (
        f"2-D: {slices:.0f} slices (median), {ratio:.1f} times as thick as pixels are wide; "
        f"3-D below a ratio of {FLAT_RATIO:g} or from {FLAT_SLICES} slices on"
    )


def cascade(cases: Cases, cohort: Any, chosen: Chosen, budget: Budget) -> tuple[Any, str]:
    """A coarse first network where a patch shows too little of the organ to know where it is."""
    if cohort.task == "classification" or chosen["patch"][2] == 1:
        return None, "none: for 3-D segmentation only"
    organ = _organ_mm(cases)
    share = _share(chosen["patch"], chosen["spacing_mm"], organ)
    if share >= SEEN:
        return None, f"none: a patch shows {share:.0%} of the labelled region (median), {SEEN:.0%} are enough"
    spacing, patch = _coarse(chosen, organ)
    found = validated(Cascade, {"spacing_mm": spacing, "patch": patch})
    return found, (
        f"a patch shows {share:.0%} of the labelled region (median {_x(organ)} mm), less than {SEEN:.0%}: "
        f"a first network at {_x(spacing)} mm sees {_share(patch, spacing, organ):.0%} at once"
    )


def sampling(cases: Cases, cohort: Any, chosen: Chosen, budget: Budget) -> tuple[Any, str]:
    """More patches on labels where chance seldom hits one; rare labels first where a case has them."""
    if cohort.task == "classification":
        return Sampling(), "whole images: see balance"
    hit = float(np.median([_hit(c, chosen) for c in cases]))
    foreground = _MORE_FOREGROUND if hit < _SELDOM_HIT else Sampling().foreground
    why = f"a patch anywhere meets the labelled region in {hit:.0%} of draws: {foreground:.0%} on labels"
    weights, told = _label_weights(cases, cohort)
    return Sampling(foreground=foreground, label_weights=weights), f"{why}; {told}"


def _organ_mm(cases: Cases) -> np.ndarray:
    """Median sides of the box of all labels; of the image where there is none."""
    sides = [np.multiply(c.box or c.shape, c.spacing_mm) for c in cases]
    return np.median(sides, axis=0)


def _share(patch: Sequence[int], spacing_mm: Sequence[float], organ_mm: np.ndarray) -> float:
    sides = np.multiply(patch, spacing_mm)
    return float(np.prod(np.minimum(1.0, sides / organ_mm)))


def _coarse(chosen: Chosen, organ_mm: np.ndarray) -> tuple[list[float], list[int]]:
    """Spacing at which as many voxels show the organ: the finest axes grow first, then all together.

    Sides keep the multiples that the patch of the plan has, so that it can be halved as often.
    """
    mm, patch = np.array(chosen["spacing_mm"], float), np.array(chosen["patch"])
    step = np.array([int(p & -p) if p else 1 for p in patch.tolist()])
    step, voxels = np.minimum(step, 16), float(np.prod(patch))
    while True:
        finest = mm < _COARSER * mm.min()
        mm = np.where(finest, mm * _COARSER, mm)
        sides = _box(organ_mm / mm, voxels, step)
        if _share(sides.tolist(), mm.tolist(), organ_mm) >= SHOWN:
            return [float(f"{s:.4g}") for s in mm], [int(s) for s in sides]


def _box(wanted: np.ndarray, voxels: float, step: np.ndarray) -> np.ndarray:
    """Sides of at most so many voxels in all, in proportion to what is wanted, in multiples of `step`."""
    shrink = min(1.0, (voxels / np.prod(np.maximum(wanted, 1.0))) ** (1 / 3))
    up = np.maximum(1, np.ceil(wanted * shrink / step)) * step
    down = np.maximum(1, np.floor(wanted * shrink / step)) * step
    return (up if np.prod(up) <= voxels else down).astype(int)


def _hit(case: CaseFingerprint, chosen: Chosen) -> float:
    """Chance that a patch placed anywhere inside the image meets the box of the labels."""
    if case.box is None:
        return 0.0
    mm = np.array(case.spacing_mm)
    image, organ = case.shape * mm, case.box * mm
    patch = np.minimum(np.multiply(chosen["patch"], chosen["spacing_mm"]), image)
    free = np.maximum(image - patch, 1e-6)
    return float(np.prod(np.clip((organ + patch) / (free + patch), 0, 1)))


def _label_weights(cases: Cases, cohort: Any) -> tuple[tuple[float, ...], str]:
    names = {label.value: label.name for label in cohort.labels}
    share = {v: float(np.mean([c.voxels.get(v, 0) > 0 for c in cases])) for v in names}
    if len(names) < 2 or min(share.values()) >= _RARE:
        return (), "labels equally often"
    weights = tuple(float(f"{min(1 / max(s, 1e-6), _MOST_OFTEN):.3g}") for s in share.values())
    rare = ", ".join(f"{names[v]} in {s:.0%} of the cases" for v, s in share.items() if s < _RARE)
    return weights, f"labels weighed by how seldom they are there ({rare}), at most {_MOST_OFTEN:g}"


def _x(sides: Sequence[float] | np.ndarray) -> str:
    return " x ".join(f"{s:.3g}" for s in sides)
