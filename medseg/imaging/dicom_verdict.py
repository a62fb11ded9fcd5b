"""What one DICOM file is, looked at alone: an image to take, something to pass over, or a refusal."""

from __future__ import annotations

import math
from collections.abc import Iterator

from medseg.imaging.dicom_header import DEFLATED, Header, Plane
from medseg.imaging.dicom_lut import lut_fault
from medseg.imaging.dicom_policy import DEFAULT, DicomPolicy
from medseg.imaging.image import MAX_VOXELS

_STORAGE = "1.2.840.10008.5.1.4.1.1."
VOLUME_CLASSES = {
    _STORAGE + "2": "CT",
    _STORAGE + "2.1": "CT",
    _STORAGE + "2.2": "CT",
    _STORAGE + "4": "MR",
    _STORAGE + "4.1": "MR",
    _STORAGE + "4.4": "MR",
    _STORAGE + "128": "PT",
    _STORAGE + "128.1": "PT",
    _STORAGE + "130": "PT",
    _STORAGE + "13.1.1": "XA",
    _STORAGE + "13.1.3": "MG",
}
"""SOP classes of slices and volumes; 13.1.1 is a rotational angiography, 13.1.3 a breast tomosynthesis."""
PICTURE_CLASSES = {
    _STORAGE + "1": "CR",
    _STORAGE + "1.1": "DX",
    _STORAGE + "1.1.1": "DX",
    _STORAGE + "1.2": "MG",
    _STORAGE + "1.2.1": "MG",
    _STORAGE + "6": "US",
    _STORAGE + "6.1": "US",
    _STORAGE + "3": "US",
    _STORAGE + "3.1": "US",
    _STORAGE + "12.1": "XA",
    _STORAGE + "12.1.1": "XA",
    _STORAGE + "12.2": "RF",
    _STORAGE + "12.2.1": "RF",
}
"""SOP classes of pictures: one image is a case of its own."""
CAPTURE_CLASSES = frozenset(_STORAGE + n for n in ("7", "7.1", "7.2", "7.3", "7.4"))
"""Secondary captures: screens, scanned film, and whatever a tool could not call by its name."""
PICTURED = frozenset(PICTURE_CLASSES.values())
COLOURED = frozenset({"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT", "PALETTE COLOR"})
SEG_CLASS = "1.2.840.10008.5.1.4.1.1.66.4"
_LOSSY = frozenset(f"1.2.840.10008.1.2.4.{n}" for n in (50, 51, 81, 91, 203))


_SMALL_BYTES, _MOST_UNFOLDED = 2**26, 1000  # even an empty picture compresses no better
_FOR_PROCESSING = frozenset(_STORAGE + n for n in ("1.1.1", "1.2.1"))
_LABELLED = frozenset({"US", "OT"})  # modalities whose pictures usually have text in them


def modality_of(header: Header) -> str:
    """The modality of an image of a kind medseg takes, else empty.

    By SOP class; without one, and among the kinds of radiographs, by Modality. A secondary capture is
    ``OT`` unless it says that it is a radiograph or an ultrasound.
    """
    if is_capture(header):
        return header.modality if header.modality in PICTURED else "OT"
    known = (VOLUME_CLASSES | PICTURE_CLASSES).get(header.sop_class, "")
    radiograph = known in PICTURED - {"US"} and header.sop_class in PICTURE_CLASSES
    if radiograph and header.modality in PICTURED - {"US"}:
        return header.modality
    if known or header.sop_class:
        return known
    return header.modality if header.modality in {"CT", "MR", "PT", *PICTURED} else ""


def is_capture(header: Header) -> bool:
    """Whether it is a picture of a picture: by SOP class, modality, or the words of its ImageType."""
    imaged = header.sop_class in VOLUME_CLASSES or header.sop_class in PICTURE_CLASSES
    if not imaged or header.modality == "OT":
        return imaged or header.sop_class in CAPTURE_CLASSES
    words = [word.upper() for word in header.image_type]
    return any(word.startswith("SCREEN") or word == "DOSE_INFO" for word in words)


def is_picture(header: Header) -> bool:
    """Whether the image stands for itself (radiograph, ultrasound, capture) and is no slice of a volume."""
    if header.sop_class in VOLUME_CLASSES and not is_capture(header):
        return False
    return modality_of(header) in {*PICTURED, "OT"}


def kind_of(header: Header) -> str:
    """The kind of object in words, such as ``Secondary Capture Image``; never text from the file."""
    from pydicom.config import IGNORE
    from pydicom.uid import UID

    uid = UID(header.sop_class, validation_mode=IGNORE)
    return uid.name.replace(" Storage", "") if uid and uid.name != uid else "object of unknown kind"


