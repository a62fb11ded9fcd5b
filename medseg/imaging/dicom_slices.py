"""One stack of planes to a grid: how even and how straight it is, and what the policy does where it is not.

Thresholds: a gap may differ from the usual one, and a plane may lie beside the line of the others, by twice
the larger of 1 % of the gap and 0.01 mm (each of two positions may be off by one tolerance); the same holds
for the place of every plane on the even lattice. A stack is tilted when a slice lies further sideways of the
one before, on average, than 1 % of the gap (0.6 degrees) and 0.01 mm. Less tilt needs no mend: the grid
follows the positions exactly.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medseg.core.errors import CaseError
from medseg.imaging.dicom_geometry import POSITION_TOL_MM, by_position, directions_of, mm
from medseg.imaging.dicom_header import Plane
from medseg.imaging.dicom_mend import Mend, grid_over
from medseg.imaging.dicom_policy import DEFAULT, DicomPolicy
from medseg.imaging.grid import Grid

GAP_TOL = 0.01
"""Jitter of a position, as a part of the gap."""
LONGEST_GAP = 4.0
"""A gap of more than this many usual gaps is never interpolated over."""
STEEPEST = 45.0
"""Degrees of tilt from which a stack is no tilted gantry but nonsense."""

_SEND = "send the whole series again, or leave it out"


@dataclass(frozen=True)
class Stack:
    """Planes in order, the grid their volume is delivered on, remarks, and what was mended."""

    planes: tuple[Plane, ...]
    grid: Grid
    notes: tuple[str, ...] = ()
    mends: tuple[Mend, ...] = ()


@dataclass(frozen=True)
class Steps:
    """A stack measured: mm along the normal (K,) and sideways along row and column (K, 2), from the first."""

    positions: NDArray[np.float64]
    along: NDArray[np.float64]
    beside: NDArray[np.float64]

    @property
    def gaps(self) -> NDArray[np.float64]:
        """Distances of neighbours along the normal, (K - 1,)."""
        return np.diff(self.along)

    @property
    def usual(self) -> float:
        """The usual gap: the (lower) median."""
        return float(np.sort(self.gaps)[(len(self.gaps) - 1) // 2])

    @property
    def tolerance(self) -> float:
        """Jitter of one position in mm."""
        return max(GAP_TOL * self.usual, POSITION_TOL_MM)

    @property
    def slope(self) -> NDArray[np.float64]:
        """Sideways mm per mm along the normal, (2,)."""
        return (self.beside[-1] - self.beside[0]) / (self.along[-1] - self.along[0])


def stack(planes: Sequence[Plane], policy: DicomPolicy = DEFAULT) -> Stack:
    """Order planes into one volume.

    Parameters
    ----------
    planes : sequence of Plane
        Of one matrix, spacing and orientation, each placeable; in any order.
    policy : DicomPolicy
        What is done with tilt, uneven gaps and missing slices.

    Returns
    -------
    Stack
        Planes by their projection on the normal; the grid of an array ``[column, row, slice]``, whose
        third axis is the mean step between positions (never a thickness).

    Raises
    ------
    CaseError
        Several images at a position, a slice sideways of the line of the others; a tilted gantry, uneven
        or missing slices that the policy does not mend: with the positions.
    """
    shelves = by_position(planes)
    _refuse_repeats(shelves)
    ordered = tuple(shelf[0] for shelf in shelves)
    if len(ordered) == 1:
        return _single(ordered[0])
    steps = steps_of(ordered)
    _refuse_wobble(steps)
    count, uneven = _evened(steps, policy)
    tilt = _tilt(steps, policy)
    mends = tuple(m for m in (tilt, uneven) if m)
    grid = grid_over(ordered, count, straight=tilt is not None and tilt.method == "resample")
    notes = _step_notes(ordered[0], steps.usual, len(ordered))
    return Stack(ordered, grid, (*(_said(m, ordered, grid) for m in mends), *notes), mends)


def steps_of(planes: Sequence[Plane]) -> Steps:
    """Where the planes of a stack lie relative to the first."""
    positions = np.array([p.position for p in planes], float)
    row, column, normal = directions_of(planes[0])
    offset = positions - positions[0]
    return Steps(positions, offset @ normal, np.column_stack([offset @ row, offset @ column]))


def _tilt(steps: Steps, policy: DicomPolicy) -> Mend | None:
    sideways = float(np.linalg.norm(steps.slope)) * steps.usual
    if sideways <= steps.tolerance:
        return None
    angle = math.degrees(math.atan2(sideways, steps.usual))
    evidence = (
        f"each slice lies {sideways:.3f} mm sideways of the one before; the gap is {steps.usual:.3f} mm"
    )
    if angle > STEEPEST:
        raise CaseError(f"the slices run sideways, by {angle:.0f} degrees", evidence=evidence, mend=_SEND)
    if policy.tilt == "refuse":
        raise CaseError(
            f"the gantry is tilted by {angle:.1f} degrees (sheared stack)",
            evidence=evidence,
            mend="cohort.dicom.tilt=resample makes the grid orthogonal, =shear keeps the voxels as they are",
        )
    return Mend(
        "tilt", policy.tilt, (("angle_deg", angle), ("sideways_mm", sideways), ("gap_mm", steps.usual))
    )


def _evened(steps: Steps, policy: DicomPolicy) -> tuple[int, Mend | None]:
    """How many slices an even grid from end to end has, and the mend it takes (None when it is even)."""
    missing = _missing(steps)
    if not missing and _is_even(steps):
        return len(steps.along), None
    kind, choice = ("gap", policy.gaps) if missing else ("uneven", policy.uneven)
    if choice == "refuse" or steps.gaps.max() > LONGEST_GAP * steps.usual:
        raise _uneven_error(steps, missing, mendable=choice == "refuse")
    intervals = max(1, round(float(steps.along[-1]) / steps.usual))
    numbers = {
        "gap_mm": float(steps.along[-1]) / intervals,
        "smallest_gap_mm": float(steps.gaps.min()),
        "largest_gap_mm": float(steps.gaps.max()),
        "missing": float(missing or intervals - len(steps.gaps)),
    }
    if kind == "uneven":
        del numbers["missing"]
    return intervals + 1, Mend(kind, "resample", tuple(numbers.items()))


def _is_even(steps: Steps) -> bool:
    """Each gap is the usual one, and the small differences do not add up."""
    off = max(np.abs(steps.gaps - steps.usual).max(), _drift(steps).max())
    return bool(off <= 2 * steps.tolerance)


def _missing(steps: Steps) -> int:
    """How many slices lack in an otherwise even stack; 0 when none lacks, or it is uneven anyway.

    Few gaps (a quarter at most) are whole multiples of the usual one, and every plane lies on the lattice.
    """
    times = np.rint(steps.gaps / steps.usual).astype(int)
    lacking = int((times - 1).sum())
    few = (times > 1).sum() <= max(1, len(times) // 4)
    if lacking <= 0 or times.min() < 1 or not few:
        return 0
    lattice = np.concatenate([[0], np.cumsum(times)]) * steps.along[-1] / times.sum()
    return lacking if np.abs(steps.along - lattice).max() <= 2 * steps.tolerance else 0


def _drift(steps: Steps) -> NDArray[np.float64]:
    """mm between each plane and its place on an even stack."""
    return np.abs(steps.along - np.linspace(0, steps.along[-1], len(steps.along)))


def _uneven_error(steps: Steps, missing: int, *, mendable: bool) -> CaseError:
    gaps, usual = steps.gaps, steps.usual
    off = np.abs(gaps - usual) > 2 * steps.tolerance
    worst = int(np.argmax(np.abs(gaps - usual)))
    option = "gaps" if missing else "uneven"
    mend = (
        f"cohort.dicom.{option}=resample interpolates at the true positions; or {_SEND}"
        if mendable and gaps.max() <= LONGEST_GAP * usual
        else _SEND
    )
    if not off.any():
        drift = _drift(steps)
        return CaseError(
            "the slices are unevenly spaced: small differences of the gaps add up",
            evidence=f"slice {int(drift.argmax()) + 1} of {len(drift)} lies {drift.max():.3f} mm from its "
            f"place on an even stack with a gap of {usual:.3f} mm",
            mend=mend,
        )
    return CaseError(
        f"{missing} slice(s) missing in the stack" if missing else "the slices are unevenly spaced",
        evidence=(
            f"the gap is {usual:.3f} mm, but {gaps[worst]:.3f} mm between positions "
            f"{mm(steps.positions[worst])} and {mm(steps.positions[worst + 1])} mm; "
            f"{int(off.sum())} of {len(gaps)} gaps differ; "
            f"positions along the normal: {_short(steps.along)} mm"
        ),
        mend=mend,
    )


def _refuse_repeats(shelves: Sequence[Sequence[Plane]]) -> None:
    counts = sorted({len(shelf) for shelf in shelves})
    if counts == [1]:
        return
    if len(counts) == 1:
        raise CaseError(
            f"{counts[0]} images lie at each position, and no tag tells which belong together: a time series "
            "or several contrasts (4-D)",
            evidence=f"{counts[0] * len(shelves)} images at {len(shelves)} positions",
            mend="export one time point or contrast as a series of its own",
        )
    crowded = [shelf[0].position for shelf in shelves if len(shelf) > 1]
    raise CaseError(
        "different images lie at one position",
        evidence=f"{len(crowded)} of {len(shelves)} positions hold several, such as {mm(crowded[0])} mm",
        mend="export the series again so that each position holds one image",
    )


def _refuse_wobble(steps: Steps) -> None:
    """All planes must lie on one line, straight or tilted."""
    if steps.gaps.min() <= POSITION_TOL_MM:
        at = int(steps.gaps.argmin())
        raise CaseError(
            "two slices lie side by side in one plane",
            evidence=f"at {mm(steps.positions[at])} and {mm(steps.positions[at + 1])} mm",
            mend=_SEND,
        )
    off = np.linalg.norm(steps.beside - np.outer(steps.along, steps.slope), axis=1)
    worst = int(off.argmax())
    if off[worst] > 2 * steps.tolerance:
        raise CaseError(
            "a slice lies sideways of its neighbours",
            evidence=f"{off[worst]:.3f} mm beside the line of the others, at "
            f"{mm(steps.positions[worst])} mm; the gap is {steps.usual:.3f} mm",
            mend=_SEND,
        )


def _single(plane: Plane) -> Stack:
    depth = next((v for v in (plane.gap_mm, plane.thickness_mm) if v and math.isfinite(v) and v > 0), None)
    note = f"one slice: its depth of {depth:g} mm is taken from the header" if depth else ""
    grid = grid_over([plane], 1, straight=False, depth_mm=depth or 1.0)
    return Stack((plane,), grid, (note or "one slice without thickness: taken as 1 mm deep",))


def _step_notes(plane: Plane, step_mm: float, count: int) -> tuple[str, ...]:
    notes = []
    if count == 2:
        notes.append("two slices: their distance is the only evidence of the spacing")
    stated = plane.gap_mm
    if (
        stated
        and math.isfinite(stated)
        and abs(abs(stated) - step_mm) > max(GAP_TOL * step_mm, POSITION_TOL_MM)
    ):
        notes.append(
            f"SpacingBetweenSlices says {stated:g} mm; the positions, which count, say {step_mm:.4g} mm"
        )
    return tuple(notes)


def _said(mend: Mend, planes: Sequence[Plane], grid: Grid) -> str:
    if mend.method == "resample":
        size = f"{planes[0].columns} x {planes[0].rows} x {len(planes)}"
        return f"{mend.said()}; {size} became {' x '.join(map(str, grid.shape))}"
    return mend.said()


def _short(values: NDArray[np.float64], most: int = 12) -> str:
    shown = [f"{v:.2f}" for v in values]
    return ", ".join(shown) if len(shown) <= most else ", ".join([*shown[: most - 1], "...", shown[-1]])
