"""Sending DICOM files to an archive by C-STORE, each in the syntax it has, and what was answered."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medseg.imaging.dicom_header import is_dicom, text_of, tolerant
from medseg.imaging.dicom_net import (
    SUCCESS,
    Peer,
    association,
    named,
    persistently,
    pynetdicom,
)

_IMPLICIT, _EXPLICIT, _BIG = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
_NATIVE = (_IMPLICIT, _EXPLICIT, _BIG)
_MOST_CONTEXTS = 126
_NO_CONTEXT = 0x0122


@dataclass(frozen=True)
class Outgoing:
    """A file to be sent, and what it says it is."""

    file: Path = field(repr=False)
    sop_class: str
    sop_uid: str = field(repr=False)
    syntax: str
    whole: bool
    """It has the file header an archive file must have; without one it is read and encoded anew."""


@dataclass(frozen=True)
class Answer:
    """What the archive said to one file."""

    file: Path = field(repr=False)
    status: int | None
    """DIMSE status (STOW's failure reasons are of the same kind); None when there was no answer."""
    said: str

    @property
    def stored(self) -> bool:
        """Whether the archive has it now; a warning counts as stored."""
        return self.status is not None and (self.status == SUCCESS or 0xB000 <= self.status < 0xC000)


def outgoing(file: Path) -> Outgoing | None:
    """What a file is, or None when it is no DICOM object (a DICOMDIR is none)."""
    from pydicom import dcmread
    from pydicom.filereader import read_file_meta_info

    if not file.is_file() or not is_dicom(file):
        return None
    try:
        with tolerant():
            meta = read_file_meta_info(file) if _has_preamble(file) else {}
            syntax = str(meta.get("TransferSyntaxUID", ""))
            names = [str(meta.get(f"MediaStorageSOP{what}UID", "")) for what in ("Class", "Instance")]
            whole = bool(syntax) and all(names)
            if not whole:
                dataset = dcmread(file, stop_before_pixels=True, force=True)
                names = [text_of(dataset, f"SOP{what}UID") for what in ("Class", "Instance")]
                syntax = syntax or (_IMPLICIT if dataset.original_encoding[0] else _EXPLICIT)
    except Exception:  # a parser fed with damaged bytes may raise anything; the file is no object then
        return None
    directory = names[0] == "1.2.840.10008.1.3.10"
    return Outgoing(file, names[0], names[1], syntax, whole) if all(names) and not directory else None


def _has_preamble(file: Path) -> bool:
    with file.open("rb") as stream:
        return stream.read(132)[128:] == b"DICM"


def send(peer: Peer, things: Sequence[Outgoing], done: Callable[[Answer], None]) -> None:
    """Send files in turn; `done` is called with the answer to each as it comes.

    An association that breaks is made anew and goes on with the file that had no answer; a
    file that breaks it `peer.tries` times is given up with no answer.

    Raises
    ------
    UnreachableError
        There is no association to be had.
    """
    for group in groups(things):
        _send_group(peer, group, done)


def groups(things: Sequence[Outgoing]) -> Iterator[list[Outgoing]]:
    """Split so that what must be proposed for a group fits into one association."""
    group: list[Outgoing] = []
    kinds: set[tuple[str, str]] = set()
    for thing in things:
        kind = (thing.sop_class, thing.syntax)
        if kind not in kinds and 2 * (len(kinds) + 1) > _MOST_CONTEXTS:
            yield group
            group, kinds = [], set()
        group.append(thing)
        kinds.add(kind)
    if group:
        yield group


def _send_group(peer: Peer, things: Sequence[Outgoing], done: Callable[[Answer], None]) -> None:
    contexts = _contexts(things)
    with ExitStack() as stack:
        made = None
        for thing in things:
            for _ in range(peer.tries):
                if made is None or not made.is_established:
                    made = persistently(lambda: stack.enter_context(association(peer, contexts)), peer.tries)
                answer = _answer(made, thing)
                if answer.status is not None:
                    break
            done(answer)


def _contexts(things: Sequence[Outgoing]) -> list[Any]:
    build = pynetdicom().build_context
    kinds = dict.fromkeys((thing.sop_class, thing.syntax) for thing in things)
    exact = [build(name, [syntax]) for name, syntax in kinds]
    plain = dict.fromkeys(name for name, syntax in kinds if syntax in _NATIVE)
    return [*exact, *(build(name, [_EXPLICIT, _IMPLICIT]) for name in plain)]


def _answer(made: Any, thing: Outgoing) -> Answer:
    """Send one file. What the archive takes in no proposed form is refused here, by name."""
    taken = {
        str(c.transfer_syntax[0]) for c in made.accepted_contexts if c.abstract_syntax == thing.sop_class
    }
    if thing.syntax in taken and thing.whole:
        load: Any = thing.file
    elif thing.syntax in _NATIVE and taken & {_IMPLICIT, _EXPLICIT}:
        load = _dataset(thing)
    else:
        said = (
            "the archive takes no objects of this class"
            if not taken
            else "the archive does not take its syntax"
        )
        return Answer(thing.file, _NO_CONTEXT, said)
    try:
        with tolerant():
            status = made.send_c_store(load).get("Status")
    except (ValueError, AttributeError, OSError, RuntimeError) as error:
        if isinstance(error, RuntimeError) or not made.is_established:
            return Answer(thing.file, None, "no answer")
        return Answer(thing.file, 0xC000, f"it cannot be encoded: {type(error).__name__}")
    return Answer(thing.file, status, named(status))


def _dataset(thing: Outgoing) -> Any:
    from pydicom import dcmread
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import UID

    with tolerant():
        dataset = dcmread(thing.file, force=True)
        if "TransferSyntaxUID" not in getattr(dataset, "file_meta", {}):
            dataset.file_meta = FileMetaDataset()
            dataset.file_meta.TransferSyntaxUID = UID(thing.syntax)
    return dataset
