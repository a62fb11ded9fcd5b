"""What one DICOM file is, looked at alone: an image to take, something to pass over, or a refusal."""

from __future__ import annotations

import math
from collections.abc import Iterator

from medseg.imaging.dicom_header import DEFLATED, Header, Plane
from medseg.imaging.image import MAX_VOXELS

IMAGE_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.2": "CT",
    "1.2.840.10008.5.1.4.1.1.2.1": "CT",
    "1.2.840.10008.5.1.4.1.1.2.2": "CT",
    "1.2.840.10008.5.1.4.1.1.4": "MR",
    "1.2.840.10008.5.1.4.1.1.4.1": "MR",
    "1.2.840.10008.5.1.4.1.1.4.4": "MR",
    "1.2.840.10008.5.1.4.1.1.128": "PT",
    "1.2.840.10008.5.1.4.1.1.128.1": "PT",
    "1.2.840.10008.5.1.4.1.1.130": "PT",
}
SEG_CLASS = "1.2.840.10008.5.1.4.1.1.66.4"
_LOSSY = frozenset(f"1.2.840.10008.1.2.4.{n}" for n in (50, 51, 81, 91, 203))


def modality_of(header: Header) -> str:
    """CT, MR or PT for an image of a kind medseg takes (by SOP class, else by Modality), else empty."""
    known = IMAGE_CLASSES.get(header.sop_class)
    if known or header.sop_class:
        return known or ""
    return header.modality if header.modality in ("CT", "MR", "PT") else ""


def kind_of(header: Header) -> str:
    """The kind of object in words, such as ``Secondary Capture Image``; never text from the file."""
    from pydicom.config import IGNORE
    from pydicom.uid import UID

    uid = UID(header.sop_class, validation_mode=IGNORE)
    return uid.name.replace(" Storage", "") if uid and uid.name != uid else "object of unknown kind"


def verdict(header: Header) -> tuple[str, str]:
    """(``taken`` | ``skipped`` | ``refused``, reason) of one file. Reasons hold no text from the file."""
    types = {word.upper() for word in header.image_type}
    if header.syntax == DEFLATED:
        return (
            "refused",
            "the file is deflated as a whole and may unfold without bound: store it uncompressed",
        )
    if not modality_of(header):
        return "skipped", f"{kind_of(header)}: not a CT, MR or PET volume"
    if "LOCALIZER" in types:
        return "skipped", "a localizer"
    if types & {"SCREEN SAVE", "DOSE_INFO"}:
        return "skipped", "a screen capture"
    fault = next(_faults(header, types), None)
    return ("refused", fault) if fault else ("taken", "")


def remarks(header: Header) -> Iterator[str]:
    """What the report should say of an image that is taken all the same."""
    if header.syntax in _LOSSY:
        yield "lossy compression: grey values are not those of the scanner"
    if header.burned_in:
        yield "BurnedInAnnotation = YES: text may stand in the picture"
    if not header.frame_of_reference:
        yield "no Frame of Reference UID: DICOM SEG cannot be exported for it"
    if not header.series_uid:
        yield "no Series Instance UID: files grouped by folder and geometry"


def _faults(header: Header, types: set[str]) -> Iterator[str]:
    size = f"{header.rows} x {header.columns} x {header.frames}"
    if header.mosaic_fault:
        yield f"a Siemens mosaic that cannot be taken apart: {header.mosaic_fault}"
    if min(header.rows, header.columns, header.frames) <= 0:
        yield "the header names no image size"
    if header.samples != 1 or not header.photometric.startswith("MONOCHROME"):
        yield f"colour image ({header.samples} samples a pixel): only grey values can be used"
    if header.photometric == "MONOCHROME1":
        yield "MONOCHROME1: grey values run from white to black in a CT, MR or PET image"
    if header.modality_lut:
        yield "a Modality LUT stands in place of slope and intercept"
    tiled = header.frames == 1 and any(plane.tiling for plane in header.planes)
    if len(header.planes) != header.frames and not tiled:
        yield f"{header.frames} frames in the file, but positions for {len(header.planes)}"
    if not all(map(_can_rescale, header.planes)):
        yield "RescaleSlope is zero, or slope or intercept are not readable numbers"
    if header.rows * header.columns * header.frames > MAX_VOXELS:
        yield f"the header claims {size} voxels"
    on_disk = header.file.stat().st_size
    if not header.compressed and header.claimed_bytes > on_disk:
        yield f"the pixel data are cut off: {header.claimed_bytes} bytes claimed, the file has {on_disk}"


def _can_rescale(plane: Plane) -> bool:
    return plane.slope != 0 and math.isfinite(plane.slope) and math.isfinite(plane.intercept)
