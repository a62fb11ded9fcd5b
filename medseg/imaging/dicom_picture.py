"""Radiographs, ultrasound pictures and captures: each DICOM image an image of one slice, K = 1."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medseg.core.errors import CaseError
from medseg.imaging.deidentify import keyed_hash
from medseg.imaging.dicom_deflate import bounded
from medseg.imaging.dicom_header import Header, Plane, tolerant
from medseg.imaging.dicom_pixels import picture_digest, stored_values
from medseg.imaging.dicom_placing import TAGS, picture_grid
from medseg.imaging.dicom_policy import DEFAULT, DicomPolicy
from medseg.imaging.dicom_series import LeftOut, Series, series_of
from medseg.imaging.dicom_values import numbers_of, text_of
from medseg.imaging.dicom_verdict import is_picture, modality_of, remarks, verdict
from medseg.imaging.image import Image
from medseg.imaging.raster import channels_of, placed

if TYPE_CHECKING:
    from pydicom import Dataset

_PALETTE = [
    f"{colour}PaletteColorLookupTable{part}"
    for colour in ("Red", "Green", "Blue")
    for part in ("Data", "Descriptor")
]
_TAGS = [
    *TAGS,
    *_PALETTE,
    "SegmentedRedPaletteColorLookupTableData",
    "SegmentedGreenPaletteColorLookupTableData",
    "SegmentedBluePaletteColorLookupTableData",
    "PhotometricInterpretation",
    "PresentationLUTShape",
    "PixelRepresentation",
    "BitsAllocated",
    "BitsStored",
    "ModalityLUTSequence",
]


def images_of(
    headers: Sequence[Header], key: bytes, policy: DicomPolicy = DEFAULT
) -> Iterator[Series | LeftOut]:
    """Volumes, pictures and refusals out of the headers that share one series UID.

    Slices go to `series_of`. Each picture is a `Series` of its own, named by its SOP Instance UID: what
    is wrong with one does not hinder the others.
    """
    pictures = [h for h in headers if is_picture(h)]
    slices = [h for h in headers if not is_picture(h)]
    if slices:
        yield from series_of(slices, key, policy)
    judged: dict[tuple[str, str], list[Header]] = {}
    for header in pictures:
        judged.setdefault(verdict(header, policy), []).append(header)
    for (status, reason), some in judged.items():
        if status != "taken":
            yield _left_out(some, status, reason, key)
    for copies in _by_instance(judged.get(("taken", ""), [])):
        try:
            _refuse_two_patients(pictures)
            yield _picture(copies, key, policy)
        except CaseError as error:
            yield _left_out(copies, "refused", error.what, key, error.mend or "")


def read_picture(series: Series, colour: bool = False) -> tuple[Image, list[str]]:
    """Decode a picture: float32 ``[1, column, row, 1]`` on `series.grid`, larger values brighter.

    Modality LUT, or slope and intercept, are applied; a window or VOI LUT is not. MONOCHROME1 and
    PresentationLUTShape INVERSE are turned over within the range of the stored bits. Colour (RGB, YBR,
    a palette; one of 16 bits by its upper 8) becomes luminance, or with `colour`
    ``[3, column, row, 1]``: red, green, blue.

    Returns
    -------
    image, notes
        What was given up or found out while reading; `series.notes` holds what the header told.

    Raises
    ------
    CaseError
        Pixel data that are cut off or do not decode within the limits, another size than the header
        says, or a table (palette, Modality LUT) that cannot be used.
    """
    (plane,) = series.planes
    try:
        stored = stored_values((plane.file,), plane.compressed, series.pixel_bytes)[0]
        picture = stored[plane.frame]
        _refuse_other_size(picture, plane)
        picture, said = _as_shown(picture, plane)
    except CaseError as error:
        raise error.with_case(series.uid_hash) from error
    array, given_up = channels_of(picture, colour)
    if picture.ndim == 3 and not colour and not given_up:
        said.append("stored in colour, but without any: read as grey")
    image = placed(array, series.grid.affine, series.grid.spacing_known)
    return image, [*said, *given_up]


def _picture(copies: Sequence[Header], key: bytes, policy: DicomPolicy) -> Series:
    header = copies[0]
    if len(copies) > 1 and len({picture_digest(h.file) for h in copies}) > 1:
        raise CaseError("two different images carry the same instance UID", mend="send the series again")
    modality = modality_of(header)
    try:
        with tolerant():
            dataset = _looked_at(header.file)
            grid, notes = picture_grid(dataset, modality, header.planes[0])
            inverted = _inverted(dataset)
    except CaseError:
        raise
    except Exception as error:  # a parser fed with damaged bytes may raise anything
        raise CaseError(f"the header cannot be read ({type(error).__name__})") from error
    shown = ["grey values turned over: stored from white to black"] if inverted else []
    extra = [f"{len(copies) - 1} exact copies of the image left out"] if len(copies) > 1 else []
    return Series(
        uid_hash=_name(header, key),
        modality=modality,
        planes=(replace(header.planes[0], frame=0),),
        grid=grid,
        derived=header.image_type[:1] == ("DERIVED",),
        policy=policy,
        notes=(*extra, *notes, *shown, *remarks(header)),
        patient_key=header.patient or header.study_uid or header.frame_of_reference,
        study_uid=header.study_uid,
        series_uid=header.series_uid,
        frame_of_reference=header.frame_of_reference,
        pixel_bytes=header.claimed_bytes,
        picture=True,
    )


def _by_instance(headers: Sequence[Header]) -> list[list[Header]]:
    """Headers of one SOP Instance UID together; those without one each alone."""
    found: dict[str, list[Header]] = {}
    for number, header in enumerate(headers):
        found.setdefault(header.sop_uid or str(number), []).append(header)
    return list(found.values())


def _refuse_two_patients(headers: Sequence[Header]) -> None:
    several = len({h.patient for h in headers})
    if several > 1:
        raise CaseError(
            f"one series UID covers {several} patients",
            mend="export again: the files of different series were given one UID",
        )


def _name(header: Header, key: bytes) -> str:
    return keyed_hash(header.sop_uid or f"{header.series_uid}|{picture_digest(header.file)}", key)


def _left_out(headers: Sequence[Header], status: str, reason: str, key: bytes, mend: str = "") -> LeftOut:
    first = headers[0]
    return LeftOut(
        series=keyed_hash(first.series_uid or first.sop_uid or str(first.file.name), key),
        status=status,
        reason=reason,
        modality=modality_of(first),
        count=len(headers),
        mend=mend,
        file=str(first.file),
        series_uid=first.series_uid,
    )


def _looked_at(file: Path) -> Dataset:
    """What of the header placing and showing need."""
    from pydicom import dcmread

    return dcmread(bounded(file), stop_before_pixels=True, specific_tags=_TAGS, force=True)


def _refuse_other_size(picture: NDArray[Any], plane: Plane) -> None:
    if picture.shape not in ((plane.rows, plane.columns), (plane.rows, plane.columns, 3)):
        raise CaseError(
            "an image is of another size than its header says",
            file=str(plane.file),
            evidence=f"{picture.shape} for {(plane.rows, plane.columns)} (rows, columns)",
        )


def _as_shown(picture: NDArray[Any], plane: Plane) -> tuple[NDArray[Any], list[str]]:
    """Stored values to grey ``[row, column]`` as float64, or colour ``[row, column, 3]``."""
    if picture.ndim == 3:
        return picture, []
    try:
        with tolerant():
            return _grey_or_palette(picture, _looked_at(plane.file), plane)
    except Exception as error:  # tables of damaged headers fail in any way
        raise CaseError(
            "a look-up table of the image cannot be used", file=str(plane.file), evidence=type(error).__name__
        ) from error


def _grey_or_palette(picture: NDArray[Any], dataset: Dataset, plane: Plane) -> tuple[NDArray[Any], list[str]]:
    if text_of(dataset, "PhotometricInterpretation") == "PALETTE COLOR":
        return _coloured(picture, dataset), []
    if "ModalityLUTSequence" in dataset:
        values, ends, said = _looked_up(picture, dataset), _lut_ends(dataset), ["a Modality LUT was applied"]
    else:
        values = picture.astype(np.float64) * plane.slope + plane.intercept
        ends, said = sum(_stored_range(dataset)) * plane.slope + 2 * plane.intercept, []
    return (ends - values if _inverted(dataset) else values), said


def _inverted(dataset: Dataset) -> bool:
    """Whether the smallest value is white. The two attributes say the same thing: both do not cancel."""
    grey = text_of(dataset, "PhotometricInterpretation")
    inverse = text_of(dataset, "PresentationLUTShape").upper() == "INVERSE"
    return grey == "MONOCHROME1" or (grey == "MONOCHROME2" and inverse)


def _stored_range(dataset: Dataset) -> tuple[int, int]:
    """The smallest and the largest value that the stored bits can hold."""
    bits = int((numbers_of(dataset, "BitsStored") or numbers_of(dataset, "BitsAllocated") or (16,))[0])
    signed = (numbers_of(dataset, "PixelRepresentation") or (0,))[0] == 1
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)


def _looked_up(picture: NDArray[Any], dataset: Dataset) -> NDArray[np.float64]:
    from pydicom.pixels.processing import apply_modality_lut

    return np.asarray(apply_modality_lut(picture, dataset), np.float64)


def _lut_ends(dataset: Dataset) -> int:
    """Smallest plus largest value that the Modality LUT can give."""
    return 2 ** int(dataset.ModalityLUTSequence[0].LUTDescriptor[2]) - 1


def _coloured(picture: NDArray[Any], dataset: Dataset) -> NDArray[Any]:
    from pydicom.pixels.processing import apply_color_lut

    colour = np.asarray(apply_color_lut(picture, dataset))
    return colour if colour.dtype == np.uint8 else (colour >> 8).astype(np.uint8)
