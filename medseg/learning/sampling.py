"""Patches from memory-mapped cases. What is drawn depends on (seed, epoch, index) and on nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.core.files import read_json
from medseg.data.plan import Plan, Triple

UNKNOWN = -100
"""Target of a case whose class is not known: torch's cross-entropy leaves it out."""
MARGIN = 1.25
"""Side of the window read, in patch sides: what a turned or enlarged patch reaches."""


@dataclass(frozen=True)
class PreparedCase:
    """A folder of the prepare stage, its arrays mapped when they are first touched."""

    id: str
    folder: Path

    @cached_property
    def info(self) -> dict[str, Any]:
        """``prepared.json``."""
        return read_json(self.folder / "prepared.json")

    @cached_property
    def image(self) -> NDArray[Any]:
        """``[C, I, J, K]``, mapped read-only."""
        return np.load(self.folder / "image.npy", mmap_mode="r", allow_pickle=False)

    @cached_property
    def reference(self) -> NDArray[np.uint8]:
        """Class indices ``[I, J, K]``, mapped read-only."""
        return np.load(self.folder / "reference.npy", mmap_mode="r", allow_pickle=False)

    @cached_property
    def foreground(self) -> NDArray[np.int32]:
        """Some voxels of each label: rows of (class index, i, j, k); no rows when there are none."""
        return np.load(self.folder / "foreground.npy", allow_pickle=False)

    @property
    def patient(self) -> str:
        """Patient key; cases of one patient are never on both sides of a split."""
        return str(self.info["patient"])

    def class_target(self, plan: Plan) -> Any:
        """Index of the case's class, or 0 and 1 for each class where a case may have several.

        `UNKNOWN` (in each place) where the case has no class.
        """
        found = self.info["class_indices"]
        if not plan.multilabel:
            return UNKNOWN if not found else found[0]
        if found is None:
            return np.full(len(plan.classes), UNKNOWN, np.int64)
        return np.isin(np.arange(len(plan.classes)), found).astype(np.int64)


@dataclass(frozen=True)
class Drawn:
    """Windows of one step, before augmentation.

    ``image [B, C, *window]`` float32; ``target [B, *window]`` uint8, or class indices ``[B]`` (several
    classes a case: ``[B, classes]`` of 0 and 1); ``seeds [B]`` for what augmentation draws; ``classes`` as
    the target of a classification, for plans that know classes beside their labels.
    """

    image: NDArray[np.float32]
    target: NDArray[Any]
    seeds: NDArray[np.int64]
    classes: NDArray[Any] | None = None


