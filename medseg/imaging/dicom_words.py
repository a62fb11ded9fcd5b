"""What set a volume apart from the others of its series: in words for people, and as a name for machines.

Never text from a file: numbers, and words of a fixed list.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from medseg.imaging.dicom_header import Plane

# words of ImageType that mean something to a reader; any other stays unsaid
# fmt: off
_KINDS = frozenset((
    "ORIGINAL", "DERIVED", "M", "P", "R", "I", "ADC", "TRACEW", "FA", "AVERAGE", "MIP", "MPR", "WATER", "FAT",
    "IN_PHASE", "OUT_PHASE", "OPP_PHASE", "W", "F", "IP", "OP", "SUBTRACTION", "T1", "T2", "PROJECTION",
))
# fmt: on


@dataclass(frozen=True)
class Split:
    """One tag that parted a series, the value of this part, and which of how many it is (from 1)."""

    name: str
    value: Hashable
    index: int
    count: int


def said(splits: Sequence[Split]) -> str:
    """The contrast of a volume, such as ``echo 2 of 2, TE 7.4 ms`` or ``time point 3 of 10``."""
    return "; ".join(_WORDS[split.name.split()[0]][0](split) for split in splits)


def said_alone(plane: Plane) -> str:
    """What a volume shows when nothing is beside it to compare it with; empty for a plain one."""
    time, number = plane.echo
    b_value, times = plane.mark("b_value"), plane.mark("stated_times")
    words = [
        f"echo {number}, TE {time:g} ms"
        if number.isdecimal() and int(number) > 1 and time is not None
        else "",
        str(plane.mark("component") or "").lower().replace("magnitude", ""),
        f"b = {b_value:g} s/mm2" if isinstance(b_value, float | int) and b_value > 0 else "",
        f"time point {plane.mark('temporal'):g} of {times:g}"
        if isinstance(times, float) and times > 1 and isinstance(plane.mark("temporal"), float)
        else "",
    ]
    return "; ".join(filter(None, words))


def name_of(splits: Sequence[Split], planes: Sequence[Plane]) -> str:
    """A short name made of values alone, such as ``echo2-t003``: the same whatever else lies beside it."""
    words = [_WORDS[split.name.split()[0]][1](split) for split in splits]
    return "-".join(word or f"f{1 + min(p.frame for p in planes):04d}" for word in words)


def digest(value: object) -> str:
    """Six hexadecimal digits of a value, in place of the value."""
    return hashlib.sha256(repr(value).encode()).hexdigest()[:6]


def _of(what: str) -> Callable[[Split], str]:
    return lambda split: f"{what} {split.index} of {split.count}"


def _value(split: Split, default: str = "unknown") -> str:
    return f"{split.value:g}" if isinstance(split.value, float | int) else default


def _echo(split: Split) -> tuple[float | None, str]:
    value: Any = split.value
    return value


def _echo_said(split: Split) -> str:
    time = _echo(split)[0]
    return f"echo {split.index} of {split.count}" + (f", TE {time:g} ms" if time is not None else "")


def _echo_name(split: Split) -> str:
    time, number = _echo(split)
    return f"echo{number}" if number.isdecimal() else f"te{time:g}" if time is not None else "te"


def _kind_said(split: Split) -> str:
    words = split.value if isinstance(split.value, tuple) else ()
    known = [str(w).upper() for w in words if str(w).upper() in _KINDS]
    return f"image type {split.index} of {split.count}" + (f" ({' '.join(known)})" if known else "")


def _direction_said(split: Split) -> str:
    return "no gradient direction" if split.value is None else _of("gradient direction")(split)


_WORDS: dict[str, tuple[Callable[[Split], str], Callable[[Split], str]]] = {
    "echo": (_echo_said, _echo_name),
    "component": (
        lambda s: str(s.value or "component unknown").lower(),
        lambda s: str(s.value or "c").lower(),
    ),
    "b_value": (lambda s: f"b = {_value(s)} s/mm2", lambda s: f"b{_value(s, 'x')}"),
    "kind": (_kind_said, lambda s: f"type{digest(s.value)}"),
    "direction": (_direction_said, lambda s: f"dir{digest(s.value)}"),
    "kvp": (lambda s: f"{_value(s)} kV", lambda s: f"kv{_value(s, 'x')}"),
    "inversion": (lambda s: f"TI {_value(s)} ms", lambda s: f"ti{_value(s, 'x')}"),
    "temporal": (_of("time point"), lambda s: f"t{_value(s, 'x').zfill(3)}"),
    "cardiac": (_of("cardiac phase"), lambda s: f"phase{_value(s, 'x')}"),
    "trigger": (_of("cardiac phase or time point"), lambda s: ""),
    "acquisition": (_of("acquisition"), lambda s: f"a{_value(s, 'x')}"),
    "stack": (_of("stack"), lambda s: f"stack{digest(s.value)}"),
    "dimension": (_of("index"), lambda s: f"i{s.name.split()[-1]}.{_value(s, 'x')}"),
    "file": (_of("volume"), lambda s: ""),
    "time": (_of("time point"), lambda s: ""),
    "numbered": (lambda s: f"{_of('time point')(s)}, in the order of InstanceNumber", lambda s: ""),
}
