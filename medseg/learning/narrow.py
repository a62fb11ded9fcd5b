"""Which networks a CPU may compute in bfloat16: those it computes faster so, and rightly.

With torch 2.13 the weight gradients of 3-D convolutions whose input is narrower than their kernel hold memory
that was never written (kernels of 7 on 4 voxels end in a corrupted heap), and so do those of strided 2-D
convolutions of a single pixel. Wider inputs agree with float32 to rounding.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from medseg.core.values import digest
from medseg.data.plan import Plan

FASTER = ("unet", "joint_unet", "resnet", "densenet", "senet", "vit", "slices_lstm", "slices_attention")
"""Measured with AVX-512 BF16: 1.3 (squeeze and excitation) to 2 times (U-Net); EfficientNet is slower."""

_known: dict[str, bool] = {}


def narrow_enough(plan: Plan) -> bool:
    """Whether bfloat16 is faster for the plan's network on a CPU, and no input too small for its kernel.

    Other networks, dotted names among them, stay in float32: nobody has measured them.
    """
    if plan.network not in FASTER:
        return False
    key = digest([plan.network, plan.network_arguments, plan.patch, len(plan.channels), plan.outputs])
    if key not in _known:
        _known[key] = all(_right(conv, sides) for conv, sides in convolutions(plan))
    return _known[key]


def convolutions(plan: Plan) -> list[tuple[Any, tuple[int, ...]]]:
    """Each convolution of the plan's network and the sides of its input, from one look at nothing."""
    from medseg.learning.networks import build_network

    seen: list[tuple[Any, tuple[int, ...]]] = []
    with torch.random.fork_rng(devices=[]), torch.inference_mode():
        network = build_network(plan).eval()
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.Conv3d):
                module.register_forward_hook(lambda m, x, _y: seen.append((m, tuple(x[0].shape[2:]))))
        network(torch.zeros(1, len(plan.channels), *plan.patch))
    return seen


def _right(conv: Any, sides: tuple[int, ...]) -> bool:
    if isinstance(conv, nn.Conv2d):
        return min(sides) > 1 or max(conv.kernel_size) == 1
    # as wide as the kernel is wide enough at stride 1 alone: 7 on 7 voxels at stride 2 is wrong too
    each = zip(sides, conv.kernel_size, conv.stride, strict=True)
    return all(side >= kernel + (stride > 1) for side, kernel, stride in each)
