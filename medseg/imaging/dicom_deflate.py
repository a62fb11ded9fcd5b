"""Files deflated as a whole: unfolded in a stream, never further than their header gives reason to.

Half a megabyte can unfold to half a gigabyte, and a parser that is handed the file unfolds it all, even to
read the header. Everything that opens a DICOM file of unknown origin goes through `bounded` or `whole`.
"""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

from medseg.imaging.dicom_quick import end_of_meta

DEFLATED = "1.2.840.10008.1.2.1.99"
HEADER_BYTES = 2**24
"""A header is looked for in so many bytes of an unfolded file."""
SPARE_BYTES = 2**26
"""What a file may hold beside the pixels that its header claims."""

_CHUNK = 2**16
_SYNTAX = b"1.2.840.10008.1.2.1\0"


class UnboundedError(ValueError):
    """A file that unfolds further than it may; the text names no content."""


def bounded(file: Path) -> Path | BinaryIO:
    """What a parser may be given to read the header: the file, or the beginning of it unfolded."""
    return plain_copy(file, HEADER_BYTES)[0] if is_deflated(file) else file


def whole(file: Path) -> Path | BinaryIO:
    """What a parser may be given to read all of it: the file, or an unfolded copy in memory.

    Raises
    ------
    UnboundedError
        It unfolds to more than the pixels its header claims and `SPARE_BYTES`, or breaks off.
    """
    if not is_deflated(file):
        return file
    limit = _claimed(plain_copy(file, HEADER_BYTES)[0]) + SPARE_BYTES
    copy, ended = plain_copy(file, limit)
    if not ended:
        raise UnboundedError(f"the deflated file does not end within the {limit} bytes its header allows")
    return copy


def is_deflated(file: Path) -> bool:
    """Whether everything after the file meta information is deflated."""
    from pydicom.filereader import read_file_meta_info

    with file.open("rb") as stream:
        if stream.read(2**12).find(b"DICM", 128, 132) != 128:
            return False
    return str(read_file_meta_info(file).get("TransferSyntaxUID", "")) == DEFLATED


def plain_copy(file: Path, limit: int) -> tuple[io.BytesIO, bool]:
    """The file unfolded (explicit, little endian), up to `limit` bytes; and whether that is all of it."""
    meta = struct.pack("<HH2sH", 2, 0x10, b"UI", len(_SYNTAX)) + _SYNTAX
    copy = io.BytesIO()
    copy.write(bytes(128) + b"DICM" + struct.pack("<HH2sHI", 2, 0, b"UL", 4, len(meta)) + meta)
    with file.open("rb") as stream:
        stream.seek(_start(stream))
        ended = _unfold(stream, copy, limit)
    copy.seek(0)
    return copy, ended


def _start(stream: BinaryIO) -> int:
    """Where the data set begins: after the last element of group 2."""
    return end_of_meta(stream.read(_CHUNK))


def _unfold(stream: BinaryIO, copy: io.BytesIO, limit: int) -> bool:
    engine, made = zlib.decompressobj(-zlib.MAX_WBITS), 0
    while not engine.eof:
        raw = engine.unconsumed_tail or stream.read(_CHUNK)
        if not raw:
            return False
        some = engine.decompress(raw, min(_CHUNK * 16, limit - made + 1))
        made += len(some)
        if made > limit:
            return False
        copy.write(some)
    return True


def _claimed(copy: BinaryIO) -> int:
    from pydicom import dcmread

    names = ["Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "BitsAllocated"]
    header = dcmread(copy, stop_before_pixels=True, specific_tags=names, force=True)
    rows, columns, frames, samples, bits = (int(header.get(name) or 1) for name in names)
    return max(0, rows * columns * frames * samples * bits // 8)
