"""Planes to stacks: grouping and order by geometry alone, refused with the numbers where it cannot be.

Pure functions of `Plane` values; no file is opened here. Nothing is ever taken from InstanceNumber,
SliceThickness or the order of files.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from medseg.core.errors import CaseError
from medseg.imaging.dicom_header import Plane
from medseg.imaging.grid import Grid, ras_from_lps

POSITION_TOL_MM = 0.01
"""Planes nearer than this lie at one position; jitter below it is rounding."""

_GAP_TOL = 0.01  # jitter of a position, as a part of the gap
_ORIENTATION_TOL = 2e-4
_SPACING_TOL_MM = 1e-4


def fault_of(plane: Plane) -> str | None:
    """Why a plane cannot be placed in the patient, or None."""
    for value, name, count in (
        (plane.spacing_mm, "PixelSpacing (the spacing of the pixels)", 2),
        (plane.orientation, "ImageOrientationPatient", 6),
        (plane.position, "ImagePositionPatient", 3),
    ):
        if value is None:
            return f"{name} is absent"
        if len(value) != count or not all(map(math.isfinite, value)):
            return f"{name} is not {count} readable numbers"
    assert plane.spacing_mm is not None
    assert plane.orientation is not None
    if min(plane.spacing_mm) <= 0:
        return f"PixelSpacing (the spacing of the pixels) is {plane.spacing_mm}, not positive"
    row, column = np.reshape(plane.orientation, (2, 3))
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    if max(abs(n - 1) for n in lengths) > 1e-3 or abs(row @ column) > 1e-3:
        return (
            "ImageOrientationPatient is not two orthogonal directions of length 1 "
            f"(lengths {lengths[0]:.4f} and {lengths[1]:.4f}, product {row @ column:.4f})"
        )
    return None


def refuse_unplaced(planes: Sequence[Plane]) -> None:
    """Raise CaseError when any plane cannot be placed: a stack with a hole in it is no volume."""
    faults = [f for f in map(fault_of, planes) if f]
    if faults:
        raise CaseError(
            f"{len(faults)} of {len(planes)} image(s) cannot be placed in the patient: {faults[0]}",
            mend="send the series again from the scanner or archive; medseg does not invent geometry",
        )


def parts_of(planes: Sequence[Plane]) -> list[list[Plane]]:
    """Planes that may form one stack together: same matrix, spacing, orientation and echo.

    Where positions still repeat, magnitude, phase and the like are told apart by ImageType; other
    differences of ImageType within a stack mean nothing. Parts come in an order that does not depend
    on the order of the planes. Each plane must be placeable (`refuse_unplaced`).
    """
    groups: list[list[Plane]] = []
    for plane in planes:
        home = next((g for g in groups if _alike(g[0], plane)), None)
        if home is None:
            groups.append([plane])
        else:
            home.append(plane)
    parts = [part for group in groups for part in _by_kind(group)]
    return sorted(parts, key=lambda part: min(_look(p) for p in part))


def extends(part: Sequence[Plane], plane: Plane) -> bool:
    """Whether `plane` lies where a slice of the stack `part` would lie: on its line, a step away."""
    if len(part) < 2:
        return False
    shelves = by_position(part)
    first, second = (np.array(shelves[i][0].position, float) for i in (0, 1))
    step = second - first
    offset = np.array(plane.position, float) - first
    along = float(offset @ step / (step @ step))
    beside = float(np.linalg.norm(offset - along * step))
    return beside < 0.5 * float(np.linalg.norm(step)) and -1.5 < along < len(shelves) + 0.5


def by_position(planes: Sequence[Plane]) -> list[list[Plane]]:
    """Planes in the order of their projection on the slice normal; those of one position together."""
    normal = _normal(planes[0])
    ordered = sorted(planes, key=lambda p: float(np.dot(p.position, normal)))  # type: ignore[arg-type]
    shelves: list[list[Plane]] = []
    for plane in ordered:
        if shelves and _near(shelves[-1][0].position, plane.position, POSITION_TOL_MM):
            shelves[-1].append(plane)
        else:
            shelves.append([plane])
    return shelves


def stack(planes: Sequence[Plane]) -> tuple[tuple[Plane, ...], Grid, tuple[str, ...]]:
    """Order planes into one regular volume.

    Parameters
    ----------
    planes : sequence of Plane
        One group of `grouped`.

    Returns
    -------
    planes, grid, notes
        Planes by their projection on the normal; the grid of an array ``[column, row, slice]``, whose
        third axis is the mean step between positions (never a thickness); remarks for the report.

    Raises
    ------
    CaseError
        Several images at a position, uneven or missing slices, a tilted gantry: with the positions.
    """
    shelves = by_position(planes)
    _refuse_repeats(shelves)
    ordered = tuple(shelf[0] for shelf in shelves)
    positions = np.array([p.position for p in ordered], float)
    if len(ordered) == 1:
        step, notes = _single_step(ordered[0])
    else:
        _refuse_uneven(positions, _normal(ordered[0]))
        _refuse_sideways(positions, _normal(ordered[0]))
        step = (positions[-1] - positions[0]) / (len(ordered) - 1)
        _refuse_creeping(positions, step)
        notes = _step_notes(ordered[0], float(np.linalg.norm(step)), len(ordered))
    return ordered, _grid(ordered, positions[0], step), notes


def _grid(planes: Sequence[Plane], origin: NDArray[np.float64], step: NDArray[np.float64]) -> Grid:
    """PS3.3 C.7.6.2.1.1 with the column index first, in RAS."""
    first = planes[0]
    assert first.orientation is not None
    assert first.spacing_mm is not None
    between_rows, between_columns = first.spacing_mm
    affine = np.eye(4)
    affine[:3, 0] = np.array(first.orientation[:3]) * between_columns
    affine[:3, 1] = np.array(first.orientation[3:]) * between_rows
    affine[:3, 2] = step
    affine[:3, 3] = origin
    return Grid((first.columns, first.rows, len(planes)), ras_from_lps(affine))


def _normal(plane: Plane) -> NDArray[np.float64]:
    row, column = np.reshape(np.array(plane.orientation, float), (2, 3))
    normal = np.cross(row, column)
    return normal / np.linalg.norm(normal)


def _alike(a: Plane, b: Plane) -> bool:
    return (
        (a.rows, a.columns) == (b.rows, b.columns)
        and _near(a.spacing_mm, b.spacing_mm, _SPACING_TOL_MM)
        and _near(a.orientation, b.orientation, _ORIENTATION_TOL)
        and _same_echo(a.echo, b.echo)
    )


def _same_echo(a: tuple[float | None, str], b: tuple[float | None, str]) -> bool:
    if a[0] is None or b[0] is None:
        return a == b
    return abs(a[0] - b[0]) < 1e-3 and a[1] == b[1]


def _by_kind(group: list[Plane]) -> list[list[Plane]]:
    if all(len(shelf) == 1 for shelf in by_position(group)):
        return [group]
    kinds: dict[tuple[str, ...], list[Plane]] = {}
    for plane in group:
        kinds.setdefault(plane.image_type, []).append(plane)
    split = list(kinds.values())
    alone = all(len(shelf) == 1 for part in split for shelf in by_position(part))
    return split if alone and len({len(part) for part in split}) == 1 else [group]


def _look(plane: Plane) -> str:
    return str((plane.orientation, plane.spacing_mm, plane.rows, plane.columns, plane.echo, plane.image_type))


def _near(a: Sequence[float] | None, b: Sequence[float] | None, tolerance: float) -> bool:
    assert a is not None
    assert b is not None
    return max(abs(x - y) for x, y in zip(a, b, strict=True)) <= tolerance


def _refuse_repeats(shelves: Sequence[Sequence[Plane]]) -> None:
    counts = sorted({len(shelf) for shelf in shelves})
    if counts == [1]:
        return
    if len(counts) == 1:
        raise CaseError(
            f"{counts[0]} images lie at each position: a time series or several contrasts (4-D)",
            evidence=f"{counts[0] * len(shelves)} images at {len(shelves)} positions",
            mend="export one time point or contrast as a series of its own",
        )
    crowded = [shelf[0].position for shelf in shelves if len(shelf) > 1]
    raise CaseError(
        "different images lie at one position",
        evidence=f"{len(crowded)} of {len(shelves)} positions hold several, such as {_mm(crowded[0])} mm",
        mend="export the series again so that each position holds one image",
    )


def _refuse_uneven(positions: NDArray[np.float64], normal: NDArray[np.float64]) -> None:
    along = positions @ normal
    gaps = np.diff(along)
    usual = float(np.sort(gaps)[(len(gaps) - 1) // 2])
    # each of the two positions may be off by the tolerance
    off = np.flatnonzero(np.abs(gaps - usual) > 2 * max(_GAP_TOL * usual, POSITION_TOL_MM))
    if not len(off):
        return
    worst = int(off[np.argmax(np.abs(gaps[off] - usual))])
    times = gaps[worst] / usual
    missing = len(off) <= max(1, len(gaps) // 4) and times > 1.5 and abs(times - round(times)) < 0.1
    raise CaseError(
        f"{round(times) - 1} slice(s) missing in the stack" if missing else "the slices are unevenly spaced",
        evidence=(
            f"the gap is {usual:.3f} mm, but {gaps[worst]:.3f} mm between positions "
            f"{_mm(positions[worst])} and {_mm(positions[worst + 1])} mm; "
            f"{len(off)} of {len(gaps)} gaps differ; positions along the normal: {_short(along)} mm"
        ),
        mend="send the whole series again, or leave it out",
    )


def _refuse_creeping(positions: NDArray[np.float64], step: NDArray[np.float64]) -> None:
    """Gaps that are each within tolerance may still add up: each slice must lie on the lattice."""
    lattice = positions[0] + np.outer(np.arange(len(positions)), step)
    off = np.linalg.norm(positions - lattice, axis=1)
    if off.max() > 2 * max(_GAP_TOL * float(np.linalg.norm(step)), POSITION_TOL_MM):
        raise CaseError(
            "the slices are unevenly spaced: small differences of the gaps add up",
            evidence=f"slice {int(off.argmax()) + 1} of {len(off)} lies {off.max():.3f} mm from its place on "
            f"an even stack with a gap of {np.linalg.norm(step):.3f} mm",
            mend="send the whole series again, or leave it out",
        )


def _refuse_sideways(positions: NDArray[np.float64], normal: NDArray[np.float64]) -> None:
    """Steps must follow the normal: a sheared stack is not a box of voxels."""
    steps = np.diff(positions, axis=0)
    sideways = steps - np.outer(steps @ normal, normal)
    gap = float(np.mean(steps @ normal))
    tolerance = max(_GAP_TOL * gap, POSITION_TOL_MM)
    mean = float(np.linalg.norm(sideways.mean(axis=0)))
    if mean > tolerance:
        raise CaseError(
            f"the gantry is tilted by {math.degrees(math.atan2(mean, gap)):.1f} degrees (sheared stack)",
            evidence=f"each slice lies {mean:.3f} mm sideways of the one before; the gap is {gap:.3f} mm",
            mend="use a reconstruction without tilt, or leave the series out",
        )
    jump = int(np.argmax(np.linalg.norm(sideways, axis=1)))
    if np.linalg.norm(sideways[jump]) > tolerance:
        raise CaseError(
            "a slice lies sideways of its neighbours",
            evidence=f"{np.linalg.norm(sideways[jump]):.3f} mm between {_mm(positions[jump])} and "
            f"{_mm(positions[jump + 1])} mm",
            mend="send the series again, or leave it out",
        )


def _single_step(plane: Plane) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    depth = next((v for v in (plane.gap_mm, plane.thickness_mm) if v and math.isfinite(v) and v > 0), None)
    note = f"one slice: its depth of {depth:g} mm is taken from the header" if depth else ""
    return _normal(plane) * (depth or 1.0), (note or "one slice without thickness: taken as 1 mm deep",)


def _step_notes(plane: Plane, step_mm: float, count: int) -> tuple[str, ...]:
    notes = []
    if count == 2:
        notes.append("two slices: their distance is the only evidence of the spacing")
    stated = plane.gap_mm
    if (
        stated
        and math.isfinite(stated)
        and abs(abs(stated) - step_mm) > max(_GAP_TOL * step_mm, POSITION_TOL_MM)
    ):
        notes.append(
            f"SpacingBetweenSlices says {stated:g} mm; the positions, which count, say {step_mm:.4g} mm"
        )
    return tuple(notes)


def _mm(position: Iterable[float] | None) -> str:
    return "(" + ", ".join(f"{v:.2f}" for v in (() if position is None else position)) + ")"


def _short(values: NDArray[np.float64], most: int = 12) -> str:
    shown = [f"{v:.2f}" for v in values]
    return ", ".join(shown) if len(shown) <= most else ", ".join([*shown[: most - 1], "...", shown[-1]])
