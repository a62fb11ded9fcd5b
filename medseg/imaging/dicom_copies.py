"""Images sent twice: exact copies count once, different pictures under one name are refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from medseg.core.errors import CaseError
from medseg.imaging.dicom_header import Plane
from medseg.imaging.dicom_pixels import picture_digest


def without_copies(planes: Sequence[Plane]) -> tuple[list[Plane], int]:
    """Planes with copies left out, and how many these were.

    A copy has the instance UID of another plane, or its place, echo and kind, and the same picture.

    Raises
    ------
    CaseError
        Two different images carry one instance UID.
    """
    kept: dict[tuple[str, int], Plane] = {}
    nameless = []
    for plane in planes:
        twin = kept.setdefault((plane.sop_uid, plane.frame), plane) if plane.sop_uid else plane
        if not plane.sop_uid:
            nameless.append(plane)
        elif twin is not plane and (_picture(twin) != _picture(plane) or twin.position != plane.position):
            raise CaseError("two different images carry the same instance UID", mend="send the series again")
    single = _without_twins([*kept.values(), *nameless])
    return single, len(planes) - len(single)


def _without_twins(planes: list[Plane]) -> list[Plane]:
    """Pictures are compared only where several single-frame images lie at one place: reading them costs."""
    crowd = Counter(_spot(p) for p in planes)
    seen = set()
    kept = []
    for plane in planes:
        if crowd[_spot(plane)] > 1 and plane.frame == 0:
            name = (_spot(plane), _picture(plane))
            if name in seen:
                continue
            seen.add(name)
        kept.append(plane)
    return kept


def _spot(plane: Plane) -> tuple[object, ...]:
    return plane.position, plane.orientation, plane.echo, plane.image_type, plane.frame


def _picture(plane: Plane) -> str:
    return f"{picture_digest(plane.file)} {plane.slope} {plane.intercept}"