class Sampler:
    """Windows for each step of each epoch.

    Parameters
    ----------
    cases : sequence of PreparedCase
    plan : Plan
        Its patch (and task).
    batch : int
        Windows a step.
    foreground : float
        Share of windows centred on a voxel of a label drawn evenly from those the case has; spread
        over the batch so that every step has its share.
    seed : int
    """

    def __init__(
        self, cases: Sequence[PreparedCase], plan: Plan, batch: int, foreground: float, seed: int
    ) -> None:
        self.cases, self.plan, self.batch = list(cases), plan, batch
        self.foreground, self.seed = foreground, seed
        self.window = window_of(plan.patch)

    def draw(self, epoch: int, step: int) -> Drawn:
        """The windows of one step."""
        places = range(step * self.batch, (step + 1) * self.batch)
        parts = [self._one(epoch, place) for place in places]
        images, targets, seeds, classes = zip(*parts, strict=True)
        drawn = Drawn(np.stack(images), np.stack(targets), np.array(seeds, np.int64))
        return replace(drawn, classes=np.stack(classes)) if self.plan.classes else drawn

    def epoch(self, epoch: int, steps: range) -> Iterator[Drawn]:
        """The steps of an epoch in order, read one ahead by a thread."""
        with ThreadPoolExecutor(1) as reader:
            ahead = None
            for step in steps:
                now = ahead or reader.submit(self.draw, epoch, step)
                ahead = reader.submit(self.draw, epoch, step + 1) if step + 1 < steps.stop else None
                yield now.result()

    def _one(self, epoch: int, place: int) -> tuple[NDArray[np.float32], Any, int, Any]:
        case = self.cases[self._turn(epoch, place)]
        rng = np.random.default_rng([self.seed, 1, epoch, place])
        seed = int(rng.integers(2**62))
        shape = case.image.shape[1:]
        known = case.class_target(self.plan) if self.plan.classes else None
        if self.plan.task == "classification":
            return cut(case.image, _middle(shape), self.window), known, seed, known
        wants = (place % self.batch) < self.foreground * self.batch
        centre = self._centre(case, rng, wants)
        start = [c - p // 2 for c, p in zip(centre, self.plan.patch, strict=True)]
        middle = [_inside(s, p, n) + p / 2 for s, p, n in zip(start, self.plan.patch, shape, strict=True)]
        image = cut(case.image, middle, self.window)
        return image, cut(case.reference[None], middle, self.window, np.uint8)[0], seed, known

    def _turn(self, epoch: int, place: int) -> int:
        """Which case: every one once before any comes again; with balanced classes, within its class."""
        if self.plan.balance == "sampling":
            return self._balanced(epoch, place)
        turn, n = divmod(place, len(self.cases))
        return int(np.random.default_rng([self.seed, 0, epoch, turn]).permutation(len(self.cases))[n])

    def _balanced(self, epoch: int, place: int) -> int:
        """One case of each class in every round, the classes of a round in an order of their own."""
        classes = self._by_class
        turn, n = divmod(place, len(classes))
        kind = int(np.random.default_rng([self.seed, 3, epoch, turn]).permutation(len(classes))[n])
        again, n = divmod(turn, len(classes[kind]))
        order = np.random.default_rng([self.seed, 4, epoch, again, kind]).permutation(len(classes[kind]))
        return classes[kind][int(order[n])]

    @cached_property
    def _by_class(self) -> list[list[int]]:
        """Places of the cases of each class that has any."""
        found: dict[int, list[int]] = {}
        for place, case in enumerate(self.cases):
            for index in case.info["class_indices"] or ():
                found.setdefault(index, []).append(place)
        return [found[index] for index in sorted(found)]

    def _centre(self, case: PreparedCase, rng: np.random.Generator, wants: bool) -> NDArray[np.int64]:
        if wants and len(case.foreground):
            labels = np.unique(case.foreground[:, 0])
            rows = case.foreground[case.foreground[:, 0] == rng.choice(labels)]
            return rows[rng.integers(len(rows)), 1:].astype(np.int64)
        return rng.integers(np.array(case.image.shape[1:]))


def window_of(patch: Sequence[int]) -> Triple:
    """Sides of the window read for a patch: `MARGIN` times as large, but flat where the patch is."""
    i, j, k = (1 if p == 1 else int(np.ceil(p * MARGIN / 2) * 2) for p in patch)
    return i, j, k


def cut(
    array: NDArray[Any], middle: Sequence[float], window: Sequence[int], dtype: Any = np.float32
) -> NDArray[Any]:
    """A window of ``[C, I, J, K]`` about the point `middle` (in voxel edges); edge voxels are repeated."""
    starts = [int(np.floor(m - w / 2)) for m, w in zip(middle, window, strict=True)]
    wanted = [
        np.clip(np.arange(start, start + size), 0, n - 1)
        for start, size, n in zip(starts, window, array.shape[1:], strict=True)
    ]
    i, j, k = (slice(int(at[0]), int(at[-1]) + 1) for at in wanted)
    part = np.asarray(array[:, i, j, k], dtype)
    for axis, at in enumerate(wanted, start=1):
        if part.shape[axis] < len(at):
            part = part.take(at - at[0], axis=axis)
    return part


def _inside(start: float, patch: int, size: int) -> float:
    """The patch's start, moved so that it lies in the image; centred when it does not fit."""
    return (size - patch) / 2 if size <= patch else min(max(start, 0), size - patch)


def _middle(shape: Sequence[int]) -> list[float]:
    return [n / 2 for n in shape]
