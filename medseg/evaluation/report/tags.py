"""Failure tags: what kind of mistake a mask makes, by rules on the two masks alone."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.imaging.grid import Grid
from medseg.imaging.image import Image, canonical
from medseg.imaging.labels import Label, Labels, values_of
from medseg.imaging.masks import Box, boxes_of

Bool = NDArray[np.bool_]

COARSE_MM, LARGE = 2.0, 500_000
"""In boxes of more voxels than this distances are taken on every voxel of about two millimetres."""
PIECE_SHARE, PIECE_VOXELS = 0.01, 8
PIECES, ALL = ("extra component", "missed piece"), "all labels"
"""Tags that only repeat a swap of the label, and the label of a swap that befell all."""
LEAK_MM, LEAK_RADII, LEAK_SHARE = 5.0, 0.25, 0.01
CUT_SHARE = 0.1
RULES: dict[str, str] = {
    "missed": "the reference has the label, the prediction does not",
    "invented": "the prediction has the label, the reference does not",
    "left-right swap": "of a left and a right label of one name more than half lies in the other's "
    "reference; or mirrored about the image's middle all labels together have a Dice above 0.5 and more than "
    "twice their own",
    "label swap": "the same of two other labels",
    "extra component": f"a predicted piece that touches no voxel of its label in the reference and has at "
    f"least {100 * PIECE_SHARE:g} % of the reference's volume (and {PIECE_VOXELS} voxels)",
    "missed piece": "the same the other way round: a piece of the reference that no prediction touches",
    "leak": f"a piece that covers the reference runs out of it by more than {LEAK_MM:g} mm, two voxels and a "
    f"quarter of the reference's radius, with at least {100 * LEAK_SHARE:g} % of its volume beyond that",
    "cut field of view": f"the reference ends at the image's edge, with a cut of at least "
    f"{100 * CUT_SHARE:g} % of its largest cross-section there",
}
"""Tag -> the rule it is given by."""


@dataclass(frozen=True)
class Tag:
    """A kind of failure, the label it befell, and a few words with the size of it."""

    name: str
    label: str
    said: str = ""


def failure_tags(prediction: Image | None, reference: Image | None, labels: Labels) -> tuple[Tag, ...]:
    """The tags of one case, in the order of `RULES` and of the labels.

    Parameters
    ----------
    prediction, reference : Image or None
        Label maps [1, I, J, K] on one grid. Without a reference there are no tags; without a prediction
        every label of the reference is missed.
    labels : Labels

    Returns
    -------
    tuple of Tag
        Empty where nothing stands out.
    """
    if reference is None:
        return ()
    pair = _pair(canonical(reference), None if prediction is None else canonical(prediction))
    if pair is None:
        return ()
    boxes = [boxes_of(pair.truth), {} if pair.guess is None else boxes_of(pair.guess)]
    swaps = list(_swaps(pair, labels))
    told = {name for tag in swaps for name in tag.label.split(" and ")}
    of_labels = [tag for label in labels for tag in _of_label(pair, label, boxes)]
    followed = [tag for tag in of_labels if not (tag.name in PIECES and told & {tag.label, ALL})]
    found, order = [*swaps, *followed], list(RULES)
    return tuple(sorted(found, key=lambda tag: order.index(tag.name)))


@dataclass(frozen=True, eq=False)
class _Pair:
    """Both label maps (prediction or None) in the order of RAS, cut to what is not background in either.

    `start` is where that begins in the image, `grid` the image's.
    """

    truth: NDArray[Any]
    guess: NDArray[Any] | None
    start: tuple[int, ...]
    grid: Grid


def _pair(reference: Image, prediction: Image | None) -> _Pair | None:
    """Both masks cut to what they hold; None where that is nothing."""
    both = [reference, *([] if prediction is None else [prediction])]
    spans = [span for image in both if (span := bounds(image.array[0]))]
    if not spans:
        return None
    box = _around(spans)
    parts = [np.asfortranarray(image.array[0][box]) for image in both]
    start = tuple(s.start for s in box)
    return _Pair(parts[0], parts[1] if len(parts) > 1 else None, start, reference.grid)


def _of_label(pair: _Pair, label: Label, boxes: Sequence[Mapping[int, Box]]) -> Iterator[Tag]:
    mine = [[side[value] for value in label.values if value in side] for side in boxes]
    if not mine[0] and not mine[1]:
        return
    box = _around([*mine[0], *mine[1]])
    truth = label.within(pair.truth[box])
    if not mine[1] or pair.guess is None:
        yield Tag("missed", label.name)
    elif not mine[0]:
        yield Tag("invented", label.name, f"{int(label.within(pair.guess[box]).sum())} voxels")
    else:
        guess = label.within(pair.guess[box])
        yield from _pieces(truth, guess, label.name)
        yield from _leak(truth, guess, pair, label.name)
    if mine[0] and (side := _cut(truth, box, pair)):
        yield Tag("cut field of view", label.name, side)


def bounds(mask: NDArray[Any]) -> Box | None:
    """The smallest box around what is not 0; None where all is."""
    found = []
    for axis in range(3):
        there = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
        if not there.size:
            return None
        found.append(slice(int(there[0]), int(there[-1]) + 1))
    return found[0], found[1], found[2]


def _around(boxes: Sequence[Box]) -> Box:
    """The smallest box around boxes, one voxel wider where there is room."""
    sides = [
        (max(0, min(s.start for s in side) - 1), max(s.stop for s in side) + 1)
        for side in zip(*boxes, strict=True)
    ]
    i, j, k = (slice(*side) for side in sides)
    return i, j, k


def _pieces(truth: Bool, guess: Bool, label: str) -> Iterator[Tag]:
    """Pieces of one side that the other does not touch."""
    least = max(PIECE_VOXELS, PIECE_SHARE * truth.sum())
    for name, mask, other in zip(PIECES, (guess, truth), (truth, guess), strict=True):
        sizes = [n for n in _untouched(mask, other) if n >= least]
        if sizes:
            share = 100 * sum(sizes) / truth.sum()
            yield Tag(name, label, f"{len(sizes)}, {share:.0f} % of the reference's volume")


def _untouched(mask: Bool, other: Bool) -> list[int]:
    """Sizes in voxels of the pieces of `mask` (all 26 neighbours) without a voxel of `other`."""
    parts, n = _labelled(mask)
    sizes = np.bincount(parts.ravel(), minlength=n + 1)
    touched = np.bincount(parts[other], minlength=n + 1)
    return [int(s) for s, t in zip(sizes[1:], touched[1:], strict=True) if not t]


def _labelled(mask: Bool) -> tuple[NDArray[Any], int]:
    from scipy.ndimage import label

    found: Any = label(mask, np.ones((3, 3, 3)))
    return found


def _leak(truth: Bool, guess: Bool, pair: _Pair, label: str) -> Iterator[Tag]:
    """Far voxels of the pieces that do touch the reference."""
    from scipy.ndimage import distance_transform_edt

    least = max(PIECE_VOXELS, LEAK_SHARE * truth.sum())
    if (guess & ~truth).sum() < least:
        return
    parts, _ = _labelled(guess)
    joined = np.isin(parts, np.unique(parts[truth & guess])) & (parts > 0)
    voxel = max(mm for mm, n in zip(pair.grid.spacing_mm, pair.grid.shape, strict=True) if n > 1)
    limit = max(LEAK_MM, 2 * voxel + 1e-3, LEAK_RADII * _radius(int(truth.sum()), pair.grid))
    outside = joined & ~truth
    if outside.sum() < least:
        return
    steps = [max(1, int(COARSE_MM / mm)) if truth.size > LARGE else 1 for mm in pair.grid.spacing_mm]
    thin = tuple(slice(None, None, s) for s in steps)
    coarse = [mm * s for mm, s in zip(pair.grid.spacing_mm, steps, strict=True)]
    away: Any = distance_transform_edt(~truth[thin], sampling=coarse)
    far = away[outside[thin]]
    if (far > limit).sum() * np.prod(steps) >= least:
        unit = "mm" if pair.grid.spacing_known else "pixels"
        yield Tag("leak", label, f"reaches {far.max():.0f} {unit} beyond the reference")


def _radius(voxels: int, grid: Grid) -> float:
    """Radius of the ball (or, in a single slice, the disc) of as many voxels."""
    sides = [mm for mm, n in zip(grid.spacing_mm, grid.shape, strict=True) if n > 1]
    size = voxels * float(np.prod(sides))
    return float(np.cbrt(0.75 * size / np.pi) if len(sides) == 3 else np.sqrt(size / np.pi))


_SIDES = (("left", "right"), ("posterior", "anterior"), ("lower", "upper"))
"""Edges at the first and the last voxel, by world axis."""


def _cut(truth: Bool, box: Box, pair: _Pair) -> str:
    """The image's edges that the reference is cut by, in words; empty when none."""
    found = []
    for axis, world in enumerate(pair.grid.nearest_axes()[0]):
        n = pair.grid.shape[axis]
        areas = truth.sum(axis=tuple(a for a in range(3) if a != axis))
        edges = ((0, 0, _SIDES[world][0]), (n - 1, -1, _SIDES[world][1]))
        first = pair.start[axis] + box[axis].start
        at_edge = {0: first == 0, n - 1: first + truth.shape[axis] == n}
        least = max(2.0, CUT_SHARE * areas.max())
        found += [name for edge, i, name in edges if n > 1 and at_edge[edge] and areas[i] >= least]
    return f"at the {' and '.join(found)} edge" if found else ""


