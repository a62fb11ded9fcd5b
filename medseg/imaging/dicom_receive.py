"""The receiving end of C-STORE: who may come in, how much they may bring, and one object after another.

Objects are written to disk while they arrive (`inbox`), never held in memory, and handed to a function that
decides the answer. Nothing a sender says becomes part of a path.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import Field

from medseg.core.errors import MedsegError
from medseg.core.values import Value
from medseg.imaging.dicom_header import DEFLATED, text_of, tolerant
from medseg.imaging.dicom_net import Tls, at_once, pynetdicom, server_context, shut_properly

log = logging.getLogger("medseg")

NOT_WANTED, NO_ROOM, NOT_UNDERSTOOD = 0x0124, 0xA700, 0xC000
_NO_PIXELS = ("SEG", "RTDOSE", "PR", "REG", "KO")
_TAGS = ["SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "Modality", "Rows"]


class Gate(Value):
    """Who may come in and how much they may bring."""

    ae_title: str = "MEDSEG"
    """Ours: a caller must ask for it."""
    host: str = "0.0.0.0"
    """Address to listen on."""
    port: int = Field(default=11112, ge=0, le=65535)
    callers: tuple[str, ...] = ()
    """AE titles that may call; ``*`` lets any in."""
    peers: tuple[str, ...] = ()
    """Addresses or networks (``10.1.0.0/24``) that may connect; ``0.0.0.0/0`` lets any in."""
    tls: Tls | None = None
    max_object_mb: float = Field(default=2048.0, gt=0)
    max_pdu_bytes: int = Field(default=131072, ge=4096, le=2**24)
    max_associations: int = Field(default=8, ge=1, le=200)
    timeout_seconds: float = Field(default=60.0, gt=0)


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
    package = pynetdicom()
    clear(inbox)
    entity = _entity(package, gate)
    with temporaries_in(inbox), tolerant():
        server = _server(entity, gate, storage_handlers(gate.max_object_mb, gate.max_pdu_bytes, take, ended))
        thread = threading.Thread(target=server.serve_forever, args=(0.2,), daemon=True)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            _close(entity)
            thread.join(timeout=5)
            clear(inbox)


def refuse_closed(gate: Gate) -> None:
    """Refuse a gate without a list of callers or of peers.

    Raises
    ------
    MedsegError
        A list is empty, or a peer is no address.
    """
    for name, said in (("callers", "their AE titles, or '*'"), ("peers", "their addresses, or 0.0.0.0/0")):
        if not getattr(gate, name):
            raise MedsegError(f"nobody may send: the list of {name} is empty", mend=f"add {name}: {said}")
    _networks(gate)


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
        brought[event.assoc] = brought.get(event.assoc, 0) + getattr(event.pdu, "pdu_length", 0)
        waiting = event.assoc.dimse.msg_queue.qsize()
        if brought[event.assoc] > most or waiting > 16:
            log.warning("an association was ended: it brought more than %g MB at once", max_object_mb)
            event.assoc.brought_too_much = True
            event.assoc.abort()
            event.assoc.dimse.msg_queue.put((None, None))  # who waits for a message need not wait longer

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
        (evt.EVT_ACSE_RECV, told), (evt.EVT_CONN_CLOSE, closed), (evt.EVT_C_STORE, _stored, [take]),
    ]  # fmt: skip


def _stored(event: Any, take: Take) -> int:
    """Answer one C-STORE; whatever goes wrong is an answer, never an end of the server."""
    file = Path(event.dataset_path)
    try:
        event.request._dataset_file.close()
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


def _entity(package: Any, gate: Gate) -> Any:
    entity = package.AE(ae_title=gate.ae_title)
    entity.maximum_associations = gate.max_associations
    entity.maximum_pdu_size = gate.max_pdu_bytes
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = gate.timeout_seconds
    entity.require_called_aet = True
    entity.require_calling_aet = [] if "*" in gate.callers else list(gate.callers)
    syntaxes = accepted_syntaxes()
    for context in package.AllStoragePresentationContexts:
        entity.add_supported_context(context.abstract_syntax, syntaxes)
    entity.add_supported_context("1.2.840.10008.1.1")
    return entity


def accepted_syntaxes() -> list[str]:
    """Transfer syntaxes taken: all but deflated, whose size is not bounded by what arrives."""
    package = pynetdicom()
    return [str(uid) for uid in package.ALL_TRANSFER_SYNTAXES if uid != DEFLATED]


def _server(entity: Any, gate: Gate, handlers: Sequence[Any]) -> Any:
    context = server_context(gate.tls) if gate.tls else None
    kind = _server_class(_networks(gate), gate)
    try:
        server = entity.make_server(
            (gate.host, gate.port), ssl_context=context, evt_handlers=list(handlers), server_class=kind
        )
    except OSError as error:
        raise MedsegError(
            "the port cannot be listened on", evidence=f"port {gate.port}: {error.strerror}",
            mend="give another listen.port, or stop the program that holds it",
        ) from error  # fmt: skip
    entity._servers.append(server)
    return server


def _server_class(networks: list[Any], gate: Gate) -> Any:
    """A server that looks at the address before anything else, and lets nobody hold up the door."""
    from pynetdicom.transport import ThreadedAssociationServer

    class Door(ThreadedAssociationServer):
        def get_request(self) -> Any:
            connection, address = self.socket.accept()  # type: ignore[union-attr]
            if (
                not _allowed(address[0], networks)
                or len(self.active_associations) >= 2 * gate.max_associations
            ):
                log.warning("a connection was refused: its address may not send, or too many are open")
                connection.close()
                raise ConnectionRefusedError
            connection.settimeout(gate.timeout_seconds)
            if self.ssl_context:  # hands are shaken in the association's thread, not at the door
                connection = self.ssl_context.wrap_socket(
                    connection, server_side=True, do_handshake_on_connect=False
                )
            return connection, address

        def handle_error(self, request: Any, client_address: Any) -> None:
            log.warning("a connection could not be served")

    return Door


def _close(entity: Any) -> None:
    """End what is going on: an association with a word, a connection that is none yet without one."""
    for association in entity.active_associations:
        if association.is_established:
            association.abort()
        else:
            association.dul.socket._shutdown_socket()
    for server in list(entity._servers):
        server.shutdown()


def _networks(gate: Gate) -> list[Any]:
    try:
        return [ipaddress.ip_network(peer, strict=False) for peer in gate.peers]
    except ValueError as error:
        raise MedsegError(
            "a peer is neither an address nor a network", mend="write peers as 10.1.2.3 or 10.1.0.0/24"
        ) from error


def _allowed(address: str, networks: list[Any]) -> bool:
    ip = ipaddress.ip_address(address.partition("%")[0])
    plain = getattr(ip, "ipv4_mapped", None) or ip
    return any(plain in network for network in networks)


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
