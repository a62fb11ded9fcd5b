"""Structures drawn one after another into one label map, with an account of where they overlap."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from medseg.core.errors import CaseError

Overlap = Literal["refuse", "first", "last"]
"""Voxels in two structures: refuse, or give them to the label with the smaller or the greater value."""


@dataclass(frozen=True)
class Canvas:
    """A label map in the making.

    Attributes
    ----------
    array : array of whole numbers
        Label values, 0 where nothing was drawn. Views of it are drawn into.
    clashes : Counter
        (value that was there, value drawn over it) -> voxels.
    """

    array: NDArray[Any]
    overlap: Overlap = "refuse"
    clashes: Counter[tuple[int, int]] = field(default_factory=Counter)


def empty_canvas(shape: tuple[int, ...], values: Iterable[int], overlap: Overlap = "refuse") -> Canvas:
    """A canvas of ``uint8``, or ``uint16`` when a value is above 255."""
    return Canvas(np.zeros(shape, np.uint8 if max(values, default=0) <= 255 else np.uint16), overlap)


def draw(canvas: Canvas, view: NDArray[Any], values: NDArray[Any]) -> None:
    """Draw label values (0 draws nothing) into a view of the canvas of the same shape."""
    mask = values != 0
    held, new = view[mask], values[mask].astype(view.dtype)
    other = (held != 0) & (held != new)
    if other.any():
        pairs, counts = np.unique(np.stack([held[other], new[other]]), axis=1, return_counts=True)
        for (old, drawn), count in zip(pairs.T.tolist(), counts.tolist(), strict=True):
            canvas.clashes[old, drawn] += count
        first = np.where(other, np.minimum(held, new), new)
        new = first if canvas.overlap == "first" else np.maximum(held, new)
    view[mask] = new


def overlap_notes(canvas: Canvas, names: Mapping[int, str]) -> tuple[str, ...]:
    """What to say of structures that overlap; `names` tells whose a value is, without names of the file.

    Raises
    ------
    CaseError
        Structures overlap and nobody said which of them counts: with each pair and its voxels.
    """
    if not canvas.clashes:
        return ()
    pairs: Counter[tuple[int, int]] = Counter()
    for (a, b), count in canvas.clashes.items():
        pairs[min(a, b), max(a, b)] += count
    counted = [f"{names[a]} and {names[b]}: {n} voxels" for (a, b), n in pairs.most_common(8)]
    more = f" and {len(pairs) - 8} more pairs" if len(pairs) > 8 else ""
    seen = "; ".join(counted) + more
    if canvas.overlap == "refuse":
        raise CaseError(
            "structures overlap: no label map can hold them",
            evidence=seen,
            mend="give each voxel to the label with the greater value by ingest.overlap=last, with the "
            "smaller by ingest.overlap=first, or choose labels that do not overlap",
        )
    side = "greater" if canvas.overlap == "last" else "smaller"
    return (f"overlapping structures: voxels went to the label with the {side} value ({seen})",)
