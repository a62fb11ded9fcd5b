"""Channels of one case on one grid: as they are, or resampled when told to and when they share a frame."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from medseg.core.errors import CaseError
from medseg.data.cohort import Case, Source
from medseg.imaging.grid import Grid
from medseg.imaging.image import Image
from medseg.imaging.resample import resample

Images = Mapping[str, Image]


def on_first_grid(case: Case, images: Images, align: bool) -> tuple[dict[str, Image], list[str]]:
    """All channels on the grid of the first, and what was done to get there.

    Parameters
    ----------
    case : Case
        Whose files say whether the channels share a frame of reference.
    images : mapping of str to Image
        ``[1, I, J, K]`` each, the first one leading.
    align : bool
        Resample the others linearly (averaging where the first is coarser) in place of refusing them.
        DICOM series must name the same frame of reference. NIfTI has none: its coordinates are trusted.

    Raises
    ------
    CaseError
        Another grid without `align`; channels in different frames, or that do not overlap.
    """
    (name, first), *others = images.items()
    done, notes = {name: first}, []
    for other, image in others:
        if image.grid.matches(first.grid):
            done[other] = image
            continue
        if not align:
            raise _another_grid(case, name, other, first.grid, image.grid)
        _same_frame(case, name, other)
        part = _covered(first.grid, image.grid)
        if part == 0 or not (first.grid.spacing_known and image.grid.spacing_known):
            raise _no_overlap(case, name, other, first.grid, image.grid)
        done[other] = resample(image, first.grid, antialias=True)
        notes.append(_note(name, other, first.grid, image.grid, part))
    return done, notes


def _covered(grid: Grid, other: Grid, samples: int = 24) -> float:
    """The part of a grid's box that lies inside another one, by points spread evenly over it."""
    steps = [(np.arange(samples) + 0.5) / samples * n - 0.5 for n in grid.shape]
    points = np.stack(np.meshgrid(*steps, indexing="ij"), axis=-1).reshape(-1, 3)
    index = other.to_index(grid.to_mm(points))
    inside = (index >= -0.5) & (index <= np.array(other.shape) - 0.5)
    return float(inside.all(axis=1).mean())


def _same_frame(case: Case, name: str, other: str) -> None:
    one, two = case.images[name], case.images[other]
    if one.kind == two.kind == "dicom" and not _frame(one) == _frame(two) != "":
        raise CaseError(
            f"channels {name} and {other} lie in different frames of reference, or name none",
            case=case.id,
            mend="register them first: positions of different frames cannot be compared",
        )


def _frame(source: Source) -> str:
    from medseg.imaging.dicom_in import series_of_files

    return series_of_files(source.files, source.part, source.policy).frame_of_reference


def _another_grid(case: Case, name: str, other: str, grid: Grid, others: Grid) -> CaseError:
    return CaseError(
        f"channels {name} and {other} do not lie on the same grid",
        case=case.id,
        evidence=grid.difference(others),
        mend=f"set ingest.align=true (align=true to predict) to resample the others onto the grid of {name} "
        "(for channels in one frame of reference), or pair the right files",
    )


def _no_overlap(case: Case, name: str, other: str, grid: Grid, others: Grid) -> CaseError:
    return CaseError(
        f"channels {name} and {other} do not overlap, or do not say how large their pixels are",
        case=case.id,
        evidence=grid.difference(others),
        mend="pair the right files",
    )


def _note(name: str, other: str, grid: Grid, others: Grid, part: float) -> str:
    before, after = (" x ".join(f"{mm:.3g}" for mm in g.spacing_mm) for g in (others, grid))
    missing = "" if part > 0.999 else f"; it covers {100 * part:.0f} %, beyond it edge values are repeated"
    return f"channel {other} was resampled onto the grid of {name} ({before} -> {after} mm){missing}"
