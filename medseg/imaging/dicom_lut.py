"""Modality LUT: a table in place of slope and intercept."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.imaging.dicom_deflate import bounded
from medseg.imaging.dicom_header import tolerant


@dataclass(frozen=True, eq=False)
class ModalityLut:
    """Stored values from `first` on become those of `table`; what lies beyond takes the nearest one."""

    first: int
    table: NDArray[np.float32]

    def looked_up(self, stored: NDArray[Any]) -> NDArray[np.float32]:
        """Grey values of stored ones, of any shape.

        >>> ModalityLut(2, np.array([5, 7], np.float32)).looked_up(np.array([0, 2, 3, 9])).tolist()
        [5.0, 5.0, 7.0, 7.0]
        """
        return self.table[np.clip(stored.astype(np.int64) - self.first, 0, len(self.table) - 1)]


def modality_lut(file: Path) -> ModalityLut:
    """The table of a file.

    Raises
    ------
    ValueError
        It is not well formed, or stands beside a slope and intercept of its own.
    """
    from pydicom import dcmread

    tags: list[Any] = ["ModalityLUTSequence", "PixelRepresentation", "RescaleSlope", "RescaleIntercept"]
    with tolerant():
        dataset = dcmread(bounded(file), stop_before_pixels=True, specific_tags=tags, force=True)
        if float(dataset.get("RescaleSlope") or 1) != 1 or float(dataset.get("RescaleIntercept") or 0) != 0:
            raise ValueError("slope and intercept beside a table")
        (item,) = dataset.ModalityLUTSequence
        count, first, bits = (int(number) for number in item.LUTDescriptor)
        data = item["LUTData"].value
    if isinstance(data, bytes):
        values = np.frombuffer(data, "<u1" if bits == 8 and len(data) in (count, count + 1) else "<u2")
    else:
        values = np.asarray(data)
    count = count or 2**16
    signed = int(dataset.get("PixelRepresentation") or 0) == 1
    first = first - 2**16 if signed and first >= 2**15 else first
    if bits not in range(8, 17) or len(values) not in (count, count + 1 if bits == 8 else count):
        raise ValueError("the table is not of the length it claims")
    return ModalityLut(first, values[:count].astype(np.float32))


def lut_fault(file: Path) -> str | None:
    """Why the table of a file cannot be used, or None."""
    try:
        modality_lut(file)
    except Exception:  # a parser fed with damaged bytes may raise anything
        return "the Modality LUT, which stands in place of slope and intercept, is damaged"
    return None
