"""Siemens mosaics: many slices tiled into one picture; where each tile lies in the patient.

How many tiles there are, and on which side the next slice lies, stands only in the scanner's private header
(CSA). Without it a mosaic may come out mirrored, so it is refused then.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from pydicom import Dataset

    from medseg.imaging.dicom_header import Plane

MAX_TILES = 1024
_BLOCKS = range(0x10, 0x20)
PRIVATE_TAGS = [
    *((group << 16) | block for group in (0x0019, 0x0029) for block in _BLOCKS),
    *((0x0029 << 16) | (block << 8) | 0x10 for block in _BLOCKS),
    *((0x0019 << 16) | (block << 8) | 0x0A for block in _BLOCKS),
]
"""What a header must be asked for, beside its public elements, to place the tiles of a mosaic."""


class MosaicError(ValueError):
    """Why a mosaic cannot be taken apart; holds no text from the file."""


def is_mosaic(image_type: tuple[str, ...]) -> bool:
    """Whether ImageType says that slices are tiled into one picture."""
    return any(word.upper() == "MOSAIC" for word in image_type)


def tiles_of(whole: Plane, dataset: Dataset) -> tuple[Plane, ...]:
    """The slices of a mosaic as planes of their own: `frame` is the number of the tile.

    Parameters
    ----------
    whole : Plane
        The tiled picture as its public header describes it.
    dataset : Dataset
        With `PRIVATE_TAGS` read.

    Notes
    -----
    ImagePositionPatient is that of a picture as large as the mosaic around the centre of the first
    slice: half the surplus of columns and rows leads to the corner of the tile. The next slice lies a
    SpacingBetweenSlices along the normal, on the side the private SliceNormalVector names.

    Raises
    ------
    MosaicError
        A header, public or private, that does not say all this, or contradicts itself.
    """
    said = csa_values(_private(dataset, 0x0029, "SIEMENS CSA HEADER", 0x10))
    count = _count(said, _private(dataset, 0x0019, "SIEMENS MR HEADER", 0x0A))
    side = math.isqrt(count - 1) + 1
    if whole.rows % side or whole.columns % side or min(whole.rows, whole.columns) <= 0:
        raise MosaicError(f"{count} tiles do not fit {whole.rows} x {whole.columns} pixels")
    corner, step = _corner_and_step(whole, side, said)
    tile = replace(whole, rows=whole.rows // side, columns=whole.columns // side, tiling=side)
    return tuple(replace(tile, frame=k, position=tuple((corner + k * step).tolist())) for k in range(count))


def cut(picture: NDArray[Any], side: int) -> NDArray[Any]:
    """A tiled picture ``[row, column]`` -> ``[tile, row, column]``, tile by tile along the rows.

    >>> cut(np.arange(16).reshape(4, 4), 2)[1].tolist()
    [[2, 3], [6, 7]]
    """
    rows, columns = picture.shape[0] // side, picture.shape[1] // side
    tiles = picture.reshape(side, rows, side, columns).swapaxes(1, 2)
    return tiles.reshape(side * side, rows, columns)


def csa_values(block: bytes) -> dict[str, list[str]]:
    """Name -> values of a private image header, version 1 or 2 (``SV10``); never more than it holds.

    Raises
    ------
    MosaicError
        The block is damaged.
    """
    try:
        return dict(_elements(block))
    except (struct.error, UnicodeDecodeError) as error:
        raise MosaicError("the private header (CSA) is absent or damaged") from error


def _elements(block: bytes) -> Iterator[tuple[str, list[str]]]:
    second = block[:4] == b"SV10"
    at = 16 if second else 8
    first_items: int | None = None
    for _ in range(_bounded(struct.unpack_from("<I", block, at - 8)[0])):
        name, items = _word(block[at : at + 64]), _bounded(struct.unpack_from("<i", block, at + 76)[0])
        first_items = items if first_items is None else first_items
        at, values = at + 84, []
        for _ in range(items):
            lengths = struct.unpack_from("<4i", block, at)
            size = lengths[1] if second else lengths[0] - first_items
            if not 0 <= size <= len(block) - at - 16:
                raise struct.error("an item is longer than the header")
            values.append(_word(block[at + 16 : at + 16 + size]))
            at += 16 + size + -size % 4
        yield name, [v for v in values if v]


def _bounded(count: int) -> int:
    if not 0 <= count <= MAX_TILES:
        raise struct.error("an impossible number of items")
    return count


def _word(raw: bytes) -> str:
    return raw.split(b"\0")[0].decode("ascii").strip()


def _private(dataset: Dataset, group: int, creator: str, element: int) -> bytes:
    """Bytes of a private element, wherever its creator's block stands; empty when absent."""
    for block in _BLOCKS:
        if str(_value(dataset, (group << 16) | block)).strip() == creator:
            value = _value(dataset, (group << 16) | (block << 8) | element)
            return value if isinstance(value, bytes) else _number_bytes(value)
    return b""


def _value(dataset: Dataset, tag: int) -> Any:
    return dataset[tag].value if tag in dataset else b""


def _number_bytes(value: Any) -> bytes:
    return int(value).to_bytes(2, "little") if isinstance(value, int) and 0 <= value < 65536 else b""


def _count(said: dict[str, list[str]], elsewhere: bytes) -> int:
    count = _numbers(said, "NumberOfImagesInMosaic", 1)[0]
    if not (1 <= count <= MAX_TILES and count == int(count)):
        raise MosaicError("the number of tiles in the private header is impossible")
    again = int.from_bytes(elsewhere[:2], "little")
    if again and count not in (again, int.from_bytes(elsewhere[:2], "big")):
        raise MosaicError(f"the private header says both {int(count)} and {again} tiles")
    return int(count)


def _numbers(said: dict[str, list[str]], name: str, size: int) -> NDArray[np.float64]:
    try:
        numbers = np.array([float(word) for word in said.get(name, ())])
    except ValueError:
        numbers = np.empty(0)
    if len(numbers) != size or not np.isfinite(numbers).all():
        raise MosaicError(f"the private header has no readable {name}")
    return numbers


def _corner_and_step(
    whole: Plane, side: int, said: dict[str, list[str]]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if any(v is None or len(v) != n for v, n in _needed(whole)) or not (whole.gap_mm and whole.gap_mm > 0):
        raise MosaicError("position, orientation, pixel spacing or SpacingBetweenSlices is absent or wrong")
    along_row, along_column = np.reshape(np.array(whole.orientation, float), (2, 3))
    normal = np.cross(along_row, along_column)
    towards = float(normal @ _numbers(said, "SliceNormalVector", 3))
    if not abs(abs(towards) - 1) < 1e-3:
        raise MosaicError("the private SliceNormalVector is not the normal of the picture")
    between_rows, between_columns = np.array(whole.spacing_mm, float)
    surplus = (1 - 1 / side) / 2
    corner = (
        np.array(whole.position, float)
        + along_row * between_columns * whole.columns * surplus
        + along_column * between_rows * whole.rows * surplus
    )
    return corner, normal * math.copysign(whole.gap_mm, towards)


def _needed(whole: Plane) -> tuple[tuple[Any, int], ...]:
    return (whole.position, 3), (whole.orientation, 6), (whole.spacing_mm, 2)
