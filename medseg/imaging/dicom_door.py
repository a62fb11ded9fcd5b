"""The door of a receiving end: who may come in, and a server that looks at addresses first."""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Sequence
from typing import Any

from pydantic import Field

from medseg.core.errors import MedsegError
from medseg.core.values import Value
from medseg.imaging.dicom_header import DEFLATED
from medseg.imaging.dicom_net import pynetdicom
from medseg.imaging.dicom_tls import Tls, server_context

log = logging.getLogger("medseg")


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


def open_door(gate: Gate, handlers: Sequence[Any]) -> Any:
    """A server that is bound to its port (pynetdicom's, yet to be set going).

    Raises
    ------
    MedsegError
        The port is taken, or a certificate cannot be read.
    """
    entity = _entity(pynetdicom(), gate)
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


def close_door(server: Any) -> None:
    """End what is going on: an association with a word, a connection that is none yet without one."""
    for association in server.ae.active_associations:
        if association.is_established:
            association.abort()
        else:
            association.dul.socket._shutdown_socket()
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
