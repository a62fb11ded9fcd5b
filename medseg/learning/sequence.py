"""Volumes as sequences of slices: one flat encoder for all of them, then a summary along the stack.

The encoder may carry weights of flat pictures (ImageNet), which no volume network has. Its parts are named
``encoder``, ``summary`` and ``head``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from medseg.data.plan import Plan


def slices_lstm(
    plan: Plan, slices: int = 16, depth: int = 10, widen_factor: float = 0.5, hidden: int = 64
) -> nn.Module:
    """Slices encoded by a ResNet, read in both directions by an LSTM, averaged over the stack."""
    encoder, features = flat_encoder(plan, depth, widen_factor)
    return SliceSequence(encoder, _Memory(features, hidden), slices, 2 * hidden, plan.outputs)


def slices_attention(
    plan: Plan, slices: int = 16, depth: int = 10, widen_factor: float = 0.5, hidden: int = 64
) -> nn.Module:
    """Slices encoded by a ResNet and averaged with weights that the slices themselves decide.

    Gated attention after Ilse et al. 2018: it does not mind where in the stack a finding lies.
    """
    encoder, features = flat_encoder(plan, depth, widen_factor)
    return SliceSequence(encoder, _Attention(features, hidden), slices, features, plan.outputs)


def flat_encoder(plan: Plan, depth: int, widen_factor: float) -> tuple[nn.Module, int]:
    """A two-dimensional ResNet without its last layer, and how many features it gives."""
    from medseg.learning.classifiers import resnet

    made: Any = resnet(plan.but(patch=(*plan.patch[:2], 1)), depth=depth, widen_factor=widen_factor)
    encoder = made.network
    features = int(encoder.fc.in_features)
    encoder.fc = None
    return encoder, features


class SliceSequence(nn.Module):
    """``[B, C, I, J, K]`` -> logits ``[B, L]``, by way of features of some slices along K.

    Parameters
    ----------
    encoder : Module
        ``[N, C, I, J] -> [N, F]``, shared by all slices.
    summary : Module
        ``[B, S, F] -> [B, G]``.
    slices : int
        At most so many slices, evenly spaced over the stack, are looked at.
    """

    def __init__(
        self, encoder: nn.Module, summary: nn.Module, slices: int, features: int, outputs: int
    ) -> None:
        super().__init__()
        self.encoder, self.summary, self.slices = encoder, summary, slices
        self.head = nn.Linear(features, outputs)

    def forward(self, x: Tensor) -> Tensor:
        stack = x[..., places(x.shape[-1], self.slices)]
        planes = stack.movedim(-1, 1).flatten(0, 1).contiguous(memory_format=torch.channels_last)
        features = self.encoder(planes).unflatten(0, (len(x), -1))
        return self.head(self.summary(features))


def places(depth: int, slices: int) -> list[int]:
    """Evenly spaced slices of a stack, each in the middle of its share.

    >>> places(10, 3), places(2, 4)
    ([1, 5, 8], [0, 1])
    """
    if depth <= slices:
        return list(range(depth))
    return [int((n + 0.5) * depth / slices) for n in range(slices)]


class _Memory(nn.Module):
    """Features along the stack read by a bidirectional LSTM: ``[B, S, F] -> [B, 2 hidden]``."""

    def __init__(self, features: int, hidden: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(features, hidden, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.lstm(x)[0].mean(1)


class _Attention(nn.Module):
    """A weighted mean of the slices: ``[B, S, F] -> [B, F]``."""

    def __init__(self, features: int, hidden: int) -> None:
        super().__init__()
        self.content, self.gate = nn.Linear(features, hidden), nn.Linear(features, hidden)
        self.weight = nn.Linear(hidden, 1)

    def forward(self, x: Tensor) -> Tensor:
        share = self.weight(self.content(x).tanh() * self.gate(x).sigmoid()).softmax(1)
        return (share * x).sum(1)
