"""Fourier exchange: an image with the coarse amplitudes of another one, its own phases kept.

After Yang and Soatto 2020: the low frequencies of the amplitude hold much of a scanner's look, the phases
hold what lies where. The network also learns from source patches that look like the target.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from medseg.learning.adapt_target import TargetStream
from medseg.learning.batch_statistics import statistics_kept
from medseg.learning.devices import channels_last
from medseg.learning.job import Moment
from medseg.learning.losses import Loss


def exchange_amplitudes(image: Tensor, other: Tensor, share: float) -> Tensor:
    """`image` with the amplitudes of `other` in frequencies up to `share` of the highest on every axis.

    Parameters
    ----------
    image, other : Tensor
        ``[B, C, I, J, K]`` of one size.
    share : float
        0 exchanges the mean alone, 1 all amplitudes.
    """
    axes = tuple(range(2, image.ndim))
    mine, theirs = torch.fft.fftn(image, dim=axes), torch.fft.fftn(other, dim=axes)
    amplitude = torch.where(
        low_frequencies(image.shape[2:], share).to(image.device), theirs.abs(), mine.abs()
    )
    return torch.fft.ifftn(torch.polar(amplitude, mine.angle()), dim=axes).real


def low_frequencies(shape: Any, share: float) -> Tensor:
    """Which frequencies of `fftn` lie within `share` of the highest, on every axis."""
    inside = torch.ones(tuple(shape), dtype=torch.bool)
    for axis, size in enumerate(shape):
        near = torch.fft.fftfreq(size).abs() <= 0.5 * share + 1e-9
        inside &= near.view([-1 if a == axis else 1 for a in range(len(shape))])
    return inside


class Fourier:
    """The loss on source patches that have been given the look of target patches."""

    def __init__(self, stream: TargetStream, loss: Loss, share: float, weight: float) -> None:
        self.stream, self.loss, self.share, self.weight = stream, loss, share, weight

    def __call__(self, moment: Moment) -> Tensor:
        other = self.stream.next(moment.image.device)
        image = exchange_amplitudes(moment.image, other[: len(moment.image)], self.share)
        with statistics_kept(moment.network):
            logits = moment.network(image.contiguous(memory_format=channels_last(3)))
        return self.weight * self.loss(logits, moment.target)

    def state_dict(self) -> dict[str, Tensor]:
        """How far the target's patches have been drawn."""
        return {"count": self.stream.count}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from there."""
        self.stream.count.copy_(state["count"])
