"""PNG, JPEG, BMP and TIFF as images of one slice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.core.errors import CaseError
from medseg.imaging.grid import PIXELS, Grid
from medseg.imaging.image import Image

MAX_PIXELS = 2**28
"""Headers that claim more are refused before anything is allocated."""

GREY_MODES = ("1", "L", "I", "F", "I;16", "I;16B", "I;16L", "I;16N")
_ORIENTATION = 0x0112


def read_raster(file: str | Path, colour: bool = False) -> tuple[Image, list[str]]:
    """Read a picture as float32 ``[1, I, J, 1]``: I runs along columns to the right, J down the rows.

    Grey values of 1 to 32 bits come as they are stored. Files of these formats do not say where they
    lie: the axes are those of an axial slice shown the usual way (patient's left on the right), and the
    grid is in pixels (`Grid.spacing_known` is False; a resolution for printing is no size in a
    patient). The picture is turned as its EXIF orientation says; nothing else of its metadata is looked
    at or kept.

    Parameters
    ----------
    colour : bool
        False: colour becomes luminance (ITU-R BT.601). True: ``[3, I, J, 1]``, red, green, blue. A
        cohort asks for it by giving three names: ``channels: [red, green, blue]``.

    Returns
    -------
    image, notes
        The notes say what was assumed, and what was left out (transparency, colour).

    Raises
    ------
    CaseError
        Missing, truncated or unreadable, larger than 2**28 pixels, or several pictures in one file.
    """
    from PIL import Image as Pillow

    file = Path(file)
    try:
        # opened by us: by its path, Pillow maps an uncompressed TIFF and ignores that it lies on its side
        with file.open("rb") as stream, Pillow.open(stream) as picture:
            _check_size(picture, file)
            _check_single(picture, file)
            array, notes = _pixels(picture, colour)
    except FileNotFoundError as error:
        raise CaseError("the file is not there", file=str(file), mend="correct the path") from error
    except CaseError:
        raise
    except Exception as error:  # a parser fed with damaged bytes may raise anything
        raise CaseError(
            "the file cannot be read to its end as a picture",
            file=str(file),
            evidence=f"{type(error).__name__}; {file.stat().st_size if file.exists() else 0} bytes",
            mend="copy or export it again: it is damaged, cut off, or of another format",
        ) from error
    return placed(array, np.diag([-1.0, -1.0, 1.0, 1.0])), [PIXELS, *notes]


def placed(channels: NDArray[Any], affine: NDArray[np.float64], spacing_known: bool = False) -> Image:
    """A picture ``[channel, row, column]`` as float32 ``[C, column, row, 1]``."""
    array = np.ascontiguousarray(channels.transpose(0, 2, 1).astype(np.float32))[..., None]
    return Image(array, Grid((array.shape[1], array.shape[2], 1), affine, spacing_known))


def channels_of(picture: NDArray[Any], colour: bool) -> tuple[NDArray[Any], list[str]]:
    """Grey ``[row, column]`` or RGB ``[row, column, 3]`` -> ``[channel, row, column]`` and what was given up.

    >>> channels_of(np.array([[[255, 0, 0]]], np.uint8), colour=False)
    (array([[[76]]], dtype=uint32), ['colour given up: 100.0% of the pixels were not grey'])
    """
    if picture.ndim == 2:
        note = ["colour was asked for, the picture is grey: three equal channels"]
        return (np.repeat(picture[None], 3, axis=0), note) if colour else (picture[None], [])
    if colour:
        return np.moveaxis(picture, -1, 0), []
    coloured = float((np.ptp(picture, axis=-1) > 0).mean())
    if not coloured:
        return picture[None, ..., 0], []
    return luminance(picture)[None], [f"colour given up: {coloured:.1%} of the pixels were not grey"]


def luminance(colour: NDArray[Any]) -> NDArray[np.uint32]:
    """Luminance ``[...]`` of red, green, blue ``[..., 3]`` of 8 or 16 bits: 0.299, 0.587, 0.114, rounded.

    Equal to Pillow's on 8 bits: three equal values give that value.
    """
    red, green, blue = np.moveaxis(colour.astype(np.uint32), -1, 0)
    return (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16


def _pixels(picture: Any, colour: bool) -> tuple[NDArray[Any], list[str]]:
    """The picture as ``[channel, row, column]``, turned upright."""
    from PIL import ImageOps

    notes = list(_left_out(picture))  # before it is loaded: a TIFF is turned then and forgets its tag
    upright = ImageOps.exif_transpose(picture)
    grey = upright.mode in GREY_MODES
    array, said = channels_of(np.asarray(upright if grey else upright.convert("RGB")), colour)
    return array, [*notes, *said]


def _left_out(picture: Any) -> Iterator[str]:
    """What the array will not show, in words."""
    coloured = picture.mode not in GREY_MODES
    if coloured and ";16" in str(picture.tile):  # asked first: looking for EXIF in a PNG loads it
        yield "stored with 16 bits a colour, read with 8"
    if picture.getexif().get(_ORIENTATION, 1) in range(2, 9):
        yield "turned as its EXIF orientation says"
    if getattr(picture, "n_frames", 1) > 1:
        yield "several pictures in the file: the first is the one to be seen"
    if coloured and picture.has_transparency_data and picture.convert("RGBA").getextrema()[3][0] < 255:
        yield "transparency left out"


def _check_size(picture: Any, file: Path) -> None:
    if picture.width * picture.height > MAX_PIXELS:
        raise CaseError(
            "the picture claims more pixels than we read",
            file=str(file),
            evidence=f"{picture.width} x {picture.height}",
        )


def _check_single(picture: Any, file: Path) -> None:
    """Refuse pages and films; a camera's JPEG (MPO) holds its own preview beside the picture."""
    count = getattr(picture, "n_frames", 1)
    if count > 1 and picture.format != "MPO":
        raise CaseError(
            "the file holds several pictures (pages, or a film), where one is expected",
            file=str(file),
            evidence=f"{count} pictures",
            mend="save each as a file of its own",
        )
