"""What must survive a ``kill -9``: files that come to stay, and receipts of what has been done with them."""

from __future__ import annotations

import filecmp
import json
import os
from pathlib import Path
from typing import Any

from medseg.core.files import sync


def settle(file: Path, final: Path) -> bool:
    """Move a finished file to its lasting place (same disk), flushed, so that not even a power cut loses it.

    Returns
    -------
    bool
        Whether it brought anything new; False when the same bytes lay there (`file` is gone then).
    """
    if final.is_file() and filecmp.cmp(file, final, shallow=False):
        file.unlink()
        return False
    sync(file)
    make_folder(final.parent)
    file.replace(final)
    sync(final.parent)
    return True


def make_folder(folder: Path) -> None:
    """Make a folder and its parents, each flushed into the one above."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync(folder.parent)


def add_receipt(file: Path, key: str, **about: Any) -> None:
    """Write down, flushed, that something was done: one line of JSON, which is whole or not counted."""
    line = json.dumps({"key": key, **about}, sort_keys=True)
    new = not file.exists()
    file.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(handle, f"\n{line}\n".encode())  # the first break ends a line that was cut off
        os.fsync(handle)
    finally:
        os.close(handle)
    if new:
        sync(file.parent)


def receipts(file: Path) -> dict[str, dict[str, Any]]:
    """What was written down, by key, the last word counting; empty when there is no such file."""
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return {}
    found = (_record(line) for line in lines)
    return {record.pop("key"): record for record in found if record}


def _record(line: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError:
        return {}
    return record if isinstance(record, dict) and "key" in record else {}
