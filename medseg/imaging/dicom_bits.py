"""One-bit frames in the two encapsulated forms SEG objects come in: run lengths and deflated frames."""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from pydicom import Dataset

RLE = "1.2.840.10008.1.2.5"
DEFLATED_FRAME = "1.2.840.10008.1.2.8.1"


def packed_frames(dataset: Dataset) -> NDArray[np.uint8]:
    """Frames ``[frame, row, column]`` of a one-bit image whose frames are encapsulated one by one.

    Never unfolds more than the header's frame size.

    Raises
    ------
    ValueError
        A frame that is cut off, or of another size than the header says.
    """
    from pydicom.encaps import generate_frames

    rows, columns, count = (int(dataset[k].value) for k in ("Rows", "Columns", "NumberOfFrames"))
    size = (rows * columns + 7) // 8
    unfold = _UNFOLD[str(dataset.file_meta.TransferSyntaxUID)]
    frames = [unfold(stream, size) for stream in generate_frames(dataset.PixelData, number_of_frames=count)]
    if len(frames) != count or any(len(frame) != size for frame in frames):
        raise ValueError("frames are missing or cut off")
    bits = np.unpackbits(
        np.frombuffer(b"".join(frames), np.uint8).reshape(count, size), axis=1, bitorder="little"
    )
    return np.ascontiguousarray(bits[:, : rows * columns].reshape(count, rows, columns))


def unpack_runs(stream: bytes, size: int) -> bytes:
    """PackBits, as DICOM RLE holds it in one segment: at most `size` bytes.

    >>> unpack_runs(bytes([2, 7, 8, 9, 254, 5]), 6)
    b'\\x07\\x08\\t\\x05\\x05\\x05'
    """
    out = bytearray()
    at = 0
    while at < len(stream) and len(out) < size:
        control, at = stream[at], at + 1
        if control < 128:
            out += stream[at : at + control + 1]
            at += control + 1
        elif control > 128:
            out += stream[at : at + 1] * (257 - control)
            at += 1
    return bytes(out[:size])


def _runs(stream: bytes, size: int) -> bytes:
    segments, start = struct.unpack_from("<2I", stream)
    if segments != 1:
        raise ValueError("a one-bit frame has one run-length segment")
    return unpack_runs(stream[start:], size)


def _deflated(stream: bytes, size: int) -> bytes:
    return zlib.decompressobj(-zlib.MAX_WBITS).decompress(stream, size)


_UNFOLD = {RLE: _runs, DEFLATED_FRAME: _deflated}
