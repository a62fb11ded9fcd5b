"""A cascade: what a coarse first network says becomes further inputs of the network of the plan."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from medseg.core.errors import MedsegError
from medseg.data.plan import Plan
from medseg.imaging.grid import Grid
from medseg.imaging.labels import Labels, membership
from medseg.imaging.resample import apply_matrix, axis_maps, matrix
from medseg.learning.inference import class_indices

DROPPED = 0.2
"""Share of training patches whose first answer is taken away ..."""
SHIFTED = 0.4
"""... and share of those whose first answer is moved: the second network must look for itself."""
_FURTHEST = 3
INNER_FOLDS = 3
"""Coarse networks that answer for training cases where a single fold has no others."""


def inner_plan(plan: Plan) -> Plan:
    """The plan of the second network alone: the first answer is one more channel for each label."""
    first = tuple(f"first answer {label.name}" for label in plan.labels)
    return plan.but(channels=(*plan.channels, *first), cascade=None)


class Second(nn.Module):
    """A network that is given an image and a first answer (``[B, C + labels, ...]``).

    The first answer is made 0 or 1 again, because augmentation changes grey values, and while training it is
    dropped or moved now and then, so that it is not trusted blindly. An image alone (``[B, C, ...]``: only
    the cost of the network is asked about) has an empty one.
    """

    def __init__(self, network: nn.Module, channels: int, labels: int) -> None:
        super().__init__()
        self.network, self.channels, self.labels = network, channels, labels

    def forward(self, x: Tensor) -> Any:
        """What the inner network says."""
        if x.shape[1] == self.channels:
            x = torch.cat([x, x.new_zeros(len(x), self.labels, *x.shape[2:])], dim=1)
        image, first = x[:, : self.channels], (x[:, self.channels :] > 0.5).to(x.dtype)
        if self.training:
            first = distrusted(first)
        return self.network(torch.cat([image, first], dim=1))


def distrusted(first: Tensor) -> Tensor:
    """First answers ``[B, L, I, J, K]``, some of them taken away and some moved by up to three voxels."""
    kept = []
    for one in first:
        chance, *steps = torch.rand(4).tolist()
        if chance < DROPPED:
            one = torch.zeros_like(one)
        elif chance < DROPPED + SHIFTED:
            far = [
                round((2 * s - 1) * min(_FURTHEST, n // 8)) for s, n in zip(steps, one.shape[1:], strict=True)
            ]
            one = one.roll(far, dims=(1, 2, 3))
        kept.append(one)
    return torch.stack(kept)


def first_answer(found: NDArray[np.float32], there: Grid, here: Grid, labels: Labels) -> NDArray[np.float32]:
    """Probabilities ``[L, I, J, K]`` on one canonical grid -> ``[labels, I, J, K]`` of 0 and 1 on another.

    Which label, or which regions, a voxel is said to lie in, decided as for a mask
    (`medseg.learning.inference.class_indices`).
    """
    axes = axis_maps(there, here)
    if axes is None:
        raise MedsegError("the grids of a cascade must be canonical")
    if not there.matches(here):
        for axis, mapped in enumerate(axes, start=1):
            found = apply_matrix(found, matrix(mapped, order=1), axis)
    return one_hot(class_indices(found, labels), labels)


def one_hot(answer: NDArray[Any], labels: Labels) -> NDArray[np.float32]:
    """Class indices ``[I, J, K]`` -> ``[labels, I, J, K]`` of 0 and 1; regions may overlap."""
    return np.stack([belongs[answer] for belongs in membership(labels).T]).astype(np.float32)


def refuse_cascade(plan: Plan, what: str) -> None:
    """Stop what knows one network and one image only.

    Raises
    ------
    MedsegError
        The plan is that of a cascade.
    """
    if plan.cascade is not None:
        raise MedsegError(
            f"{what} does not know cascades: their second network needs the answer of the first",
            mend="train without one: plan.cascade=none",
        )
