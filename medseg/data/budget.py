"""What a training may use, and how much arithmetic our U-Net asks of it."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from pydantic import ConfigDict, Field

from medseg.core.values import Value

STEP = 1.25
"""Measured rates are rounded to powers of this: a machine gives the same one day after day."""
NOMINAL_PER_CORE = 60.0
"""1e9 operations a second a core, where nothing was measured: convolutions forward and backward, float32,
AVX-512, channels last, the whole training loop."""
NOMINAL_GPU = 10_000.0
BASE_GB = {"cpu": 0.35, "gpu": 0.05}
"""Python, torch and MONAI, before anything is trained."""
VALUE_BYTES = {"float32": 10.8, "bfloat16": 6.6}
"""Measured: bytes that training keeps of each value that a convolution gives, its norm's share included."""
_VOXEL_BYTES, _WEIGHT_BYTES = (40, 32), 20
"""Of a patch's voxel, a channel and a class of it: window, augmentation, logits, losses. Of a weight: itself,
gradient, both moments, average."""


class Budget(Value):
    """What a training may use. It shapes the network: wider where there is time to train it."""

    model_config = ConfigDict(title="what a plan may spend")

    budget_minutes: float | None = Field(default=None, gt=0)
    device: Literal["cpu", "gpu"] = "cpu"
    cores: int = Field(default_factory=lambda: os.cpu_count() or 1, ge=1)
    memory_gb: float = Field(default=8.0, gt=0)
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Number format of the training: what a rate is measured in."""
    rate_gflops: float | None = Field(default=None, gt=0)
    """Arithmetic of training in 1e9 operations a second on the whole device, as measured there; by default
    what such devices usually do."""

    @property
    def rate(self) -> float:
        """1e9 operations a second: measured, or the usual ones."""
        usual = NOMINAL_PER_CORE * self.cores if self.device == "cpu" else NOMINAL_GPU
        return self.rate_gflops or usual

    @property
    def minutes(self) -> float:
        """The minutes given; half an hour when there are none."""
        return self.budget_minutes or 30.0

    @property
    def gflop(self) -> float:
        """Arithmetic that fits into the minutes."""
        return self.rate * 60 * self.minutes

    @property
    def said(self) -> str:
        """The rate in words, with where it comes from."""
        usual = "" if self.rate_gflops else ", the usual rate"
        return f"{self.rate:g} GFLOP/s on {self.device}{usual}"


def coarse_rate(gflops: float) -> float:
    """A measured rate, rounded to the nearest power of `STEP` (and to four digits)."""
    return float(f"{STEP ** round(math.log(gflops, STEP)):.4g}")


def unet_gflop(patch: Sequence[int], arguments: Mapping[str, Any], inputs: int, outputs: int) -> float:
    """Arithmetic of one patch in training: a forward pass and, twice as costly, the way back."""
    shape = (arguments["widths"], arguments["strides"], arguments["kernels"])
    return 3 * forward_gflop(patch, *shape, inputs, outputs)


def unet_gb(
    patch: Sequence[int],
    batch: int,
    arguments: Mapping[str, Any],
    inputs: int,
    outputs: int,
    device: str = "cpu",
    precision: str = "float32",
) -> float:
    """Peak memory of training our U-Net, in GB: of the process on a CPU, of what is allocated on a GPU.

    What every convolution and its norm leave for the way back, what a patch, its window and its logits take
    at full size, and five copies of the weights; measured to about a tenth (benchmarks/RESULTS.md).
    """
    voxels, values, weights, before = float(np.prod(patch)), 0.0, 0.0, inputs
    for level, width in enumerate(arguments["widths"]):
        voxels /= float(np.prod(arguments["strides"][level]))
        taps = float(np.prod(arguments["kernels"][level]))
        last = level == len(arguments["widths"]) - 1
        values += voxels * width * (2 if last else 6)
        weights += taps * width * (before + width + (0 if last else 3 * width))
        before = width
    full = float(np.prod(patch)) * (_VOXEL_BYTES[0] * inputs + _VOXEL_BYTES[1] * outputs)
    held = batch * (values * VALUE_BYTES[precision] + full) + _WEIGHT_BYTES * weights
    return BASE_GB[device] + held / 1e9


def voxel_bytes(width: int, inputs: int) -> float:
    """What a voxel of a patch takes in training, about: all levels of a U-Net of a width together."""
    return 6 * width * 4 / 3 * VALUE_BYTES["float32"] + 3 * _VOXEL_BYTES[0] * inputs


def forward_gflop(
    patch: Sequence[int],
    widths: Sequence[int],
    strides: Sequence,
    kernels: Sequence,
    inputs: int,
    outputs: int,
) -> float:
    """Arithmetic of one forward pass of the U-Net for one patch, in 1e9 multiplications and additions."""
    voxels, total, before = float(np.prod(patch)), 0.0, inputs
    for level, width in enumerate(widths):
        voxels /= float(np.prod(strides[level]))
        taps = float(np.prod(kernels[level]))
        total += voxels * taps * (before * width + width * width)
        if level < len(widths) - 1:
            total += voxels * taps * (2 * width * width + width * width) + voxels * widths[level + 1] * width
        before = width
    return 2e-9 * (total + float(np.prod(patch)) * widths[0] * outputs)
