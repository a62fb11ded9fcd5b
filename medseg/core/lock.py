"""One writer a run folder: a lock that dies with its owner."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path

from medseg.core.errors import MedsegError

_held: dict[Path, int] = {}
"""Folders this process holds: asking twice from one process (a notebook cell) is not a conflict."""


def lock_folder(folder: Path) -> None:
    """Hold `folder` for this process until it ends (even by ``kill -9``).

    Raises
    ------
    MedsegError
        The folder cannot be written, or another process holds it.
    """
    folder = folder.resolve()
    if _held.get(folder) is not None:
        return
    handle = _open(folder)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        owner = os.read(handle, 200).decode(errors="replace").strip()
        os.close(handle)
        raise MedsegError(
            "another process is writing to this run folder",
            file=str(folder),
            evidence=f"owner {owner or 'unknown'}",
            mend="wait for it to end, stop it, or give another folder with --run",
        ) from error
    os.ftruncate(handle, 0)
    os.write(handle, json.dumps({"pid": os.getpid()}).encode())
    _held[folder] = handle


def release_folder(folder: Path) -> None:
    """Let go of `folder`; nothing happens when it is not held."""
    handle = _held.pop(folder.resolve(), None)
    if handle is not None:
        os.close(handle)


def _open(folder: Path) -> int:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise MedsegError(
            "the run folder cannot be written",
            file=str(folder),
            evidence=error.strerror,
            mend="give a folder you may write to with --run",
        ) from error
