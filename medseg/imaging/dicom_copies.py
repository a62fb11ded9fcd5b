"""Images sent twice: exact copies count once, different pictures under one name are refused."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Sequence
from pathlib import Path

import numpy as np

from medseg.core.errors import CaseError
from medseg.imaging.dicom_header import Plane, syntax_of
from medseg.imaging.dicom_pixels import picture_digest, stored_one_by_one

_TIMELESS = ("content", "instance")  # marks that a second sending may change


def without_copies(planes: Sequence[Plane]) -> tuple[list[Plane], int]:
    """Planes with copies left out, and how many these were.

    A copy has the instance UID of another file, or the places, echo, kind and marks of all its planes,
    and the same picture. Of copies the one with the lowest instance UID stays, whatever the order of
    files.

    Raises
    ------
    CaseError
        Two different images carry one instance UID.
    """
    files: dict[Path, list[Plane]] = {}
    for plane in sorted(planes, key=lambda p: (p.sop_uid, str(p.file), p.frame)):
        files.setdefault(plane.file, []).append(plane)
    kept = [plane for some in _without_twins(_once_each(list(files.values()))) for plane in some]
    return kept, len(planes) - len(kept)


def _once_each(files: list[list[Plane]]) -> list[list[Plane]]:
    named: dict[str, list[Plane]] = {}
    nameless = [some for some in files if not some[0].sop_uid]
    for some in files:
        twin = named.setdefault(some[0].sop_uid, some) if some[0].sop_uid else some
        if twin is not some and (_places(twin) != _places(some) or len(set(_pictures([twin, some]))) > 1):
            raise CaseError("two different images carry the same instance UID", mend="send the series again")
    return [*named.values(), *nameless]


def _without_twins(files: list[list[Plane]]) -> list[list[Plane]]:
    """Pictures are compared only where several files claim the same places: reading them costs.

    Where the same number of files lies at all places, but not all places repeat themselves, it is a time
    series in which some slices are blank: nothing is left out then.
    """
    crowds: dict[Hashable, list[list[Plane]]] = {}
    for some in files:
        crowds.setdefault(tuple(map(_spot, some)), []).append(some)
    single = [_different(crowd) for crowd in crowds.values()]
    if len({len(crowd) for crowd in crowds.values()}) == 1 and len({len(some) for some in single}) > 1:
        return files
    return [some for crowd in single for some in crowd]


def _different(crowd: list[list[Plane]]) -> list[list[Plane]]:
    names = _pictures(crowd) if len(crowd) > 1 else [""]
    return list(dict(zip(reversed(names), reversed(crowd), strict=True)).values())


def _spot(plane: Plane) -> Hashable:
    marks = tuple(mark for mark in plane.marks if mark[0] not in _TIMELESS)
    return plane.position, plane.orientation, plane.echo, plane.image_type, plane.frame, marks


def _places(planes: list[Plane]) -> list[Hashable]:
    return [(plane.frame, plane.position) for plane in planes]


def _pictures(files: list[list[Plane]]) -> list[str]:
    """A name for the picture of each file; decoded first where they are written in several syntaxes."""
    firsts = [some[0] for some in files]
    if len({syntax_of(plane.file) for plane in firsts}) == 1:
        return [f"{picture_digest(p.file)} {p.slope} {p.intercept}" for p in firsts]
    claimed = max(4 * len(some) * some[0].rows * some[0].columns for some in files)
    names: dict[Path, str] = {}
    for compressed in (False, True):
        some = [p.file for p in firsts if p.compressed == compressed]
        for file, array in zip(some, stored_one_by_one(some, compressed, claimed), strict=True):
            names[file] = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
    return [f"{names[p.file]} {p.slope} {p.intercept}" for p in firsts]
