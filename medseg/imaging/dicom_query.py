"""Asking an archive what it holds: studies, their series, and the objects of a series (C-FIND)."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from medseg.core.errors import MedsegError
from medseg.core.values import nearest
from medseg.imaging.dicom_header import text_of, tolerant
from medseg.imaging.dicom_net import SUCCESS, Peer, UnreachableError, association, named, pynetdicom

if TYPE_CHECKING:
    from pydicom import Dataset

STUDY_KEYS = ("PatientID", "AccessionNumber", "StudyInstanceUID", "StudyDate")
SERIES_KEYS = ("SeriesInstanceUID", "Modality", "SeriesDescription")
KEYS = (*STUDY_KEYS, *SERIES_KEYS)
_PENDING = (0xFF00, 0xFF01)
_FIND = "1.2.840.10008.5.1.4.1.2.2.1"

Find = Callable[[str, Mapping[str, str]], "list[Dataset]"]
"""``(level, wanted attributes) -> answers``: C-FIND or QIDO-RS."""


@dataclass(frozen=True)
class SeriesFound:
    """A series in an archive; what identifies it never shows in `repr`."""

    study_uid: str = field(repr=False)
    series_uid: str = field(repr=False)
    modality: str
    instances: int | None
    """How many objects the archive says it has; None when it does not say."""


def check_query(query: Mapping[str, str]) -> None:
    """Refuse a query that cannot be asked, or that would fetch a whole archive.

    Raises
    ------
    MedsegError
        An unknown key, or no key that narrows the studies down.
    """
    for key in set(query) - set(KEYS):
        guess = nearest(key, KEYS)
        raise MedsegError(
            f"'{key}' cannot be asked for", evidence=f"known: {', '.join(KEYS)}",
            mend=f"did you mean '{guess}'?" if guess else "take a known key",
        )  # fmt: skip
    narrow = [key for key in STUDY_KEYS if query.get(key, "").strip("*? -")]
    if not narrow:
        raise MedsegError(
            "the query would fetch the whole archive",
            mend="give PatientID=, AccessionNumber=, StudyInstanceUID= or StudyDate=FROM-TO",
        )


def find_series(find: Find, query: Mapping[str, str]) -> list[SeriesFound]:
    """The series that match `query`, in a fixed order.

    What the archive answers is checked against the query once more: some ignore keys they do not know,
    and would hand out more than was asked for.

    Raises
    ------
    MedsegError
        A query that cannot be asked (see `check_query`), or an archive that does not answer it.
    """
    check_query(query)
    found = {
        (study, series.series_uid): series
        for study in _studies(find, query)
        for series in _series(find, study, query)
    }
    return [found[key] for key in sorted(found)]


def _studies(find: Find, query: Mapping[str, str]) -> list[str]:
    wanted = {key: query.get(key, "") for key in STUDY_KEYS}
    if query.get("Modality"):
        wanted["ModalitiesInStudy"] = query["Modality"]
    answers = [answer for answer in find("STUDY", wanted) if _fits(answer, query)]
    return sorted({uid for a in answers if (uid := text_of(a, "StudyInstanceUID"))})


def _series(find: Find, study: str, query: Mapping[str, str]) -> Iterator[SeriesFound]:
    wanted = {key: query.get(key, "") for key in SERIES_KEYS if key != "SeriesDescription"}
    wanted["SeriesDescription"] = (
        ""  # archives differ in how they match text: all are asked for, and matched here
    )
    wanted |= {"StudyInstanceUID": study, "NumberOfSeriesRelatedInstances": ""}
    for answer in find("SERIES", wanted):
        uid = text_of(answer, "SeriesInstanceUID")
        asked = {key: query[key] for key in SERIES_KEYS if query.get(key)}
        if uid and all(matches(key, asked[key], text_of(answer, key)) for key in asked):
            count = text_of(answer, "NumberOfSeriesRelatedInstances")
            number = int(count) if count.isdecimal() else None
            yield SeriesFound(study, uid, text_of(answer, "Modality"), number)


def objects_of(find: Find, series: SeriesFound) -> dict[str, str]:
    """Every object of a series: SOP Instance UID -> SOP Class UID (empty when the archive does not say)."""
    wanted = {
        "StudyInstanceUID": series.study_uid, "SeriesInstanceUID": series.series_uid,
        "SOPInstanceUID": "", "SOPClassUID": "",
    }  # fmt: skip
    answers = find("IMAGE", wanted)
    return {uid: text_of(a, "SOPClassUID") for a in answers if (uid := text_of(a, "SOPInstanceUID"))}


def _fits(answer: Dataset, query: Mapping[str, str]) -> bool:
    """Whether a study has what was asked for; attributes that the archive does not return are believed."""
    asked = {key: query[key] for key in STUDY_KEYS if query.get(key)}
    return all(key not in answer or matches(key, asked[key], text_of(answer, key)) for key in asked)


def matches(key: str, wanted: str, value: str) -> bool:
    r"""DICOM's matching: a list of values (``\``), wildcards (``*``, ``?``), and ranges of dates.

    >>> matches("StudyDate", "20240101-20241231", "20240601"), matches("StudyDate", "-20231231", "20240601")
    (True, False)
    >>> matches("SeriesDescription", "*thorax*", "CT THORAX 1.0"), matches("Modality", "CT\\MR", "US")
    (True, False)
    """
    if key == "StudyDate" and "-" in wanted:
        low, _, high = wanted.partition("-")
        return (low or "0") <= value <= (high or "9")
    choices = [re.sub(r"\[", "[[]", choice.casefold()) for choice in wanted.split("\\")]
    return any(fnmatch.fnmatchcase(value.casefold(), choice) for choice in choices)


def asking(peer: Peer) -> Find:
    """C-FIND (Study Root) at an archive: an association for each question."""

    def find(level: str, wanted: Mapping[str, str]) -> list[Dataset]:
        package = pynetdicom()
        with association(peer, [package.build_context(_FIND)]) as made, tolerant():
            return _answers(made, identifier(level, wanted))

    return find


def identifier(level: str, wanted: Mapping[str, str | list[str]]) -> Dataset:
    """A query as DICOM writes it."""
    from pydicom import Dataset

    question = Dataset()
    question.QueryRetrieveLevel = level
    with tolerant():
        for key, value in wanted.items():
            setattr(question, key, value)
    if any(not str(value).isascii() for value in wanted.values()):
        question.SpecificCharacterSet = "ISO_IR 192"
    return question


def _answers(made: Any, question: Dataset) -> list[Dataset]:
    answers = []
    for status, answer in made.send_c_find(question, _FIND):
        code = status.get("Status")
        if code in _PENDING and answer is not None:
            answers.append(answer)
        elif code is None:
            raise UnreachableError("the archive fell silent while it answered a query")
        elif code not in (SUCCESS, *_PENDING):
            raise MedsegError("the archive refused the query", evidence=named(code))
    return answers
