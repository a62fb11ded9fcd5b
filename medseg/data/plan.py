"""Fingerprint -> Plan: every choice that training and use share, each with its reason."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from medseg.core.values import Value
from medseg.data.cohort import Task
from medseg.imaging.labels import Labels, membership, values_of

IMAGE, MASK = "image", "mask"
"""Regions that are no channel: the whole image, and the foreground of the reference."""
Balance = Literal["none", "sampling", "loss"]

Triple = tuple[int, int, int]
TripleMm = tuple[float, float, float]


class Intensity(Value):
    """How one channel's values are brought to a common scale: a name in ``INTENSITIES`` and its numbers.

    ``zscore`` (per image), ``window_zscore`` (clip to ``window_hu``, then fixed mean and sd), ``window_unit``
    (a fixed range to -1..1), ``binary`` (above a value 1, else 0), ...
    """

    name: str
    settings: dict[str, float] = {}


class Preparation(Value):
    """All that `prepare` reads: a change elsewhere in the plan does not prepare anything again."""

    channels: tuple[str, ...]
    spacing_mm: TripleMm
    intensity: dict[str, Intensity]
    label_values: tuple[int, ...] = ()
    ignore: int | None = None
    """Value of references that marks voxels nobody knows."""
    classes: tuple[str, ...] = ()
    whole: Triple | None = None
    """Classification: images larger than this many voxels are shrunk until they fit, in proportion."""
    region: str = IMAGE
    margin_mm: float = 0.0
    """Classification: what is cut out before anything else; see `Plan.region`."""


class Cascade(Value):
    """A coarse first network: it sees far more of the image at once, and its answer is a further input of
    the network of the plan."""

    spacing_mm: TripleMm
    patch: Triple


class Sampling(Value):
    """Where training patches are taken from."""

    foreground: float = Field(default=0.5, ge=0, le=1)
    """Share of patches centred on a labelled voxel; the others lie anywhere."""
    label_weights: tuple[Annotated[float, Field(ge=0)], ...] = ()
    """How often each label (in the order of the plan's labels) is the one centred on, in proportion, among
    the labels that a case has; empty: all equally often."""


class Spent(Value):
    """What the plan was made for. Numbers to reckon with again: they are no choice, and change no key."""

    device: Literal["cpu", "gpu"] = "cpu"
    budget_minutes: float | None = None
    rate_gflops: float = 0.0
    """Arithmetic of training, forward and backward, in 1e9 operations a second on the whole device."""
    memory_gb: float = 0.0


class Plan(Value):
    """What training and use share. A value: print it, change it with `.but(...)`.

    ``patch`` is in voxels of the prepared grid (RAS order, I J K); K = 1 is a 2-D plan.
    """

    task: Task = "segmentation"
    channels: tuple[str, ...]
    labels: Labels = ()
    ignore: int | None = Field(default=None, ge=1, le=65535)
    """Value of references that marks voxels nobody knows: no loss is taken there, and no score."""
    classes: tuple[str, ...] = ()
    multilabel: bool = False
    """Whether a case may have several classes, or none: each has a probability of its own."""
    region: str = IMAGE
    """Classification: what of an image is looked at. ``image``: all of it; ``mask``: the box of the reference
    mask, or of an image that is itself a mask; the name of a channel: the box of what lies above its lowest
    value. Boxes grow by a margin."""
    region_margin_mm: float = Field(default=5.0, ge=0)
    spacing_mm: TripleMm
    patch: Triple
    balance: Balance = "none"
    """Classes of unequal size: draw each equally often, or weigh their part of the loss."""
    class_weights: tuple[float, ...] = ()
    """One a class, where the loss weighs them; with several classes a case, that of its positives."""
    batch: int = Field(ge=1)
    members: int = Field(default=1, ge=1, le=10)
    """Networks trained a fold, from different seeds; their probabilities are averaged."""
    intensity: dict[str, Intensity]
    network: str
    network_arguments: dict[str, Any] = {}
    sampling: Sampling = Sampling()
    cascade: Cascade | None = None
    """A first network at low resolution, where a patch sees too little of the image; None: there is none."""
    spent: Spent = Spent()
    fingerprint: dict[str, Any] = {}
    why: dict[str, str] = {}

    outside_identity: ClassVar[frozenset[str]] = frozenset({"why", "spent"})

    @property
    def dimensions(self) -> int:
        """2 when the patch is one voxel deep, else 3."""
        return 2 if self.patch[2] == 1 else 3

    def preparation(self) -> Preparation:
        """The part of the plan that `prepare` reads."""
        return Preparation(
            channels=self.channels,
            spacing_mm=self.spacing_mm,
            intensity=self.intensity,
            label_values=values_of(self.labels),
            ignore=self.ignore,
            classes=self.classes,
            whole=self.patch if self.task == "classification" else None,
            region=self.region if self.task == "classification" else IMAGE,
            margin_mm=self.region_margin_mm if self.region != IMAGE else 0.0,
        )

    @property
    def overlapping(self) -> bool:
        """Whether the labels are regions that may overlap: a probability for each, none for background."""
        return self.task == "segmentation" and any(label.region for label in self.labels)

    @property
    def apart(self) -> bool:
        """Whether each output has a probability of its own (a sigmoid each) in place of a share of one."""
        return self.multilabel or self.overlapping

    @property
    def inputs(self) -> int:
        """Number of network inputs: channels, and in a cascade a first answer for each label."""
        return len(self.channels) + (len(self.labels) if self.cascade else 0)

    @property
    def outputs(self) -> int:
        """Number of network outputs: background and labels, or regions, or classes."""
        if self.task == "classification":
            return len(self.classes)
        return len(self.labels) + (0 if self.overlapping else 1)

    def membership(self) -> NDArray[np.bool_]:
        """Which label each class index of a prepared reference belongs to: ``[indices, labels]``."""
        return membership(self.labels)
