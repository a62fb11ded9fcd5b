"""The values of a reference mask: checked against the labels, mapped when told, never guessed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.core.errors import CaseError
from medseg.data.cohort import Ingesting
from medseg.imaging.image import Image
from medseg.imaging.labels import Labels

SETTING = "ingest"
"""Section of a configuration in which the proposed mappings go."""


def checked_reference(raw: Image, labels: Labels, settings: Ingesting) -> Image:
    """The reference with whole, configured values, after threshold and map where these are set.

    Raises
    ------
    CaseError
        Values that are not whole or not configured, with voxel counts and a proposed mapping.
    """
    array = raw.array.astype(np.float32, copy=False)
    if settings.label_threshold is not None:
        array = (array > settings.label_threshold).astype(np.float32)
    rounded = np.rint(array)
    whole = bool((np.abs(array - rounded) <= 1e-3).all())
    values, counts = np.unique(rounded if whole else array, return_counts=True)
    strange = _strange(values, labels, settings.label_map) if labels else []
    if strange or not whole or values[0] < 0 or values[-1] > 65535:
        raise _not_configured(values, counts, strange, whole, labels)
    mapped = _mapped(rounded, values, settings.label_map)
    return raw.but(mapped.astype(np.uint8 if mapped.max() <= 255 else np.uint16))


def _strange(values: NDArray[Any], labels: Labels, label_map: Mapping[int, int]) -> list[float]:
    """Values that are, once mapped, neither background nor a label."""
    known = {0.0, *(float(label.value) for label in labels)}
    after = {float(old): float(new) for old, new in label_map.items()}
    return [v for v in map(float, values) if after.get(v, v) not in known]


def _mapped(array: NDArray[Any], values: NDArray[Any], label_map: Mapping[int, int]) -> NDArray[Any]:
    if not label_map:
        return array
    table = np.zeros(int(values[-1]) + 1, np.int64)
    for value in values.astype(int):
        table[value] = label_map.get(int(value), int(value))
    return table[array.astype(np.int64)]


def _not_configured(
    values: NDArray[Any], counts: NDArray[Any], strange: Sequence[float], whole: bool, labels: Labels
) -> CaseError:
    what = "the reference has values that are not configured as labels"
    if not whole:
        what = "the reference has values that are not whole numbers"
    names = ", ".join(f"{label.name}={label.value}" for label in labels) or "none configured"
    return CaseError(
        what,
        evidence=f"voxels by value: {_counted(values, counts)}; labels: {names}",
        mend=_proposal(values, strange, whole, labels),
    )


def _proposal(values: NDArray[Any], strange: Sequence[float], whole: bool, labels: Labels) -> str:
    """A mapping that fits what was seen: a threshold for grey masks, a map for other numbers."""
    high = float(values[-1])
    if len(labels) == 1 and (not whole or (len(values) > 2 and high == 255 and values[0] >= 0)):
        half = 0.5 if high <= 1 else float(int(high) // 2)
        return f"a grey-valued mask? then set {SETTING}.label_threshold={half:g}"
    if not whole:
        return "save it with nearest-neighbour interpolation and an integer type"
    targets = [label.value for label in labels]
    if len(values) == 2 and len(strange) == 1 and len(labels) == 1:
        return (
            f"if {strange[0]:.0f} means {labels[0].name}: {SETTING}.label_map.{strange[0]:.0f}={targets[0]}"
        )
    maps = " ".join(f"{SETTING}.label_map.{v:.0f}=0" for v in strange[:4])
    return (
        f"add the missing labels to the configuration, or map the values, for example to background: {maps}"
    )


def _counted(values: NDArray[Any], counts: NDArray[Any], limit: int = 8) -> str:
    pairs = [f"{v:.6g}: {n}" for v, n in zip(values, counts, strict=True)]
    return ", ".join(pairs[:limit]) + (f" and {len(pairs) - limit} more values" if len(pairs) > limit else "")


def label_voxels(mask: Image) -> dict[int, int]:
    """Foreground value -> number of voxels."""
    values, counts = np.unique(mask.array, return_counts=True)
    return {int(v): int(n) for v, n in zip(values, counts, strict=True) if v != 0}
