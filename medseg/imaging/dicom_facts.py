"""What a series says of itself in words: for choosing among the series of a study, in memory only."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from medseg.imaging.dicom_deflate import bounded
from medseg.imaging.dicom_header import numbers_of, text_of, tolerant

if TYPE_CHECKING:
    from pydicom import Dataset

_TAGS = [
    *("SeriesDescription", "ProtocolName", "ContrastBolusAgent", "ContrastBolusAgentSequence"),
    *("BodyPartExamined", "AnatomicRegionSequence", "Manufacturer", "SeriesNumber"),
]
_NO_AGENT = frozenset(("", "NO", "N", "NONE", "NO CONTRAST", "WITHOUT"))


@dataclass(frozen=True)
class Facts:
    """Free text and the like of one series. The texts never show in `repr`: people type names there.

    Attributes
    ----------
    texts : tuple of str
        SeriesDescription and ProtocolName.
    contrast : bool
        A contrast agent is named.
    number : float or None
        SeriesNumber: the order in which the scanner made the series of a study.
    """

    texts: tuple[str, ...] = field(default=(), repr=False)
    body_part: str = field(default="", repr=False)
    manufacturer: str = field(default="", repr=False)
    contrast: bool = False
    number: float | None = None


def facts_of(file: Path) -> Facts:
    """What the first file of a series says of it; nothing at all where the header cannot be read."""
    from pydicom import dcmread

    try:
        with tolerant():
            dataset = dcmread(bounded(file), stop_before_pixels=True, specific_tags=_TAGS, force=True)
            return _facts(dataset)
    except Exception:  # damaged bytes may raise anything; a rule that asks for a text does not match then
        return Facts()


def _facts(dataset: Dataset) -> Facts:
    number = numbers_of(dataset, "SeriesNumber")
    return Facts(
        texts=tuple(
            t for t in (text_of(dataset, "SeriesDescription"), text_of(dataset, "ProtocolName")) if t
        ),
        body_part=text_of(dataset, "BodyPartExamined") or _region(dataset),
        manufacturer=text_of(dataset, "Manufacturer"),
        contrast=_has_agent(dataset),
        number=number[0] if number and number[0] == number[0] else None,
    )


def _region(dataset: Dataset) -> str:
    region = dataset.get("AnatomicRegionSequence")
    return text_of(region[0], "CodeMeaning") if region else ""


def _has_agent(dataset: Dataset) -> bool:
    named = text_of(dataset, "ContrastBolusAgent").upper() not in _NO_AGENT
    return named or bool(dataset.get("ContrastBolusAgentSequence"))
