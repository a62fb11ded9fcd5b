"""Networks whose reasons are known, and images with a ball in one of two places."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from medseg.data.plan import Intensity, Plan
from medseg.imaging.grid import Grid
from medseg.imaging.image import Image
from medseg.imaging.labels import labels
from medseg.learning.devices import pick_device
from medseg.learning.model import Model, Models

SHAPE, SPACING = (24, 20, 10), (1.0, 1.2, 2.4)
SIDES = ("left", "right")


class Halves(nn.Module):
    """Bright tissue in the left half speaks for the first class, in the right half for the second."""

    def __init__(self, strides: tuple[int, int, int]) -> None:
        super().__init__()
        self.strides = strides
        self.smooth = nn.AvgPool3d(strides)
        self.halves = _Split()
        self.head = nn.Linear(2, 2)

    def learnt(self) -> Halves:
        """The weights that tell the halves apart."""
        with torch.no_grad():
            self.head.weight.copy_(torch.tensor([[1.0, -1.0], [-1.0, 1.0]]) * 40)
            self.head.bias.zero_()
        return self

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.halves(self.smooth(x)).mean((2, 3, 4)))


class _Split(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        left = (torch.arange(x.shape[2]) < x.shape[2] / 2).float().view(1, 1, -1, 1, 1)
        bright = torch.relu(x - 1)
        return torch.cat([bright * left, bright * (1 - left)], 1)


class Corner(nn.Module):
    """The mean of one corner and nothing else."""

    SIZE = 4

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(2.0))

    def forward(self, x: Tensor) -> Tensor:
        s = self.SIZE
        corner = x[:, 0, :s, :s, :s].flatten(1).mean(1) * self.gain
        return torch.stack([corner, -corner], 1)


class Bright(nn.Module):
    """A segmenter: bright is label 1, found on features at half the resolution."""

    def __init__(self, strides: tuple[int, int, int]) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.AvgPool3d(strides), _Both())
        self.up = nn.Upsample(scale_factor=strides)

    def forward(self, x: Tensor) -> Tensor:
        bright, dark = self.up(self.encoder(x)).split(1, 1)
        return torch.cat([torch.full_like(bright, 0.5), bright, dark], 1) * 6


class _Both(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([torch.relu(x - 1), torch.relu(-x - 1)], 1)


def fresh_halves(plan: Plan) -> Halves:
    """``network: explaining_nets:fresh_halves``."""
    return Halves((2, 2, 1) if plan.dimensions == 2 else (2, 2, 2))


def halves(plan: Plan) -> Halves:
    """What training would make of it."""
    return fresh_halves(plan).learnt()


def bright(plan: Plan) -> nn.Module:
    """``network: explaining_nets:bright``."""
    return Bright((2, 2, 1) if plan.dimensions == 2 else (2, 2, 2))


def plan_for(network: str, patch: tuple[int, int, int] = SHAPE, **changes: object) -> Plan:
    """A plan of a classifier (or of a segmenter, with `labels`) of one channel."""
    known = {
        "task": "classification", "classes": SIDES, "channels": ("MR",), "spacing_mm": SPACING,
        "patch": patch, "batch": 2, "intensity": {"MR": Intensity(name="zscore")}, "network": network,
    }  # fmt: skip
    return Plan(**(known | changes))  # type: ignore[arg-type]


def segmenting(network: str, patch: tuple[int, int, int] = SHAPE, **changes: object) -> Plan:
    """The same for masks: ``bright`` is 3, ``dark`` 5."""
    named = {"task": "segmentation", "classes": (), "labels": labels(bright=3, dark=5)}
    return plan_for(network, patch, **(named | changes))


def model_of(plan: Plan, network: nn.Module) -> Models:
    """Opened without a folder."""
    about = {"weights_sha256": "0" * 64, "plan_digest": "0" * 64, "name": "x", "version": "0"}
    return Models((Model(plan, network.eval(), about, pick_device("cpu")),))


def ball(
    side: str, seed: int = 0, shape: tuple[int, int, int] = SHAPE, affine: np.ndarray | None = None
) -> tuple[Image, np.ndarray]:
    """An image of noise with a bright ball in its left or right half, and where the ball is ``[I, J, K]``."""
    rng = np.random.default_rng(seed)
    grid = Grid.from_spacing(shape, SPACING) if affine is None else Grid(shape, affine)
    size = np.array(shape) * np.array(grid.spacing_mm)
    at = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), -1) * np.array(grid.spacing_mm)
    middle = size * [0.27 if side == "left" else 0.73, 0.5, 0.5] + rng.uniform(-1, 1, 3)
    if shape[2] == 1:
        middle[2] = 0
    inside = np.linalg.norm(at - middle, axis=-1) < 4.5
    grey = rng.normal(0, 10, shape) + 100 * inside
    return Image(grey[None].astype(np.float32), grid), inside
