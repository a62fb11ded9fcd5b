"""What is done to a stack that is no box of voxels: the mend as a value, and the grid it leads to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.core.errors import CaseError
from medseg.imaging.dicom_geometry import directions_of
from medseg.imaging.dicom_header import Plane
from medseg.imaging.grid import Grid, ras_from_lps
from medseg.imaging.image import MAX_VOXELS

WHOLE_VOXEL = 1e-3
"""Shifts nearer to whole voxels than this part of one are whole: nothing is interpolated for rounding."""


@dataclass(frozen=True)
class Mend:
    """One thing mended.

    Attributes
    ----------
    kind : str
        ``tilt``, ``uneven`` or ``gap``.
    method : str
        ``resample``: grey values are interpolated. ``shear``: voxels untouched, on a sheared grid.
    numbers : tuple of (str, float)
        What was seen: ``angle_deg``, ``sideways_mm`` (per slice), ``gap_mm``, ``smallest_gap_mm``,
        ``largest_gap_mm``, ``missing``.
    """

    kind: str
    method: str
    numbers: tuple[tuple[str, float], ...]

    def record(self) -> dict[str, Any]:
        """The mend as JSON: kind, method and numbers."""
        return {"kind": self.kind, "method": self.method, **{n: round(v, 6) for n, v in self.numbers}}

    def said(self) -> str:
        """One sentence for the report."""
        n = dict(self.numbers)
        if self.kind == "tilt":
            how = {
                "resample": "resampled onto an orthogonal grid",
                "shear": "kept on the sheared grid of the scanner",
            }[self.method]
            return (
                f"tilted by {n['angle_deg']:.1f} degrees ({n['sideways_mm']:.3f} mm sideways a slice, "
                f"gap {n['gap_mm']:.3f} mm): {how}"
            )
        if self.kind == "gap":
            return (
                f"{n['missing']:.0f} missing slice(s) interpolated (largest gap {n['largest_gap_mm']:.3f}, "
                f"usual gap {n['gap_mm']:.3f} mm)"
            )
        return (
            f"uneven slices ({n['smallest_gap_mm']:.3f} to {n['largest_gap_mm']:.3f} mm apart) "
            f"interpolated to a gap of {n['gap_mm']:.3f} mm"
        )


def grid_over(planes: Sequence[Plane], count: int, *, straight: bool, depth_mm: float = 1.0) -> Grid:
    """The even grid of `count` slices from the first plane to the last.

    Parameters
    ----------
    planes : sequence of Plane
        In the order of the stack.
    count : int
        Slices of the grid; first and last coincide with those of the stack.
    straight : bool
        True: the third axis follows the normal, and rows and columns are added so that every pixel of
        every plane lies inside; pixels of the first plane stay where they are. False: it follows the
        positions, sheared when they are.
    depth_mm : float
        Depth of the slice where there is but one.

    Raises
    ------
    CaseError
        The grid would be larger than medseg takes.
    """
    positions = np.array([p.position for p in planes], float)
    row, column, normal = directions_of(planes[0])
    assert planes[0].spacing_mm is not None
    between_rows, between_columns = planes[0].spacing_mm
    step = (positions[-1] - positions[0]) / (count - 1) if count > 1 else normal * depth_mm
    size, origin = [planes[0].columns, planes[0].rows], positions[0]
    if straight:
        step = normal * float(step @ normal)
        for axis, (direction, mm) in enumerate(((row, between_columns), (column, between_rows))):
            low, high = _reach((positions - positions[0]) @ direction / mm)
            origin = origin + direction * mm * low
            size[axis] += high - low
    _refuse_huge(size[0] * size[1] * count)
    affine = np.eye(4)
    affine[:3] = np.column_stack([row * between_columns, column * between_rows, step, origin])
    return Grid((size[0], size[1], count), ras_from_lps(affine))


def _reach(offsets: NDArray[np.float64]) -> tuple[int, int]:
    """Whole voxels below and above that hold all the offsets."""
    low, high = offsets.min() + WHOLE_VOXEL, offsets.max() - WHOLE_VOXEL
    return min(0, math.floor(low)), max(0, math.ceil(high))


def _refuse_huge(voxels: int) -> None:
    if voxels > MAX_VOXELS:
        raise CaseError(
            "the mended volume would be too large", evidence=f"{voxels} voxels", mend="leave the series out"
        )