def verdict(header: Header, policy: DicomPolicy = DEFAULT) -> tuple[str, str]:
    """(``taken`` | ``skipped`` | ``refused``, reason) of one file. Reasons hold no text from the file.

    `policy.secondary` lets secondary captures in, `policy.burned_in` what has, or by its kind may have
    and does not deny, text in the picture (identifying text, often).
    """
    if header.syntax == DEFLATED and not header.sop_class:
        return "refused", "the file is deflated as a whole, and damaged or unfolding without bound"
    if not modality_of(header):
        return "skipped", f"{kind_of(header)}: not an image of a kind that medseg takes"
    if "LOCALIZER" in {word.upper() for word in header.image_type}:
        return "skipped", "a localizer"
    if is_capture(header) and policy.secondary == "skip":
        return "skipped", f"{kind_of(header)}: a secondary capture ({_option('secondary')})"
    fault = next(_picture_faults(header) if is_picture(header) else _faults(header), None)
    if fault is None and policy.burned_in == "refuse":
        fault = _text_in(header)
    return ("refused", fault) if fault else ("taken", "")


def remarks(header: Header) -> Iterator[str]:
    """What the report should say of an image that is taken all the same."""
    if header.syntax in _LOSSY:
        yield "lossy compression: grey values are not those of the scanner"
    if _text_in(header):
        yield f"taken as asked for, though there may be text in the picture: {_stated(header)}"
    if is_capture(header):
        yield "a secondary capture, taken as asked for: its values are those of a screen or a scanned film"
    if header.modality_lut:
        yield "grey values by the Modality LUT of the files"
    if header.sop_class in _FOR_PROCESSING:
        yield "for processing: raw values of the detector; the same shot for presentation is another case"
    if not header.frame_of_reference:
        yield "no Frame of Reference UID: DICOM SEG cannot be exported for it"
    if not header.series_uid:
        yield "no Series Instance UID: files grouped by folder and geometry"


def _option(name: str) -> str:
    return f"cohort.dicom.{name}=take lets it in"


def _text_in(header: Header) -> str | None:
    """Why there may be text burned into the picture, or None."""
    usual = is_capture(header) or modality_of(header) in _LABELLED
    if header.burned_in == "YES" or (usual and header.burned_in != "NO"):
        return f"there may be text in the picture: {_stated(header)} ({_option('burned_in')})"
    return None


def _stated(header: Header) -> str:
    if header.burned_in == "YES":
        return "BurnedInAnnotation = YES"
    return "pictures of this kind usually have some, and BurnedInAnnotation does not say NO"


def _picture_faults(header: Header) -> Iterator[str]:
    if header.frames > 1:
        yield f"a film of {header.frames} frames, where one picture is expected: store the frame as an image"
    if min(header.rows, header.columns, header.frames) <= 0:
        yield "the header names no image size"
    if header.rows * header.columns > MAX_VOXELS:
        yield f"the header claims {header.rows} x {header.columns} pixels"
    grey = header.photometric in ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR") and header.samples == 1
    if not grey and not (header.photometric in COLOURED and header.samples == 3):
        yield f"neither grey nor a colour that medseg reads ({header.samples} samples a pixel)"
    if not header.planes or not all(map(_can_rescale, header.planes)):
        yield "RescaleSlope is zero, or slope or intercept are not readable numbers"
    claimed = header.claimed_bytes * (2 if header.photometric == "YBR_FULL_422" else 3) // 3
    yield from _overclaim(header, claimed)


def _faults(header: Header) -> Iterator[str]:
    size = f"{header.rows} x {header.columns} x {header.frames}"
    if header.mosaic_fault:
        yield f"a Siemens mosaic that cannot be taken apart: {header.mosaic_fault}"
    if min(header.rows, header.columns, header.frames) <= 0:
        yield "the header names no image size"
    if header.samples != 1 or not header.photometric.startswith("MONOCHROME"):
        yield f"colour image ({header.samples} samples a pixel): only grey values can be used"
    if header.photometric == "MONOCHROME1":
        yield "MONOCHROME1: grey values run from white to black in an image of slices"
    if header.modality_lut and (broken := lut_fault(header.file)):
        yield broken
    tiled = header.frames == 1 and any(plane.tiling for plane in header.planes)
    if len(header.planes) != header.frames and not tiled:
        yield f"{header.frames} frames in the file, but positions for {len(header.planes)}"
    if not all(map(_can_rescale, header.planes)):
        yield "RescaleSlope is zero, or slope or intercept are not readable numbers"
    if header.rows * header.columns * header.frames > MAX_VOXELS:
        yield f"the header claims {size} voxels"
    yield from _overclaim(header, header.claimed_bytes)


def _overclaim(header: Header, claimed: int) -> Iterator[str]:
    """Nothing is allocated for a header that promises more than its file can hold, however compressed."""
    on_disk = header.file.stat().st_size
    if not header.compressed and claimed > on_disk:
        yield f"the pixel data are cut off: {claimed} bytes claimed, the file has {on_disk}"
    elif claimed > _SMALL_BYTES + _MOST_UNFOLDED * on_disk:
        yield f"the header claims {claimed} bytes of pixels, from {on_disk} compressed ones"


def _can_rescale(plane: Plane) -> bool:
    return plane.slope != 0 and math.isfinite(plane.slope) and math.isfinite(plane.intercept)
