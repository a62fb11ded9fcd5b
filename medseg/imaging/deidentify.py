"""Pseudonyms: who a scan belongs to, said by a keyed hash that nobody without the key can undo."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from datetime import date
from pathlib import Path

from medseg.core.errors import MedsegError

KEY_VARIABLE = "MEDSEG_KEY"


def keyed_hash(text: str, key: bytes, length: int = 10) -> str:
    """The first `length` hexadecimal digits of HMAC-SHA256 of `text` under `key`.

    The same text and key give the same pseudonym on every machine; without the key a list of
    patient numbers cannot be tried against it.

    >>> keyed_hash("4711", b"secret")
    'f53b722881'
    """
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()[:length]


def shifted_day(day: date, patient: str, key: bytes) -> int:
    """A date as days since 1970-01-01, moved back by 0 to 365 days that only the key and the patient decide.

    Intervals between the dates of one patient stay exact; without the key neither the date nor what
    patients have to do with each other in time can be told to better than a year.

    >>> first, second = (shifted_day(date(2024, 3, n), "patient", b"secret") for n in (1, 31))
    >>> second - first
    30
    """
    offset = int.from_bytes(hmac.digest(key, f"dates|{patient}".encode(), "sha256")) % 366
    return (day - date(1970, 1, 1)).days - offset


def project_key() -> bytes:
    """The secret under which pseudonyms are made.

    Taken from the environment variable ``MEDSEG_KEY``, else from ``~/.config/medseg/key``, which is
    made on first use and readable by its owner alone (mode 0600).

    Raises
    ------
    MedsegError
        The key is empty, or its file can neither be read nor made.
    """
    text = os.environ.get(KEY_VARIABLE)
    if text is None:
        text = _from_file(Path.home() / ".config" / "medseg" / "key")
    if not text.strip():
        raise MedsegError(
            "the key for pseudonyms is empty",
            mend=f"set {KEY_VARIABLE} to a long random text, or delete the empty key file",
        )
    return text.strip().encode()


def _from_file(file: Path) -> str:
    try:
        if not file.exists():
            _make(file)
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise MedsegError(
            "the key for pseudonyms can neither be read nor made",
            file=str(file),
            evidence=type(error).__name__,
            mend=f"set the environment variable {KEY_VARIABLE} to a long random text",
        ) from error


def _make(file: Path) -> None:
    """Write a new key; of two processes that try at once the first wins, and both read its key."""
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    beside = file.with_name(f".key.{os.getpid()}")
    handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w") as stream:
        stream.write(secrets.token_hex(32) + "\n")
    try:
        file.hardlink_to(beside)
    except FileExistsError:
        pass
    finally:
        beside.unlink()
