"""Two variations of our U-Net on the way up: gated skips (attention U-Net), nested ones (U-Net++).

Ours, and not MONAI's, because theirs halve every axis at every level; these follow the plan's strides and
kernels, so that thin volumes are not padded, and stay in channels-last memory.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from medseg.data.plan import Plan
from medseg.learning.unet import Decoder, Levels, UNet, block, conv, conv_up, normed


def attention_unet(
    plan: Plan,
    widths: list[int],
    strides: list[list[int]],
    kernels: list[list[int]],
    norm: str = "batch",
    supervised: int = 0,
) -> nn.Module:
    """U-Net whose skips pass a gate that the coarser features open (Oktay et al., 2018)."""
    sizes = plan.dimensions, len(plan.channels), plan.outputs
    return UNet(*sizes, widths, strides, kernels, norm, supervised, decode=GatedDecoder)


def unetpp(
    plan: Plan,
    widths: list[int],
    strides: list[list[int]],
    kernels: list[list[int]],
    norm: str = "batch",
    supervised: int = 0,
) -> nn.Module:
    """U-Net++: skips that are small U-Nets themselves (Zhou et al., 2018)."""
    sizes = plan.dimensions, len(plan.channels), plan.outputs
    return UNet(*sizes, widths, strides, kernels, norm, supervised, decode=NestedDecoder)


class GatedDecoder(Decoder):
    """The plain way up, with a gate before each skip."""

    def __init__(self, levels: Levels) -> None:
        super().__init__(levels)
        upward = reversed(range(len(levels.widths) - 1))
        self.gates = nn.ModuleList(Gate(levels.dimensions, levels.widths[i], levels.norm) for i in upward)

    def passed(self, level: int, skip: Tensor, below: Tensor) -> Tensor:
        """The encoder's features as far as the gate of this level lets them."""
        return self.gates[level](skip, below)


class Gate(nn.Module):
    """Additive attention: one factor from 0 to 1 a voxel, from the features and what comes from below."""

    def __init__(self, dimensions: int, width: int, norm: str) -> None:
        super().__init__()
        inner = max(1, width // 2)
        self.skip = conv(dimensions)(width, inner, 1, bias=False)
        self.below = conv(dimensions)(width, inner, 1, bias=False)
        self.norm = normed(dimensions, norm, inner)
        self.open = conv(dimensions)(inner, 1, 1)

    def forward(self, skip: Tensor, below: Tensor) -> Tensor:
        return skip * self.open(functional.relu(self.norm(self.skip(skip) + self.below(below)))).sigmoid()


class NestedDecoder(nn.Module):
    """The grid of U-Net++: node (level, column) sees all nodes before it in its level, and the one below.

    Decoded features all have the finest level's size; the last column comes first.
    """

    def __init__(self, levels: Levels) -> None:
        super().__init__()
        dimensions, widths, strides, kernels, norm = levels
        self.depth = len(widths)
        self.widths = [widths[0]] * (self.depth - 1)
        self.ups, self.levels = nn.ModuleDict(), nn.ModuleDict()
        for column in range(1, self.depth):
            for i in range(self.depth - column):
                name, stride = f"{i}_{column}", strides[i + 1]
                self.ups[name] = conv_up(dimensions)(widths[i + 1], widths[i], stride, stride)
                wide = (column + 1) * widths[i]
                self.levels[name] = block(dimensions, wide, widths[i], kernels[i], 1, norm)

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Nodes of the finest level, the last column first."""
        rows = [[f] for f in features]
        for column in range(1, self.depth):
            for i in range(self.depth - column):
                name = f"{i}_{column}"
                up = self.ups[name](rows[i + 1][column - 1])
                rows[i].append(self.levels[name](torch.cat([*rows[i], up], dim=1)))
        return rows[0][:0:-1]
