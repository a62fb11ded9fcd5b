"""Associations with an archive (PACS): who it is, a connection that is let go again, and what it answered.

pynetdicom and dicomweb-client come with the extra ``medseg[pacs]``. Both like to log what they send, and that
holds patients: `silently` keeps them, and what they stand on, from speaking.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from pydantic import Field

from medseg.core.errors import MedsegError
from medseg.core.values import Value
from medseg.imaging.dicom_tls import Tls, client_context

T = TypeVar("T")
AE_TITLE = r"^[!-\[\]-~][ -\[\]-~]{0,15}$"
SUCCESS = 0x0000
_TALKERS = ("pynetdicom", "dicomweb_client", "urllib3")


class Web(Value):
    """A DICOMweb service."""

    url: str = Field(default="", pattern=r"^(https?://.+)?$")
    token_variable: str = ""
    """Environment variable that holds the token; a value with a blank (``Basic ...``) is sent as it is."""
    tls: Tls | None = None


class Peer(Value):
    """An archive: where it is, its name and ours."""

    host: str = ""
    port: int = Field(default=104, ge=1, le=65535)
    called_ae: str = Field(default="ANY-SCP", pattern=AE_TITLE)
    """The archive's AE title."""
    ae_title: str = Field(default="MEDSEG", pattern=AE_TITLE)
    """Ours."""
    tls: Tls | None = None
    web: Web = Web()
    timeout_seconds: float = Field(default=60.0, gt=0)
    """Silence after which a connection counts as dead."""
    tries: int = Field(default=3, ge=1)
    """How often a connection that fails is tried, with growing pauses."""

    def addresses(self) -> tuple[str, ...]:
        """The addresses of the host.

        Raises
        ------
        UnreachableError
            Nobody knows the host.
        """
        try:
            found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise _unknown_host(error) from error
        return tuple(sorted({str(entry[4][0]) for entry in found}))


class UnreachableError(MedsegError):
    """The other end does not answer, refuses the association, or fell silent: worth another try."""


def pynetdicom() -> Any:
    """The package pynetdicom, set to keep objects on disk while they arrive and to log no identifiers.

    Raises
    ------
    MedsegError
        It is not installed.
    """
    try:
        import pynetdicom as package
        from pynetdicom import _config
    except ImportError as error:
        raise lacking("pynetdicom") from error
    _config.LOG_HANDLER_LEVEL = "none"
    _config.LOG_REQUEST_IDENTIFIERS = _config.LOG_RESPONSE_IDENTIFIERS = False
    _config.STORE_RECV_CHUNKED_DATASET = _config.STORE_SEND_CHUNKED_DATASET = True
    return package


def lacking(package: str) -> MedsegError:
    """The error for a package of the extra that is not installed."""
    return MedsegError(
        f"talking to an archive needs {package}, which is not installed", mend="pip install 'medseg[pacs]'"
    )


@contextmanager
def silently() -> Iterator[None]:
    """Within, the network libraries log nothing: their messages hold identifiers."""
    loggers = [logging.getLogger(name) for name in _TALKERS]
    before = [(logger.propagate, list(logger.handlers)) for logger in loggers]
    for logger in loggers:
        logger.propagate, logger.handlers = False, [logging.NullHandler()]
    try:
        yield
    finally:
        for logger, (propagate, handlers) in zip(loggers, before, strict=True):
            logger.propagate, logger.handlers = propagate, handlers


@contextmanager
def association(
    peer: Peer, contexts: Sequence[Any], *, roles: Sequence[Any] = (), handlers: Sequence[Any] = ()
) -> Iterator[Any]:
    """An association with `peer` that is released at the end, also when the work in it fails.

    Parameters
    ----------
    contexts : sequence
        Presentation contexts to propose (pynetdicom's), at most 128.
    roles : sequence
        Role selections (C-GET).
    handlers : sequence
        ``(event, function)`` or ``(event, function, arguments)``.

    Raises
    ------
    UnreachableError
        No connection, or the association was refused.
    """
    entity = _entity(peer, pynetdicom())
    made = _associate(entity, peer, contexts, roles, handlers)
    if not made.is_established:
        raise UnreachableError(
            "there is no association with the archive",
            evidence=_why_not(made),
            mend="check host, port, both AE titles and TLS: medseg pacs echo",
        )
    try:
        yield made
    finally:
        if getattr(made, "brought_too_much", False):  # cut off by us: there is nothing to wait for
            made.dul.socket._shutdown_socket()
            made.kill()
        elif made.is_established:
            made.release()


