"""Which files of a folder are DICOM: their headers, read many at a time, and what the rest is."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from medseg.core.errors import MedsegError
from medseg.core.progress import meter
from medseg.imaging.dicom_deflate import bounded
from medseg.imaging.dicom_header import Header, read_header, tolerant

DIRECTORY_CLASS = "1.2.840.10008.1.3.10"
MAX_INDEX_BYTES = 2**26
"""Larger DICOMDIR files are not looked into."""

_FEW, _CHUNK = 200, 50


@dataclass(frozen=True)
class Scan:
    """The headers found, in the order of the files; DICOMDIR indexes; and all other files."""

    headers: list[Header]
    indexes: list[Index]
    damaged: list[Path]
    """Files that begin as DICOM, but whose header cannot be read."""
    junk: list[Path]
    empty: int

    @property
    def looked_at(self) -> int:
        """How many files there were."""
        return len(self.headers) + len(self.indexes) + len(self.damaged) + len(self.junk)


@dataclass(frozen=True)
class Index:
    """A DICOMDIR and how many of the files it lists are not there."""

    file: Path
    missing: int


def scan(root: Path, *, quiet: bool = False) -> Scan:
    """Look at every file below a folder, by content; a DICOMDIR stands for its folder.

    Links to folders are not followed; what cannot be opened is junk.

    Raises
    ------
    MedsegError
        There is no such file or folder.
    """
    files = _files_of(root)
    made = headers_of(files, quiet=quiet)
    others = [file for file, header in zip(files, made, strict=True) if header is None]
    indexes = [file for file in others if is_index(file)]
    rest = [file for file in others if file not in set(indexes)]
    damaged = [file for file in rest if _begins_as_dicom(file)]
    return Scan(
        headers=[header for header in made if header],
        indexes=[Index(file, _missing(file, files)) for file in indexes],
        damaged=damaged,
        junk=[file for file in rest if file not in set(damaged)],
        empty=sum(_size(file) == 0 for file in rest),
    )


def headers_of(files: Sequence[Path], *, quiet: bool = True) -> list[Header | None]:
    """`read_header` of each file, in order: many files in several threads, with a bar.

    Threads, because opening files is most of the work (on a network share nearly all of it), and
    headers are costly to hand from one process to another.
    """
    if len(files) < _FEW:
        return [read_header(file) for file in files]
    with (
        tolerant(),  # sets what all threads share, so it must not be left while one still reads
        meter("reading headers", total=len(files), unit="file", quiet=quiet) as bar,
        ThreadPoolExecutor(min(8, 2 * (os.cpu_count() or 1))) as pool,
    ):
        chunks = [files[at : at + _CHUNK] for at in range(0, len(files), _CHUNK)]
        made: list[Header | None] = []
        for some in pool.map(lambda chunk: [read_header(file) for file in chunk], chunks):
            made += some
            bar.update(len(some))
        return made


def is_index(file: Path) -> bool:
    """Whether a file is a DICOMDIR, whatever its name."""
    from pydicom.filereader import read_file_meta_info

    try:
        with file.open("rb") as stream:
            stream.seek(128)
            if stream.read(4) != b"DICM":
                return False
        with tolerant():
            return str(read_file_meta_info(file).get("MediaStorageSOPClassUID", "")) == DIRECTORY_CLASS
    except Exception:  # a parser fed with damaged bytes may raise anything
        return False


def _files_of(root: Path) -> list[Path]:
    if root.is_file():
        if not is_index(root):
            return [root]
        root = root.parent
    if not root.is_dir():
        raise MedsegError(
            "there is no such folder", file=str(root), mend="give the folder that holds the series"
        )
    return sorted(_below(root))


def _below(folder: Path) -> Iterator[Path]:
    """Files, and links to files; folders that cannot be listed are passed over."""
    for parent, _, names in os.walk(folder, followlinks=False):
        for name in names:
            file = Path(parent, name)
            if _is_file(file):
                yield file


def _is_file(file: Path) -> bool:
    try:
        return file.is_file()
    except OSError:  # a link in a circle
        return False


def _begins_as_dicom(file: Path) -> bool:
    try:
        with file.open("rb") as stream:
            return stream.read(132)[128:] == b"DICM"
    except OSError:
        return False


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return -1


def _missing(index: Path, files: Sequence[Path]) -> int:
    """Files a DICOMDIR lists that are neither at their place nor beside it, whatever the case of letters."""
    here = [_parts(f.relative_to(index.parent)) for f in files if f.is_relative_to(index.parent)]
    paths, beside = set(here), {parts[0] for parts in here if len(parts) == 1}
    return sum(name not in paths and name[-1] not in beside for name in set(_listed(index)))


def _parts(path: Path) -> tuple[str, ...]:
    return tuple(part.upper() for part in path.parts)


def _listed(index: Path) -> Iterator[tuple[str, ...]]:
    from pydicom import dcmread

    if _size(index) > MAX_INDEX_BYTES:
        return
    try:
        with tolerant():
            records = dcmread(
                bounded(index), specific_tags=["DirectoryRecordSequence"]
            ).DirectoryRecordSequence
            found = [record.get("ReferencedFileID") for record in records]
    except Exception:  # a damaged index lists nothing: the files themselves are read all the same
        return
    for name in found:
        words = [name] if isinstance(name, str) else [str(word) for word in name or ()]
        if words:
            yield tuple(word.strip().upper() for word in words)
