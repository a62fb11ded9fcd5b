"""PNG, JPEG, BMP and TIFF as images of one slice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from medseg.core.errors import CaseError
from medseg.imaging.grid import Grid
from medseg.imaging.image import Image

MAX_PIXELS = 2**28
"""Headers that claim more are refused before anything is allocated."""

GREY_MODES = ("1", "L", "I", "F", "I;16", "I;16B", "I;16L")


def read_raster(file: str | Path) -> tuple[Image, list[str]]:
    """Read a picture as float32 ``[1, I, J, 1]``: I runs along columns to the right, J down the rows.

    The pixel size is 1 mm and the axes are those of an axial slice shown the usual way (patient's
    left on the right): files of these formats do not say where they lie. Colour becomes luminance.

    Returns
    -------
    image, notes
        The notes say what was assumed.

    Raises
    ------
    CaseError
        Missing, truncated or unreadable, or larger than 2**28 pixels.
    """
    from PIL import Image as Pillow

    file = Path(file)
    try:
        with Pillow.open(file) as picture:
            _check_size(picture, file)
            array, notes = _grey(picture)
    except FileNotFoundError as error:
        raise CaseError("the file is not there", file=str(file), mend="correct the path") from error
    except (OSError, ValueError, SyntaxError, Pillow.DecompressionBombError) as error:
        if isinstance(error, CaseError):
            raise
        raise CaseError(
            "the file cannot be read to its end as a picture",
            file=str(file),
            evidence=f"{type(error).__name__}; {file.stat().st_size} bytes",
            mend="copy or export it again: it is damaged, cut off, or of another format",
        ) from error
    columns_first = np.ascontiguousarray(array.T.astype(np.float32))[None, :, :, None]
    grid = Grid((columns_first.shape[1], columns_first.shape[2], 1), np.diag([-1.0, -1.0, 1.0, 1.0]))
    return Image(columns_first, grid), ["no pixel size in the file: 1 mm assumed", *notes]


def _grey(picture: Any) -> tuple[np.ndarray, list[str]]:
    """The picture as ``[rows, columns]``, with a note when colour was given up."""
    if picture.mode in GREY_MODES:
        return np.asarray(picture), []
    colour = np.asarray(picture.convert("RGB"))
    coloured = float((np.ptp(colour, axis=2) > 0).mean())
    note = [f"colour given up: {coloured:.1%} of the pixels were not grey"] if coloured else []
    return np.asarray(picture.convert("RGB").convert("L")), note


def _check_size(picture: Any, file: Path) -> None:
    if picture.width * picture.height > MAX_PIXELS:
        raise CaseError(
            "the picture claims more pixels than we read",
            file=str(file),
            evidence=f"{picture.width} x {picture.height}",
        )
