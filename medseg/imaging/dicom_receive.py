"""The receiving end of C-STORE: who may come in, how much they may bring, and one object after another.

Objects are written to disk while they arrive (`inbox`), never held in memory, and handed to a function that
decides the answer. Nothing a sender says becomes part of a path.
"""

from __future__ import annotations

import logging
import os
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medseg.imaging.dicom_door import Gate, close_door, open_door, refuse_closed
from medseg.imaging.dicom_header import text_of, tolerant
from medseg.imaging.dicom_net import at_once, pynetdicom, shut_properly

log = logging.getLogger("medseg")

NOT_WANTED, NO_ROOM, NOT_UNDERSTOOD = 0x0124, 0xA700, 0xC000
_LAST_OF_OBJECT = 2
"""Control bits of the packet that ends an object: it is whole, and gets an answer instead of an abort."""
_NO_PIXELS = ("SEG", "RTDOSE", "PR", "REG", "KO")
_TAGS = ["SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "Modality", "Rows"]


@dataclass(frozen=True)
class Arrival:
    """An object that has arrived: a whole file in the inbox, and what it says it is."""

    file: Path = field(repr=False)
    study_uid: str = field(repr=False)
    series_uid: str = field(repr=False)
    sop_uid: str = field(repr=False)
    is_image: bool
    """Whether it holds pictures a model may look at (no SEG, SR, RT object, presentation state)."""


Take = Callable[[Arrival, Any], int]
"""``(arrival, association) -> status``: what is answered; the file is removed unless it was moved."""


@contextmanager
def receiving(
    gate: Gate, inbox: Path, take: Take, ended: Callable[[Any], None] = lambda _: None
) -> Iterator[int]:
    """Serve C-STORE and C-ECHO while the context lasts; gives the port.

    Parameters
    ----------
    inbox : path
        Folder for what is on its way; emptied first. On the disk where the objects will be kept.
    take : function
        Called in the association's own thread for each whole object. Success is answered after it returned
        `SUCCESS`, so what it moved and flushed is acknowledged, and nothing else.
    ended : function
        Called with an association that is over, however it ended; its `was_released` tells whether the
        sender had said all it wanted to say.

    Raises
    ------
    MedsegError
        The gate lets nobody in, the port is taken, or a certificate cannot be read.
    """
    refuse_closed(gate)
    pynetdicom()
    clear(inbox)
    with temporaries_in(inbox), tolerant():
        server = open_door(gate, storage_handlers(gate.max_object_mb, gate.max_pdu_bytes, take, ended))
        thread = threading.Thread(target=server.serve_forever, args=(0.2,), daemon=True)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            close_door(server)
            thread.join(timeout=5)
            clear(inbox)


def clear(inbox: Path) -> None:
    """Make the folder, or empty it of what a killed process left: none of it was acknowledged."""
    inbox.mkdir(parents=True, exist_ok=True)
    for thing in inbox.iterdir():
        shutil.rmtree(thing) if thing.is_dir() else thing.unlink(missing_ok=True)


@contextmanager
def temporaries_in(folder: Path) -> Iterator[None]:
    """Within, temporary files of this process lie in `folder`: patients' data stay on their disk."""
    before = tempfile.tempdir
    tempfile.tempdir = str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before


def storage_handlers(
    max_object_mb: float, max_pdu_bytes: int, take: Take, ended: Callable[[Any], None] = lambda _: None
) -> list[tuple[Any, ...]]:
    """Handlers that hand each stored object to `take` and end an association that brings too much."""
    from pynetdicom import evt

    brought: dict[Any, int] = {}
    most = int(max_object_mb * 2**20)

    def opened(event: Any) -> None:
        at_once(event)
        _bound(shut_properly(event.assoc.dul.socket), max(max_pdu_bytes, 2**18))

    def part(event: Any) -> None:
        items = getattr(event.pdu, "presentation_data_value_items", None)
        if not items or getattr(event.assoc, "brought_too_much", False):
            return
        brought[event.assoc] = brought.get(event.assoc, 0) + event.pdu.pdu_length
        endless = brought[event.assoc] > most and items[-1].data[0] & 3 != _LAST_OF_OBJECT
        if endless or event.assoc.dimse.msg_queue.qsize() > 16:
            log.warning("an association was ended: it brought more than %g MB at once", max_object_mb)
            event.assoc.brought_too_much = True
            event.assoc.dul.socket._shutdown_socket()

    def whole(event: Any) -> None:
        brought.pop(event.assoc, None)

    def told(event: Any) -> None:
        event.assoc.was_released = type(event.primitive).__name__ == "A_RELEASE"

    def closed(event: Any) -> None:
        whole(event)
        _drop_unfinished(event.assoc)
        ended(event.assoc)

    return [
        (evt.EVT_CONN_OPEN, opened), (evt.EVT_PDU_RECV, part), (evt.EVT_DIMSE_RECV, whole),
        (evt.EVT_ACSE_RECV, told), (evt.EVT_CONN_CLOSE, closed), (evt.EVT_C_STORE, _stored, [take, most]),
    ]  # fmt: skip


def _stored(event: Any, take: Take, most: int) -> int:
    """Answer one C-STORE; whatever goes wrong is an answer, never an end of the server."""
    file = Path(event.dataset_path)
    try:
        event.request._dataset_file.close()
        if file.stat().st_size > most:
            event.assoc.brought_too_much = True
            return NO_ROOM
        arrival = _arrival(file)
        asked = str(event.request.AffectedSOPInstanceUID)
        if arrival is None or arrival.sop_uid != asked:
            return NOT_UNDERSTOOD
        return take(arrival, event.assoc)
    except OSError as error:
        log.error("an object could not be kept: %s", os.strerror(error.errno or 5))
        return NO_ROOM
    finally:
        file.unlink(missing_ok=True)


def _arrival(file: Path) -> Arrival | None:
    """What a whole object says of itself; None when it does not say what it is."""
    from pydicom import dcmread

    try:
        with tolerant():
            dataset = dcmread(file, stop_before_pixels=True, specific_tags=_TAGS)
    except Exception:  # a parser fed with damaged bytes may raise anything
        return None
    uids = [text_of(dataset, name) for name in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")]
    if not all(uids) or not text_of(dataset, "SOPClassUID"):
        return None
    image = text_of(dataset, "Rows").isdecimal() and text_of(dataset, "Modality") not in _NO_PIXELS
    return Arrival(file, *uids, is_image=image)


def _bound(connection: Any, most: int) -> None:
    """Replace the reader of a connection: a packet may not be longer than `most`, and is read in one go."""

    quick = getattr(socket, "TCP_QUICKACK", None)

    def recv(number: int) -> bytearray:
        if number > most:
            connection._shutdown_socket()
            raise OSError("packet too long")
        buffer = bytearray(number)
        view, got = memoryview(buffer), 0
        if quick is not None:  # a sender that waits for our receipt would wait 0.04 s for each object
            connection.socket.setsockopt(socket.IPPROTO_TCP, quick, 1)
        while got < number:
            step = connection.socket.recv_into(view[got:])
            if not step:
                break
            got += step
        view.release()
        return buffer[:got]

    connection.recv = recv


def _drop_unfinished(association: Any) -> None:
    """Remove the file of an object whose transfer was cut off."""
    unfinished = getattr(association.dimse.message, "_data_set_file", None)
    if unfinished is not None:
        unfinished.close()
        Path(unfinished.name).unlink(missing_ok=True)
