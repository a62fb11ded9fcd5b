"""The values of a reference mask: checked against the labels, mapped when told, never guessed."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.core.errors import CaseError
from medseg.data.cohort import Ingesting
from medseg.imaging.image import Image
from medseg.imaging.labels import Labels, values_of

SETTING = "ingest"
"""Section of a configuration in which the proposed mappings go."""


def checked_reference(raw: Image, labels: Labels, settings: Ingesting) -> Image:
    """The reference with whole, configured values, after threshold and map where these are set.

    Raises
    ------
    CaseError
        Values that are not whole or not configured, with voxel counts and a proposed mapping.
    """
    array = raw.array
    if settings.label_threshold is not None:
        array = (array > settings.label_threshold).astype(np.uint8)
    small = _whole(array)
    if small is None:
        values, counts = np.unique(array.ravel("K"), return_counts=True)
        raise _not_configured(values, counts, [], labels)
    values, counts = _counts(small)
    known = {0, settings.ignore, *values_of(labels)}
    strange = _strange(values, known, settings.label_map) if labels else []
    if strange:
        raise _not_configured(values, counts, strange, labels)
    return raw.but(_mapped(small, values, settings.label_map))


def label_voxels(mask: Image) -> dict[int, int]:
    """Foreground value -> number of voxels."""
    values, counts = _counts(mask.array)
    return {int(v): int(n) for v, n in zip(values, counts, strict=True) if v != 0}


def _whole(array: NDArray[Any]) -> NDArray[Any] | None:
    """The array as ``uint8`` or ``uint16``; None when a value is not whole, or outside 0 to 65535."""
    low, high = float(array.min()), float(array.max())
    if low < -1e-3 or high > 65535:
        return None
    kind = np.uint8 if high < 255.5 else np.uint16
    if array.dtype.kind != "f":
        return array.astype(kind)
    small = (array + np.float32(0.5)).astype(kind)
    return small if float(np.abs(array - small).max()) <= 1e-3 else None


def _counts(array: NDArray[Any], chunk: int = 2**22) -> tuple[NDArray[Any], NDArray[Any]]:
    """Values of an array of small whole numbers, and how often each occurs; in little memory."""
    flat = array.ravel("K")
    total = np.zeros(int(flat.max(initial=0)) + 1, np.int64)
    for start in range(0, flat.size, chunk):
        total += np.bincount(flat[start : start + chunk], minlength=total.size)
    values = np.flatnonzero(total)
    return values, total[values]


def _strange(
    values: NDArray[Any], known: Collection[int | None], label_map: Mapping[int, int]
) -> list[float]:
    """Values that are, once mapped, neither background nor of a label (nor the one nobody knows)."""
    after = {float(old): float(new) for old, new in label_map.items()}
    return [v for v in map(float, values) if after.get(v, v) not in known]


def _mapped(array: NDArray[Any], values: NDArray[Any], label_map: Mapping[int, int]) -> NDArray[Any]:
    if not label_map:
        return array
    new = {int(v): label_map.get(int(v), int(v)) for v in values}
    table = np.zeros(int(array.max()) + 1, np.uint8 if max(new.values()) <= 255 else np.uint16)
    for old, value in new.items():
        table[old] = value
    return table[array]


def _not_configured(
    values: NDArray[Any], counts: NDArray[Any], strange: Sequence[float], labels: Labels
) -> CaseError:
    what = "the reference has values that are not configured as labels"
    whole = bool(np.array_equal(values, np.rint(values)))
    if not whole:
        what = "the reference has values that are not whole numbers"
    elif values[0] < 0 or values[-1] > 65535:
        what = "the reference has values outside 0 to 65535"
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
