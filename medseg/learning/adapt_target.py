"""Images of the target site as training sees them: patches without labels, in an order of their own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medseg.data.plan import Plan
from medseg.learning.augment import augment, centre_patch
from medseg.learning.devices import channels_last
from medseg.learning.losses import IGNORED
from medseg.learning.sampling import PreparedCase, Sampler
from medseg.learning.settings import Augmenting

_STREAM = 6
"""Keeps the draws of the target apart from those of the source, which have the same seed."""


@dataclass(frozen=True)
class BlindCase(PreparedCase):
    """A prepared case whose labels are not looked at, should there be any."""

    @cached_property
    def info(self) -> dict[str, Any]:
        """``prepared.json`` without the case's class."""
        return {**PreparedCase(self.id, self.folder).info, "class_indices": None, "label_class": None}

    @cached_property
    def reference(self) -> NDArray[np.uint8]:
        """`IGNORED` everywhere."""
        return np.broadcast_to(np.uint8(IGNORED), self.image.shape[1:])

    @cached_property
    def foreground(self) -> NDArray[np.int32]:
        """No voxels of any label."""
        return np.zeros((0, 4), np.int32)


def blind(cases: Sequence[PreparedCase]) -> list[BlindCase]:
    """The same cases without their labels."""
    return [BlindCase(case.id, case.folder) for case in cases]


class TargetStream:
    """Patches of the target, batch after batch, augmented as the source's are.

    Which batch comes next is counted in a tensor, so that a checkpoint can hold it. The labels of `cases`
    are hidden, unless they are `pseudo` ones.
    """

    def __init__(
        self,
        cases: Sequence[PreparedCase],
        plan: Plan,
        batch: int,
        seed: int,
        settings: Augmenting,
        pseudo: bool = False,
    ) -> None:
        self.plan, self.settings = plan, settings
        shown, foreground = (cases, 0.5) if pseudo else (blind(cases), 0.0)
        self.sampler = Sampler(shown, plan.but(balance="none"), batch, foreground, seed + _STREAM)
        self.steps = max(1, math.ceil(len(cases) / batch))
        self.count = torch.zeros((), dtype=torch.int64)

    def next(self, device: torch.device) -> Tensor:
        """``[B, C, *patch]``."""
        return self.next_pair(device)[0]

    def next_pair(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """``[B, C, *patch]`` and the target that goes with it."""
        drawn = self.sampler.draw(*divmod(int(self.count), self.steps))
        self.count += 1
        image, target = (torch.from_numpy(a).to(device) for a in (drawn.image, drawn.target))
        image, target = augment(
            image, target, self.plan.patch, self.plan.spacing_mm, drawn.seeds, self.settings
        )
        return image.contiguous(memory_format=channels_last(3)), target


def plain_patches(cases: Sequence[PreparedCase], plan: Plan, count: int, seed: int = 0) -> list[Tensor]:
    """`count` patches (at least one a case, where that is no more) as they are, in batches of the plan's."""
    sampler = Sampler(blind(cases), plan.but(balance="none"), plan.batch, 0.0, seed + _STREAM)
    steps = math.ceil(count / plan.batch)
    return [centre_patch(torch.from_numpy(sampler.draw(0, n).image), plan.patch) for n in range(steps)]
