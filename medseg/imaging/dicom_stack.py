"""Between the planes of a series and the grid its volume is given on: there, and back for masks.

A regular series needs nothing but other axes. A mended one (tilt, uneven steps, gaps) is interpolated.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.imaging.dicom_series import Series
from medseg.imaging.image import Image
from medseg.imaging.lattice import on_lattice


def volume_of(planes: NDArray[np.float32], series: Series) -> Image:
    """Grey values ``[slice, row, column]``, one per plane of the series -> ``[1, I, J, K]`` on its grid."""
    return Image(np.ascontiguousarray(planes.transpose(2, 1, 0))[None], series.grid)


def labels_of(planes: NDArray[Any], series: Series) -> Image:
    """A label map ``[slice, row, column]`` on the planes -> ``[1, I, J, K]`` on the grid of the series."""
    return Image(np.ascontiguousarray(planes.transpose(2, 1, 0))[None], series.grid)


def planes_of(mask: Image, series: Series) -> NDArray[Any]:
    """A label map on the voxels of the series, in any order of axes -> ``[slice, row, column]`` per plane.

    Raises
    ------
    CaseError
        The mask does not lie on the voxels of the series.
    """
    return np.ascontiguousarray(on_lattice(mask, series.grid).array[0].transpose(2, 1, 0))
