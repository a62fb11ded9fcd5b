"""What a label value means: a name, coded terms and a colour that ride from cohort to DICOM SEG."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from medseg.core.errors import MedsegError
from medseg.core.values import Value, validated

_COLOURS = ("#e4572e", "#2e86ab", "#f6ae2d", "#6a994e", "#8e6bbf", "#17a398", "#d1495b", "#8d6e63")


class Code(Value):
    """A coded term: value, scheme (``SCT`` = SNOMED CT) and meaning."""

    value: str
    scheme: str = "SCT"
    meaning: str


TISSUE = Code(value="85756007", meaning="Tissue")


IGNORE = "ignore"
"""Name of the value that marks voxels of a reference nobody knows: no label, left out of loss and scores."""
_MOST_REGIONS = 12


class Label(Value):
    """One foreground label of a mask; 0 is always background and is never listed.

    A label may be a region: all voxels that have one of several values. Regions may overlap (a tumour and
    its core); `value` then is the one a voxel gets that lies in the region and in no smaller one.
    """

    value: int = Field(ge=1, le=65535)
    name: str = Field(min_length=1, max_length=64)
    category: Code = TISSUE
    type: Code = TISSUE
    colour: str = Field(default="", pattern=r"^(#[0-9a-fA-F]{6})?$")
    region: tuple[int, ...] = ()
    """Values that belong to it, where these are not its own value alone."""

    @property
    def values(self) -> tuple[int, ...]:
        """Values of a mask that belong to the label."""
        return self.region or (self.value,)

    def within(self, array: NDArray[np.unsignedinteger]) -> NDArray[np.bool_]:
        """Which voxels of a mask (any shape) belong to the label."""
        values = list(self.values)
        return np.isin(array, values) if len(values) > 1 else array == values[0]

    def shown_colour(self) -> str:
        """``#rrggbb``: the label's own colour, or one from a palette by its value."""
        return self.colour or _COLOURS[(self.value - 1) % len(_COLOURS)]


Labels = tuple[Label, ...]


def labels(**values: int) -> Labels:
    """Labels from names: ``labels(kidney=1, tumour=2)``.

    >>> [label.name for label in labels(kidney=1, tumour=2)]
    ['kidney', 'tumour']
    """
    return checked(validated(Label, {"value": value, "name": name}) for name, value in values.items())


def parse_labels(text: str) -> Labels:
    """Labels from ``kidney=1,tumour=2``, as the command line writes them; regions as ``both=1+2``.

    Raises
    ------
    MedsegError
        Not of that form, or a value or name given twice.
    """
    try:
        pairs = [part.split("=") for part in text.split(",") if part.strip()]
        named = {name.strip(): [int(value) for value in values.split("+")] for name, values in pairs}
    except ValueError as error:
        raise MedsegError(f"labels '{text}' cannot be read", mend="write them as name=1,other=2") from error
    if len(named) < len(pairs):
        raise MedsegError("labels share a name", evidence=text)
    return named_labels(named)


def named_labels(named: Mapping[str, int | Sequence[int]]) -> Labels:
    """Labels from ``{"kidney": 1}``; regions as soon as one has several values: ``{"both": [1, 2], ...}``.

    Raises
    ------
    MedsegError
        A value given twice; of regions, one that has no voxel of its own (it is the union of smaller ones).
    """
    several = {n: (v,) if isinstance(v, int) else tuple(dict.fromkeys(v)) for n, v in named.items()}
    ignored = {n: v for n, v in several.items() if n == IGNORE}
    regions = {n: v for n, v in several.items() if n != IGNORE}
    if all(len(values) == 1 for values in regions.values()):
        return checked(validated(Label, {"value": v[0], "name": n}) for n, v in several.items())
    if len(regions) > _MOST_REGIONS:
        raise MedsegError(f"there may be {_MOST_REGIONS} regions at most", evidence=f"{len(regions)} given")
    found = [{"name": n, "value": _own_value(n, regions), "region": v} for n, v in regions.items()]
    found += [{"name": n, "value": v[0]} for n, v in ignored.items()]
    return checked(validated(Label, label) for label in found)


