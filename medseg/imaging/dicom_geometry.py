"""Where planes lie: which can be placed, which belong together, and in what order.

Pure functions of `Plane` values; no file is opened here, and only positions, orientations, spacings and
sizes count.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from medseg.core.errors import CaseError
from medseg.imaging.dicom_header import Plane

Direction = NDArray[np.float64]

POSITION_TOL_MM = 0.01
"""Planes nearer than this lie at one position; jitter below it is rounding."""

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


def extends(stack: Sequence[Plane], others: Sequence[Plane]) -> bool:
    """Whether other images all lie where slices of a stack are lacking: in its gaps or next to its ends.

    They do when each lies within half a step of the line of the stack and of no slice of it, and they
    reach no further than as many steps beyond an end as they are.
    """
    shelves = by_position(stack)
    if len(shelves) < 2:
        return False
    places = np.array([shelf[0].position for shelf in shelves], float)
    step = (places[-1] - places[0]) / np.linalg.norm(places[-1] - places[0])
    have = (places - places[0]) @ step
    gap = float(np.sort(np.diff(have))[(len(have) - 2) // 2])
    offset = np.array([p.position for p in others], float) - places[0]
    along = offset @ step
    beside = np.linalg.norm(offset - np.outer(along, step), axis=1)
    free = np.abs(along[:, None] - have).min(axis=1) > gap / 2
    room = gap * (len(others) + 0.5)
    near = (along > -room) & (along < have[-1] + room) & (beside < gap / 2)
    return bool((near & free).all())


def by_position(planes: Sequence[Plane]) -> list[list[Plane]]:
    """Planes in the order of their projection on the slice normal; those of one position together."""
    along = np.array([p.position for p in planes], float) @ directions_of(planes[0])[2]
    shelves: list[list[Plane]] = []
    for number in np.argsort(along, kind="stable"):
        plane = planes[number]
        if shelves and _near(shelves[-1][0].position, plane.position, POSITION_TOL_MM):
            shelves[-1].append(plane)
        else:
            shelves.append([plane])
    return shelves


def same_geometry(planes: Sequence[Plane]) -> list[list[Plane]]:
    """Planes grouped by matrix, pixel spacing and orientation, in an order of their own.

    Each plane must be placeable (`refuse_unplaced`). Orientations may differ by 2e-4 in a component,
    spacings by 1e-4 mm.
    """
    groups: list[list[Plane]] = []
    for plane in planes:
        home = next((g for g in groups if _alike(g[0], plane)), None)
        if home is None:
            groups.append([plane])
        else:
            home.append(plane)
    return sorted(groups, key=lambda group: min(look(p) for p in group))


def directions_of(plane: Plane) -> tuple[Direction, Direction, Direction]:
    """Unit vectors (LPS) along a row, down a column, and along the normal of a placeable plane."""
    row, column = np.reshape(np.array(plane.orientation, float), (2, 3))
    normal = np.cross(row, column)
    return row, column, normal / np.linalg.norm(normal)


def look(plane: Plane) -> str:
    """Matrix, spacing and orientation as one comparable text."""
    return str((plane.orientation, plane.spacing_mm, plane.rows, plane.columns))


def mm(position: Iterable[float] | None) -> str:
    """A position for a message, such as ``(-10.00, -20.00, 3.00)``."""
    return "(" + ", ".join(f"{v:.2f}" for v in (() if position is None else position)) + ")"


def _alike(a: Plane, b: Plane) -> bool:
    return (
        (a.rows, a.columns) == (b.rows, b.columns)
        and _near(a.spacing_mm, b.spacing_mm, _SPACING_TOL_MM)
        and _near(a.orientation, b.orientation, _ORIENTATION_TOL)
    )


def _near(a: Sequence[float] | None, b: Sequence[float] | None, tolerance: float) -> bool:
    assert a is not None
    assert b is not None
    return all(abs(x - y) <= tolerance for x, y in zip(a, b, strict=True))
