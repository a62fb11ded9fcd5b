"""Terms of the loss that draw two sites together: an opponent who must not be able to tell them apart.

The opponent learns to tell source from target; through a reversed gradient the network learns to leave it
nothing to go by, in its features (Ganin et al. 2016) or in the shapes of its soft masks (Tsai et al. 2018).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from medseg.data.plan import Plan
from medseg.learning.adapt_target import TargetStream
from medseg.learning.batch_statistics import statistics_kept
from medseg.learning.features import tap
from medseg.learning.job import Moment

_WIDTH = 32


class _Reversed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, strength: float) -> Tensor:
        ctx.strength = strength
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return -ctx.strength * grads[0], None


def reverse_gradient(x: Tensor, strength: float = 1.0) -> Tensor:
    """`x` itself; the gradient that comes back is multiplied by ``-strength``."""
    out = _Reversed.apply(x, strength)
    assert isinstance(out, Tensor)
    return out


def ramp(progress: float) -> float:
    """From 0 to 1 over the training: an opponent who knows nothing yet has nothing to say."""
    return 2 / (1 + math.exp(-10 * progress)) - 1


class AdversarialFeatures(nn.Module):
    """Pooled features of the encoder's last stage against a classifier of two layers."""

    def __init__(self, plan: Plan, stream: TargetStream, weight: float) -> None:
        super().__init__()
        self.plan, self.stream, self.weight = plan, stream, weight
        self.register_buffer("count", stream.count)

    def attach(self, network: nn.Module) -> None:
        """Look at the features of this network; the opponent gets as many inputs."""
        self._seen, _ = tap(network, self.plan)
        self.opponent = _classifier(_features(network, self.plan, self._seen)).to(_device(network))

    def forward(self, moment: Moment) -> Tensor:
        source = self._seen.pooled()
        with statistics_kept(moment.network):
            moment.network(self.stream.next(moment.image.device))
        target = self._seen.pooled()
        strength = self.weight * ramp(moment.progress)
        both = reverse_gradient(torch.cat([source, target]).float(), strength)
        truth = torch.cat([torch.zeros(len(source)), torch.ones(len(target))]).to(both.device)
        return functional.binary_cross_entropy_with_logits(self.opponent(both)[:, 0], truth)


class AdversarialOutput(nn.Module):
    """Soft masks against a PatchGAN (or class probabilities against a classifier).

    Only the masks of the target move the network: they are to look like those of the source.
    """

    def __init__(self, plan: Plan, stream: TargetStream, weight: float) -> None:
        super().__init__()
        self.plan, self.stream, self.weight = plan, stream, weight
        self.register_buffer("count", stream.count)

    def attach(self, network: nn.Module) -> None:
        """Make the opponent, where the network is: after the training has set its seed."""
        segments = self.plan.task == "segmentation"
        made = patch_opponent(self.plan) if segments else _classifier(self.plan.outputs)
        self.opponent = made.to(_device(network))

    def forward(self, moment: Moment) -> Tensor:
        with statistics_kept(moment.network):
            found = moment.network(self.stream.next(moment.image.device))
        source, target = self._soft(moment.logits).detach(), self._soft(found)
        target = reverse_gradient(target, self.weight * ramp(moment.progress))
        lost = [
            functional.binary_cross_entropy_with_logits(
                said := self.opponent(given), torch.full_like(said, truth)
            )
            for given, truth in ((source, 0.0), (target, 1.0))
        ]
        return (lost[0] + lost[1]) / 2

    def _soft(self, logits: Any) -> Tensor:
        finest = (logits if isinstance(logits, Tensor) else logits[0]).float()
        soft = finest.sigmoid() if self.plan.apart else finest.softmax(1)
        return soft.squeeze(-1) if soft.ndim == 5 and self.plan.dimensions == 2 else soft


def patch_opponent(plan: Plan) -> nn.Sequential:
    """PatchGAN: a verdict on each small region of a mask, from convolutions without normalisation.

    An axis is halved while it has four voxels or more.
    """
    conv: Any = nn.Conv2d if plan.dimensions == 2 else nn.Conv3d
    sides, before, layers = list(plan.patch[: plan.dimensions]), plan.outputs, []
    for level in range(3):
        stride = tuple(2 if side >= 4 else 1 for side in sides)
        sides = [-(-side // step) for side, step in zip(sides, stride, strict=True)]
        layers += [conv(before, _WIDTH << level, 3, stride, 1), nn.LeakyReLU(0.2)]
        before = _WIDTH << level
    return nn.Sequential(*layers, conv(before, 1, 1))


def _classifier(inputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, 2 * _WIDTH), nn.LeakyReLU(0.2), nn.Linear(2 * _WIDTH, 1))


def _features(network: nn.Module, plan: Plan, seen: Any) -> int:
    """How many features the encoder gives: asked of the network itself, which does not move."""
    was_training = network.training
    with torch.no_grad():
        network.eval()(torch.zeros(1, len(plan.channels), *plan.patch, device=_device(network)))
    network.train(was_training)
    return int(seen.pooled().shape[1])


def _device(network: nn.Module) -> torch.device:
    return next(network.parameters()).device
