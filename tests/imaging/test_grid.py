"""Geometry as algebra: there and back gives what one started with."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as s

from medseg.core.errors import MedsegError
from medseg.imaging.grid import Affine, Grid, lps_from_ras, ras_from_lps

_mm = s.floats(-500, 500, allow_nan=False)
_spacing = s.tuples(*[s.floats(0.3, 6.0)] * 3)
_shape = s.tuples(*[s.integers(1, 12)] * 3)


@s.composite
def affines(draw: s.DrawFn) -> Affine:
    """Any rotation, with or without mirror, axes in any order, any spacing and place."""
    angles = draw(s.tuples(*[s.floats(-3.1, 3.1)] * 3))
    turned = _rotation(angles) @ np.diag(draw(_spacing))
    turned = turned[:, draw(s.permutations([0, 1, 2]))] * np.array(
        draw(s.tuples(*[s.sampled_from([-1, 1])] * 3))
    )
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = turned, draw(s.tuples(_mm, _mm, _mm))
    return affine


@s.composite
def grids(draw: s.DrawFn) -> Grid:
    """Any lattice that a scanner could make, and many that none would."""
    return Grid(draw(_shape), draw(affines()))


def _rotation(angles: tuple[float, float, float]) -> np.ndarray:
    turned = np.eye(3)
    for axis, angle in enumerate(angles):
        a, b = [i for i in range(3) if i != axis]
        one = np.eye(3)
        one[a, a] = one[b, b] = np.cos(angle)
        one[a, b], one[b, a] = -np.sin(angle), np.sin(angle)
        turned = turned @ one
    return turned


@given(affines())
def test_lps_and_ras_are_each_others_inverse(affine: Affine) -> None:
    assert np.array_equal(ras_from_lps(lps_from_ras(affine)), affine)
    assert np.array_equal(lps_from_ras(ras_from_lps(affine)), affine)


def test_lps_turns_left_and_posterior_and_keeps_superior() -> None:
    flipped = lps_from_ras(np.diag([2.0, 3.0, 4.0, 1.0]))
    assert np.array_equal(flipped, np.diag([-2.0, -3.0, 4.0, 1.0]))


@given(grids(), s.tuples(_mm, _mm, _mm))
def test_millimetres_and_indices_lead_to_each_other(grid: Grid, point: tuple[float, ...]) -> None:
    assert np.allclose(grid.to_mm(grid.to_index(point)), point, atol=1e-8)
    assert np.allclose(grid.to_mm((0, 0, 0)), grid.affine[:3, 3])


@given(grids())
def test_volume_is_the_product_of_spacings_for_a_box(grid: Grid) -> None:
    assert grid.voxel_ml == pytest.approx(np.prod(grid.spacing_mm) / 1000)


@given(grids())
def test_every_world_axis_is_taken_once(grid: Grid) -> None:
    axes, signs = grid.nearest_axes()
    assert sorted(axes) == [0, 1, 2]
    assert set(signs) <= {-1, 1}
    pairs = ("LR", "PA", "IS")
    assert sorted(next(p for p in pairs if code in p) for code in grid.axis_codes) == sorted(pairs)


@pytest.mark.parametrize(
    ("columns", "codes"),
    [(((1, 0, 0), (0, 1, 0), (0, 0, 1)), "RAS"), (((-1, 0, 0), (0, -1, 0), (0, 0, 1)), "LPS"),
     (((0, 1, 0), (0, 0, -1), (-1, 0, 0)), "AIL"), (((0.8, 0.6, 0), (-0.6, 0.8, 0), (0, 0, 1)), "RAS")],
)  # fmt: skip
def test_axis_codes_name_where_the_axes_point(columns: tuple[tuple[float, ...], ...], codes: str) -> None:
    affine = np.eye(4)
    affine[:3, :3] = np.array(columns).T
    assert Grid((2, 3, 4), affine).axis_codes == codes


@given(grids(), _spacing)
def test_a_resampled_grid_covers_the_same_box(grid: Grid, spacing: tuple[float, float, float]) -> None:
    new = grid.resampled(spacing)
    assert np.allclose(new.spacing_mm, spacing)
    assert np.allclose(new.to_mm((-0.5,) * 3), grid.to_mm((-0.5,) * 3), atol=1e-6), "outer corners coincide"
    old_mm = np.array(grid.shape) * grid.spacing_mm
    new_mm = np.array(new.shape) * new.spacing_mm
    assert np.all((np.abs(old_mm - new_mm) <= np.array(spacing) / 2 + 1e-6) | (np.array(new.shape) == 1))


@given(grids())
def test_resampling_to_the_same_spacing_changes_nothing(grid: Grid) -> None:
    assert grid.matches(grid.resampled(grid.spacing_mm))


@given(grids(), s.tuples(*[s.integers(-5, 5)] * 3))
def test_a_crop_keeps_every_voxel_where_it_is(grid: Grid, start: tuple[int, int, int]) -> None:
    part = grid.cropped(start, (2, 2, 2))
    assert np.allclose(part.to_mm((1, 0, 1)), grid.to_mm(np.add(start, (1, 0, 1))))
    assert part.cropped([-n for n in start], grid.shape).matches(grid)


@given(grids(), s.integers(0, 2), s.integers(0, 3))
def test_grids_match_element_by_element_never_by_a_signed_sum(grid: Grid, row: int, column: int) -> None:
    shifted = grid.affine.copy()
    shifted[row, column] += 0.5
    shifted[(row + 1) % 3, column] -= 0.5  # the sum of differences is zero
    other = Grid(grid.shape, shifted) if abs(np.linalg.det(shifted[:3, :3])) > 1e-6 else None
    assert grid.matches(grid)
    assert other is None or not grid.matches(other)


@given(grids())
def test_a_header_in_single_precision_still_matches(grid: Grid) -> None:
    assert grid.matches(Grid(grid.shape, grid.affine.astype(np.float32).astype(float)))


@pytest.mark.parametrize("shift", [0.002, 5.0])
def test_a_small_shift_does_not_match_and_its_message_shows_both(shift: float) -> None:
    one = Grid.from_spacing((4, 5, 6), (1, 1, 2))
    moved = one.affine.copy()
    moved[2, 3] += shift
    other = Grid(one.shape, moved)
    assert not one.matches(other)
    assert one.matches(other, tol_mm=shift)
    assert one.difference(other).count("affine [") == 2


def test_another_shape_never_matches() -> None:
    assert not Grid.from_spacing((4, 5, 6)).matches(Grid.from_spacing((4, 6, 5)))


def _with(place: tuple[int, int], value: float) -> Affine:
    affine = np.eye(4)
    affine[place] = value
    return affine


@pytest.mark.parametrize(
    "affine",
    [np.zeros((4, 4)), np.eye(3), np.eye(4)[:3], _with((0, 0), 0.0), _with((0, 3), np.nan),
     _with((1, 1), np.inf), _with((3, 0), 1.0), _with((3, 3), 0.0)],
)  # fmt: skip
def test_an_affine_that_places_nothing_is_refused(affine: Affine) -> None:
    with pytest.raises(MedsegError, match="does not place the voxels"):
        Grid((2, 2, 2), affine)


@pytest.mark.parametrize("shape", [(2, 2), (0, 2, 2), (2, 2, 2, 2), (-1, 2, 2)])
def test_a_shape_that_is_no_volume_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(MedsegError, match="three axes"):
        Grid(shape, np.eye(4))  # type: ignore[arg-type]


def test_a_grid_cannot_be_changed_by_accident() -> None:
    source = np.eye(4)
    grid = Grid((2, 2, 2), source)
    source[0, 0] = 9
    assert grid.affine[0, 0] == 1
    with pytest.raises(ValueError, match="read-only"):
        grid.affine[0, 0] = 9
