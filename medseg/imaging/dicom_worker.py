"""The fenced process in which compressed frames are decoded: ``python -m medseg.imaging.dicom_worker``.

Reads one JSON job from stdin (``files``, ``out``, ``memory_bytes``), writes ``out/<number>.npy`` per
file, and ends with 1 and one line on stdout at the first file that cannot be decoded.
"""

from __future__ import annotations

import json
import struct
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medseg.imaging.dicom_deflate import UnboundedError

if TYPE_CHECKING:
    from pydicom import Dataset


def main() -> int:
    """Carry out the job on stdin; 0 when every file was decoded."""
    job = json.load(sys.stdin)
    _fence(int(job["memory_bytes"]))
    for number, file in enumerate(job["files"]):
        try:
            array = _decoded(file)
        except BaseException as error:  # decoders in Rust raise panics that are no Exception
            print(_said(error, file), flush=True)
            return 1
        beside = Path(job["out"]) / f".{number}.npy"
        np.save(beside, array, allow_pickle=False)
        beside.rename(beside.with_name(f"{number}.npy"))
    return 0


def _said(error: BaseException, file: str) -> str:
    """Our own words as they are; of foreign errors the type alone, with the name of the syntax."""
    if isinstance(error, SizeMismatchError | UnboundedError):
        return str(error)
    try:
        from pydicom.filereader import read_file_meta_info

        uid = read_file_meta_info(file).TransferSyntaxUID
        return type(error).__name__ + (f" in {uid.name}" if uid.name != uid else "")
    except Exception:  # the file may be damaged there, too
        return type(error).__name__


_NATIVE = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2")


class SizeMismatchError(ValueError):
    """The stream says another size than the header."""


def stream_size(stream: bytes) -> tuple[int, int] | None:
    """(rows, columns) a JPEG, JPEG-LS or JPEG 2000 stream says of itself, or None when it says nothing.

    >>> stream_size(bytes.fromhex("ffd8ffc3000b10000400050101110000"))
    (4, 5)
    """
    if stream[:4] == b"\xff\x4f\xff\x51":
        width, height, left, top = struct.unpack_from(">4I", stream, 8)
        return height - top, width - left
    if stream[:2] != b"\xff\xd8":
        return None
    return _jpeg_size(stream)


def _jpeg_size(stream: bytes) -> tuple[int, int] | None:
    at = 2
    while at + 9 <= len(stream) and stream[at] == 0xFF:
        marker = stream[at + 1]
        start_of_frame = 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)
        if start_of_frame or marker == 0xF7:
            rows, columns = struct.unpack_from(">2H", stream, at + 5)
            return rows, columns
        at += 2 + struct.unpack_from(">H", stream, at + 2)[0]
    return None


def _decoded(file: str) -> np.ndarray:
    from medseg.imaging.dicom_pixels import decoded, opened

    dataset = opened(file)
    _refuse_other_size(dataset)
    return decoded(dataset)


def _refuse_other_size(dataset: Dataset) -> None:
    from pydicom.encaps import generate_frames

    if dataset.file_meta.TransferSyntaxUID in _NATIVE:  # it was deflated as a whole
        return
    claimed = (int(dataset.Rows), int(dataset.Columns))
    frames = int(dataset.get("NumberOfFrames", 1) or 1)
    for stream in generate_frames(dataset.PixelData, number_of_frames=frames):
        size = stream_size(stream[:65536])
        if size is not None and size != claimed:
            raise SizeMismatchError(
                f"the stream holds {size[0]} x {size[1]}, the header {claimed[0]} x {claimed[1]}"
            )


def _fence(memory_bytes: int) -> None:
    try:
        import resource
    except ImportError:  # Windows: the time limit alone holds
        return
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = memory_bytes if hard == resource.RLIM_INFINITY else min(memory_bytes, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    sys.exit(main())
