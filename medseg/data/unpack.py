"""Unpacking an archive that nobody vouches for: files and folders only, inside, and not without bound."""

from __future__ import annotations

import shutil
import stat
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from medseg.core.errors import MedsegError
from medseg.core.progress import progress

MAX_ENTRIES = 200_000
MAX_GROWTH = 20
"""Unpacked bytes per byte of the archive; the images inside are compressed already."""
SLACK_BYTES = 2**30
"""Small archives may grow by this much all the same."""
SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz")

_kept: list[tempfile.TemporaryDirectory[str]] = []
"""Folders that unpacked archives lie in until the process ends."""


@dataclass(frozen=True)
class _Entry:
    """One member of an archive, whatever its kind."""

    name: str
    size: int
    is_file: bool
    is_folder: bool
    open: Callable[[], IO[bytes] | None]


def is_archive(path: Path) -> bool:
    """Whether the name is that of an archive that `unpack` takes."""
    return path.is_file() and path.name.lower().endswith(SUFFIXES)


def unpacked_for_now(archive: Path, *, quiet: bool = False) -> Path:
    """Unpack into a folder of its own that is removed when the process ends."""
    folder = tempfile.TemporaryDirectory(prefix="medseg-")
    _kept.append(folder)
    unpack(archive, Path(folder.name), quiet=quiet)
    return Path(folder.name)


def unpack(archive: Path, folder: Path, *, quiet: bool = False) -> None:
    """Unpack a zip or tar archive into `folder`, which is made.

    Names that lead outside, links, devices, and archives that grow beyond bound are refused before
    anything of theirs is written. macOS companion files (``._name``) are left out.

    Raises
    ------
    MedsegError
        A damaged or hostile archive.
    """
    folder.mkdir(parents=True, exist_ok=True)
    opened = _zip_entries if zipfile.is_zipfile(archive) else _tar_entries
    try:
        with opened(archive) as entries:
            for entry in progress(
                list(_checked(entries, archive.stat().st_size)), "unpack", unit="file", quiet=quiet
            ):
                _write(entry, folder)
    except (
        tarfile.TarError,
        zipfile.BadZipFile,
        EOFError,
        OSError,
        RuntimeError,
        NotImplementedError,
    ) as error:
        raise MedsegError(
            "the archive cannot be unpacked",
            file=str(archive),
            evidence=type(error).__name__,
            mend="fetch or copy it again; take a password off it",
        ) from error


@contextmanager
def _tar_entries(archive: Path) -> Iterator[Iterator[_Entry]]:
    with tarfile.open(archive, "r:*") as tar:
        yield (
            _Entry(m.name, m.size, m.isreg(), m.isdir(), lambda m=m: tar.extractfile(m))  # type: ignore[misc]
            for m in tar
        )


@contextmanager
def _zip_entries(archive: Path) -> Iterator[Iterator[_Entry]]:
    with zipfile.ZipFile(archive) as packed:
        yield (
            _Entry(
                i.filename, i.file_size, _plain(i) and not i.is_dir(), i.is_dir(), lambda i=i: packed.open(i)
            )  # type: ignore[misc]
            for i in packed.infolist()
        )


def _plain(info: zipfile.ZipInfo) -> bool:
    """Neither a link nor a device: the mode of an entry made on Unix stands in its upper bits."""
    kind = stat.S_IFMT(info.external_attr >> 16)
    return kind in (0, stat.S_IFREG, stat.S_IFDIR)


def _checked(entries: Iterator[_Entry], size: int) -> Iterator[_Entry]:
    """Entries to write, every one looked at before the first is written."""
    room = MAX_GROWTH * size + SLACK_BYTES
    for number, entry in enumerate(entries):
        room -= entry.size
        fault = _fault(entry, number, room)
        if fault:
            raise MedsegError(
                f"the archive is not safe to unpack: {fault}",
                evidence=f"entry {number}",
                mend="do not use it; fetch it from its publisher",
            )
        if entry.is_file and not PurePosixPath(entry.name).name.startswith("._"):
            yield entry


def _fault(entry: _Entry, number: int, room: int) -> str | None:
    path = PurePosixPath(entry.name)
    if path.is_absolute() or ".." in path.parts or "\\" in entry.name or "\0" in entry.name:
        return "a name that leads out of its folder"
    if not (entry.is_file or entry.is_folder):
        return "a link or a device"
    if number >= MAX_ENTRIES:
        return f"more than {MAX_ENTRIES} entries"
    return "it grows beyond bound" if room < 0 else None


def _write(entry: _Entry, folder: Path) -> None:
    file = folder / PurePosixPath(entry.name)
    file.parent.mkdir(parents=True, exist_ok=True)
    stream = entry.open()
    if stream is None:
        return
    with stream, file.open("wb") as out:
        shutil.copyfileobj(stream, out, 2**20)
