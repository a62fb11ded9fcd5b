"""Stored pixel values out of DICOM files; foreign decoders run only in a fenced process of their own."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medseg.core.errors import CaseError
from medseg.imaging.dicom_bits import DEFLATED_FRAME, RLE, packed_frames
from medseg.imaging.dicom_deflate import whole
from medseg.imaging.dicom_fence import decoded_apart
from medseg.imaging.dicom_header import tolerant
from medseg.imaging.dicom_quick import EXPLICIT, IMPLICIT, glance, wanted

if TYPE_CHECKING:
    from pydicom import Dataset


def stored_values(files: Sequence[Path], compressed: bool, claimed_bytes: int) -> list[NDArray[Any]]:
    """`stored_one_by_one`, all at once."""
    return list(stored_one_by_one(files, compressed, claimed_bytes))


def stored_one_by_one(files: Sequence[Path], compressed: bool, claimed_bytes: int) -> Iterator[NDArray[Any]]:
    """Stored values of each file, ``[frame, row, column]`` (colour: ``[frame, row, column, sample]``).

    Parameters
    ----------
    compressed : bool
        True sends the files to processes with limited memory and time: decoders of compressed images
        are foreign code that damaged or hostile streams can crash or blow up.
    claimed_bytes : int
        Decoded size of one file by its header; sets the limits.

    Raises
    ------
    CaseError
        A file that is cut off, or whose stream cannot be decoded within the limits.
    """
    return decoded_apart([str(f) for f in files], claimed_bytes) if compressed else map(_native, files)


def picture_digest(file: Path) -> str:
    """sha256 of the pixel data as stored, to tell copies from different images."""
    from pydicom import dcmread

    header = glance(file, _asked())
    if header is not None and header.pixels is not None and header.syntax in (IMPLICIT, EXPLICIT):
        start, length = header.pixels
        with file.open("rb", buffering=0) as stream:
            stream.seek(start)
            return hashlib.sha256(stream.read(min(length, file.stat().st_size))).hexdigest()
    with tolerant():
        dataset = dcmread(whole(file), specific_tags=["PixelData"], force=True)
        return hashlib.sha256(bytes(dataset.get("PixelData") or b"")).hexdigest()


def decode(file: str) -> NDArray[Any]:
    """Decode one file in this process; bits that are not of the value are dropped, signs extended."""
    return decoded(opened(file))


def opened(file: str) -> Dataset:
    """The whole file, as it is, with a transfer syntax."""
    from pydicom import dcmread

    with tolerant():
        dataset = dcmread(whole(Path(file)), force=True)
        _name_syntax(dataset)
        return dataset


def decoded(dataset: Dataset) -> NDArray[Any]:
    """Stored values ``[frame, row, column]`` (colour: a fourth axis) of an opened file.

    Raises
    ------
    ValueError
        Stored bits beyond the allocated ones; and whatever parser and decoder raise on damaged data.
    """
    with tolerant():
        stored = int(dataset.get("BitsStored", 0) or 0)
        high = int(dataset.get("HighBit", stored - 1))
        if stored == 1 and dataset.file_meta.TransferSyntaxUID in (RLE, DEFLATED_FRAME):
            return packed_frames(dataset)
        _choose_decoder(dataset)
        array = np.asarray(dataset.pixel_array)
        if array.ndim - (int(dataset.get("SamplesPerPixel", 1)) > 1) == 2:
            array = array[None]
        if high != stored - 1 and dataset.file_meta.TransferSyntaxUID.is_compressed:
            raise ValueError("the stored bits of a compressed image do not begin at bit 0")
        return _within_bits(array, stored, high)


# the faster ones, and those that refuse damaged streams; GDCM decodes the old JPEG, which they do not
_DECODERS = {
    "1.2.840.10008.1.2.5": "pylibjpeg",
    "1.2.840.10008.1.2.4.80": "pyjpegls",
    "1.2.840.10008.1.2.4.81": "pyjpegls",
    "1.2.840.10008.1.2.4.90": "pylibjpeg",
    "1.2.840.10008.1.2.4.91": "pylibjpeg",
}


def _choose_decoder(dataset: Dataset) -> None:
    from pydicom.pixels.decoders.base import get_decoder

    syntax = dataset.file_meta.TransferSyntaxUID
    options: dict[str, Any] = {"correct_unused_bits": False}  # it takes them to lie above the value
    wish = _DECODERS.get(syntax)
    if wish and wish in get_decoder(syntax).available_plugins:
        options["decoding_plugin"] = wish
    dataset.pixel_array_options(**options)


def _name_syntax(dataset: Dataset) -> None:
    """Files without file meta information: the parser found out how they are written."""
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    if "TransferSyntaxUID" in dataset.file_meta:
        return
    implicit, little = dataset.original_encoding
    explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit


def _within_bits(array: NDArray[Any], stored: int, high: int) -> NDArray[Any]:
    """The value alone: what lies above its high bit and below its lowest is not part of it (old overlays)."""
    bits = array.dtype.itemsize * 8
    if array.dtype.kind not in "iu" or stored < 2 or stored == bits:
        return array
    if not stored - 1 <= high < bits:
        raise ValueError("the stored bits do not fit the allocated ones")
    return (array << (bits - 1 - high)) >> (bits - stored)


def _native(file: Path) -> NDArray[Any]:
    try:
        plain = _plain(file)
        return decode(str(file)) if plain is None else plain
    except Exception as error:  # a parser fed with damaged bytes may raise anything
        raise CaseError(
            "the pixel data of an image cannot be read",
            file=str(file),
            evidence=f"{type(error).__name__}; {file.stat().st_size if file.exists() else 0} bytes on disk",
            mend="copy or export the file again: it is damaged or cut off",
        ) from error


def _plain(file: Path) -> NDArray[Any] | None:
    """Grey values of a little-endian file straight from their place in it; None when it is not so simple."""
    header = glance(file, _asked())
    if header is None or header.pixels is None or header.syntax not in (IMPLICIT, EXPLICIT):
        return None
    frames, rows, columns, samples, bits, stored, high, signed = (
        header.get(keyword, default) for keyword, default in _LAYOUT.items()
    )
    start, length = header.pixels
    size = frames * rows * columns * (bits // 8)
    whole = samples == 1 and bits in (8, 16, 32) and 1 < stored <= high + 1 <= bits
    if not whole or size <= 0 or not size <= length <= file.stat().st_size - start:
        return None
    array = np.fromfile(file, f"<{'i' if signed else 'u'}{bits // 8}", size // (bits // 8), offset=start)
    return _within_bits(array.reshape(frames, rows, columns), stored, high)


_LAYOUT: dict[str, int] = {
    "NumberOfFrames": 1,
    "Rows": 0,
    "Columns": 0,
    "SamplesPerPixel": 1,
    "BitsAllocated": 0,
    "BitsStored": 0,
    "HighBit": 0,
    "PixelRepresentation": 0,
}


@cache
def _asked() -> dict[int, str]:
    return wanted(_LAYOUT)
