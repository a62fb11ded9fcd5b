"""Where a single picture lies and how large its pixels are, as far as its header knows."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from medseg.core.errors import CaseError
from medseg.imaging.dicom_values import Vector, numbers_of, text_of, words_of
from medseg.imaging.grid import PIXELS, Grid, ras_from_lps

if TYPE_CHECKING:
    from pydicom import Dataset

    from medseg.imaging.dicom_header import Plane

TAGS = (
    "ImagerPixelSpacing",
    "NominalScannedPixelSpacing",
    "PixelSpacingCalibrationType",
    "EstimatedRadiographicMagnificationFactor",
    "SequenceOfUltrasoundRegions",
    "PixelAspectRatio",
    "PatientOrientation",
)
"""Elements that `picture_grid` looks at."""

DIRECTIONS = {
    "L": (1, 0, 0),
    "R": (-1, 0, 0),
    "P": (0, 1, 0),
    "A": (0, -1, 0),
    "H": (0, 0, 1),
    "F": (0, 0, -1),
}
"""Letters of PatientOrientation as directions in LPS."""
_DISPLAYED = ("L", "P")
_TWO_D, _CM = 1, 3  # region formats and units of ultrasound
_AT_DETECTOR = "pixel size at the detector: what lies before it in the patient is shown larger than it is"


def picture_grid(dataset: Dataset, modality: str, plane: Plane) -> tuple[Grid, tuple[str, ...]]:
    """The grid of an array ``[column, row, 1]``, and what is to be said of it.

    The pixel size is, the best first: PixelSpacing (calibrated, or as it stands), ImagerPixelSpacing
    (at the detector), NominalScannedPixelSpacing (of a film scanner); for an ultrasound that of its
    2-D region in cm, when all such regions agree. With none of them the grid is in pixels and says so
    (`Grid.spacing_known`), in the proportion of PixelAspectRatio.

    PatientOrientation places the axes in the plane that the picture shows, by its main letters (``L\\F``
    is coronal, ``A\\F`` sagittal); where it is absent they are those of an axial slice shown the usual
    way (patient's left on the right). The position in the patient is not known: the first pixel lies at
    0, and the third axis is 1 (mm, or pixel) deep.

    Raises
    ------
    CaseError
        A pixel size that is not two positive numbers.
    """
    size, said = _pixel_size(dataset, modality, _checked(plane.spacing_mm, "PixelSpacing"))
    known = size is not None
    between_rows, between_columns = size or _proportion(dataset)
    letters, placed = _letters(dataset)
    along, down = (np.array(DIRECTIONS[letter], float) for letter in letters)
    affine = np.eye(4)
    affine[:3, :3] = np.stack([along * between_columns, down * between_rows, np.cross(along, down)], axis=1)
    notes = (*said, *placed, *([] if known else [PIXELS]))
    return Grid((plane.columns, plane.rows, 1), ras_from_lps(affine), known), notes


def _pixel_size(dataset: Dataset, modality: str, stated: Vector | None) -> tuple[Vector | None, list[str]]:
    """(Between rows, between columns) in mm, or None, with remarks."""
    if modality == "US":
        return _ultrasound(dataset, stated)
    imager = _checked(numbers_of(dataset, "ImagerPixelSpacing"), "ImagerPixelSpacing")
    if stated is not None:
        return stated, _calibration(dataset, modality, stated, imager)
    if imager is not None:
        factor = numbers_of(dataset, "EstimatedRadiographicMagnificationFactor") or (math.nan,)
        about = f", about {factor[0]:.3g} times by the header" if factor[0] > 0 else ""
        return imager, [_AT_DETECTOR + about]
    nominal = _checked(numbers_of(dataset, "NominalScannedPixelSpacing"), "NominalScannedPixelSpacing")
    return nominal, ["pixel size of the film scanner"] if nominal else []


def _calibration(dataset: Dataset, modality: str, stated: Vector, imager: Vector | None) -> list[str]:
    if modality == "OT":
        return []
    kind = text_of(dataset, "PixelSpacingCalibrationType").upper()
    if kind in ("GEOMETRY", "FIDUCIAL"):
        return [f"pixel size calibrated in the patient ({kind.lower()})"]
    if imager is not None and np.allclose(stated, imager, rtol=1e-4):
        return [_AT_DETECTOR]
    if imager is not None:
        return ["pixel size corrected for magnification; how, the header does not say"]
    return ["pixel size as stated; whether it holds in the patient or at the detector, nobody says"]


def _ultrasound(dataset: Dataset, stated: Vector | None) -> tuple[Vector | None, list[str]]:
    regions = [_region(item) for item in dataset.get("SequenceOfUltrasoundRegions") or ()]
    sizes = {size for size in regions if size is not None}
    if stated is not None:
        sizes.add((_short(stated[0]), _short(stated[1])))
    if len(sizes) > 1:
        return None, ["the header states several pixel sizes: none is used"]
    elsewhere = ["the pixel size holds inside the 2-D region alone"] if None in regions else []
    return (next(iter(sizes)), elsewhere) if sizes else (None, [])


def _region(item: Dataset) -> tuple[float, float] | None:
    """(Between rows, between columns) in mm of a 2-D region measured in cm, else None."""
    kind = [
        (numbers_of(item, keyword) or (0,))[0]
        for keyword in ("RegionSpatialFormat", "PhysicalUnitsXDirection", "PhysicalUnitsYDirection")
    ]
    if kind != [_TWO_D, _CM, _CM]:
        return None
    deltas = [abs((numbers_of(item, k) or (math.nan,))[0]) for k in ("PhysicalDeltaY", "PhysicalDeltaX")]
    if not all(math.isfinite(d) and d > 0 for d in deltas):
        return None
    return _short(10 * deltas[0]), _short(10 * deltas[1])


def _short(value: float) -> float:
    """Six digits: the same size written twice is one size."""
    return float(f"{value:.6g}")


def _checked(size: Vector | None, name: str) -> Vector | None:
    if size is not None and (len(size) != 2 or not all(math.isfinite(v) and v > 0 for v in size)):
        raise CaseError(
            f"{name} (the spacing of the pixels) is not two positive numbers",
            mend="send the image again from the device or archive; medseg does not invent geometry",
        )
    return size


def _proportion(dataset: Dataset) -> Vector:
    """Pixels of unknown size, their shorter side 1."""
    ratio = numbers_of(dataset, "PixelAspectRatio") or ()
    if len(ratio) != 2 or not all(math.isfinite(v) and v > 0 for v in ratio):
        return 1.0, 1.0
    return ratio[0] / min(ratio), ratio[1] / min(ratio)


def _letters(dataset: Dataset) -> tuple[tuple[str, str], list[str]]:
    """Main letters of the directions along the rows and down the columns, and what is to be said."""
    words = [word.strip().upper() for word in words_of(dataset, "PatientOrientation")]
    readable = len(words) == 2 and all(word and set(word) <= set(DIRECTIONS) for word in words)
    first = (words[0][0], words[1][0]) if readable else _DISPLAYED
    along, down = (np.array(DIRECTIONS[letter]) for letter in first)
    if not readable or (along * down).any():
        return _DISPLAYED, ["no readable PatientOrientation: axes as of an axial slice"]
    oblique = any(len(word) > 1 for word in words)
    return first, ["an oblique view: its axes are set to the nearest main directions"] if oblique else []
