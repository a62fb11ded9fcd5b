"""Mask steps: what is done to a predicted label map before it is measured or exported."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from medseg.core.errors import MedsegError
from medseg.core.registry import look_up
from medseg.core.values import Value
from medseg.imaging.grid import Grid
from medseg.imaging.image import Image
from medseg.imaging.labels import Labels, entering, leaving

Bool = NDArray[np.bool_]
Box = tuple[slice, slice, slice]


class Step(Value):
    """One mask step: a name in `MASK_STEPS` (or ``package.module:function``) for some label values.

    ``labels`` empty means every label of the mask, one after the other; of regions the largest first. The
    value of a region stands for all voxels of it. ``settings`` are handed to the step by keyword
    (``{"ml": 0.5}``).
    """

    step: str
    labels: tuple[int, ...] = ()
    settings: dict[str, float] = {}


class Postprocessing(Value):
    """What comes after a network: how its probabilities become a mask, and mask steps in their order."""

    thresholds: dict[int, Annotated[float, Field(gt=0, lt=1)]] = {}
    """Label value -> the probability it needs against background; 0.5 where nothing is said. Among several
    labels that of the largest ``p (1 - t) / t`` is taken. It needs a model of ours."""
    steps: tuple[Step, ...] = ()


def keep_largest(mask: Bool, grid: Grid) -> Bool:
    """Only the largest component (neighbours by face, edge or corner); of equals, the first met.

    Parameters
    ----------
    mask : bool array (I, J, K)
        An empty mask comes back empty.
    """
    parts, sizes = _components(mask)
    return parts == int(np.argmax(sizes)) + 1 if sizes.size else mask


def fill_holes(mask: Bool, grid: Grid) -> Bool:
    """The mask with its enclosed cavities: background that no path by faces leads out of.

    A single slice is filled in its plane.
    """
    from scipy import ndimage

    flat = _drop_flat_axis(mask)
    return ndimage.binary_fill_holes(flat).reshape(mask.shape)  # type: ignore[union-attr]


def drop_below_ml(mask: Bool, grid: Grid, ml: float = 0.0) -> Bool:
    """Without the components smaller than `ml` millilitres (neighbours by face, edge or corner)."""
    parts, sizes = _components(mask)
    kept = np.concatenate([[False], sizes * grid.voxel_ml >= ml])
    return kept[parts]


MaskStep = Callable[..., Bool]
MASK_STEPS: dict[str, MaskStep] = {
    "keep_largest": keep_largest,
    "fill_holes": fill_holes,
    "drop_below_ml": drop_below_ml,
}
"""Step name -> ``(mask bool (I, J, K), grid, **settings) -> mask``; the extension point for mask steps."""


def apply_steps(mask: Image, steps: Sequence[Step], labels: Labels = ()) -> Image:
    """Carry out mask steps on a label map, label by label.

    A step takes voxels away from its own label (they become background) and may add voxels only where
    there is background: one label never overwrites another. On a region it works on the union of its values:
    what it takes away leaves the smaller regions inside too and keeps the larger ones around, what it adds
    lies in these as well (`medseg.imaging.labels.leaving`, `entering`).

    Parameters
    ----------
    mask : Image
        Integer array [1, I, J, K]; it is not changed.
    steps : sequence of Step
    labels : sequence of Label, optional
        What the values mean: needed where they are regions that overlap.

    Raises
    ------
    MedsegError
        Unknown step name, or settings the step does not take.
    """
    array = mask.array[0].copy()
    for step in steps:
        function = look_up(MASK_STEPS, step.step, "mask step")
        for value in step.labels or _values(array, labels):
            _apply(function, array, _part_of(value, labels), mask.grid, step)
    return mask.but(array)


def volume_ml(mask: Image, value: int) -> float:
    """Volume of one label: voxel count times |det affine|, in millilitres."""
    return float(np.count_nonzero(mask.array[0] == value) * mask.grid.voxel_ml)


def volumes_ml(mask: Image, labels: Labels) -> dict[str, float]:
    """Volume of every label by name, in millilitres; 0.0 for a label that is not there."""
    counts = np.bincount(mask.array.ravel())
    return {
        label.name: float(sum(counts[v] for v in label.values if v < counts.size) * mask.grid.voxel_ml)
        for label in labels
    }


def boxes_of(array: NDArray[Any]) -> dict[int, Box]:
    """The smallest box around every label value of an integer array (I, J, K), background left out."""
    from scipy import ndimage

    array = array.view(np.uint8) if array.dtype == bool else array
    around = _box_of_all(array)  # labels are searched in there alone: much faster in large images
    found = ndimage.find_objects(array[around]) if array[around].size else []
    return {value: _moved(box, around) for value, box in enumerate(found, 1) if box is not None}


def _box_of_all(array: NDArray[Any]) -> Box:
    """The smallest box around everything that is not 0; an empty one where there is nothing."""
    box = [slice(0, n) for n in array.shape]
    for axis in range(array.ndim):
        others = tuple(a for a in range(array.ndim) if a != axis)
        there = np.flatnonzero(array[tuple(box)].any(axis=others))
        box[axis] = slice(int(there[0]), int(there[-1]) + 1) if there.size else slice(0, 0)
    return box[0], box[1], box[2]


def _moved(box: Box, around: Box) -> Box:
    i, j, k = (slice(b.start + a.start, b.stop + a.start) for b, a in zip(box, around, strict=True))
    return i, j, k


@dataclass(frozen=True)
class _Whole:
    """What a step works on: values that count as one, and what voxels become that leave or come to them."""

    values: tuple[int, ...]
    leaving: Mapping[int, int]
    entering: Mapping[int, int]

    def within(self, array: NDArray[Any]) -> Bool:
        """Which voxels have one of the values."""
        return array == self.values[0] if len(self.values) == 1 else np.isin(array, self.values)


def _part_of(value: int, labels: Labels) -> _Whole:
    """A value alone, or the region that it stands for."""
    region = next((label for label in labels if label.region and label.value == value), None)
    if region is None:
        return _Whole((value,), {value: 0}, {0: value})
    return _Whole(region.values, leaving(labels, region), entering(labels, region))


def _apply(function: MaskStep, array: NDArray[Any], whole: _Whole, grid: Grid, step: Step) -> None:
    box = boxes_of(whole.within(array)).get(1)
    if box is None:
        return
    inside = array[box]
    before = whole.within(inside)
    try:
        after = function(before, _part(grid, box), **step.settings)
    except TypeError as error:
        raise MedsegError(
            f"mask step '{step.step}' does not take these settings", evidence=str(error)
        ) from error
    _turn(inside, before & ~after, whole.leaving)
    _turn(inside, after & ~before, whole.entering)


def _turn(array: NDArray[Any], where: Bool, into: Mapping[int, int]) -> None:
    """Give voxels of a mask the values that theirs turn into; those not listed stay."""
    now = array[where]
    new = now.copy()
    for value, other in into.items():
        new[now == value] = other
    array[where] = new


def _part(grid: Grid, box: Box) -> Grid:
    return grid.cropped([s.start for s in box], [s.stop - s.start for s in box])


def _values(array: NDArray[Any], labels: Labels) -> list[int]:
    """The values of a mask; where they are those of regions, these, the largest first."""
    regions = sorted((label for label in labels if label.region), key=lambda r: -len(r.values))
    return [r.value for r in regions] or [int(v) for v in np.unique(array) if v != 0]


def _components(mask: Bool) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Components (1, 2, ...) and their voxel counts."""
    from scipy import ndimage

    parts, n = ndimage.label(mask, np.ones((3, 3, 3)))  # type: ignore[misc]
    return parts, np.bincount(parts.ravel(), minlength=n + 1)[1:]


def _drop_flat_axis(mask: Bool) -> Bool:
    flat = [axis for axis in range(3) if mask.shape[axis] == 1]
    return mask.squeeze(flat[-1]) if flat else mask
