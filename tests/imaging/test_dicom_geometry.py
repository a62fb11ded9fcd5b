"""Stacks are made from positions alone: any orientation, any order of files; the rest is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from medseg.core.errors import CaseError
from medseg.imaging.dicom_geometry import extends, fault_of, refuse_unplaced, same_geometry
from medseg.imaging.dicom_header import Plane
from medseg.imaging.dicom_policy import DicomPolicy
from medseg.imaging.dicom_slices import Stack, stack

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
    made = stack(shuffled)
    grid = made.grid
    assert list(made.planes) == planes
    assert grid.shape == (5, 4, 6)
    assert np.allclose(grid.spacing_mm, (1.5, 2.0, 2.5))
    i, j, k = 4, 3, 5
    lps = np.array(planes[k].position) + row * 1.5 * i + column * 2.0 * j
    assert np.allclose(grid.to_mm([i, j, k]), lps * (-1, -1, 1))
    assert np.linalg.det(grid.affine[:3, :3]) > 0


def test_the_step_comes_from_positions_and_a_contradiction_is_noted():
    made = stack([plane(z, gap_mm=4.0) for z in (0, 3, 6)])
    assert made.grid.spacing_mm[2] == 3
    assert made.notes == ("SpacingBetweenSlices says 4 mm; the positions, which count, say 3 mm",)


def test_one_slice_takes_its_depth_from_the_header_and_says_so():
    made = stack([plane(0)])
    assert made.grid.spacing_mm[2] == 3
    assert "one slice" in made.notes[0]
    made = stack([plane(0, thickness_mm=None)])
    assert made.grid.spacing_mm[2] == 1
    assert "1 mm" in made.notes[0]


@pytest.mark.parametrize("jitter", [0.009, 0.02])
def test_jitter_within_a_hundredth_of_the_gap_is_rounding(jitter):
    made = stack([plane(z) for z in (0, 3 + jitter, 6, 9 - jitter, 12)])
    assert made.grid.spacing_mm[2] == 3
    assert made.mends == ()


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


def tilted(degrees: float, levels=(0, 3, 6)) -> list[Plane]:
    return [plane(z, position=(-10, -20 + z * np.tan(np.radians(degrees)), z)) for z in levels]


def test_a_tilted_gantry_is_mended_kept_or_refused_with_its_angle():
    with pytest.raises(CaseError, match=r"tilted by 15\.0 degrees") as caught:
        stack(tilted(15), DicomPolicy(tilt="refuse"))
    assert "cohort.dicom.tilt=resample" in (caught.value.mend or "")
    made = stack(tilted(15))
    assert made.mends[0].record() == {
        "kind": "tilt", "method": "resample", "angle_deg": 15.0, "sideways_mm": 0.803848, "gap_mm": 3.0
    }  # fmt: skip
    assert made.grid.shape == (5, 5, 3)
    assert "tilted by 15.0 degrees (0.804 mm sideways a slice, gap 3.000 mm)" in made.notes[0]
    sheared = stack(tilted(15), DicomPolicy(tilt="shear"))
    assert sheared.grid.shape == (5, 4, 3)
    assert np.allclose(sheared.grid.affine[:3, 2], (0, -0.803848, 3))


@pytest.mark.parametrize("degrees", [-0.5, 0.3])
def test_a_trace_of_tilt_needs_no_mend_because_the_grid_follows_it(degrees):
    made = stack(tilted(degrees, range(0, 300, 3)))
    assert made.mends == ()
    last = np.array(made.planes[-1].position) * (-1, -1, 1)
    assert np.allclose(made.grid.to_mm([0, 0, 99]), last)


def test_slices_that_run_sideways_are_no_tilted_gantry():
    with pytest.raises(CaseError, match="run sideways"):
        stack(tilted(60))


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
    with pytest.raises(CaseError, match="side by side"):
        stack([plane(0), plane(3), plane(3, position=(50, -20, 3)), plane(6)])


def mended(levels, **policy) -> Stack:
    return stack([plane(z) for z in levels], DicomPolicy(**policy))


def test_missing_slices_are_filled_when_told():
    made = mended((0, 3, 9, 12, 15, 18, 21, 24), gaps="resample")
    assert made.grid.shape == (5, 4, 9)
    assert made.grid.spacing_mm[2] == 3
    assert dict(made.mends[0].numbers)["missing"] == 1
    assert "1 missing slice(s) interpolated (largest gap 6.000, usual gap 3.000 mm)" in made.notes[0]
    with pytest.raises(CaseError, match="1 slice") as caught:
        mended((0, 3, 9, 12, 15), uneven="resample")
    assert "cohort.dicom.gaps=resample" in (caught.value.mend or "")


def test_where_many_slices_lack_the_stack_is_uneven():
    with pytest.raises(CaseError, match="unevenly spaced"):
        mended((0, 3, 9, 15, 18), gaps="resample")


def test_uneven_slices_are_evened_from_end_to_end_when_told():
    made = mended((0, 3, 6, 10, 13.5), uneven="resample")
    assert made.grid.shape == (5, 4, 5)
    assert made.grid.spacing_mm[2] == pytest.approx(13.5 / 4)
    assert np.allclose(made.grid.to_mm([0, 0, 4]), (10, 20, 13.5))
    assert made.mends[0].record()["largest_gap_mm"] == 4
    with pytest.raises(CaseError, match="unevenly") as caught:
        mended((0, 3, 6, 10, 13.5), gaps="resample")
    assert "cohort.dicom.uneven=resample" in (caught.value.mend or "")
    assert mended(np.cumsum([3.0] * 40 + [3.025] * 40), uneven="resample").mends[0].kind == "uneven"


def test_a_hole_of_more_than_four_gaps_is_never_filled():
    for options in ({"gaps": "resample"}, {"uneven": "resample"}):
        with pytest.raises(CaseError, match=r"missing|uneven") as caught:
            mended((0, 3, 6, 21, 24, 27, 30.5), **options)
        assert "cohort.dicom" not in (caught.value.mend or "")


def test_tilt_and_a_gap_take_both_mends():
    planes = tilted(15, (0, 3, 9, 12, 15))
    with pytest.raises(CaseError, match="missing"):
        stack(planes)
    made = stack(planes, DicomPolicy(gaps="resample"))
    assert [m.kind for m in made.mends] == ["tilt", "gap"]
    assert made.grid.shape == (5, 4 + 3, 6)
    with pytest.raises(CaseError, match="tilted"):
        stack(planes, DicomPolicy(gaps="resample", tilt="refuse"))


def test_a_mend_that_would_fill_the_memory_is_refused():
    fine = [replace(p, spacing_mm=(1e-8, 1e-8)) for p in tilted(15)]
    with pytest.raises(CaseError, match="too large"):
        stack(fine)


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


def test_orientations_matrices_and_spacings_are_parted_whatever_the_order():
    sagittal = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
    different = [{}, {"orientation": sagittal}, {"rows": 8}, {"spacing_mm": (1.0, 1.0)}]
    planes = [plane(z, **changes) for z in (0, 3, 6) for changes in different]
    groups = same_geometry(planes)
    assert sorted(len(group) for group in groups) == [3] * 4
    assert [g[0].rows for g in same_geometry(planes[::-1])] == [g[0].rows for g in groups]


def test_images_extend_a_stack_only_where_its_slices_are_lacking():
    planes = [plane(z) for z in (0, 3, 6, 12)]
    assert extends(planes, [plane(9)])
    assert extends(planes, [plane(15)])
    assert extends(planes, [plane(15), plane(18)])
    assert not extends(planes, [plane(6)])
    assert not extends(planes, [plane(15), plane(21)])
    assert not extends(planes, [plane(9), plane(6)])
    assert not extends(planes, [plane(9, position=(0.0, -20.0, 9.0))])
    assert not extends(planes[:1], [plane(3)])
