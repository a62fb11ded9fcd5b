"""Fingerprint -> Plan: every choice that training and use share, each with its reason."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from medseg.core.values import Value
from medseg.data.cohort import Task
from medseg.imaging.labels import Labels

Triple = tuple[int, int, int]
TripleMm = tuple[float, float, float]


class Intensity(Value):
    """How one channel's values are brought to a common scale: a name in ``INTENSITIES`` and its numbers.

    ``zscore`` (per image), ``window_zscore`` (clip to ``window_hu``, then fixed mean and sd), ...
    """

    name: str
    settings: dict[str, float] = {}


class Preparation(Value):
    """All that `prepare` reads: a change elsewhere in the plan does not prepare anything again."""

    channels: tuple[str, ...]
    spacing_mm: TripleMm
    intensity: dict[str, Intensity]
    label_values: tuple[int, ...] = ()
    classes: tuple[str, ...] = ()
    whole: Triple | None = None
    """Classification: images larger than this many voxels are shrunk until they fit, in proportion."""


class Plan(Value):
    """What training and use share. A value: print it, change it with `.but(...)`.

    ``patch`` is in voxels of the prepared grid (RAS order, I J K); K = 1 is a 2-D plan.
    """

    task: Task = "segmentation"
    channels: tuple[str, ...]
    labels: Labels = ()
    classes: tuple[str, ...] = ()
    spacing_mm: TripleMm
    patch: Triple
    batch: int = Field(ge=1)
    members: int = Field(default=1, ge=1, le=10)
    """Networks trained a fold, from different seeds; their probabilities are averaged."""
    intensity: dict[str, Intensity]
    network: str
    network_arguments: dict[str, Any] = {}
    fingerprint: dict[str, Any] = {}
    why: dict[str, str] = {}

    outside_identity: ClassVar[frozenset[str]] = frozenset({"why"})

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
            label_values=tuple(label.value for label in self.labels),
            classes=self.classes,
            whole=self.patch if self.task == "classification" else None,
        )

    @property
    def outputs(self) -> int:
        """Number of network outputs: background and labels, or classes."""
        return len(self.classes) if self.task == "classification" else len(self.labels) + 1
