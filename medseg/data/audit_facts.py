"""The numbers of one ingested case that an audit compares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from medseg.core.stage import Artifact
from medseg.data.ingested import read_ingested
from medseg.imaging.image import Image
from medseg.imaging.labels import Labels
from medseg.imaging.masks import boxes_of

STRAY_SHARE = 0.01
"""A component smaller than this share of the largest one of its label is a stray ..."""
STRAY_VOXELS = 30
"""... unless it has more voxels than this."""


@dataclass(frozen=True)
class Facts:
    """What one case looks like in numbers; no voxels."""

    case: str
    shape: tuple[int, ...]
    spacing_mm: tuple[float, ...]
    axes: str
    voxel_ml: float
    modality: str | None
    intensity: Mapping[str, tuple[float, float]]
    """Channel -> 1st and 99th percentile."""
    digests: tuple[str, ...]
    """sha256 of each stored channel image: equal for equal voxels in an equal place."""
    voxels: Mapping[int, int] | None = None
    """Label value -> voxels; None without a reference."""
    largest: Mapping[int, int] = field(default_factory=dict)
    strays: Mapping[int, list[int]] = field(default_factory=dict)
    """Label value -> sizes of tiny components apart from the largest."""
    notes: tuple[str, ...] = ()
    spacing_known: bool = True


def look_at(case: str, artifact: Artifact, labels: Labels) -> Facts:
    """Read an ingested case and take its numbers.

    Raises
    ------
    CaseError
        A file of the folder is damaged.
    """
    there = read_ingested(artifact.path)
    grid, source = there.image.grid, there.source
    voxels, largest, strays = _label_facts(there.mask)
    return Facts(
        case=case,
        shape=grid.shape,
        spacing_mm=grid.spacing_mm,
        axes=grid.axis_codes,
        voxel_ml=grid.voxel_ml,
        modality=source.get("modality"),
        intensity={c: _percentiles(there.image.array[i]) for i, c in enumerate(there.channels)},
        digests=tuple(d for name, d in artifact.files.items() if name.startswith("image")),
        voxels=voxels,
        largest=largest,
        strays=strays,
        notes=tuple(source["notes"]),
        spacing_known=grid.spacing_known,
    )


def _percentiles(array: NDArray[np.float32], most: int = 200_000) -> tuple[float, float]:
    """1st and 99th percentile, over at most `most` evenly spaced voxels."""
    flat = array.reshape(-1)
    low, high = np.percentile(flat[:: max(1, flat.size // most)], [1, 99])
    return float(low), float(high)


def _label_facts(
    mask: Image | None,
) -> tuple[dict[int, int] | None, dict[int, int], dict[int, list[int]]]:
    """Voxels, largest component and strays of each label value."""
    if mask is None:
        return None, {}, {}
    from scipy import ndimage

    array = mask.array[0]
    voxels, largest, strays = {}, {}, {}
    for value, box in boxes_of(array).items():
        part = array[box] == value
        parts, _ = ndimage.label(part, np.ones((3, 3, 3)))  # type: ignore[misc]
        sizes = np.sort(np.bincount(parts.reshape(-1))[1:])
        voxels[value], largest[value] = int(part.sum()), int(sizes[-1])
        tiny = [int(n) for n in sizes[:-1] if n <= min(STRAY_VOXELS, STRAY_SHARE * sizes[-1])]
        if tiny:
            strays[value] = tiny
    return voxels, largest, strays
