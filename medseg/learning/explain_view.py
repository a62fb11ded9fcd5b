"""The window a network is asked about, and the ways between its voxels and the image's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from medseg.data.plan import Plan, Triple
from medseg.data.prepare import prepare
from medseg.imaging.grid import Grid
from medseg.imaging.image import Image, canonical
from medseg.imaging.resample import resample, resample_labels
from medseg.learning.explain_maps import Map, Question, filling
from medseg.learning.joint import ClassAlone, middle_of
from medseg.learning.model import Models
from medseg.learning.sampling import cut


@dataclass(frozen=True, eq=False)
class View:
    """The questions put to each network at one window, and where it lies."""

    questions: tuple[Question, ...]
    grid: Grid
    share: float | None = None
    """Segmentation: part of the region that lies in the window."""


def view_of(
    models: Models, image: Image, target: int, fill: str, region: Image | None, mask: Image | None
) -> View:
    """The window each network looks at: its middle patch, or the one that holds most of a label.

    `fill` says what hidden voxels become; `region` (segmentation) holds the label's voxels, `mask` those
    of a plan that looks at the foreground of a mask.
    """
    plan = models.plan
    prepared = [prepare(image, member.plan.preparation(), mask) for member in models.members]
    grid = prepared[0].grid
    inside = None if region is None else _label_on(region, grid, plan, target)
    start = _start(inside, grid.shape, plan.patch)
    part = None if inside is None else cut(inside[None], _middle(start, plan.patch), plan.patch, np.uint8)[0]
    questions = []
    for member, one in zip(models.members, prepared, strict=True):
        array = cut(one.array, _middle(start, plan.patch), plan.patch)
        window = torch.from_numpy(np.ascontiguousarray(array))[None].to(member.device)
        about = None if part is None else torch.from_numpy(part > 0).to(member.device)
        hidden = filling(window, fill)
        questions.append(Question(member.network, window, hidden, target, about, plan.apart))
    share = None if inside is None or part is None else round(min(1.0, part.sum() / inside.sum()), 4)
    return View(tuple(questions), grid.cropped(start, plan.patch), share)


def class_view_of(models: Models, image: Image, target: int, fill: str, region: Image) -> View:
    """Of joint models the window whose class they tell: about the middle of all labels of `region`."""
    plan = models.plan
    prepared = [prepare(image, member.plan.preparation()) for member in models.members]
    grid = prepared[0].grid
    mine = canonical(region.but((region.array > 0).astype(np.uint8)))
    middle = middle_of(resample_labels(mine, grid).array[0] > 0, plan)
    start = [int(np.floor(m - p / 2)) for m, p in zip(middle, plan.patch, strict=True)]
    questions = []
    for member, one in zip(models.members, prepared, strict=True):
        window = torch.from_numpy(cut(one.array, middle, plan.patch))[None].to(member.device)
        network = ClassAlone(member.network)
        questions.append(Question(network, window, filling(window, fill), target, multilabel=plan.multilabel))
    return View(tuple(questions), grid.cropped(start, plan.patch))


def _label_on(region: Image, grid: Grid, plan: Plan, target: int) -> NDArray[np.uint8]:
    """The label's voxels on the prepared grid; a structure lost between its voxels keeps its middle."""
    label = plan.labels[target - (plan.outputs - len(plan.labels))]
    mine = canonical(region.but(label.within(region.array).astype(np.uint8)))
    found = resample_labels(mine, grid).array[0]
    if not found.any():
        middle = mine.grid.to_mm(np.argwhere(mine.array[0]).mean(0))
        at = np.clip(np.rint(grid.to_index(middle)), 0, np.array(grid.shape) - 1).astype(int)
        found = found.copy()
        found[tuple(at)] = 1
    return found


def _start(inside: NDArray[np.uint8] | None, shape: Sequence[int], patch: Triple) -> list[int]:
    """First voxel of the window; before the image where that is smaller."""
    if inside is None:
        return [int(np.floor(n / 2 - p / 2)) for n, p in zip(shape, patch, strict=True)]
    start = [0, 0, 0]
    for axis in (2, 1, 0):  # a slice first, where the network looks at slices
        profile = inside.sum(axis=tuple(a for a in range(3) if a != axis), dtype=np.int64)
        start[axis] = _best_start(profile, patch[axis])
        low = max(0, start[axis])
        inside = inside.take(range(low, min(inside.shape[axis], start[axis] + patch[axis])), axis)
    return start


def _best_start(profile: NDArray[np.int64], size: int) -> int:
    """Where `size` voxels hold most, about the middle of what they hold; centred when they hold all."""
    if len(profile) <= size:
        return int(np.floor(len(profile) / 2 - size / 2))
    held = np.convolve(profile, np.ones(size, np.int64), "valid")
    best = np.flatnonzero(held == held.max())
    wanted = (profile * np.arange(len(profile))).sum() / profile.sum() - (size - 1) / 2
    return int(best[np.abs(best - wanted).argmin()])


def _middle(start: Sequence[int], patch: Triple) -> list[float]:
    return [s + p / 2 for s, p in zip(start, patch, strict=True)]


def sides_mm(grid: Grid) -> list[float]:
    """Sides of the box of a grid, from edge to edge."""
    return [n * s for n, s in zip(grid.shape, grid.spacing_mm, strict=True)]


def spread(raw: Map, grid: Grid, off: Sequence[float]) -> Map:
    """A map of features on the window: they share its box evenly, moved by what `displacement` says."""
    spacing = [mm / n for mm, n in zip(sides_mm(grid), raw.shape, strict=True)]
    even = grid.resampled(spacing)
    affine = even.affine.copy()
    affine[:3, 3] += grid.affine[:3, :3] @ np.array(off)
    return resample(Image(raw[None], replace(even, affine=affine)), grid, order=1).array[0]


def on_source(found: Map, grid: Grid, image: Image) -> Image:
    """The map on the image's own grid, 0 where the network did not look."""
    wide = grid.cropped((-1, -1, -1), [n + 2 for n in grid.shape])
    seen = resample(Image(np.pad(np.ones_like(found, np.uint8), 1)[None], wide), image.grid).array
    shown = resample(Image(found[None], grid), image.grid, order=1, antialias=True).array
    return image.but(np.where(seen > 0, np.clip(shown, 0, 1), 0).astype(np.float32))
