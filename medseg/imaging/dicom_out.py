"""A mask as the DICOM objects asked for: each whole or not at all, all of them of one source series."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from medseg.core.errors import CaseError, unexpected
from medseg.core.values import Value
from medseg.imaging.dicom_derived import Origin, origin_of
from medseg.imaging.dicom_rtstruct import write_rtstruct
from medseg.imaging.dicom_seg import SegKind, write_seg
from medseg.imaging.dicom_series import Series
from medseg.imaging.dicom_sr import write_sr
from medseg.imaging.dicom_trace import Holes
from medseg.imaging.image import Image
from medseg.imaging.labels import Labels

log = logging.getLogger("medseg")

ObjectKind = Literal["seg", "rtstruct", "sr"]
OBJECTS: tuple[ObjectKind, ...] = get_args(ObjectKind)
_NAMES = {"seg": "DICOM SEG", "rtstruct": "RTSTRUCT", "sr": "SR"}


class DicomOutput(Value):
    """How results are written as DICOM. The defaults are what most viewers and planning systems read."""

    seg: SegKind = "binary"
    """A bit plane a segment, or one plane of label numbers (``labelmap``: smaller, few readers yet)."""
    holes: Holes = "keyhole"
    """Holes in RTSTRUCT: joined to the contour around them, or contours of their own (``inner``)."""


@dataclass(frozen=True)
class Written:
    """What came of it: the files by kind, why others are not there, and what was done to the mask."""

    files: dict[str, Path]
    failed: dict[str, CaseError]
    remark: str = ""


def write_objects(
    mask: Image,
    labels: Labels,
    series: Series,
    kinds: Collection[str],
    stem: Path,
    *,
    image: Callable[[], Image],
    output: DicomOutput | None = None,
) -> Written:
    """Write ``<stem>.seg.dcm``, ``<stem>.rtstruct.dcm``, ``<stem>.sr.dcm``, as far as `kinds` asks for them.

    A report (``sr``) refers to the segments of the SEG, which is therefore written with it. An object
    that cannot be written leaves no file, also none of an earlier run, and does not stop the others.

    Parameters
    ----------
    mask : Image
        Label values ``[1, I, J, K]`` on the voxels of the series, in any order of axes.
    series : Series
        The source; patient, study and references are taken from it.
    kinds : collection of str
        Of `OBJECTS`.
    stem : Path
        Folder and name without ending.
    image : function
        Gives what was segmented; called for ``sr`` alone.
    """
    wanted = [kind for kind in OBJECTS if kind in kinds or (kind == "seg" and "sr" in kinds)]
    files = {kind: stem.with_name(f"{stem.name}.{kind}.dcm") for kind in wanted}
    failed: dict[str, CaseError] = {}
    remark = ""
    try:
        origin = origin_of(series, _listed(wanted))
        remark = f"{origin.remark} ({origin.mends})" if origin.remark else ""
        work = _writers(mask, labels, origin, files, image, output or DicomOutput())
        for kind in wanted:
            _attempt(kind, work[kind], failed)
    except CaseError as error:
        failed = dict.fromkeys(wanted, error)
    for kind in failed:
        files.pop(kind).unlink(missing_ok=True)
    return Written(files, failed, remark)


def _listed(kinds: Collection[str]) -> str:
    *first, last = (_NAMES[kind] for kind in kinds)
    return f"{', '.join(first)} or {last}" if first else last


def _writers(
    mask: Image,
    labels: Labels,
    origin: Origin,
    files: dict[str, Path],
    image: Callable[[], Image],
    output: DicomOutput,
) -> dict[str, Callable[[], str]]:
    return {
        "seg": lambda: write_seg(mask, labels, origin, files["seg"], kind=output.seg),
        "rtstruct": lambda: write_rtstruct(mask, labels, origin, files["rtstruct"], holes=output.holes),
        "sr": lambda: write_sr(mask, image(), labels, origin, files["seg"], files["sr"]),
    }


def _attempt(kind: str, write: Callable[[], str], failed: dict[str, CaseError]) -> None:
    if kind == "sr" and "seg" in failed:
        failed[kind] = failed["seg"]
        return
    try:
        write()
    except CaseError as error:
        failed[kind] = error
    except Exception as error:  # a source that the libraries cannot copy from must not stop the others
        log.error("%s: unexpected %s", _NAMES[kind], unexpected(error))
        failed[kind] = CaseError(
            f"the {_NAMES[kind]} could not be written", evidence=f"unexpected {type(error).__name__}"
        )
