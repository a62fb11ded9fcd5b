"""Fetching a series from an archive by DIMSE: C-GET, or C-MOVE to a receiving end of our own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from medseg.core.errors import CaseError, MedsegError
from medseg.imaging.dicom_door import Gate
from medseg.imaging.dicom_net import SUCCESS, Peer, UnreachableError, association, named, pynetdicom
from medseg.imaging.dicom_query import SeriesFound, identifier
from medseg.imaging.dicom_receive import Take, clear, receiving, storage_handlers, temporaries_in

GET, MOVE = "1.2.840.10008.5.1.4.1.2.2.3", "1.2.840.10008.5.1.4.1.2.2.2"
_PLAIN = ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2")
_OTHER = tuple(f"1.2.840.10008.1.2{tail}" for tail in (
    ".2", ".5", ".4.50", ".4.51", ".4.57", ".4.70", ".4.80", ".4.81", ".4.90", ".4.91",
    ".4.201", ".4.202", ".4.203",
))  # fmt: skip
# proposed when the archive does not tell the classes of a series' objects
_COMMON = tuple(f"1.2.840.10008.5.1.4.1.1.{tail}" for tail in (
    "2", "2.1", "4", "4.1", "4.3", "128", "130", "1", "1.1", "1.1.1", "1.2", "1.2.1", "13.1.3", "6.1", "3.1",
    "20", "7", "7.1", "7.2", "7.3", "7.4", "12.1", "12.1.1", "12.2", "66.4", "481.3", "481.2", "481.5",
    "88.11", "88.22", "88.33", "88.34", "88.59", "11.1",
))  # fmt: skip
_MOST_CONTEXTS, _AT_ONCE = 127, 100


def get_objects(
    peer: Peer,
    series: SeriesFound,
    classes: Sequence[str],
    only: Sequence[str],
    take: Take,
    *,
    inbox: Path,
    max_object_mb: float,
) -> None:
    """Ask for a series (C-GET), or for the objects `only` of it; each is handed to `take`.

    Every compressed syntax is proposed by itself, so that the archive can send what it holds as it is.

    Raises
    ------
    UnreachableError
        No association, or it fell silent.
    MedsegError
        The archive does not answer C-GET, or refuses.
    """
    package = pynetdicom()
    contexts = [package.build_context(GET), *storage_contexts(classes or _COMMON)]
    roles = [package.build_role(name, scp_role=True) for name in classes or _COMMON]
    clear(inbox)
    with (
        temporaries_in(inbox),
        association(
            peer, contexts, roles=roles, handlers=storage_handlers(max_object_mb, 2**24, take)
        ) as made,
    ):
        _check_answered(made, GET, "C-GET", "take pull.method=move, or pull.method=web")
        for question in _questions(series, only):
            _finish(made.send_c_get(question, GET), made)


def move_objects(
    peer: Peer, series: SeriesFound, only: Sequence[str], take: Take, *, inbox: Path, gate: Gate
) -> None:
    """Have the archive send a series to our own receiving end (C-MOVE), open while this lasts.

    Raises
    ------
    UnreachableError
        No association, or it fell silent.
    MedsegError
        The archive does not answer C-MOVE, does not know our AE title, or the port is taken.
    """
    package = pynetdicom()
    with receiving(gate, inbox, take), association(peer, [package.build_context(MOVE)]) as made:
        _check_answered(made, MOVE, "C-MOVE", "take pull.method=get, or pull.method=web")
        for question in _questions(series, only):
            _finish(made.send_c_move(question, peer.ae_title, MOVE), made)


def storage_contexts(classes: Sequence[str]) -> list[Any]:
    """Presentation contexts for receiving objects of these classes, at most 127."""
    build: Callable[..., Any] = pynetdicom().build_context
    each = 1 + len(_OTHER)
    if len(classes) * each <= _MOST_CONTEXTS:
        wanted: list[tuple[str, list[str]]] = [
            (name, list(group)) for name in classes for group in (_PLAIN, *((one,) for one in _OTHER))
        ]
    else:
        wanted = [(name, list(group)) for name in classes for group in (_PLAIN, _OTHER)]
    return [build(name, group) for name, group in wanted[:_MOST_CONTEXTS]]


def _questions(series: SeriesFound, only: Sequence[str]) -> Iterator[Any]:
    place: Mapping[str, str] = {
        "StudyInstanceUID": series.study_uid, "SeriesInstanceUID": series.series_uid,
    }  # fmt: skip
    if not only:
        yield identifier("SERIES", place)
    for some in _groups(only):
        yield identifier("IMAGE", {**place, "SOPInstanceUID": some})


def _groups(uids: Sequence[str]) -> Iterator[list[str]]:
    for start in range(0, len(uids), _AT_ONCE):
        yield list(uids[start : start + _AT_ONCE])


def _check_answered(made: Any, service: str, name: str, mend: str) -> None:
    if not any(context.abstract_syntax == service for context in made.accepted_contexts):
        raise MedsegError(f"the archive does not answer {name}", mend=mend)


def _finish(answers: Iterator[Any], made: Any) -> None:
    """Follow an operation to its end. Objects that failed singly are found out by counting afterwards."""
    for status, _ in answers:
        code = status.get("Status")
        if getattr(made, "brought_too_much", False):
            raise CaseError("an object is larger than allowed", mend="raise pull.max_object_mb")
        if code is None:
            raise UnreachableError("the archive fell silent, or was cut off, while it sent objects")
        if code not in (SUCCESS, 0xFF00, 0xB000):
            raise MedsegError(
                "the archive refused to send the objects", evidence=named(code),
                mend="for 0xA801 the archive must know our AE title with this host and port",
            )  # fmt: skip
    if not made.is_established:
        raise UnreachableError("the association ended before all objects were sent")
