"""A case at the door: its files to checked images. Refuses with numbers; repairs only when told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from medseg.core.errors import CaseError
from medseg.data.aligning import on_first_grid
from medseg.data.cohort import Case, Ingesting, Source
from medseg.data.references import SETTING, checked_reference, label_voxels
from medseg.imaging.grid import PIXELS, Grid
from medseg.imaging.image import Image, read_image
from medseg.imaging.labels import Labels


@dataclass(frozen=True)
class TakenIn:
    """What came through the door: channel images, the reference, and what was noticed."""

    images: Mapping[str, Image]
    reference: Image | None = None
    notes: Sequence[str] = field(default=())


def take_in(case: Case, channels: Sequence[str], labels: Labels, settings: Ingesting) -> TakenIn:
    """Read and check all files of a case.

    Parameters
    ----------
    case : Case
    channels : sequence of str
        Channels wanted, in order.
    labels : Labels
        Values the reference may hold; none means that any whole number is taken.
    settings : Ingesting

    Returns
    -------
    TakenIn
        Channels as ``int16`` where that loses nothing, else ``float32``; reference ``uint8``
        (``uint16`` when a configured value is above 255). All on one grid.

    Raises
    ------
    CaseError
        An unreadable file, NaN, a constant image, grids that differ (both are shown), reference
        values that are not configured (with voxel counts and a proposed mapping), no reference
        though one is required.
    """
    images, notes = read_channels(case, channels)
    for name, image in images.items():
        check_not_constant(image, name, several=len(images) > 1)
    images, moved = on_first_grid(case, images, settings.align)
    notes += moved
    first = next(iter(images.values()))
    reference, said = _reference(case, first.grid, labels, settings)
    notes += said
    if reference is not None and not reference.array.any():
        notes.append("the reference is empty: no voxel carries a label")
    return TakenIn({n: compact(i) for n, i in images.items()}, reference, notes)


def read_channels(case: Case, channels: Sequence[str]) -> tuple[dict[str, Image], list[str]]:
    """The image of each channel, ``[1, I, J, K]``; a file that holds several channels is taken apart.

    A picture in colour (PNG, JPEG, DICOM) is one channel, its luminance; for which three are named, they
    are its red, green and blue.

    Raises
    ------
    CaseError
        A file that cannot be read, or one with another number of channels than the cohort says.
    """
    found: dict[str, Image] = {}
    notes: list[str] = []
    for place in dict.fromkeys(_place(case.images[c]) for c in channels):
        names = [c for c in channels if _place(case.images[c]) == place]
        image, said = read_source(case.images[names[0]], colour=len(names) > 1)
        notes += said
        if image.array.shape[0] != len(names):
            raise CaseError(
                "the image has another number of channels than the cohort says",
                case=case.id,
                file=case.images[names[0]].files[0],
                evidence=f"{image.array.shape[0]} in the file, {len(names)} expected ({', '.join(names)})",
                mend="give the right channels, or split the file",
            )
        found |= {name: image.but(image.array[i]) for i, name in enumerate(names)}
    return {c: found[c] for c in channels}, list(dict.fromkeys(notes))


def _place(source: Source) -> tuple[tuple[str, ...], str]:
    return source.files, source.part


def read_source(
    source: Source,
    image: Source | None = None,
    labels: Labels = (),
    colour: bool = False,
    settings: Ingesting | None = None,
) -> tuple[Image, list[str]]:
    """The image of a source as float32 and what the reader remarks; of a picture its colour, when asked.

    For a DICOM reference (SEG, RTSTRUCT), `image` is the series it belongs to, `labels` says what value a
    structure's name has, and `settings` what becomes of overlaps and fractions.
    """
    if not source.files:
        raise CaseError("the source of the image is not known here", mend="ingest from the original files")
    if source.kind == "nifti":
        read = read_image(source.files[0])
        return read, [] if read.grid.spacing_known else [PIXELS]
    if source.kind == "raster":
        from medseg.imaging.raster import read_raster

        return read_raster(source.files[0], colour)
    if source.kind in ("seg", "rtstruct"):
        return _read_drawn(source, image, labels, settings or Ingesting())
    return _read_dicom(source, colour)


def read_case_image(case: Case, channels: Sequence[str], align: bool = False) -> Image:
    """All channels of a case in one image ``[C, I, J, K]`` float32, for use by a model.

    A case with one channel serves a model with one channel, whatever the two are called, and a picture
    serves one with three, for its colours.

    Raises
    ------
    CaseError
        A channel is missing, a file cannot be read, or the channels lie on different grids and `align`
        does not bring them onto that of the first.
    """
    if len(case.images) == len(channels) == 1:
        case = case.but(images={channels[0]: next(iter(case.images.values()))})
    only = next(iter(case.images.values()))
    if len(case.images) == 1 and len(channels) == 3 and only.kind in ("raster", "dicom"):
        case = case.but(images=dict.fromkeys(channels, only))
    missing = [c for c in channels if c not in case.images]
    if missing:
        raise CaseError(
            "the case lacks a channel that the model needs",
            case=case.id,
            evidence=f"missing: {', '.join(missing)}; there: {', '.join(case.images)}",
            mend="give the images under the names of the model's channels",
        )
    images, _ = on_first_grid(case, read_channels(case, channels)[0], align)
    first = images[channels[0]]
    return first.but(np.concatenate([images[c].array for c in channels]))


def _read_dicom(source: Source, colour: bool) -> tuple[Image, list[str]]:
    from medseg.imaging.dicom_in import read_series, series_of_files

    series = series_of_files(source.files, source.part, source.policy)
    if series.picture:
        from medseg.imaging.dicom_picture import read_picture

        read, said = read_picture(series, colour)
        return read, [*series.notes, *said]
    return read_series(series), list(series.notes)


def _read_drawn(
    source: Source, image: Source | None, labels: Labels, settings: Ingesting
) -> tuple[Image, list[str]]:
    """A SEG or RTSTRUCT on the grid of the series it was drawn on."""
    from medseg.imaging.dicom_in import series_of_files
    from medseg.imaging.dicom_rtstruct_in import rtstruct_with_notes
    from medseg.imaging.dicom_seg_in import seg_with_notes

    if image is None or image.kind != "dicom":
        raise CaseError(f"a reference of kind '{source.kind}' needs the DICOM series it was drawn on")
    series = series_of_files(image.files, image.part, image.policy)
    named, overlap = labels or None, settings.overlap
    if source.kind == "rtstruct":
        drawn, notes = rtstruct_with_notes(source.files, series, labels=named, overlap=overlap)
    else:
        drawn, notes = seg_with_notes(
            source.files, series, labels=named, overlap=overlap, threshold=settings.fraction
        )
    return drawn, list(notes)


def check_not_constant(image: Image, channel: str, several: bool = False) -> None:
    """Refuse an image in which every voxel has the same value.

    Raises
    ------
    CaseError
        Naming the value.
    """
    low, high = float(image.array.min()), float(image.array.max())
    if low == high:
        of = f" (channel {channel})" if several else ""
        raise CaseError(
            f"the image is constant{of}: there is nothing to see in it",
            evidence=f"all {image.array.size} voxels are {low:.6g}; shape {image.grid.shape}",
            mend="export the image again, or leave the case out",
        )


def compact(image: Image) -> Image:
    """The image as ``int16`` when every value is a whole number that fits, else as it is."""
    limits = np.iinfo(np.int16)
    array = image.array
    if array.min() < limits.min or array.max() > limits.max:
        return image
    whole = array.astype(np.int16)
    return image.but(whole) if np.array_equal(whole, array) else image


def _reference(case: Case, grid: Grid, labels: Labels, settings: Ingesting) -> tuple[Image | None, list[str]]:
    if case.reference is None:
        if settings.require_reference and case.label_class is None:
            raise CaseError(
                "an image without a reference, where one is required",
                case=case.id,
                evidence="the reference was not found beside the image",
                mend=f"add the reference, leave the case out, or set {SETTING}.require_reference=false",
            )
        return None, []
    try:
        first = next(iter(case.images.values()))
        raw, notes = read_source(case.reference, first, labels, settings=settings)
    except CaseError as error:
        error.what = f"reference: {error.what}"
        raise
    if raw.array.shape[0] != 1:
        raise CaseError("a reference has one channel", evidence=f"{raw.array.shape[0]} channels")
    if not grid.matches(raw.grid):
        raise CaseError(
            "image and reference do not lie on the same grid",
            evidence=f"image {grid}; reference {raw.grid}",
            mend="resample one onto the other, or pair the right files",
        )
    return checked_reference(raw, labels, settings), notes


def source_record(case: Case, taken: TakenIn) -> dict[str, Any]:
    """What is stored of where a case came from (``source.json``): no names, dates or paths.

    Where ``spacing_known`` is false, ``spacing_mm`` counts pixels.
    """
    grid = next(iter(taken.images.values())).grid
    record: dict[str, Any] = {
        "case": case.id,
        "patient": case.patient,
        "channels": list(taken.images),
        "groups": dict(case.groups),
        "label_class": case.label_class,
        "spacing_mm": [round(s, 6) for s in grid.spacing_mm],
        "spacing_known": grid.spacing_known,
        "shape": list(grid.shape),
        "axes": grid.axis_codes,
        "sha256": {channel: case.images[channel].sha256 for channel in taken.images},
        "notes": list(taken.notes),
    }
    if taken.reference is not None:
        record["label_voxels"] = {str(v): n for v, n in label_voxels(taken.reference).items()}
    modality = case.groups.get("modality") or _modality_of(list(taken.images))
    return record | ({"modality": modality} if modality else {})


def _modality_of(channels: Sequence[str]) -> str | None:
    """The modality when a channel's name begins with it (MSD writes ``CT``, ``MRI``)."""
    names = {"CT": "CT", "MR": "MR", "MRI": "MR", "PT": "PT", "PET": "PT"}
    names |= {m: m for m in ("CR", "DX", "MG", "US", "XA", "RF")}
    found = {names.get(channel.upper().partition("-")[0]) for channel in channels} - {None}
    return found.pop() if len(found) == 1 else None


def image_file(folder: Path, channel: str, channels: Sequence[str]) -> Path:
    """Where a channel lies in an ingested case: ``image.nii.gz`` when it is the only one."""
    return folder / ("image.nii.gz" if len(channels) == 1 else f"image_{channel}.nii.gz")