def values_of(labels: Labels) -> tuple[int, ...]:
    """All values of a mask that belong to one of the labels, in rising order."""
    return tuple(sorted({value for label in labels for value in label.values}))


def membership(labels: Labels) -> NDArray[np.bool_]:
    """Which label each value belongs to: ``[1 + values, labels]``, background first, then `values_of`."""
    rows = [[value in label.values for label in labels] for value in (0, *values_of(labels))]
    return np.array(rows, bool).reshape(len(rows), len(labels))


def painting(labels: Labels) -> NDArray[np.unsignedinteger]:
    """Value of a voxel by the regions it is said to lie in: index ``sum(2 ** n)`` over these.

    It is the value that lies in just these regions (a region's own before others); where there is none, what
    was said contradicts itself, and the smallest region among them decides.
    """
    table = np.zeros(2 ** len(labels), np.uint8 if max(values_of(labels), default=0) <= 255 else np.uint16)
    inner = sorted(range(len(labels)), key=lambda n: len(labels[n].values))
    for code in range(1, len(table)):
        table[code] = next(labels[n].value for n in inner if code >> n & 1)
    own = {label.value for label in labels}
    for value in sorted(values_of(labels), key=lambda v: (v in own, -v)):
        table[sum(2**n for n, label in enumerate(labels) if value in label.values)] = value
    return table


def leaving(labels: Labels, region: Label) -> dict[int, int]:
    """What each value becomes where a voxel leaves a region: the value of the regions it still lies in.

    It leaves the smaller regions inside it too, and becomes background where nothing holds it any more.
    """
    inside = {n for n, label in enumerate(labels) if set(label.values) <= set(region.values)}
    lie, paint = _lying(labels), painting(labels)
    found = {value: int(paint[_code(lie[value] - inside)]) for value in region.values}
    return {value: 0 if new in region.values else new for value, new in found.items()}


def entering(labels: Labels, region: Label) -> dict[int, int]:
    """What each value (0 too) becomes where a voxel comes to a region, by `painting`.

    It comes to the larger regions around it too. A value that would have to leave a region for that is not
    listed: there the voxel stays what it is.
    """
    around = {n for n, label in enumerate(labels) if set(label.values) >= set(region.values)}
    lie, paint = _lying(labels), painting(labels)
    found = {value: int(paint[_code(now | around)]) for value, now in lie.items()}
    return {value: new for value, new in found.items() if lie[value] | around <= lie[new]}


def _lying(labels: Labels) -> dict[int, set[int]]:
    """Value -> places of the labels that it belongs to; 0 belongs to none."""
    return {v: {n for n, label in enumerate(labels) if v in label.values} for v in (0, *values_of(labels))}


def _code(places: Iterable[int]) -> int:
    return sum(2**n for n in places)


def checked(found: Iterable[Label]) -> Labels:
    """Labels sorted by value; a value or a name given twice is refused."""
    ordered = tuple(sorted(found, key=lambda label: label.value))
    for field in ("value", "name"):
        seen = [getattr(label, field) for label in ordered]
        twice = sorted({str(s) for s in seen if seen.count(s) > 1})
        if twice:
            told = [f"{x.name}={x.value}" for x in ordered if str(getattr(x, field)) in twice]
            raise MedsegError(
                f"labels share a {field}",
                evidence=", ".join(told),
                mend=f"give each a {field} of its own; labels of the command line are added to a recipe's",
            )
    return ordered


def _own_value(name: str, regions: Mapping[str, Sequence[int]]) -> int:
    """The value of a region that lies in as few others as any, and in none that is smaller."""
    smaller = {v for n, values in regions.items() if len(values) < len(regions[name]) for v in values}
    smaller |= {
        v for n, values in regions.items() if n != name and set(values) == set(regions[name]) for v in values
    }
    own = [v for v in regions[name] if v not in smaller]
    if not own:
        raise MedsegError(
            f"region '{name}' has no voxel of its own: smaller regions hold all its values",
            mend="leave it out of the labels, and measure it with scoring.regions",
        )
    return min(own, key=lambda v: (sum(v in values for values in regions.values()), v))
