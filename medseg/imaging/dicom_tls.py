"""Encrypted connections: certificates to contexts, for the end that calls and the end that answers."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager

from medseg.core.errors import MedsegError
from medseg.core.values import Value


class Tls(Value):
    """Encryption of a connection, and how the two ends prove who they are: paths of PEM files."""

    ca: str = ""
    """Who vouches for the other end; empty: the authorities this system trusts."""
    certificate: str = ""
    """Our own certificate (a server needs one; a client where the other end asks for it)."""
    key: str = ""
    check_host: bool = True
    """As client: the certificate must name the host that was called."""


def client_context(tls: Tls) -> ssl.SSLContext:
    """What a client needs for TLS 1.2 or newer.

    Raises
    ------
    MedsegError
        A file is missing or is no certificate.
    """
    with _certificates():
        context = ssl.create_default_context(cafile=tls.ca or None)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.check_hostname = tls.check_host
        if tls.certificate:
            context.load_cert_chain(tls.certificate, tls.key or None)
    return context


def server_context(tls: Tls) -> ssl.SSLContext:
    """What a server needs for TLS 1.2 or newer; with `ca`, clients must show a certificate it vouches for.

    Raises
    ------
    MedsegError
        There is no certificate, or a file is none.
    """
    if not tls.certificate:
        raise MedsegError(
            "a server cannot speak TLS without a certificate", mend="add tls.certificate, tls.key"
        )
    with _certificates():
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(tls.certificate, tls.key or None)
        if tls.ca:
            context.load_verify_locations(tls.ca)
            context.verify_mode = ssl.CERT_REQUIRED
    return context


@contextmanager
def _certificates() -> Iterator[None]:
    try:
        yield
    except OSError as error:  # ssl.SSLError is one
        raise MedsegError(
            "a certificate or key cannot be read", evidence=type(error).__name__,
            mend="give PEM files in tls.ca, tls.certificate and tls.key",
        ) from error  # fmt: skip
