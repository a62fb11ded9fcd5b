"""What tells the images of one place apart: echo, diffusion weighting, time and the like, as plain numbers.

Values are read as they stand; which of them splits a series is decided in `dicom_parts`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from medseg.imaging.dicom_values import numbers_of, text_of

if TYPE_CHECKING:
    from pydicom import Dataset

Mark = float | str | tuple[float, ...]
Marks = tuple[tuple[str, Mark], ...]

# fmt: off
NUMBERS = {  # name of the mark: the tags that may hold it, the best first; then the decimals that count
    "b_value": (("DiffusionBValue",), 0),
    "direction": (("DiffusionGradientOrientation",), 3),
    "kvp": (("KVP",), 1),
    "inversion": (("InversionTime", "InversionTimes"), 1),
    "cardiac": (("NominalPercentageOfCardiacPhase",), 1),
    "trigger": (("NominalCardiacTriggerDelayTime", "TriggerTime"), 2),
    "temporal": (("TemporalPositionIndex", "TemporalPositionIdentifier"), 0),
    "acquisition": (("AcquisitionNumber",), 0),
    "frame_acquisition": (("FrameAcquisitionNumber",), 0),
    "dimensions": (("DimensionIndexValues",), 0),
    "stated_times": (("NumberOfTemporalPositions",), 0),
    "instance": (("InstanceNumber",), 0),
}
_TIMES = {  # date and time in one tag, else in two
    "acquired": ("FrameAcquisitionDateTime", "AcquisitionDateTime", "AcquisitionDate", "AcquisitionTime"),
    "content": ("FrameReferenceDateTime", "", "ContentDate", "ContentTime"),
}
_PRIVATE = {  # the block's creator, the tag, the mark: only the published ones of the three large makers
    ("SIEMENS MR HEADER", 0x0019100C): "b_value",
    ("SIEMENS MR HEADER", 0x0019100E): "direction",
    ("GEMS_PARM_01", 0x00431039): "b_value",
    ("GEMS_PARM_01", 0x0043102F): "component",
    ("Philips Imaging DD 001", 0x20011003): "b_value",
}
_GE_COMPONENTS = ("MAGNITUDE", "PHASE", "REAL", "IMAGINARY")
_COMPONENT_WORDS = {word: word for word in _GE_COMPONENTS} | {
    "M": "MAGNITUDE", "P": "PHASE", "R": "REAL", "I": "IMAGINARY",
}
# fmt: on

TOP_TAGS: list[Any] = [
    "ComplexImageComponent",
    *(k for tags, _ in NUMBERS.values() for k in tags),
    *(k for tags in _TIMES.values() for k in tags if k),
    *(tag for _, tag in _PRIVATE),
    *sorted({tag & 0xFFFF0000 | (tag & 0xFFFF) >> 8 for _, tag in _PRIVATE}),
]
"""Elements of a single-frame header that `marks_of` looks at, to be read along with the others."""


def marks_of(places: Sequence[Dataset], image_type: Sequence[str]) -> Marks:
    """The marks of one image or frame: name and value of each that is there.

    Parameters
    ----------
    places : sequence of Dataset
        Where a value may stand, the nearest first.
    image_type : sequence of str
        ImageType of the file, or FrameType of the frame.

    Returns
    -------
    tuple of (str, value)
        Numbers rounded to the decimals that count; times in seconds of an arbitrary clock. Names:
        the keys of `NUMBERS`, ``component``, ``acquired``, ``content``, ``stack``.
    """
    found: dict[str, Mark] = {}
    places = [*_nested(places, "DiffusionGradientDirectionSequence"), *places]
    for name, (keywords, decimals) in NUMBERS.items():
        value = _first(places, keywords)
        if value is not None:
            rounded = tuple(round(v, decimals) + 0.0 for v in value)
            found[name] = rounded if name in ("direction", "dimensions") else rounded[0]
    for name, (both, other, day, time) in _TIMES.items():
        whole = _text(places, both) or _text(places, other)
        seconds = _seconds(whole, _text(places, day), _text(places, time))
        if seconds is not None:
            found[name] = seconds
    for place in places[-1:]:
        for (creator, tag), name in _PRIVATE.items():
            value = _private(place, creator, tag, name)
            if value is not None:
                found.setdefault(name, value)
    words = {"component": _component(places, image_type), "stack": _text(places, "StackID")}
    return tuple((found | {name: word for name, word in words.items() if word}).items())


def _first(places: Sequence[Dataset], keywords: Sequence[str]) -> tuple[float, ...] | None:
    for keyword in keywords:
        for place in places:
            value = numbers_of(place, keyword)
            if value and all(map(math.isfinite, value)):
                return value
    return None


def _nested(places: Sequence[Dataset], keyword: str) -> list[Dataset]:
    return [p[keyword].value[0] for p in places if keyword in p and p[keyword].value]


def _text(places: Sequence[Dataset], keyword: str) -> str:
    return next((t for t in (text_of(p, keyword) for p in places) if t), "") if keyword else ""


def _component(places: Sequence[Dataset], image_type: Sequence[str]) -> str:
    """Magnitude, phase, real or imaginary; empty when nothing says so."""
    stated = _text(places, "ComplexImageComponent").upper()
    if stated in _COMPONENT_WORDS:
        return stated
    words = [w.upper() for w in image_type[2:]]
    return next((_COMPONENT_WORDS[w] for w in words if w in _COMPONENT_WORDS), "")


def _private(place: Dataset, creator: str, tag: int, name: str) -> Mark | None:
    """A private value, only when its block is reserved by the maker that gives it this meaning."""
    reserved = place.get(tag & 0xFFFF0000 | (tag & 0xFFFF) >> 8)
    if tag not in place or reserved is None or _plain(reserved.value) != creator:
        return None
    values = _numbers(place[tag].value, place[tag].VR)
    if not values:
        return None
    if name == "component":
        return _GE_COMPONENTS[int(values[0])] if values[0] in (0, 1, 2, 3) else None
    if name == "direction":
        return tuple(round(v, 3) + 0.0 for v in values)
    # GE adds multiples of a billion to say that the value is effective, not nominal
    return round(values[0] % 1e8 if creator.startswith("GEMS") else values[0])


def _plain(value: Any) -> str:
    text = value.decode("ascii", "ignore") if isinstance(value, bytes) else str(value)
    return text.strip(" \0")


def _numbers(value: Any, vr: str) -> tuple[float, ...]:
    """Numbers of a private element, whose kind implicit transfer syntaxes do not tell (bytes then)."""
    import numpy as np

    try:
        if isinstance(value, bytes):
            text = _plain(value)
            if text and set(text) <= set("0123456789+-.eE\\ "):
                return tuple(float(v) for v in text.split("\\") if v.strip())
            return tuple(np.frombuffer(value, "<f8" if len(value) % 24 == 0 else "<f4").tolist())
        several = value if hasattr(value, "__iter__") and not isinstance(value, str) else [value]
        found = tuple(float(v) for v in several)
    except (ValueError, TypeError):
        return ()
    return found if all(map(math.isfinite, found)) else ()


def _seconds(both: str, day: str, time: str) -> float | None:
    """Seconds since a fixed moment of DICOM date and time; None when there is no time of day."""
    if len(both) >= 14:
        day, time = both[:8], both[8:].split("+")[0].split("-")[0]
    time = time.replace(":", "")
    try:
        clock = int(time[:2]) * 3600 + int(time[2:4] or 0) * 60 + float(time[4:] or 0)
        days = datetime.strptime(day[:8], "%Y%m%d").toordinal() if day else 0
    except ValueError:
        return None
    return round(days * 86400 + clock, 4) if math.isfinite(clock) else None
