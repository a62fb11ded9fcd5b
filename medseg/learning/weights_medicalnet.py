"""MedicalNet: 3-D ResNets trained on 23 sets of medical volumes (one channel, kernels of 7 x 7 x 7 first)."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from medseg.learning.weights_imagenet import depth_of
from medseg.learning.weights_open import Raw


def lacks(raw: Raw) -> str:
    """Why these are not MedicalNet's, or nothing."""
    first = raw.tensors.get("conv1.weight")
    if first is None:
        return "there is no conv1.weight"
    if tuple(first.shape) != (64, 1, 7, 7, 7):
        return f"conv1.weight is {tuple(first.shape)}, MedicalNet's is (64, 1, 7, 7, 7)"
    return "" if "layer4.0.conv1.weight" in raw.tensors else "there is no layer4"


def read(raw: Raw) -> tuple[dict[str, Tensor], dict[str, Any], dict[str, int]]:
    """Names are MONAI's already; the head for segmentation, where there is one, is left behind."""
    kept = {name: t for name, t in raw.tensors.items() if not name.startswith("conv_seg.")}
    depth = depth_of(kept)
    biased = any(name.endswith("downsample.0.bias") for name in kept)
    arguments = {
        "depth": depth,
        "shortcut_type": "B" if any(".downsample." in name for name in kept) else "A",  # A has no weights
        "bias_downsample": biased,
        "conv1_t_stride": 2,
        "widen_factor": 1.0,
    }
    facts = {
        "network": "resnet",
        "network_arguments": arguments,
        "dimensions": 3,
        "task": "classification",
        "notes": [
            "trained with dilated layers 3 and 4, which ours strides instead: the weights are the same"
        ],
    }
    left = sum(t.numel() for name, t in raw.tensors.items() if name not in kept)
    return kept, facts, {"head for segmentation": left} if left else {}
