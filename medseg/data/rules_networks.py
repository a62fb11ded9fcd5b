"""Arguments of networks that are not our own U-Nets, from the plan's patch, spacing and device."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

Found = tuple[dict[str, Any], str]

_COARSEST = 4
"""The middle side of the patch keeps this many voxels, where a network halves all axes alike."""


def arguments_of(
    network: str, patch: Sequence[int], device: str, strides: Sequence[Sequence[int]], kernels: Sequence
) -> Found:
    """Arguments of a network and the reason; none for networks that are not known here.

    Parameters
    ----------
    patch : (I, J, K)
        Voxels; K = 1 in 2-D.
    device : {"cpu", "gpu"}
        A GPU has time for twice the width.
    strides, kernels : sequence of three int
        Levels that fit patch and spacing.
    """
    rule = _RULES.get(network)
    return rule(patch, device == "gpu", strides, kernels) if rule else ({}, "defaults of the network")


def halvings(patch: Sequence[int], most: int) -> int:
    """How often all axes may be halved together, by the middle of the sides that have more than one voxel."""
    side = float(np.median([s for s in patch if s > 1] or [1]))
    return int(np.clip(np.floor(np.log2(max(side, 1) / _COARSEST)), 1, most))


def padded(patch: Sequence[int], step: int) -> str:
    """Words on what becomes of a patch whose sides must be multiples of `step`."""
    sides = [1 if s == 1 else -(-s // step) * step for s in patch]
    shown = " x ".join(str(s) for s in sides)
    same = list(patch) == sides
    return "" if same else f"; sides must be multiples of {step}: padded inside to {shown}"


def _dynunet(patch: Sequence[int], wide: bool, strides: Sequence, kernels: Sequence) -> Found:
    ones = [[1, 1, 1]] * max(0, 3 - len(strides))  # MONAI's class has three levels at least
    strides, kernels = [*strides, *ones], [*kernels, *[kernels[-1]] * len(ones)]
    base = 32 if wide else 16
    filters = [min(base * 2**level, 320) for level in range(len(strides))]
    found = {"filters": filters, "strides": strides, "kernels": kernels, "supervised": 2}
    return found, f"{len(strides)} levels by patch and spacing, width {base}; two coarser levels supervised"


def _segresnet(patch: Sequence[int], wide: bool, strides: Sequence, kernels: Sequence) -> Found:
    downs = halvings(patch, 3)
    found = {"init_filters": 32 if wide else 16, "blocks_down": [1, 2, 2, 4][: downs + 1]}
    return found, f"halves all axes {downs} times" + padded(patch, 2**downs)


def _mednext(patch: Sequence[int], wide: bool, strides: Sequence, kernels: Sequence) -> Found:
    downs = halvings(patch, 4)
    found = {"init_filters": 32 if wide else 16, "blocks_down": [2] * downs, "supervised": min(2, downs)}
    return found, f"halves all axes {downs} times, coarser levels supervised" + padded(patch, 2**downs)


def _monai_unet(patch: Sequence[int], wide: bool, strides: Sequence, kernels: Sequence) -> Found:
    downs, base = halvings(patch, 4), 32 if wide else 16
    found = {"channels": [base * 2**n for n in range(downs + 1)], "strides": [2] * downs, "num_res_units": 2}
    return found, f"halves all axes {downs} times" + padded(patch, 2**downs)


def _unetr(patch: Sequence[int], wide: bool, strides: Sequence, kernels: Sequence) -> Found:
    found = {"hidden_size": 768 if wide else 192, "feature_size": 16}
    return found, "tokens of 16 voxels a side" + padded(patch, 16)


def _swinunetr(patch: Sequence[int], wide: bool, strides: Sequence, kernels: Sequence) -> Found:
    return {"feature_size": 48 if wide else 24}, "tokens of 2 voxels a side, halved four times" + padded(
        patch, 32
    )


_RULES: Mapping[str, Callable[..., Found]] = {
    "dynunet": _dynunet,
    "segresnet": _segresnet,
    "mednext": _mednext,
    "monai_unet": _monai_unet,
    "unetr": _unetr,
    "swinunetr": _swinunetr,
}