def _swaps(pair: _Pair, labels: Labels) -> Iterator[Tag]:
    """Labels that lie where another's reference is, and masks that lie on the other side."""
    if pair.guess is None or not labels or any(label.region for label in labels):
        return
    shared = _shared(pair.truth, pair.guess, labels)
    crossed = [
        (one, other)
        for i, one in enumerate(labels)
        for j, other in enumerate(labels[:i])
        if _swapped(shared, i + 1, j + 1)
    ]
    sided = [partners(one.name, other.name) for one, other in crossed]
    for (one, other), left_right in zip(crossed, sided, strict=True):
        name = "left-right swap" if left_right else "label swap"
        yield Tag(name, f"{other.name} and {one.name}", "each lies in the other's place")
    if not any(sided) and _mirrored(pair, labels):
        yield Tag("left-right swap", ALL, "mirrored about the image's middle the masks agree")


def _shared(truth: NDArray[Any], guess: NDArray[Any], labels: Labels) -> NDArray[np.int64]:
    """Voxels by label in the reference (rows) and in the prediction (columns); 0 is everything else."""
    n = len(labels) + 1
    place = np.zeros(int(max(truth.max(), guess.max(), *(label.value for label in labels))) + 1, np.int64)
    for i, label in enumerate(labels, 1):
        place[label.value] = i
    some = (truth > 0) | (guess > 0)
    return np.bincount(n * place[truth[some]] + place[guess[some]], minlength=n * n).reshape(n, n)


