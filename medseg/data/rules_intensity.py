"""The rule behind a plan's intensity: how each channel's values come to a common scale, and why so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from medseg.data import rules_classes
from medseg.data.budget import Budget
from medseg.data.fingerprint import CaseFingerprint
from medseg.data.plan import Intensity

Cases = Sequence[CaseFingerprint]
Chosen = Mapping[str, Any]

REGIMES = 10.0
"""Ratio of the largest scale of a channel to the smallest, over cases, that speaks of several regimes."""
MASKED = 0.3
"""Share of voxels that equal the lowest value, from which an image counts as cut out."""


def intensity(cases: Cases, cohort: Any, chosen: Chosen, budget: Budget) -> tuple[Any, str]:
    """CT: one window for all, from the foreground. Masks and, to classify, 8-bit pictures: a fixed scale.

    Everything else: each image by itself.
    """
    rules, reasons = {}, []
    flat = all(c.shape[2] == 1 for c in cases)
    for name in cohort.channels:
        facts = [c.channels[name] for c in cases]
        fixed = rules_classes.fixed_scale(facts, flat) if cohort.task == "classification" else None
        rules[name], why = fixed or _channel_intensity(name, cases)
        reasons.append(f"{name}: {why}")
    return rules, "; ".join(reasons)


def _channel_intensity(name: str, cases: Cases) -> tuple[Intensity, str]:
    facts = [c.channels[name] for c in cases]
    inside = [f.foreground for f in facts if f.foreground is not None]
    if inside and _is_ct(name, cases):
        return _ct_window(inside)
    scales = np.array([max(abs(f.high), abs(f.low), 1e-6) for f in facts])
    spread = float(np.percentile(scales, 95) / np.percentile(scales, 5))
    if all(f.levels == 2 for f in facts):
        middle = float(np.median([(f.least + f.most) / 2 for f in facts]))
        return Intensity(name="binary", settings={"above": middle}), "two values: a mask, as 0 and 1"
    if np.median([f.background_share for f in facts]) > MASKED:
        said = f"more than {MASKED:.0%} of the voxels are one value: z-score of what is inside"
        return Intensity(name="zscore", settings={"nonzero": 1.0}), said
    if spread > REGIMES:
        return Intensity(name="percentile_zscore", settings={"low": 0.5, "high": 99.5}), (
            f"scales differ {spread:.0f}-fold between cases, so that no number means the same in all: each "
            "image is cut at its own percentiles 0.5 and 99.5, then z-score"
        )
    return Intensity(name="zscore"), "z-score of each image"


def _is_ct(name: str, cases: Cases) -> bool:
    """By the modality where it is known, else by the channel's name, else by values that only HU have."""
    known = {c.modality for c in cases if c.modality}
    if known:
        return known == {"CT"}
    low = np.median([c.channels[name].low for c in cases])
    return name.lower() in ("ct", "hu") or bool(low < -500)


def _ct_window(inside: Sequence[Mapping[str, float]]) -> tuple[Intensity, str]:
    """Medians over cases, rounded coarsely: one case more or less changes nothing."""
    low = 25 * np.floor(np.percentile([f["p005"] for f in inside], 25) / 25)
    high = 25 * np.ceil(np.percentile([f["p995"] for f in inside], 75) / 25)
    mean = 10 * round(float(np.median([f["mean"] for f in inside])) / 10)
    sd = max(10, 10 * round(float(np.median([f["sd"] for f in inside])) / 10))
    settings = {"low": float(low), "high": float(high), "mean": float(mean), "sd": float(sd)}
    return Intensity(name="window_zscore", settings=settings), (
        f"CT: window {low:g} to {high:g} HU and z-score from the foreground of {len(inside)} cases, rounded"
    )
