"""Stacks are made from positions alone: any orientation, any order of files; the rest is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from medseg.core.errors import CaseError
from medseg.imaging.dicom_geometry import fault_of, parts_of, refuse_unplaced, stack
from medseg.imaging.dicom_header import Plane

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def plane(z: float = 0.0, **changes) -> Plane:
    base = Plane(
        file=Path(f"{z}"), frame=0, position=(-10.0, -20.0, z), orientation=AXIAL, spacing_mm=(2.0, 1.5),
        thickness_mm=3.0, gap_mm=None, slope=1.0, intercept=0.0, echo=(None, ""), rows=4, columns=5,
        image_type=("ORIGINAL",), compressed=False, sop_uid=f"1.{z}",
    )  # fmt: skip
    return replace(base, **changes)


def planes_along(orientation, steps_mm, start=(5.0, 6.0, 7.0)) -> list[Plane]:
    normal = np.cross(orientation[:3], orientation[3:])
    return [
        plane(z, orientation=tuple(orientation), position=tuple(np.array(start) + normal * z))
        for z in steps_mm
    ]


@given(some.floats(-3, 3), some.floats(-1.5, 1.5), some.randoms(use_true_random=False))
def test_the_affine_follows_the_equation_of_the_standard_whatever_the_order(yaw, pitch, shuffle):
    row = np.array([np.cos(yaw), np.sin(yaw), 0])
    column = np.array([-np.sin(yaw) * np.cos(pitch), np.cos(yaw) * np.cos(pitch), np.sin(pitch)])
    planes = planes_along((*row, *column), np.arange(6) * 2.5)
    shuffled = list(planes)
    shuffle.shuffle(shuffled)
    ordered, grid, _ = stack(shuffled)
    assert list(ordered) == planes
    assert grid.shape == (5, 4, 6)
    assert np.allclose(grid.spacing_mm, (1.5, 2.0, 2.5))
    i, j, k = 4, 3, 5
    lps = np.array(planes[k].position) + row * 1.5 * i + column * 2.0 * j
    assert np.allclose(grid.to_mm([i, j, k]), lps * (-1, -1, 1))
    assert np.linalg.det(grid.affine[:3, :3]) > 0


def test_the_step_comes_from_positions_and_a_contradiction_is_noted():
    _, grid, notes = stack([plane(z, gap_mm=4.0) for z in (0, 3, 6)])
    assert grid.spacing_mm[2] == 3
    assert notes == ("SpacingBetweenSlices says 4 mm; the positions, which count, say 3 mm",)


def test_one_slice_takes_its_depth_from_the_header_and_says_so():
    _, grid, notes = stack([plane(0)])
    assert grid.spacing_mm[2] == 3
    assert "one slice" in notes[0]
    _, grid, notes = stack([plane(0, thickness_mm=None)])
    assert grid.spacing_mm[2] == 1
    assert "1 mm" in notes[0]


@pytest.mark.parametrize("jitter", [0.009, 0.02])
def test_jitter_within_a_hundredth_of_the_gap_is_rounding(jitter):
    _, grid, _ = stack([plane(z) for z in (0, 3 + jitter, 6, 9 - jitter, 12)])
    assert grid.spacing_mm[2] == 3


def test_a_missing_slice_is_told_by_its_gap_and_positions():
    with pytest.raises(CaseError, match="1 slice") as caught:
        stack([plane(z) for z in (0, 3, 9, 12, 15)])
    assert caught.value.evidence is not None
    assert "6.000 mm between positions (-10.00, -20.00, 3.00)" in caught.value.evidence


@pytest.mark.parametrize("steps", [(0, 3, 6, 10), (0, 1, 5), (0, 3, 6.2, 9.4)])
def test_uneven_spacing_is_refused(steps):
    with pytest.raises(CaseError, match=r"unevenly spaced|missing"):
        stack([plane(z) for z in steps])


def test_gaps_that_creep_are_refused_though_each_is_within_tolerance():
    with pytest.raises(CaseError, match="add up"):
        stack([plane(z) for z in np.cumsum([3.0] * 40 + [3.025] * 40)])


def test_a_tilted_gantry_is_refused_with_its_angle():
    tilted = [plane(z, position=(-10, -20 + z * np.tan(np.radians(15)), z)) for z in (0, 3, 6)]
    with pytest.raises(CaseError, match=r"tilted by 15\.0 degrees"):
        stack(tilted)


def test_one_slice_pushed_sideways_is_refused():
    planes = [plane(z) for z in range(0, 30, 3)]
    planes[4] = replace(planes[4], position=(-9.9, -20.0, 12.0))
    with pytest.raises(CaseError, match="sideways"):
        stack(planes)


def test_several_images_at_each_position_are_no_volume():
    with pytest.raises(CaseError, match=r"3 images lie at each position.*4-D"):
        stack([plane(z, sop_uid=f"{z}.{t}") for t in range(3) for z in (0, 3, 6)])
    with pytest.raises(CaseError, match="different images lie at one position"):
        stack([plane(0), plane(3), plane(3, sop_uid="other"), plane(6)])


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"spacing_mm": None}, "spacing"),
        ({"spacing_mm": (0.0, 1.0)}, "not positive"),
        ({"spacing_mm": (float("nan"),)}, "readable"),
        ({"orientation": None}, "ImageOrientationPatient is absent"),
        ({"orientation": (1, 0, 0, 0.1, 0.995, 0)}, "orthogonal"),
        ({"position": (1.0, float("inf"), 2.0)}, "ImagePositionPatient"),
    ],
)
def test_what_cannot_be_placed_is_refused_by_name(changes, word):
    bad = plane(3, **changes)
    assert word in (fault_of(bad) or "")
    with pytest.raises(CaseError, match="1 of 3"):
        refuse_unplaced([plane(0), bad, plane(6)])


def test_orientations_matrices_spacings_and_echoes_are_parted():
    sagittal = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
    different = [{}, {"orientation": sagittal}, {"rows": 8}, {"spacing_mm": (1.0, 1.0)}, {"echo": (4.9, "2")}]
    planes = [plane(z, **changes) for z in (0, 3, 6) for changes in different]
    parts = parts_of(planes)
    assert sorted(len(part) for part in parts) == [3] * 5
    assert [p[0].echo for p in parts_of(planes[::-1])] == [p[0].echo for p in parts]


def test_image_types_part_only_what_repeats():
    magnitude, phase = ("ORIGINAL", "M"), ("ORIGINAL", "P")
    assert len(parts_of([plane(z, image_type=t) for z in (0, 3, 6) for t in (magnitude, phase)])) == 2
    assert (
        len(parts_of([plane(z, image_type=t) for z, t in ((0, magnitude), (3, phase), (6, magnitude))])) == 1
    )
