"""A plain U-Net that stays in channels-last memory from the first convolution to the last.

Ours because the training budget is CPU seconds: with MONAI's blocks the tensors are converted back and
forth between memory layouts (see benchmarks/RESULTS.md). Its parts are named ``encoder``, ``decoder``
and ``head``, so that weights can be carried over part by part.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

Steps = Sequence[Sequence[int]]


class Levels(NamedTuple):
    """What the levels of a U-Net are made by, the finest first; sequences cut to its dimensions."""

    dimensions: int
    widths: Sequence[int]
    strides: Steps
    kernels: Steps
    norm: str


class UNet(nn.Module):
    """U-Net with two convolutions a level, strided convolutions down, transposed ones up.

    Parameters
    ----------
    dimensions : {2, 3}
    inputs, outputs : int
        Channels in, logits out.
    widths : sequence of int
        Channels of each level, the finest first.
    strides, kernels : sequence of three (or two) int
        Of each level; the first stride is that of the first convolution.
    supervised : int
        Further features of the decoder that give logits of their own while training (deep supervision).
    encode, decode : function
        What makes the way down (``(inputs, Levels) -> module``: image to features of each level) and the way
        up (``(Levels) -> module``: these to decoded features, their channels in `widths`).

    Notes
    -----
    Takes ``[B, C, I, J, K]``, in 2-D with K = 1, each side a multiple of the product of its strides.
    Gives ``[B, L, I, J, K]``; while training with `supervised` > 0 a list, the finest first.
    """

    def __init__(
        self,
        dimensions: int,
        inputs: int,
        outputs: int,
        widths: Sequence[int],
        strides: Steps,
        kernels: Steps,
        norm: str = "batch",
        supervised: int = 0,
        encode: Callable[[int, Levels], nn.Module] | None = None,
        decode: Callable[[Levels], nn.Module] | None = None,
    ) -> None:
        super().__init__()
        self.dimensions = dimensions
        strides = [tuple(s[:dimensions]) for s in strides]
        kernels = [tuple(k[:dimensions]) for k in kernels]
        levels = Levels(dimensions, widths, strides, kernels, norm)
        self.encoder = (encode or Encoder)(inputs, levels)
        self.decoder: Any = (decode or Decoder)(levels)
        wide = self.decoder.widths[: supervised + 1]
        self.head = nn.ModuleList([conv(dimensions)(width, outputs, 1) for width in wide])

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        return self.decoded(self.encoded(x))

    def encoded(self, x: Tensor) -> list[Tensor]:
        """Features of each level, the finest first."""
        return self.encoder(x.squeeze(-1) if self.dimensions == 2 else x)

    def decoded(self, encoded: list[Tensor]) -> Tensor | list[Tensor]:
        """Logits from the features of each level."""
        features = self.decoder(encoded)
        heads = list(self.head) if self.training else list(self.head)[:1]
        logits = [head(f) for head, f in zip(heads, features, strict=False)]
        if self.dimensions == 2:
            logits = [y.unsqueeze(-1) for y in logits]
        return logits if self.training and len(logits) > 1 else logits[0]


class Encoder(nn.Module):
    """Two convolutions a level, the first of them strided."""

    def __init__(self, inputs: int, levels: Levels) -> None:
        super().__init__()
        dimensions, widths, strides, kernels, norm = levels
        before = [inputs, *widths]
        self.levels = nn.ModuleList(
            nn.Sequential(
                block(dimensions, before[i], width, kernels[i], strides[i], norm),
                block(dimensions, width, width, kernels[i], 1, norm),
            )
            for i, width in enumerate(widths)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        features = []
        for level in self.levels:
            x = level(x)
            features.append(x)
        return features


class Decoder(nn.Module):
    """Up by transposed convolutions, beside the encoder's features, and convolutions a level."""

    def __init__(self, levels: Levels, convolutions: int = 2) -> None:
        super().__init__()
        dimensions, widths, strides, kernels, norm = levels
        upward = list(reversed(range(len(widths) - 1)))
        self.widths = list(widths[:-1])
        self.ups = nn.ModuleList(
            conv_up(dimensions)(widths[i + 1], widths[i], strides[i + 1], strides[i + 1]) for i in upward
        )
        self.levels = nn.ModuleList(
            nn.Sequential(
                *(
                    block(dimensions, widths[i] * (2 if n == 0 else 1), widths[i], kernels[i], 1, norm)
                    for n in range(convolutions)
                )
            )
            for i in upward
        )

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Decoded features, the finest first."""
        x, out = features[-1], []
        for n, (up, level, skip) in enumerate(
            zip(self.ups, self.levels, reversed(features[:-1]), strict=True)
        ):
            x = up(x)
            x = level(torch.cat([x, self.passed(n, skip, x)], dim=1))
            out.append(x)
        return out[::-1]

    def passed(self, level: int, skip: Tensor, below: Tensor) -> Tensor:
        """What of the encoder's features goes into a level: all of them."""
        return skip


class ChannelNorm(nn.Module):
    """Instance normalisation that keeps channels-last memory (torch's own converts back)."""

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        shape = (1, -1, *[1] * (x.ndim - 2))
        var, mean = torch.var_mean(x.float(), dim=tuple(range(2, x.ndim)), keepdim=True, correction=0)
        gain = torch.rsqrt(var + self.eps) * self.weight.view(shape)
        return torch.addcmul(self.bias.view(shape) - mean * gain, x, gain).to(x.dtype)


def block(dimensions: int, inputs: int, outputs: int, kernel: Any, stride: Any, norm: str) -> nn.Sequential:
    """Convolution, norm, rectifier."""
    padding = tuple(k // 2 for k in kernel)
    return nn.Sequential(
        conv(dimensions)(inputs, outputs, kernel, stride, padding, bias=False),
        normed(dimensions, norm, outputs),
        nn.LeakyReLU(0.01, inplace=True),
    )


def conv(dimensions: int) -> Any:
    """The convolution of so many axes."""
    return nn.Conv2d if dimensions == 2 else nn.Conv3d


def conv_up(dimensions: int) -> Any:
    """The transposed convolution of so many axes."""
    return nn.ConvTranspose2d if dimensions == 2 else nn.ConvTranspose3d


def normed(dimensions: int, name: str, channels: int) -> nn.Module:
    """The norm called ``instance`` or ``batch``."""
    if name == "instance":
        return ChannelNorm(channels)
    return nn.BatchNorm2d(channels) if dimensions == 2 else nn.BatchNorm3d(channels)


def nearest_targets(target: Tensor, like: Tensor) -> Tensor:
    """A reference ``[B, I, J, K]`` at the size of coarser logits, nearest voxel."""
    size = like.shape[2:]
    if target.shape[1:] == size:
        return target
    return functional.interpolate(target[:, None].float(), size=size, mode="nearest-exact")[:, 0].to(
        target.dtype
    )