def _entity(peer: Peer, package: Any) -> Any:
    if not peer.host:
        raise MedsegError("the settings do not say where the archive is", mend="add pacs.host=NAME")
    entity = package.AE(ae_title=peer.ae_title)
    entity.acse_timeout = entity.connection_timeout = min(peer.timeout_seconds, 30.0)
    entity.dimse_timeout = entity.network_timeout = peer.timeout_seconds
    plain = entity._create_socket
    entity._create_socket = lambda *given: shut_properly(plain(*given))
    return entity


def _associate(entity: Any, peer: Peer, contexts: Sequence[Any], roles: Any, handlers: Any) -> Any:
    from pynetdicom import evt

    try:
        return entity.associate(
            peer.host,
            peer.port,
            contexts=list(contexts),
            ae_title=peer.called_ae,
            max_pdu=131072,
            ext_neg=list(roles),
            evt_handlers=[(evt.EVT_CONN_OPEN, at_once), *handlers],
            tls_args=(client_context(peer.tls), peer.host) if peer.tls else None,
        )
    except OSError as error:
        raise _unknown_host(error) from error


def _unknown_host(error: OSError) -> UnreachableError:
    return UnreachableError(
        "the archive's host is not known here", evidence=type(error).__name__, mend="check pacs.host"
    )


def shut_properly(connection: Any) -> Any:
    """Have a connection closed also when the other end was gone first; pynetdicom leaves it open then."""

    def shut() -> None:
        open_socket = connection.socket
        with suppress(OSError, AttributeError):
            open_socket.shutdown(socket.SHUT_RDWR)
        with suppress(OSError, AttributeError):
            open_socket.close()

    connection._shutdown_socket = shut
    return connection


def at_once(event: Any) -> None:
    """Handler of an opened connection: small packets are not held back (0.04 s for each object otherwise)."""
    event.assoc.was_connected = True
    event.assoc.dul.socket.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _why_not(made: Any) -> str:
    if made.is_rejected:
        answer = made.acceptor.primitive
        return f"refused: {getattr(answer, 'reason_str', '') or 'no reason given'}"
    return "cut off by the other end" if getattr(made, "was_connected", False) else "no connection"


def persistently(work: Callable[[], T], tries: int, *, first_pause_s: float = 1.0) -> T:
    """The result of `work`, tried again after growing pauses when the other end cannot be reached."""
    for pause in (first_pause_s * 2**n for n in range(tries - 1)):
        try:
            return work()
        except UnreachableError:
            time.sleep(min(pause, 30.0))
    return work()


def echo(peer: Peer) -> float:
    """Seconds a C-ECHO took, connection included.

    Raises
    ------
    UnreachableError
        There is no association, or no answer.
    """
    package = pynetdicom()
    start = time.perf_counter()
    with association(peer, [package.build_context("1.2.840.10008.1.1")]) as made:
        status = made.send_c_echo()
    if status.get("Status") != SUCCESS:
        raise UnreachableError("the archive did not answer the echo", evidence=named(status.get("Status")))
    return time.perf_counter() - start


def named(status: int | None) -> str:
    """A DIMSE status as text: its number and kind.

    >>> named(0xA700)
    '0xA700 (out of resources)'
    """
    if status is None:
        return "no answer"
    said = next((text for low, high, text in _STATUSES if low <= status <= high), "failure")
    return f"0x{status:04X} ({said})"


_STATUSES = (
    (0x0000, 0x0000, "success"),
    (0x0122, 0x0122, "class of object not supported"),
    (0x0124, 0x0124, "not allowed"),
    (0xA700, 0xA7FF, "out of resources"),
    (0xA801, 0xA801, "move destination unknown"),
    (0xA900, 0xA9FF, "object does not match its class"),
    (0xB000, 0xBFFF, "warning"),
    (0xC000, 0xCFFF, "not understood"),
    (0xFE00, 0xFE00, "cancelled"),
    (0xFF00, 0xFF01, "pending"),
)
