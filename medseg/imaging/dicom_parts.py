"""The images of one series to volumes: by geometry first, then by what tells images of one place apart.

Two images never share a place in a volume, and which of them belongs to which volume is never guessed: a
tag must say so, and its values must divide the images into complete stacks. Otherwise they stay together,
and the stack is refused.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from medseg.imaging.dicom_geometry import by_position, look, same_geometry
from medseg.imaging.dicom_header import Plane
from medseg.imaging.dicom_words import Split, digest, name_of

Buckets = list[tuple[Hashable, list[Plane]]]
Shelves = list[list[Plane]]
Separate = Callable[[list[Plane], Shelves], Buckets | None]


@dataclass(frozen=True)
class Part:
    """Planes that may form one volume.

    Attributes
    ----------
    planes : tuple of Plane
    splits : tuple of Split
        What set them apart from the others of their geometry, the first split first.
    positions : int
        At how many positions images of this geometry lie; more than the part has: it is incomplete.
    geometry : int
        Number of the geometry within the series.
    """

    planes: tuple[Plane, ...]
    splits: tuple[Split, ...]
    positions: int
    geometry: int


def parts_of(planes: Sequence[Plane]) -> list[Part]:
    """Volumes within one series, in an order that does not depend on the order of the planes.

    Matrix, pixel spacing, orientation, echo, magnitude or phase, and b-value always part. Where positions
    still repeat, the tags of `_SEPARATORS` are tried in turn; differences of these tags within a stack
    without repeats mean nothing (a scanner may write two ImageTypes or two acquisitions into one stack).
    Times and numbers put the volumes into order. Each plane must be placeable (`refuse_unplaced`).
    """
    # an order of their own, so that the files' order decides nothing
    settled = sorted(planes, key=lambda p: (p.sop_uid, p.frame, str(p.position)))
    parts = []
    for number, group in enumerate(same_geometry(settled)):
        positions = len(by_position(group))
        divided = _divided(group, (), _SEPARATORS)
        parts += [Part(tuple(some), splits, positions, number) for some, splits in divided]
    return parts


def names_of(parts: Sequence[Part], planes: Sequence[Plane]) -> list[str]:
    """For each part its name among the volumes of its own files; empty when these make it alone.

    Parameters
    ----------
    parts : sequence of Part
        Of `parts_of(planes)`.
    planes : sequence of Plane
        All of the series.
    """
    return [_called(part, planes) for part in parts]


def _called(part: Part, planes: Sequence[Plane]) -> str:
    files = {plane.file for plane in part.planes}
    own = [plane for plane in planes if plane.file in files]
    if len(own) == len(part.planes):
        return ""
    # named as it would be if nothing else of the series were there, because that is how it is read again
    names = {_members(p): _full_name(p, several) for several in [parts_of(own)] for p in several}
    name = names.get(_members(part), "")
    if not name or Counter(names.values())[name] > 1:
        return "-".join(filter(None, (name, digest(sorted(_members(part))))))
    return name


def _full_name(part: Part, parts: Sequence[Part]) -> str:
    turned = f"g{digest(look(part.planes[0]))}" if len({p.geometry for p in parts}) > 1 else ""
    return "-".join(filter(None, (turned, name_of(part.splits, part.planes)))) or "all"


def _members(part: Part) -> frozenset[tuple[str, int]]:
    return frozenset((plane.sop_uid or plane.file.name, plane.frame) for plane in part.planes)


def _divided(
    planes: list[Plane], splits: tuple[Split, ...], separators: Sequence[tuple[str, Separate]]
) -> Iterator[tuple[list[Plane], tuple[Split, ...]]]:
    shelves = by_position(planes)
    for number, (name, separate) in enumerate(separators):
        buckets = separate(planes, shelves)
        if buckets is None:
            continue
        for index, (value, some) in enumerate(buckets, start=1):
            split = Split(name, value, index, len(buckets))
            yield from _divided(some, (*splits, split), separators[number + 1 :])
        return
    yield planes, splits


def _always(value_of: Callable[[Plane], Hashable]) -> Separate:
    """Different known values never belong to one volume, whether positions repeat or not."""

    def separate(planes: list[Plane], shelves: Shelves) -> Buckets | None:
        buckets = _buckets(planes, value_of)
        known = all(value is not None for value, _ in buckets)
        return buckets if len(buckets) > 1 and known else None

    return separate


def _where_repeated(value_of: Callable[[Plane], Hashable], enough: Callable[[list[bool]], bool]) -> Separate:
    """Values part where positions repeat, and only into stacks of which `enough` are complete."""

    def separate(planes: list[Plane], shelves: Shelves) -> Buckets | None:
        if len(shelves) == len(planes):
            return None
        buckets = _buckets(planes, value_of)
        home = {id(p): number for number, shelf in enumerate(shelves) for p in shelf}
        whole = [_is_whole([home[id(p)] for p in some], len(shelves)) for _, some in buckets]
        return buckets if len(buckets) > 1 and enough(whole) else None

    return separate


def _is_whole(places: list[int], positions: int) -> bool:
    """Each position is there, and equally often."""
    counts = Counter(places)
    return len(counts) == positions and len(set(counts.values())) == 1


def _one(whole: list[bool]) -> bool:
    return any(whole)


def _most(whole: list[bool]) -> bool:
    return sum(whole) > len(whole) / 2


def _ranked(name: str, stepwise: bool) -> Separate:
    """The n-th image at each position, by a number that grows from image to image.

    With `stepwise`, each volume must end before the next begins: another order of the images could
    not be told from two contrasts taken in turn.
    """

    def separate(planes: list[Plane], shelves: Shelves) -> Buckets | None:
        depth = len(shelves[0])
        if depth == 1 or any(len(shelf) != depth for shelf in shelves):
            return None
        if any(len({p.mark(name) for p in shelf} - {None}) != depth for shelf in shelves):
            return None
        ranks = [sorted(shelf, key=lambda p: _number(p, name)) for shelf in shelves]
        volumes = [[rank[turn] for rank in ranks] for turn in range(depth)]
        if stepwise and not _follow(volumes, name):
            return None
        return [(_number(min(v, key=lambda p: _number(p, name)), name), v) for v in volumes]

    return separate


def _follow(volumes: list[list[Plane]], name: str) -> bool:
    ends = [[_number(p, name) for p in volume] for volume in volumes]
    return all(max(a) <= min(b) for a, b in pairwise(ends))


def _counted(planes: list[Plane], shelves: Shelves) -> Buckets | None:
    """A time series whose header states how many time points it has and whose numbering says which.

    InstanceNumber alone proves nothing. It is believed when NumberOfTemporalPositions equals the number
    of images at each position and the numbers run volume by volume.
    """
    depth = len(shelves[0])
    if {p.mark("stated_times") for p in planes} != {float(depth)}:
        return None
    return _ranked("instance", stepwise=True)(planes, shelves)


def _in_time(separate: Separate) -> Separate:
    """The same buckets by the time they were taken, where that is known; else in their own order."""

    def ordered(planes: list[Plane], shelves: Shelves) -> Buckets | None:
        buckets = separate(planes, shelves)
        return buckets and _by_time(buckets)

    return ordered


def _by_time(buckets: Buckets) -> Buckets:
    return sorted(buckets, key=lambda bucket: min(_number(p, "acquired") for p in bucket[1]))


def _whole_files(planes: list[Plane], shelves: Shelves) -> Buckets | None:
    """Several files that each hold one complete stack (multi-frame, mosaic): a file is a volume."""
    if len(shelves) < 2:
        return None
    buckets = _where_repeated(lambda p: p.sop_uid or str(p.file), all)(planes, shelves)
    if buckets is None or len({len(v) for _, v in buckets}) > 1:
        return None
    return _by_time(buckets)


def _number(plane: Plane, name: str) -> float:
    value = plane.mark(name)
    return float(value) if isinstance(value, float | int) else float("inf")


def _buckets(planes: Sequence[Plane], value_of: Callable[[Plane], Hashable]) -> Buckets:
    found: dict[Hashable, list[Plane]] = {}
    for plane in planes:
        found.setdefault(value_of(plane), []).append(plane)
    return sorted(found.items(), key=lambda pair: _sortable(pair[0]))


def _sortable(value: object) -> tuple[object, ...]:
    """Nothing last; numbers by size, the rest by text."""
    several = value if isinstance(value, tuple) else (value,)
    return tuple((v is None, v if isinstance(v, float | int) else 0.0, str(v)) for v in several)


def _echo(plane: Plane) -> Hashable:
    time, number = plane.echo
    return (None if time is None else round(time, 3), number)


def _mark(name: str) -> Callable[[Plane], Hashable]:
    return lambda plane: plane.mark(name)


def _dimension(index: int) -> Callable[[Plane], Hashable]:
    def value(plane: Plane) -> Hashable:
        dimensions = plane.mark("dimensions")
        return dimensions[index] if isinstance(dimensions, tuple) and len(dimensions) > index else None

    return value


# what the images show comes before when they were taken; a tag that may count anything needs more proof
_SEPARATORS: Sequence[tuple[str, Separate]] = (
    ("echo", _always(_echo)),
    ("component", _always(_mark("component"))),
    ("b_value", _always(_mark("b_value"))),
    ("component", _where_repeated(_mark("component"), _one)),
    ("b_value", _where_repeated(_mark("b_value"), _one)),
    ("kind", _where_repeated(lambda p: p.image_type, _one)),
    ("direction", _where_repeated(_mark("direction"), _one)),
    ("kvp", _where_repeated(_mark("kvp"), _one)),
    ("inversion", _where_repeated(_mark("inversion"), _one)),
    ("temporal", _where_repeated(_mark("temporal"), _one)),
    ("cardiac", _where_repeated(_mark("cardiac"), _one)),
    ("trigger", _where_repeated(_mark("trigger"), _most)),
    ("trigger", _ranked("trigger", stepwise=False)),
    ("time", _ranked("acquired", stepwise=True)),
    ("acquisition", _in_time(_where_repeated(_mark("acquisition"), _most))),
    ("acquisition", _in_time(_where_repeated(_mark("frame_acquisition"), _most))),
    ("stack", _where_repeated(_mark("stack"), all)),
    *((f"dimension {n + 1}", _where_repeated(_dimension(n), all)) for n in range(6)),
    ("file", _whole_files),
    ("time", _ranked("content", stepwise=True)),
    ("numbered", _counted),
)
