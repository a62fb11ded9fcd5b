"""What structures of a DICOM object are called, and which label that is; free text is never trusted.

Names of segments and regions are typed by people. They are matched with labels by `plain_name`, and where
no labels are given they become labels themselves, unless words of the patient stand in them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from medseg.core.words import PLAIN
from medseg.imaging.dicom_header import text_of
from medseg.imaging.labels import Labels

if TYPE_CHECKING:
    from pydicom import Dataset

_IDENTIFYING = (
    "PatientName", "PatientID", "OtherPatientIDs", "OtherPatientNames", "PatientBirthDate", "AccessionNumber",
    "InstitutionName", "ReferringPhysicianName", "OperatorsName", "PhysiciansOfRecord", "StationName",
)  # fmt: skip


def plain_name(name: str) -> str:
    """The name without blanks, underscores and case.

    >>> plain_name("Left_Kidney ")
    'leftkidney'
    """
    return "".join(name.lower().replace("_", " ").split())


def safe_name(name: str, dataset: Dataset, otherwise: str) -> str:
    """The name, at most 64 characters; `otherwise` when words that identify the patient stand in it."""
    return name[:64] if without_identity(name, dataset) else otherwise


def without_identity(text: str, dataset: Dataset) -> bool:
    """Whether no word of the patient's or the hospital's names and numbers stands in the text.

    Words of four letters or more are looked for anywhere, words of three as words. Words that are nobody's
    name (``head``, ``phantom``: `medseg.core.words`) do not count.
    """
    said = " ".join(text_of(dataset, keyword) for keyword in _IDENTIFYING)
    own = text.lower()
    words = set(_words(said)) - PLAIN
    return not any((len(w) > 3 and w in own) or (len(w) == 3 and w in _words(own)) for w in words)


def values_of(
    names: Mapping[int, str], labels: Labels | None, dataset: Dataset, kind: str
) -> dict[int, int | None]:
    """Number of a structure -> label value; without `labels` its number, None where no label has its name."""
    if labels is None:
        return {number: number for number in names}
    known = {plain_name(label.name): label.value for label in labels}
    return {
        number: known.get(
            plain_name(name), known.get(plain_name(safe_name(name, dataset, f"{kind} {number}")))
        )
        for number, name in names.items()
    }


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text.lower())
