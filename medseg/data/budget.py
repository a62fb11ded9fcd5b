"""What a training may use, and how much arithmetic our U-Net asks of it."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from pydantic import Field

from medseg.core.values import Value

STEP = 1.25
"""Measured rates are rounded to powers of this: a machine gives the same one day after day."""
NOMINAL_PER_CORE = 60.0
"""1e9 operations a second a core, where nothing was measured: convolutions forward and backward, float32,
AVX-512, channels last, the whole training loop."""
NOMINAL_GPU = 10_000.0


class Budget(Value):
    """What a training may use. It shapes the network: wider where there is time to train it."""

    budget_minutes: float | None = Field(default=None, gt=0)
    device: Literal["cpu", "gpu"] = "cpu"
    cores: int = Field(default_factory=lambda: os.cpu_count() or 1, ge=1)
    memory_gb: float = Field(default=8.0, gt=0)
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
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
        how = "measured" if self.rate_gflops else "the usual rate"
        return f"{self.rate:g} GFLOP/s on {self.device}, {how}"

    @property
    def patch_voxels(self) -> int:
        """Voxels one patch may have."""
        return 2**17 if self.device == "cpu" else int(2**21 * min(1.0, self.memory_gb / 16))


def coarse_rate(gflops: float) -> float:
    """A measured rate, rounded to the nearest power of `STEP` (and to four digits)."""
    return float(f"{STEP ** round(math.log(gflops, STEP)):.4g}")


def unet_gflop(patch: Sequence[int], arguments: Mapping[str, Any], inputs: int, outputs: int) -> float:
    """Arithmetic of one patch in training: a forward pass and, twice as costly, the way back."""
    shape = (arguments["widths"], arguments["strides"], arguments["kernels"])
    return 3 * forward_gflop(patch, *shape, inputs, outputs)


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
