"""Filling of contours against closed forms, and against a slow rule written another way."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.path import Path as Outline

from medseg.imaging.dicom_contours import fill, snapped, touched, without_repeats

SHAPE = (40, 60)


def rectangle(left: float, top: float, right: float, bottom: float) -> np.ndarray:
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]], float)


def circle(column: float, row: float, radius: float, points: int = 2000) -> np.ndarray:
    angle = np.linspace(0, 2 * np.pi, points, endpoint=False)
    return np.stack([column + radius * np.cos(angle), row + radius * np.sin(angle)], axis=1)


def centres(shape: tuple[int, int] = SHAPE) -> tuple[np.ndarray, np.ndarray]:
    row, column = np.indices(shape)
    return column, row


def test_a_rectangle_on_pixel_edges_holds_just_its_pixels():
    mask = fill([rectangle(9.5, 4.5, 29.5, 11.5)], SHAPE)
    expected = np.zeros(SHAPE, bool)
    expected[5:12, 10:30] = True
    assert np.array_equal(mask, expected)
    assert mask.dtype == bool


def test_centres_on_a_contour_belong_to_it_on_its_left_and_upper_side_alone():
    mask = fill([rectangle(10, 5, 30, 12)], SHAPE)
    expected = np.zeros(SHAPE, bool)
    expected[5:12, 10:30] = True
    assert np.array_equal(mask, expected)
    neighbour = fill([rectangle(30, 5, 50, 12)], SHAPE)
    assert not (mask & neighbour).any()
    assert (mask | neighbour).sum() == 40 * 7


def test_a_triangle_and_its_complement_share_no_pixel_and_lose_none():
    corners = rectangle(3, 3, 33, 33)
    one, other = fill([corners[[0, 1, 2]]], SHAPE), fill([corners[[0, 2, 3]]], SHAPE)
    assert not (one & other).any()
    assert np.array_equal(one | other, fill([corners], SHAPE))


@pytest.mark.parametrize(("column", "row", "radius"), [(30.2, 20.4, 15.3), (25.0, 18.0, 0.9), (30, 20, 12.0)])
def test_a_circle_holds_the_centres_within_its_radius(column, row, radius):
    x, y = centres()
    distance = np.hypot(x - column, y - row)
    mask = fill([circle(column, row, radius)], SHAPE)
    clear = np.abs(distance - radius) > 1e-4 * radius  # of a polygon with 2000 corners
    assert np.array_equal(mask[clear], (distance < radius)[clear])


def test_a_hole_and_tissue_within_the_hole():
    x, y = centres()
    distance = np.hypot(x - 30.1, y - 20.2)
    mask = fill([circle(30.1, 20.2, r) for r in (17.0, 11.0, 4.0)], SHAPE)
    assert np.array_equal(mask, (distance < 4) | ((distance > 11) & (distance < 17)))


def test_an_angle_and_two_islands():
    angle = np.array([[4.5, 4.5], [24.5, 4.5], [24.5, 9.5], [9.5, 9.5], [9.5, 29.5], [4.5, 29.5]])
    mask = fill([angle, rectangle(39.5, 9.5, 49.5, 19.5)], SHAPE)
    expected = np.zeros(SHAPE, bool)
    expected[5:10, 5:25] = expected[5:30, 5:10] = expected[10:20, 40:50] = True
    assert np.array_equal(mask, expected)


def test_a_keyhole_is_a_hole():
    outer, inner = rectangle(4.5, 4.5, 34.5, 34.5), rectangle(14.5, 14.5, 24.5, 24.5)
    keyhole = np.concatenate([outer, outer[:1], inner[::-1], inner[-1:], outer[:1]])
    assert np.array_equal(fill([keyhole], SHAPE), fill([outer, inner], SHAPE))
    slanted = np.concatenate([outer, outer[:1], circle(19, 19, 7)[::-1], circle(19, 19, 7)[-1:], outer[:1]])
    assert np.array_equal(fill([slanted], SHAPE), fill([outer, circle(19, 19, 7)], SHAPE))


def test_what_reaches_outside_the_picture_is_cut_off():
    mask = fill([circle(0, 0, 10), rectangle(50.5, -20, 100, 100)], SHAPE)
    x, y = centres()
    assert np.array_equal(mask, (np.hypot(x, y) < 10 - 1e-4) | (x > 50))
    assert not fill([rectangle(-30, -30, -2, 80), rectangle(70, 0, 90, 20)], SHAPE).any()


def test_nothing_and_lines_are_empty():
    assert not fill([], SHAPE).any()
    line = np.array([[3.0, 3.0], [20.0, 13.0]])
    assert not fill([line, line[:1]], SHAPE).any()


def test_random_polygons_agree_with_another_rule():
    generator = np.random.default_rng(7)
    x, y = centres()
    for _ in range(40):
        corners = generator.uniform(-5, 60, (generator.integers(3, 15), 2))
        crossings = np.zeros(SHAPE, int)  # a ray to the left from each centre, one side at a time
        for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
            between = (y0 <= y) != (y1 <= y)
            crossings += between & (x0 + (y - y0) * (x1 - x0) / (y1 - y0) < x)
        assert np.array_equal(fill([corners], SHAPE), crossings % 2 == 1)
    convex = circle(30.3, 19.1, 14, 9)
    inside = Outline(convex).contains_points(np.stack([x.ravel(), y.ravel()], axis=1))
    assert np.array_equal(fill([convex], SHAPE), inside.reshape(SHAPE))


def test_the_order_and_direction_of_points_mean_nothing():
    shape = circle(30.3, 19.1, 14, 11)
    for turned in (shape[::-1], np.roll(shape, 3, axis=0)):
        assert np.array_equal(fill([turned], SHAPE), fill([shape], SHAPE))
        assert len(without_repeats([shape, turned, shape + 0.1])) == 2


def test_a_contour_through_centres_touches_its_outermost_pixels():
    through = np.array([[10, 5], [30, 5], [30, 12], [20, 22], [10, 12]], float)
    both = fill([through], SHAPE) | touched([through], SHAPE)
    x, y = centres()
    assert np.array_equal(both, (x >= 10) & (x <= 30) & (y >= 5) & (x + y <= 42) & (y - x <= 2))
    assert not touched([through + 0.25], SHAPE).any()
    assert touched([np.array([[3.0, 3.0]])], SHAPE).sum() == 1
    assert not touched([np.array([[-3.0, 3.0], [70.0, -9.0]])], SHAPE).any()


def test_rounding_in_the_file_does_not_move_a_point_over_a_centre():
    exact = rectangle(10, 5.5, 30, 12)
    noise = np.random.default_rng(1).uniform(-1e-3, 1e-3, exact.shape)
    assert np.array_equal(snapped(exact + noise), exact)
    assert np.array_equal(snapped(exact + 0.01), exact + 0.01)
