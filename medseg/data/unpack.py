"""Unpacking an archive that nobody vouches for: files and folders only, inside, and not without bound."""

from __future__ import annotations

import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from medseg.core.errors import MedsegError
from medseg.core.progress import progress

MAX_ENTRIES = 200_000
MAX_GROWTH = 20
"""Unpacked bytes per byte of the archive; the images inside are compressed already."""
SLACK_BYTES = 2**30
"""Small archives may grow by this much all the same."""


def unpack(archive: Path, folder: Path, *, quiet: bool = False) -> None:
    """Unpack a tar archive into `folder`, which is made.

    Names that lead outside, links, devices, and archives that grow beyond bound are refused before
    anything of theirs is written. macOS companion files (``._name``) are left out.

    Raises
    ------
    MedsegError
        A damaged or hostile archive.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with tarfile.open(archive, "r:*") as tar:
            members = list(_checked(tar, archive.stat().st_size))
            for member in progress(members, "unpack", unit="file", quiet=quiet):
                _write(tar, member, folder)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise MedsegError(
            "the archive cannot be unpacked",
            evidence=f"{type(error).__name__}: {error}",
            mend="fetch it again",
        ) from error


def _checked(tar: tarfile.TarFile, size: int) -> Iterator[tarfile.TarInfo]:
    """Members to write, every one looked at before the first is written."""
    room = MAX_GROWTH * size + SLACK_BYTES
    for number, member in enumerate(tar):
        room -= member.size
        fault = _fault(member, number, room)
        if fault:
            raise MedsegError(
                f"the archive is not safe to unpack: {fault}",
                evidence=f"entry {number}: {member.name[:80]!r}",
                mend="do not use it; fetch it from its publisher",
            )
        if member.isreg() and not PurePosixPath(member.name).name.startswith("._"):
            yield member


def _fault(member: tarfile.TarInfo, number: int, room: int) -> str | None:
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts or "\\" in member.name or "\0" in member.name:
        return "a name that leads out of its folder"
    if not (member.isreg() or member.isdir()):
        return "a link or a device"
    if number >= MAX_ENTRIES:
        return f"more than {MAX_ENTRIES} entries"
    return "it grows beyond bound" if room < 0 else None


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> None:
    file = folder / PurePosixPath(member.name)
    file.parent.mkdir(parents=True, exist_ok=True)
    stream = tar.extractfile(member)
    if stream is None:
        return
    with stream, file.open("wb") as out:
        shutil.copyfileobj(stream, out, 2**20)
