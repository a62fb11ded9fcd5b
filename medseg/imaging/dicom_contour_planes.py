"""Which slice a contour lies on: the nearest, at most half a gap away, and never one that it crosses."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.core.errors import CaseError
from medseg.imaging.dicom_contours import Contour, snapped

HALF_GAP = 0.5
"""Of the gap to the nearer neighbour: a contour further from a slice than this lies on no slice."""
OFF_PLANE = 0.05
"""Of a gap: contours further from their slice than this are counted in a note."""
FLAT = 1.0
"""Of a gap: how far the points of a contour may lie at different heights; coordinates may be rounded."""


@dataclass(frozen=True)
class Laid:
    """A contour in its plane: number of the plane, height above it in gaps, (column, row) points."""

    region: int
    plane: int
    height: float
    points: Contour = field(repr=False)


def laid(region: int, points: NDArray[np.float64], inverses: NDArray[Any]) -> Laid:
    """The contour in the nearest plane, with its height above it; plane -1 when it is across them all.

    Parameters
    ----------
    points : array [n, 3]
        LPS mm.
    inverses : array [K, 4, 4]
        RAS mm -> (column, row, gaps) of each plane (`dicom_laying.plane_affines`, inverted).
    """
    middle = np.append(points.mean(axis=0) * (-1, -1, 1), 1.0)
    heights = inverses[:, 2] @ middle
    plane = int(np.argmin(np.abs(heights)))
    inside = onto(inverses[plane], points)
    if np.ptp(inside[:, 2]) > FLAT:
        return Laid(region, -1, float(np.ptp(inside[:, 2])), inside[:, :2])
    return Laid(region, plane, float(heights[plane]), snapped(inside[:, :2]))


def onto(inverse: NDArray[Any], points: NDArray[np.float64]) -> NDArray[np.float64]:
    """LPS mm ``[n, 3]`` -> (column, row, gaps above the plane)."""
    return (points * (-1, -1, 1)) @ inverse[:3, :3].T + inverse[:3, 3]


def refuse_elsewhere(contours: Sequence[Laid], slices: int) -> None:
    """Raise CaseError when contours cross the slices, or lie where no slice is."""
    across = [c for c in contours if c.plane < 0]
    if across:
        raise CaseError(
            "contours do not lie in the planes of the image",
            evidence=f"{len(across)} of {len(contours)} contours of {_rois(across)} cross up to "
            f"{max(c.height for c in across):.1f} gaps of the {slices} slices",
            mend="pair the structure set with the series it was drawn on",
        )
    nowhere = [c for c in contours if abs(c.height) > HALF_GAP]
    if nowhere:
        raise CaseError(
            "contours lie on slices that are not here",
            evidence=f"{len(nowhere)} of {len(contours)} contours of {_rois(nowhere)}, up to "
            f"{max(abs(c.height) for c in nowhere):.1f} gaps from the nearest of {slices} slices",
            mend="add the slices they were drawn on, or pair the structure set with its own series",
        )


def nearest_only(contours: Sequence[Laid]) -> list[Laid]:
    """Of contours at different heights near one slice, those nearest to it: others are not its holes."""
    best: dict[tuple[int, int], float] = {}
    for c in contours:
        key = (c.region, c.plane)
        best[key] = min(best.get(key, c.height), c.height, key=abs)
    return [c for c in contours if abs(c.height - best[c.region, c.plane]) <= OFF_PLANE]


def contour_remarks(
    found: Sequence[Laid], kept: Sequence[Laid], repeated: int, drawn: Collection[tuple[int, int]]
) -> list[str]:
    """What the report should say of contours off their slice, left out or repeated, and of bare slices."""
    said = []
    off = [c for c in kept if abs(c.height) > OFF_PLANE]
    if off:
        most = max(abs(c.height) for c in off)
        said.append(f"{len(off)} contour(s) lie off their slice, by up to {most:.2f} of a gap")
    if len(kept) < len(found):
        said.append(
            f"{len(found) - len(kept)} contour(s) between slices left out: a nearer one is drawn on the slice"
        )
    if repeated:
        said.append(f"{repeated} contour(s) drawn twice were taken once")
    planes: dict[int, list[int]] = {}
    for region, plane in drawn:
        planes.setdefault(region, []).append(plane)
    bare = {r: max(p) - min(p) + 1 - len(p) for r, p in planes.items() if max(p) - min(p) + 1 > len(p)}
    if bare:
        counts = ", ".join(f"ROI {r}: {n}" for r, n in sorted(bare.items())[:8])
        said.append(f"slices without contours between slices that have some were left empty ({counts})")
    return said


def _rois(contours: Sequence[Laid]) -> str:
    numbers = sorted({c.region for c in contours})
    more = f" and {len(numbers) - 8} more" if len(numbers) > 8 else ""
    return f"ROI {', '.join(map(str, numbers[:8]))}{more}"
