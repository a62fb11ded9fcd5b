"""Channels on different grids: refused with the option named, resampled exactly when it is set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medseg.core.errors import CaseError
from medseg.core.values import validated
from medseg.data.cohort import Case, Cohort, Ingesting
from medseg.data.reading import read_case_image, take_in
from medseg.data.selection_rules import Selection
from medseg.imaging.grid import Grid
from medseg.imaging.image import Image, write_image
from tests.data.test_selection import AXIAL, SAGITTAL, write_series

FIRST = Grid.from_spacing((10, 10, 10), (2.0, 2.0, 2.0))
ALIGN = Ingesting(align=True)


def ramp(grid: Grid) -> Image:
    """3 x + 5 y - 2 z of the position in mm: what linear interpolation gives back exactly."""
    points = grid.to_mm(np.stack(np.indices(grid.shape), axis=-1))
    return Image((points @ np.array([3.0, 5.0, -2.0]))[None].astype(np.float32), grid)


def case_of(tmp_path: Path, other: Grid) -> Case:
    write_image(ramp(FIRST), tmp_path / "p1" / "a.nii.gz")
    write_image(ramp(other), tmp_path / "p1" / "b.nii.gz")
    return Cohort.open(tmp_path, image="*/{channel}.nii.gz", channels=("a", "b")).cases[0]


def test_another_grid_is_refused_and_the_option_named(tmp_path: Path) -> None:
    case = case_of(tmp_path, Grid.from_spacing((20, 20, 20), (1.0, 1.0, 1.0)))
    with pytest.raises(CaseError, match="same grid") as error:
        take_in(case, ("a", "b"), (), Ingesting())
    assert "ingest.align=true" in str(error.value) and "20, 20, 20" in str(error.value)


@pytest.mark.parametrize(
    ("other", "tolerance"),
    [
        (Grid.from_spacing((30, 30, 30), (0.7, 0.7, 0.7)), 0.4),  # averaged: to a twentieth of a mm
        (
            Grid((12, 12, 9), np.array([[0, 0, 3.0, -2], [0, -2.0, 0, 20], [2.0, 0, 0, -1], [0, 0, 0, 1]])),
            1e-3,
        ),
    ],
    ids=["finer", "turned"],
)
def test_a_linear_picture_is_the_same_on_the_first_grid(
    tmp_path: Path, other: Grid, tolerance: float
) -> None:
    taken = take_in(case_of(tmp_path, other), ("a", "b"), (), ALIGN)
    assert taken.images["b"].grid.matches(FIRST)
    inside = (slice(None), *(slice(1, 9),) * 3)
    difference = taken.images["b"].array[inside] - ramp(FIRST).array[inside]
    assert float(np.abs(difference).max()) < tolerance
    assert any(note.startswith("channel b was resampled onto the grid of a") for note in taken.notes)


def test_what_is_not_covered_is_said_and_no_overlap_refused(tmp_path: Path) -> None:
    half = Grid.from_spacing((10, 10, 5), (2.0, 2.0, 2.0))
    taken = take_in(case_of(tmp_path / "half", half), ("a", "b"), (), ALIGN)
    assert any("covers 50 %" in note for note in taken.notes)
    far = Grid(FIRST.shape, FIRST.affine + np.array([[0, 0, 0, 500.0], *[[0] * 4] * 3]))
    with pytest.raises(CaseError, match="do not overlap"):
        take_in(case_of(tmp_path / "far", far), ("a", "b"), (), ALIGN)


RULES = {"channels": {"t1": {"description": "t1"}, "flair": {"description": "flair"}}}


def dicom_case(root: Path, **tags: Any) -> Case:
    write_series(root, "t1", AXIAL)
    write_series(root, "flair", SAGITTAL, SeriesNumber=2, **tags)
    return Cohort.open(root, select=validated(Selection, RULES), quiet=True).cases[0]


def test_dicom_channels_of_one_frame_come_onto_the_grid_of_the_first(tmp_path: Path) -> None:
    case = dicom_case(tmp_path)
    with pytest.raises(CaseError, match="same grid"):
        take_in(case, ("t1", "flair"), (), Ingesting())
    taken = take_in(case, ("t1", "flair"), (), ALIGN)
    assert taken.images["t1"].grid.matches(taken.images["flair"].grid)
    assert taken.images["t1"].grid.shape == AXIAL.shape
    used = read_case_image(case, ("t1", "flair"), align=True)
    assert used.array.shape == (2, *AXIAL.shape)
    assert np.array_equal(used.array[1], taken.images["flair"].array[0])
    with pytest.raises(CaseError, match="same grid"):
        read_case_image(case, ("t1", "flair"))


def test_dicom_channels_of_different_frames_are_refused_all_the_same(tmp_path: Path) -> None:
    case = dicom_case(tmp_path, FrameOfReferenceUID="2.25.1")
    with pytest.raises(CaseError, match="different frames of reference"):
        take_in(case, ("t1", "flair"), (), ALIGN)
