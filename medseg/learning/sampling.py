"""Patches from memory-mapped cases. What is drawn depends on (seed, epoch, index) and on nothing else."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

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
    def nbytes(self) -> int:
        """Bytes of image and reference."""
        return self.image.nbytes + (self.reference.nbytes if self._has_reference else 0)

    @property
    def _has_reference(self) -> bool:
        return (self.folder / "reference.npy").is_file()

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
    """Windows of one step, before augmentation; tensors where the cases lie on the device.

    ``image [B, C, *window]`` float32; ``target [B, *window]`` uint8, or class indices ``[B]`` (several
    classes a case: ``[B, classes]`` of 0 and 1); ``seeds [B]`` for what augmentation draws; ``classes`` as
    the target of a classification, for plans that know classes beside their labels.
    """

    image: Any
    target: Any
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
    part : (int, int)
        Which share this is of how many that make up a batch together, each of `batch` windows.
    hold : torch.device, optional
        Where all cases are copied to at the start; by default they stay mapped.
    """

    def __init__(
        self,
        cases: Sequence[PreparedCase],
        plan: Plan,
        batch: int,
        foreground: float,
        seed: int,
        part: tuple[int, int] = (0, 1),
        hold: torch.device | None = None,
    ) -> None:
        self.cases, self.plan, self.batch, self.part = list(cases), plan, batch, part
        self.foreground, self.seed = foreground, seed
        self.window = window_of(plan.patch)
        self.weights = dict(enumerate(plan.sampling.label_weights, start=1))
        self.held = None if hold is None else [_held(case, plan, hold) for case in self.cases]

    def draw(self, epoch: int, step: int) -> Drawn:
        """The windows of one step: this part's share of them."""
        part, parts = self.part
        first = (step * parts + part) * self.batch
        drawn = [self._one(epoch, place) for place in range(first, first + self.batch)]
        images, targets, seeds, classes = zip(*drawn, strict=True)
        stack = torch.stack if self.held else np.stack
        target = stack(targets) if self.plan.task == "segmentation" else np.stack(targets)
        made = Drawn(stack(images), target, np.array(seeds, np.int64))
        return replace(made, classes=np.stack(classes)) if self.plan.classes else made

    def epoch(self, epoch: int, steps: range) -> Iterator[Drawn]:
        """The steps of an epoch in order, read one ahead by a thread."""
        return _ahead(lambda n: self.draw(epoch, n), steps)

    def stream(self, step: int, steps: int, batches: int = 1) -> Generator[Drawn, None, None]:
        """Batch after batch without end, read one ahead by a thread, from a step of the training on.

        Parameters
        ----------
        steps : int
            Steps of an epoch.
        batches : int
            Batches of a step.
        """
        return _ahead(lambda n: self.draw(*divmod(n, steps * batches)), itertools.count(step * batches))

    def _one(self, epoch: int, place: int) -> tuple[Any, Any, int, Any]:
        number = self._turn(epoch, place)
        case = self.cases[number]
        rng = np.random.default_rng([self.seed, 1, epoch, place])
        seed = int(rng.integers(2**62))
        shape = case.image.shape[1:]
        known = case.class_target(self.plan) if self.plan.classes else None
        if self.plan.task == "classification":
            return self._cut(number, _middle(shape))[0], known, seed, known
        # as many of every batch as the share says, or in turns where a batch is too small for that
        wants = math.ceil((place + 1) * self.foreground) > math.ceil(place * self.foreground)
        centre = self._centre(case, rng, wants)
        start = [c - p // 2 for c, p in zip(centre, self.plan.patch, strict=True)]
        middle = [_inside(s, p, n) + p / 2 for s, p, n in zip(start, self.plan.patch, shape, strict=True)]
        return *self._cut(number, middle), seed, known

    def _cut(self, number: int, middle: Sequence[float]) -> tuple[Any, Any]:
        """Windows of the image and of the reference (None for a class) of a case."""
        masks = self.plan.task == "segmentation"
        if self.held:
            image, reference = self.held[number]
            window = cut_tensor(image, middle, self.window).float()
            return window, cut_tensor(reference, middle, self.window)[0] if masks else None
        case = self.cases[number]
        window = cut(case.image, middle, self.window)
        return window, cut(case.reference[None], middle, self.window, np.uint8)[0] if masks else None

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
        listed = case.foreground[:, 0]
        labels = np.unique(listed[listed > 0])
        if wants and len(labels):
            label = rng.choice(labels, p=shares(labels, self.weights))
        elif (listed == 0).any():
            label = 0  # only part of the case is known: elsewhere nothing could be learnt
        else:
            return rng.integers(np.array(case.image.shape[1:]))
        rows = case.foreground[listed == label]
        return rows[rng.integers(len(rows)), 1:].astype(np.int64)


def window_of(patch: Sequence[int]) -> Triple:
    """Sides of the window read for a patch: `MARGIN` times as large, but flat where the patch is."""
    i, j, k = (1 if p == 1 else int(np.ceil(p * MARGIN / 2) * 2) for p in patch)
    return i, j, k


def cut(
    array: NDArray[Any], middle: Sequence[float], window: Sequence[int], dtype: Any = np.float32
) -> NDArray[Any]:
    """A window of ``[C, I, J, K]`` about the point `middle` (in voxel edges); edge voxels are repeated."""
    wanted = _wanted(middle, window, array.shape[1:])
    i, j, k = (slice(int(at[0]), int(at[-1]) + 1) for at in wanted)
    part = np.asarray(array[:, i, j, k], dtype)
    for axis, at in enumerate(wanted, start=1):
        if part.shape[axis] < len(at):
            part = part.take(at - at[0], axis=axis)
    return part


def cut_tensor(array: Tensor, middle: Sequence[float], window: Sequence[int]) -> Tensor:
    """As `cut`, on the device where the array lies and in its number format."""
    wanted = _wanted(middle, window, array.shape[1:])
    i, j, k = (slice(int(at[0]), int(at[-1]) + 1) for at in wanted)
    part = array[:, i, j, k]
    for axis, at in enumerate(wanted, start=1):
        if part.shape[axis] < len(at):
            part = part.index_select(axis, torch.from_numpy(at - at[0]).to(array.device, non_blocking=True))
    return part


def shares(labels: NDArray[Any], weights: Mapping[int, float]) -> NDArray[np.float64] | None:
    """How often each of these labels is chosen, adding up to 1; None (evenly) without weights for them."""
    found = np.array([weights.get(int(label), 0.0) for label in labels])
    return found / found.sum() if found.sum() > 0 else None


def _ahead(draw: Callable[[int], Drawn], numbers: Iterable[int]) -> Generator[Drawn, None, None]:
    """What is drawn for each number, the next one being drawn by a thread meanwhile."""
    with ThreadPoolExecutor(1) as reader:
        coming = None
        for number in numbers:
            before, coming = coming, reader.submit(draw, number)
            if before:
                yield before.result()
        if coming:
            yield coming.result()


def _held(case: PreparedCase, plan: Plan, device: torch.device) -> tuple[Tensor, Tensor]:
    """Image and reference (an empty one for a class) on the device, in the number formats of the disk."""
    image = torch.from_numpy(np.array(case.image)).to(device)
    if plan.task == "classification":
        return image, torch.empty(0)
    return image, torch.from_numpy(np.array(case.reference[None])).to(device)


def _wanted(middle: Sequence[float], window: Sequence[int], shape: Sequence[int]) -> list[NDArray[np.int64]]:
    """Places a window takes along each axis; those outside are the nearest inside."""
    starts = [int(np.floor(m - w / 2)) for m, w in zip(middle, window, strict=True)]
    return [
        np.clip(np.arange(start, start + size), 0, n - 1)
        for start, size, n in zip(starts, window, shape, strict=True)
    ]


def _inside(start: float, patch: int, size: int) -> float:
    """The patch's start, moved so that it lies in the image; centred when it does not fit."""
    return (size - patch) / 2 if size <= patch else min(max(start, 0), size - patch)


def _middle(shape: Sequence[int]) -> list[float]:
    return [n / 2 for n in shape]
