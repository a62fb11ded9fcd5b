"""What a label value means: a name, coded terms and a colour that ride from cohort to DICOM SEG."""

from __future__ import annotations

from collections.abc import Iterable

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


class Label(Value):
    """One foreground label of a mask; 0 is always background and is never listed."""

    value: int = Field(ge=1, le=65535)
    name: str = Field(min_length=1, max_length=64)
    category: Code = TISSUE
    type: Code = TISSUE
    colour: str = Field(default="", pattern=r"^(#[0-9a-fA-F]{6})?$")

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
    """Labels from ``kidney=1,tumour=2``, as the command line writes them.

    Raises
    ------
    MedsegError
        Not of that form, or a value or name given twice.
    """
    try:
        pairs = [part.split("=") for part in text.split(",") if part.strip()]
        named = [{"name": name.strip(), "value": int(value)} for name, value in pairs]
    except ValueError as error:
        raise MedsegError(f"labels '{text}' cannot be read", mend="write them as name=1,other=2") from error
    return checked(validated(Label, label) for label in named)


def checked(found: Iterable[Label]) -> Labels:
    """Labels sorted by value; a value or a name given twice is refused."""
    ordered = tuple(sorted(found, key=lambda label: label.value))
    for field in ("value", "name"):
        seen = [getattr(label, field) for label in ordered]
        twice = sorted({str(s) for s in seen if seen.count(s) > 1})
        if twice:
            raise MedsegError(f"labels share a {field}", evidence=", ".join(twice))
    return ordered
