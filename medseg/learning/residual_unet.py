"""A U-Net with a residual encoder of several blocks a level: the architecture of nnU-Net's ResEnc presets.

It computes what theirs computes, so that their checkpoints can be carried over whole; named and laid out in
memory like our own (`medseg.learning.unet`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from medseg.data.plan import Plan
from medseg.learning.unet import ChannelNorm, Steps


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
    return ResidualUNet(
        plan.dimensions, len(plan.channels), plan.outputs, widths, strides, kernels,
        blocks or [1, 3, 4, *[6] * len(widths)][: len(widths)], convolutions, supervised,
    )  # fmt: skip


class ResidualUNet(nn.Module):
    """Encoder of residual blocks, plain decoder, instance norms.

    Takes ``[B, C, I, J, K]`` (K = 1 in 2-D), gives ``[B, L, I, J, K]``; while training with `supervised` > 0
    a list, the finest first.
    """

    def __init__(
        self,
        dimensions: int,
        inputs: int,
        outputs: int,
        widths: Sequence[int],
        strides: Steps,
        kernels: Steps,
        blocks: Sequence[int],
        convolutions: int,
        supervised: int,
    ) -> None:
        super().__init__()
        self.dimensions = dimensions
        strides = [tuple(s[:dimensions]) for s in strides]
        kernels = [tuple(k[:dimensions]) for k in kernels]
        self.encoder = _Encoder(dimensions, inputs, widths, strides, kernels, blocks)
        self.decoder = _Decoder(dimensions, widths, strides, kernels, convolutions)
        heads = range(min(supervised, len(widths) - 2) + 1)
        self.head = nn.ModuleList([_conv(dimensions)(widths[n], outputs, 1) for n in heads])

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        features = self.decoder(self.encoder(x.squeeze(-1) if self.dimensions == 2 else x))
        heads = list(self.head) if self.training else list(self.head)[:1]
        logits = [head(f) for head, f in zip(heads, features, strict=False)]
        if self.dimensions == 2:
            logits = [y.unsqueeze(-1) for y in logits]
        return logits if self.training and len(logits) > 1 else logits[0]


class _Encoder(nn.Module):
    def __init__(
        self, dimensions: int, inputs: int, widths: Sequence[int], strides: Steps, kernels: Steps,
        blocks: Sequence[int],
    ) -> None:  # fmt: skip
        super().__init__()
        self.stem = nn.Sequential(*_normed(dimensions, inputs, widths[0], kernels[0], 1), _rectified())
        before = [widths[0], *widths]
        self.levels = nn.ModuleList(
            nn.Sequential(
                *(
                    _Block(
                        dimensions,
                        before[n] if b == 0 else width,
                        width,
                        kernels[n],
                        strides[n] if b == 0 else 1,
                    )
                    for b in range(blocks[n])
                )
            )
            for n, width in enumerate(widths)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        x, features = self.stem(x), []
        for level in self.levels:
            x = level(x)
            features.append(x)
        return features


class _Block(nn.Module):
    """Two convolutions and what goes past them: averaged where they stride, projected to another width."""

    def __init__(self, dimensions: int, inputs: int, width: int, kernel: Any, stride: Any) -> None:
        super().__init__()
        self.first = nn.Sequential(*_normed(dimensions, inputs, width, kernel, stride), _rectified())
        self.second = nn.Sequential(*_normed(dimensions, width, width, kernel, 1))
        pool = nn.AvgPool2d if dimensions == 2 else nn.AvgPool3d
        strided = stride != 1 and any(step != 1 for step in stride)
        self.average = pool(stride, stride) if strided else nn.Identity()
        one = (1,) * dimensions
        self.project = nn.Sequential(*(_normed(dimensions, inputs, width, one, 1) if inputs != width else ()))
        self.last = _rectified()

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.second(self.first(x)) + self.project(self.average(x)))


class _Decoder(nn.Module):
    def __init__(
        self, dimensions: int, widths: Sequence[int], strides: Steps, kernels: Steps, convolutions: int
    ) -> None:
        super().__init__()
        up = nn.ConvTranspose2d if dimensions == 2 else nn.ConvTranspose3d
        upward = list(reversed(range(len(widths) - 1)))
        self.ups = nn.ModuleList(up(widths[n + 1], widths[n], strides[n + 1], strides[n + 1]) for n in upward)  # type: ignore[arg-type]
        self.levels = nn.ModuleList(
            nn.Sequential(
                *(
                    nn.Sequential(
                        *_normed(dimensions, widths[n] * (2 if c == 0 else 1), widths[n], kernels[n], 1),
                        _rectified(),
                    )
                    for c in range(convolutions)
                )
            )
            for n in upward
        )

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Decoded features, the finest first."""
        x, out = features[-1], []
        for up, level, skip in zip(self.ups, self.levels, reversed(features[:-1]), strict=True):
            x = level(torch.cat([up(x), skip], dim=1))
            out.append(x)
        return out[::-1]


def _normed(
    dimensions: int, inputs: int, outputs: int, kernel: Any, stride: Any
) -> tuple[nn.Module, nn.Module]:
    padding = tuple(side // 2 for side in kernel)
    convolution = _conv(dimensions)(inputs, outputs, kernel, stride, padding, bias=False)
    return convolution, ChannelNorm(outputs)


def _rectified() -> nn.Module:
    return nn.LeakyReLU(0.01)


def _conv(dimensions: int) -> Any:
    return nn.Conv2d if dimensions == 2 else nn.Conv3d
