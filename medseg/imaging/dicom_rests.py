"""Parts of a series that are no volume of their own: single images, lost slices, incomplete time points."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from medseg.core.errors import CaseError
from medseg.imaging.dicom_geometry import by_position, directions_of, extends
from medseg.imaging.dicom_parts import Part
from medseg.imaging.dicom_words import said


def leftover(part: Part, parts: Sequence[Part]) -> str:
    """Why a single image beside volumes is none itself; empty when it is, or when it is a lost slice."""
    if len(part.planes) > 1 or len(parts) == 1 or (part.positions == 1 and part.splits):
        return ""
    if part.positions == 1:
        return "a single image of other geometry than its series"
    kind = part.splits and part.splits[-1].name in ("kind", "component")
    return "a single image of another kind than its series" if kind else ""


def refuse_outsider(part: Part, parts: Sequence[Part]) -> None:
    """Images where further slices should lie, with another matrix or direction, were slices of the stack."""
    for other in (p for p in parts if p.geometry != part.geometry):
        large, small = sorted((part, other), key=lambda p: -len(p.planes))
        if not extends(large.planes, small.planes):
            continue
        a, b = part.planes[0], other.planes[0]
        raise CaseError(
            "matrix, pixel spacing or orientation changes within the stack",
            evidence=f"{len(part.planes)} image(s) {a.columns} x {a.rows} at {a.spacing_mm} mm, "
            f"{len(other.planes)} image(s) {b.columns} x {b.rows} at {b.spacing_mm} mm",
            mend="send the series again, or leave it out",
        )


def refuse_incomplete(part: Part, parts: Sequence[Part]) -> None:
    """A volume that lacks positions which others of its geometry have; slabs side by side are whole."""
    lacking = part.positions - len(by_position(part.planes))
    if not part.splits or not lacking:
        return
    others = [p for p in parts if p.geometry == part.geometry and p is not part]
    if any(_overlap(part, other) for other in others):
        raise CaseError(
            f"incomplete: {lacking} of {part.positions} positions have no image ({said(part.splits)})",
            evidence=f"{len(part.planes)} images; the volumes beside it reach further",
            mend="send the whole series again, or leave this volume out",
        )


def _overlap(a: Part, b: Part) -> bool:
    """Whether the two reach into each other along the normal."""
    normal = directions_of(a.planes[0])[2]
    (low_a, high_a), (low_b, high_b) = (
        (min(along), max(along))
        for along in ([float(np.asarray(p.position, float) @ normal) for p in part.planes] for part in (a, b))
    )
    return max(low_a, low_b) <= min(high_a, high_b)