def _swapped(shared: NDArray[np.int64], i: int, j: int) -> bool:
    """Whether of both predicted labels more than half lies in the other's reference."""
    return bool(
        shared[j, i] > max(shared[i, i], shared[:, i].sum() / 2)
        and shared[i, j] > max(shared[j, j], shared[:, j].sum() / 2)
    )


def _mirrored(pair: _Pair, labels: Labels) -> bool:
    """Whether the masks agree far better after a mirror of the right-left axis."""
    axis = pair.grid.nearest_axes()[0].index(0)
    values = values_of(labels)
    truth, guess = (np.isin(np.asarray(side), values) for side in (pair.truth, pair.guess))
    total = int(truth.sum() + guess.sum())
    if not truth.any() or not guess.any() or pair.grid.shape[axis] < 2:
        return False
    own = 2 * int((truth & guess).sum()) / total
    return own < 0.5 and 2 * _shared_mirrored(truth, guess, axis, pair) / total > max(0.5, 2 * own)


def _shared_mirrored(truth: Bool, guess: Bool, axis: int, pair: _Pair) -> int:
    """Voxels that both have when one is mirrored about the middle of the image: where both cuts meet."""
    n, start, size = pair.grid.shape[axis], pair.start[axis], truth.shape[axis]
    other = n - start - size  # where the mirrored cut begins
    first, last = max(start, other), min(start, other) + size
    if first >= last:
        return 0
    before = (slice(None),) * axis
    ours = truth[(*before, slice(first - start, last - start))]
    theirs = np.flip(guess, axis)[(*before, slice(first - other, last - other))]
    return int((ours & theirs).sum())


def partners(a: str, b: str) -> bool:
    """Whether two names differ only by left and right (words, ``_l`` and ``_r``, German too)."""
    sides = [_sided(name) for name in (a, b)]
    return {s[0] for s in sides} == {"left", "right"} and sides[0][1] == sides[1][1]


_WORDS = {"left": "left", "l": "left", "lt": "left", "links": "left", "linke": "left", "linker": "left"}
_WORDS |= {"right": "right", "r": "right", "rt": "right", "rechts": "right", "rechte": "right", "rechter": "right"}  # fmt: skip  # noqa: E501


def _sided(name: str) -> tuple[str, tuple[str, ...]]:
    words = [w for w in re.split(r"[^a-z0-9]+", name.lower()) if w]
    side = next((w for w in words if w in _WORDS), "")
    return _WORDS.get(side, ""), tuple(w for w in words if w != side)
