"""What is measured in a label map: labels and unions of labels, on the reference's grid, less the ignored."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.core.errors import CaseError, MedsegError
from medseg.evaluation.policy import Scoring
from medseg.imaging.grid import Grid
from medseg.imaging.image import Image, same_place
from medseg.imaging.labels import Labels, checked, parse_labels
from medseg.imaging.masks import Box
from medseg.imaging.resample import resample_labels

Array = NDArray[Any]


@dataclass(frozen=True)
class Structure:
    """A label, or a region: all voxels that have one of its values."""

    name: str
    values: tuple[int, ...]

    def inside(self, array: Array) -> NDArray[np.bool_]:
        """Where an array of label values is this structure."""
        return array == self.values[0] if len(self.values) == 1 else np.isin(array, self.values)


def structures_of(labels: Labels, scoring: Scoring) -> list[Structure]:
    """The labels (without the ignored value), and after them the regions.

    Raises
    ------
    MedsegError
        A region without values, with the name of a label, or with background or the ignored value in it.
    """
    found = [Structure(label.name, label.values) for label in labels if label.value != scoring.ignore]
    for name, values in scoring.regions.items():
        wrong = not values or name in {label.name for label in labels} or {0, scoring.ignore} & set(values)
        if wrong:
            raise MedsegError(
                f"region '{name}' cannot be scored",
                evidence=f"values {', '.join(map(str, values)) or 'none'}",
                mend="give it a name that no label has, and values other than 0 and the ignored one",
            )
        found.append(Structure(name, tuple(sorted(set(values)))))
    return found


def parse_structures(text: str) -> tuple[Labels, dict[str, tuple[int, ...]]]:
    """Labels and regions from ``liver=1,tumour=2,both=1+2``.

    Raises
    ------
    MedsegError
        Not of that form, or a name or a label's value given twice.

    Examples
    --------
    >>> parse_structures("liver=1,both=1+2")[1]
    {'both': (1, 2)}
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    labels = checked(x for part in parts if "+" not in part for x in parse_labels(part))
    regions: dict[str, tuple[int, ...]] = {}
    for part in (p for p in parts if "+" in p):
        name, _, values = part.partition("=")
        if not all(v.strip().isdigit() for v in values.split("+")) or name.strip() in regions:
            raise MedsegError(f"labels '{text}' cannot be read", mend="write a region as name=1+2, once")
        regions[name.strip()] = tuple(int(v) for v in values.split("+"))
    return labels, regions


def box_of(boxes: dict[int, Box], structure: Structure) -> Box | None:
    """The smallest box around a structure, from the boxes of the values; None where it is absent."""
    found = [boxes[value] for value in structure.values if value in boxes]
    return reduce(union, found) if found else None


def union(one: Box, other: Box) -> Box:
    """The smallest box around two."""
    i, j, k = (slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(one, other, strict=True))
    return i, j, k


def without_ignored(
    prediction: Image | None, reference: Image, value: int | None
) -> tuple[Array | None, Array]:
    """Both label maps (I, J, K) with background where the reference has the ignored value."""
    there = reference.array[0]
    predicted = None if prediction is None else prediction.array[0]
    if value is None:
        return predicted, there
    ignored = there == value
    return (None if predicted is None else np.where(ignored, 0, predicted)), np.where(ignored, 0, there)


def placed(prediction: Image, reference: Image, *, resample: bool) -> tuple[Image, str]:
    """The prediction on the reference's grid, and what was done to it in words (empty: nothing).

    Resampling gives each voxel to the label with the largest share of it; what lies outside the
    prediction's image is background.

    Raises
    ------
    CaseError
        The grids differ and `resample` is not asked for.
    """
    if prediction.grid.matches(reference.grid):
        return prediction, ""
    if not resample:
        _refused(prediction, reference)
    covered = _covered(prediction.grid, reference.grid)
    moved = resample_labels(prediction, reference.grid).array * covered
    said = f"the prediction was resampled from {prediction.grid} onto the reference's grid"
    outside = 1 - covered.mean()
    return Image(moved, reference.grid), said + (f"; {outside:.1%} of it lies outside" if outside else "")


def _refused(prediction: Image, reference: Image) -> None:
    try:
        same_place(prediction, reference, "prediction and reference")
    except CaseError as error:
        error.mend = "pair the right files, or ask for resampling (scoring.resample=true)"
        raise


def _covered(source: Grid, target: Grid) -> NDArray[np.bool_]:
    """Where voxel centres of `target` lie within the voxels of `source`, bool array of target's shape."""
    between = (np.linalg.inv(source.affine) @ target.affine).astype(np.float32)
    inside = np.ones(target.shape, bool)
    for axis in range(3):
        steps = [between[axis, a] * np.arange(target.shape[a], dtype=np.float32) for a in range(3)]
        at = between[axis, 3] + steps[0][:, None, None] + steps[1][:, None] + steps[2]
        inside &= (at > -0.5 - 1e-3) & (at < source.shape[axis] - 0.5 + 1e-3)
    return inside
