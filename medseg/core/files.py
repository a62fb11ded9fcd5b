"""Writing so that nothing is ever half there: beside, fsync, rename."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PARTIAL = ".partial"
"""Ending of the name of a folder that is not finished yet."""


@contextmanager
def written_whole(file: Path) -> Iterator[Path]:
    """Give a path beside `file` to write to; on success it takes the name, on failure it goes.

    The suffixes are kept (``.nii.gz``), because writers choose their format by them. Inside a partial
    folder nothing is flushed here: the folder is flushed as a whole when it takes its own name.
    """
    unfinished = any(part.endswith(PARTIAL) for part in file.parent.parts)
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_name(f".{os.getpid()}.tmp.{file.name}")
    try:
        yield beside
        if not unfinished:
            sync(beside)
        beside.replace(file)
        if not unfinished:
            sync(file.parent)
    finally:
        beside.unlink(missing_ok=True)


def write_text(file: Path, text: str) -> None:
    """Write UTF-8 text whole or not at all."""
    with written_whole(file) as beside:
        beside.write_text(text, encoding="utf-8")


def holds(file: Path, text: str) -> bool:
    """Whether `file` is there and its content is `text`: then it need not be written again."""
    try:
        return file.read_text(encoding="utf-8") == text
    except (OSError, UnicodeDecodeError):
        return False


def json_text(content: Any) -> str:
    """Readable JSON: sorted keys, two spaces, no NaN."""
    return json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n"


def write_json(file: Path, content: Any) -> None:
    """Write `json_text` whole or not at all."""
    write_text(file, json_text(content))


def read_json(file: Path) -> Any:
    """Read a UTF-8 JSON file."""
    return json.loads(file.read_text(encoding="utf-8"))


def sync(path: Path) -> None:
    """Flush a file or a directory to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256_of(file: Path) -> str:
    """sha256 (hex) of a file's bytes."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def files_below(folder: Path) -> list[Path]:
    """All regular files under `folder`, sorted by relative path."""
    return sorted(p for p in folder.rglob("*") if p.is_file() and not p.is_symlink())


def replace_folder(made: Path, final: Path) -> None:
    """Put the folder `made` in the place of `final`, with no moment of a mixture."""
    for path in (*files_below(made), made):
        sync(path)
    old = final.with_name(f".{final.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if final.exists():
        final.replace(old)
    made.replace(final)
    sync(final.parent)
    shutil.rmtree(old, ignore_errors=True)
