"""Where voxels lie in the patient: one convention (RAS, mm), one comparison."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medseg.core.errors import MedsegError

Affine = NDArray[np.float64]

_LPS_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])

PIXELS = "no pixel size in the file: lengths are in pixels, not mm"
"""What is said of an image whose grid has no known spacing."""


@dataclass(frozen=True, eq=False)
class Grid:
    """A lattice of voxel centres in the patient.

    Parameters
    ----------
    shape : (I, J, K)
        Voxels along each array axis, each >= 1.
    affine : array (4, 4)
        Voxel index -> RAS millimetres (right, anterior, superior grow), float64.
    spacing_known : bool
        False for a picture that does not say how large its pixels are: all lengths count pixels then,
        and what is called mm here and elsewhere means pixels.

    Raises
    ------
    MedsegError
        Shape not three positive numbers, or an affine that is not finite and invertible.
    """

    shape: tuple[int, int, int]
    affine: Affine
    spacing_known: bool = True

    def __post_init__(self) -> None:
        affine = np.array(self.affine, dtype=np.float64)
        shape = tuple(int(n) for n in self.shape)
        _check(shape, affine)
        affine.flags.writeable = False
        object.__setattr__(self, "affine", affine)
        object.__setattr__(self, "shape", shape)

    @classmethod
    def from_spacing(cls, shape: Sequence[int], spacing_mm: Sequence[float] = (1, 1, 1)) -> Grid:
        """An axis-aligned RAS grid whose first voxel lies at the origin."""
        return cls((shape[0], shape[1], shape[2]), np.diag([*map(float, spacing_mm), 1.0]))

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance of neighbouring voxel centres along I, J, K."""
        i, j, k = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(i), float(j), float(k)

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel: |det| of the affine, mm^3 / 1000."""
        return float(abs(np.linalg.det(self.affine[:3, :3])) / 1000.0)

    @property
    def diagonal_mm(self) -> float:
        """Length of the diagonal from the first to the last voxel's outer corner."""
        return float(np.linalg.norm(np.array(self.shape) * np.array(self.spacing_mm)))

    @property
    def axis_codes(self) -> str:
        """Nearest anatomical direction of I, J, K, such as ``RAS`` or ``LPS``."""
        axes, signs = self.nearest_axes()
        names = (("L", "R"), ("P", "A"), ("I", "S"))
        return "".join(names[a][int(s > 0)] for a, s in zip(axes, signs, strict=True))

    def nearest_axes(self) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
        """For each array axis: the world axis (0 R, 1 A, 2 S) it follows best, and its sign.

        Every world axis is taken once, the best-matching pair first.
        """
        directions = self.affine[:3, :3] / np.array(self.spacing_mm)
        strength = np.abs(directions)
        axes = [0, 0, 0]
        for _ in range(3):
            world, array = np.unravel_index(int(np.argmax(strength)), (3, 3))
            axes[int(array)] = int(world)
            strength[world, :] = strength[:, array] = -1
        signs = [1 if directions[axes[a], a] >= 0 else -1 for a in range(3)]
        return (axes[0], axes[1], axes[2]), (signs[0], signs[1], signs[2])

    def to_mm(self, index: ArrayLike) -> NDArray[np.float64]:
        """Voxel indices ``[..., 3]`` -> RAS mm ``[..., 3]``."""
        return np.asarray(index, float) @ self.affine[:3, :3].T + self.affine[:3, 3]

    def to_index(self, point_mm: ArrayLike) -> NDArray[np.float64]:
        """RAS mm ``[..., 3]`` -> (fractional) voxel indices ``[..., 3]``."""
        inverse = np.linalg.inv(self.affine)
        return np.asarray(point_mm, float) @ inverse[:3, :3].T + inverse[:3, 3]

    def matches(self, other: Grid, tol_mm: float = 1e-3) -> bool:
        """Same shape, and no element of the affines further apart than `tol_mm`.

        The tolerance is widened by float32 rounding of the largest coordinate, because NIfTI
        headers store affines in float32. Whether the spacing is known plays no part: a mask may come
        from a tool that knows of no units.
        """
        if self.shape != other.shape:
            return False
        largest = max(1.0, float(np.abs(self.affine).max()))
        tolerance = tol_mm + largest * 2 * float(np.finfo(np.float32).eps)
        return bool(np.abs(self.affine - other.affine).max() <= tolerance)

    def difference(self, other: Grid) -> str:
        """Both shapes and both affines, to be shown when two grids do not match."""
        return f"{self} against {other}"

    def resampled(self, spacing_mm: Sequence[float]) -> Grid:
        """The grid with another spacing that covers the same box, edge to edge.

        The outer corners of the first voxels coincide; the number of voxels is rounded to cover
        the box, at least one along each axis.
        """
        old, new = np.array(self.spacing_mm), np.array(spacing_mm, float)
        shape = np.maximum(1, np.round(np.array(self.shape) * old / new)).astype(int)
        scale = new / old
        step = np.eye(4)
        step[:3, :3] = np.diag(scale)
        step[:3, 3] = (scale - 1) / 2
        return self._with((int(shape[0]), int(shape[1]), int(shape[2])), self.affine @ step)

    def cropped(self, start: Sequence[int], shape: Sequence[int]) -> Grid:
        """The grid of ``array[start : start + shape]``; negative starts pad."""
        affine = self.affine.copy()
        affine[:3, 3] = self.to_mm(np.array(start))
        return self._with((int(shape[0]), int(shape[1]), int(shape[2])), affine)

    def _with(self, shape: tuple[int, int, int], affine: Affine) -> Grid:
        return Grid(shape, affine, self.spacing_known)

    def __str__(self) -> str:
        rows = "; ".join(" ".join(f"{v:.6g}" for v in row) for row in self.affine[:3])
        unit = "" if self.spacing_known else " in pixels (size unknown)"
        return f"shape {self.shape}, affine [{rows}]{unit}"

    __repr__ = __str__


def lps_from_ras(affine: ArrayLike) -> Affine:
    """An affine (4, 4) to RAS mm, written to LPS mm (DICOM's axes)."""
    return _LPS_RAS @ np.asarray(affine, np.float64)


def ras_from_lps(affine: ArrayLike) -> Affine:
    """An affine (4, 4) to LPS mm, written to RAS mm. Its own inverse is `lps_from_ras`."""
    return _LPS_RAS @ np.asarray(affine, np.float64)


def _check(shape: tuple[int, ...], affine: Affine) -> None:
    if len(shape) != 3 or min(shape, default=0) < 1:
        raise MedsegError("a grid needs three axes with at least one voxel each", evidence=f"shape {shape}")
    broken = affine.shape != (4, 4) or not np.isfinite(affine).all() or (affine[3] != (0, 0, 0, 1)).any()
    if broken or abs(np.linalg.det(affine[:3, :3])) < 1e-12:
        raise MedsegError(
            "the affine does not place the voxels: it must be 4 x 4, finite and invertible",
            evidence=np.array2string(affine, precision=6).replace("\n", ""),
            mend="write the file again with its spacing and orientation set",
        )
