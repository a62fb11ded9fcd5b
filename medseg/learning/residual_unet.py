"""A U-Net with a residual encoder of several blocks a level: the architecture of nnU-Net's ResEnc presets.

It computes what theirs computes, so that their checkpoints can be carried over whole; all but the encoder is
our own U-Net (`medseg.learning.unet`).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn

from medseg.data.plan import Plan
from medseg.learning.unet import Decoder, Levels, UNet, block, conv, normed

DEEPER = (1, 3, 4, 6)
"""Blocks of each level; further levels have as many as the last."""


def residual_unet(
    plan: Plan,
    widths: list[int],
    strides: list[list[int]],
    kernels: list[list[int]],
    blocks: list[int] | None = None,
    convolutions: int = 1,
    supervised: int = 0,
) -> nn.Module:
    """The network of a plan; ``blocks`` of each level, and ``convolutions`` of each level on the way up."""
    blocks = blocks or [*DEEPER, *[DEEPER[-1]] * len(widths)][: len(widths)]
    return UNet(
        plan.dimensions, len(plan.channels), plan.outputs, widths, strides, kernels, "instance", supervised,
        encode=partial(ResidualEncoder, blocks=blocks), decode=partial(Decoder, convolutions=convolutions),
    )  # fmt: skip


class ResidualEncoder(nn.Module):
    """A stem, then residual blocks a level, the first of them strided."""

    def __init__(self, inputs: int, levels: Levels, blocks: Sequence[int]) -> None:
        super().__init__()
        dimensions, widths, strides, kernels, norm = levels
        self.stem = block(dimensions, inputs, widths[0], kernels[0], 1, norm)
        before = [widths[0], *widths]

        def made(n: int, b: int) -> nn.Module:
            inputs, stride = (before[n], strides[n]) if b == 0 else (widths[n], 1)
            return _Block(dimensions, inputs, widths[n], kernels[n], stride, norm)

        self.levels = nn.ModuleList(
            nn.Sequential(*(made(n, b) for b in range(blocks[n]))) for n in range(len(widths))
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        x, features = self.stem(x), []
        for level in self.levels:
            x = level(x)
            features.append(x)
        return features


class _Block(nn.Module):
    """Two convolutions and what goes past them: averaged where they stride, projected to another width."""

    def __init__(self, dimensions: int, inputs: int, width: int, kernel: Any, stride: Any, norm: str) -> None:
        super().__init__()
        straight = block(dimensions, width, width, kernel, 1, norm)[:2]
        self.first, self.second = block(dimensions, inputs, width, kernel, stride, norm), straight
        pool = nn.AvgPool2d if dimensions == 2 else nn.AvgPool3d
        strided = stride != 1 and any(step != 1 for step in stride)
        self.average = pool(stride, stride) if strided else nn.Identity()
        through = (conv(dimensions)(inputs, width, 1, bias=False), normed(dimensions, norm, width))
        self.project = nn.Sequential(*(through if inputs != width else ()))
        self.last = nn.LeakyReLU(0.01)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.second(self.first(x)) + self.project(self.average(x)))
