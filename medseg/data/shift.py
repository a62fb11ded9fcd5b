"""How far the images of one site lie from those of another, in numbers with a rank effect size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.data.fingerprint import CaseFingerprint

Floats = NDArray[np.float64]

LARGE = 0.47
"""From here on Cliff's delta is called large (Romano et al. 2006)."""


def cliffs_delta(source: Sequence[float], target: Sequence[float]) -> float:
    """Chance that a target value is larger than a source value, less the chance that it is smaller.

    >>> cliffs_delta([1, 2, 3], [4, 5]), cliffs_delta([1, 2], [1, 2])
    (1.0, 0.0)
    """
    a, b = np.asarray(source, float), np.asarray(target, float)
    return float(np.sign(b[:, None] - a[None, :]).mean())


def differences(source: Sequence[CaseFingerprint], target: Sequence[CaseFingerprint]) -> list[dict[str, Any]]:
    """A row for each quantity of a fingerprint: medians, delta, share of target cases out of range.

    Values are those of the images as they are, before any plan.
    """
    theirs, ours = quantities(target), quantities(source)
    return [_row(name, ours[name], theirs[name]) for name in ours if name in theirs]


def quantities(cases: Sequence[CaseFingerprint]) -> dict[str, Floats]:
    """Name -> one value a case: grey values of each channel, their shape, spacing and size by axis."""
    found: dict[str, Any] = {}
    for channel in cases[0].channels:
        facts = [case.channels[channel] for case in cases]
        for name in ("low", "high", "mean", "sd", "background_share"):
            found[f"{channel}.{name}"] = [getattr(f, name) for f in facts]
        found[f"{channel}.mean_in_range"] = [(f.mean - f.low) / max(f.high - f.low, 1e-12) for f in facts]
    for n, axis in enumerate("ijk"):
        found[f"spacing_{axis}_mm"] = [case.spacing_mm[n] for case in cases]
        found[f"size_{axis}_mm"] = [case.spacing_mm[n] * case.shape[n] for case in cases]
    return {name: np.array(values, float) for name, values in found.items()}


def volumes(
    source: Sequence[Mapping[str, float]], target: Sequence[Mapping[str, float]]
) -> list[dict[str, Any]]:
    """A row for each label: its volume (ml) in source and target."""
    names = [name for name in source[0] if name in target[0]] if source and target else []
    return [
        _row(f"volume_ml.{n}", np.array([s[n] for s in source]), np.array([t[n] for t in target]))
        for n in names
    ]


def distance(source: Floats, target: Floats) -> float:
    """Mean distance of two percentile curves, in standard deviations of the source's (Wasserstein-1)."""
    spread = float(np.std(source))
    return float(np.abs(np.asarray(target) - source).mean() / max(spread, 1e-12))


def _row(name: str, source: Floats, target: Floats) -> dict[str, Any]:
    outside = (target < source.min()) | (target > source.max())
    return {
        "quantity": name,
        "source": _short(float(np.median(source))),
        "target": _short(float(np.median(target))),
        "delta": round(cliffs_delta(source.tolist(), target.tolist()), 3),
        "target_outside_source": round(float(outside.mean()), 3),
    }


def _short(value: float) -> float:
    return float(f"{value:.6g}")
