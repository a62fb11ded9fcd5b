"""Surface metrics: closed forms, drawn masks, algebra, and agreement with MONAI."""

from __future__ import annotations

import warnings
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from medseg.evaluation.elements import element_sizes
from medseg.evaluation.overlap import dice, iou, volume_error
from medseg.evaluation.surface import Pair, assd, hd, hd95, masd, nsd
from medseg.imaging.grid import Grid


def ball(shape, spacing, centre_mm, radius_mm):
    at = np.indices(shape).reshape(3, -1).T * np.array(spacing)
    return (np.linalg.norm(at - np.array(centre_mm), axis=1) <= radius_mm).reshape(shape)


def pair(mask, reference, spacing=(1, 1, 1)) -> Pair:
    return Pair(np.asarray(mask, bool), np.asarray(reference, bool), Grid.from_spacing(mask.shape, spacing))


def box(shape, start, stop):
    mask = np.zeros(shape, bool)
    mask[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))] = True
    return mask


@pytest.mark.parametrize("spacing", [(0.5, 0.5, 0.5), (1.0, 0.5, 0.5), (0.5, 0.6, 1.0)])
def test_two_shifted_balls_follow_their_closed_form(spacing):
    radius, shift = 15.0, 6.0
    shape = tuple(int(46 / s) for s in spacing)
    a = ball(shape, spacing, (20, 22, 22), radius)
    b = ball(shape, spacing, (20 + shift, 22, 22), radius)
    part = shift / (2 * radius)
    measured = pair(a, b, spacing)
    assert dice(a, b) == pytest.approx((1 - part) ** 2 * (1 + part / 2), abs=0.005)
    assert hd(measured) == pytest.approx(shift, abs=max(spacing))
    assert hd95(measured) == pytest.approx(0.95 * shift, abs=max(spacing))
    assert assd(measured) == pytest.approx(shift / 2, rel=0.15)
    for tolerance in (2.0, 3.0, 4.5):
        assert nsd(measured, tolerance) == pytest.approx(
            tolerance / shift, abs=0.06 if len(set(spacing)) == 1 else 0.1
        )


def test_two_plates_are_as_far_apart_as_they_were_put():
    a, b = box((20, 12, 12), (4, 2, 2), (5, 10, 10)), box((20, 12, 12), (11, 2, 2), (12, 10, 10))
    measured = pair(a, b, (2.0, 1.0, 1.0))
    assert hd(measured) == hd95(measured) == assd(measured) == masd(measured) == pytest.approx(14.0)


def test_hd95_sees_a_missed_plate_that_a_pooled_percentile_hides():
    reference = box((40, 40, 20), (2, 2, 5), (38, 38, 6))
    reference |= box((40, 40, 20), (18, 18, 15), (20, 20, 16))
    mask = box((40, 40, 20), (18, 18, 15), (20, 20, 16))
    assert hd95(pair(mask, reference)) > 9


def test_a_cube_has_the_area_of_its_faces_with_bevelled_edges():
    sizes = element_sizes(np.eye(3))
    assert sizes[0b00001111] == pytest.approx(1.0)
    assert sizes[0] == sizes[255] == 0
    assert sizes[1] == pytest.approx(np.sqrt(3) / 8)


def test_voxels_at_the_edge_of_the_image_are_border():
    whole = np.ones((6, 6, 6), bool)
    hole = whole.copy()
    hole[2:4, 2:4, 2:4] = False
    assert hd(pair(hole, whole)) == pytest.approx(1.0)


def test_a_single_slice_is_measured_in_its_plane():
    shape = (30, 30, 1)
    a, b = box(shape, (5, 5, 0), (17, 17, 1)), box(shape, (7, 7, 0), (15, 15, 1))
    measured = pair(a, b, (1, 1, 5))
    assert assd(measured) == pytest.approx(2.07, abs=0.1)
    assert hd(measured) == pytest.approx(np.sqrt(8))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_slice_gives_the_same_numbers_whichever_axis_is_flat(axis):
    rng = np.random.default_rng(3)
    a, b = rng.random((2, 9, 11)) > 0.5
    flat = pair(a[..., None], b[..., None], (1.0, 2.0, 9.0))
    spacing = np.insert([1.0, 2.0], axis, 9.0)
    turned = pair(np.expand_dims(a, axis), np.expand_dims(b, axis), spacing)
    assert (hd95(turned), assd(turned), nsd(turned, 1.5)) == (hd95(flat), assd(flat), nsd(flat, 1.5))


def test_single_voxels_and_lines_are_measured():
    one, other = box((1, 1, 7), (0, 0, 1), (1, 1, 2)), box((1, 1, 7), (0, 0, 4), (1, 1, 5))
    assert hd95(pair(one, other, (1, 1, 2))) == pytest.approx(6.0)
    assert nsd(pair(one, one), 1.0) == 1.0


def test_a_float32_spacing_does_not_push_a_surface_over_the_tolerance():
    a, b = box((9, 9, 9), (2, 2, 2), (6, 6, 6)), box((9, 9, 9), (3, 2, 2), (7, 6, 6))
    assert nsd(pair(a, b, (np.float32(1.0000001), 1, 1)), 1.0) == pytest.approx(nsd(pair(a, b), 1.0))


def test_oblique_and_tilted_grids_are_measured_in_millimetres():
    a, b = box((12, 12, 12), (2, 2, 2), (6, 6, 6)), box((12, 12, 12), (2, 2, 6), (6, 6, 10))
    turn = np.eye(4)
    turn[:2, :2] = [[0.8, -0.6], [0.6, 0.8]]
    straight = pair(a, b)
    oblique = Pair(a, b, Grid((12, 12, 12), turn))
    assert hd95(oblique) == pytest.approx(hd95(straight))
    assert nsd(oblique, 2.0) == pytest.approx(nsd(straight, 2.0))
    tilted = np.eye(4)
    tilted[1, 2] = 0.3
    assert hd(Pair(a, b, Grid((12, 12, 12), tilted))) < 4 * np.hypot(1, 0.3) + 1e-9


masks = arrays(bool, (5, 4, 6), elements=st.booleans())


@given(masks, masks)
@settings(max_examples=40, deadline=None)
def test_overlap_and_distance_do_not_depend_on_who_is_the_reference(a, b):
    if not (a.any() and b.any()):
        return
    there, back = pair(a, b, (1, 2, 0.7)), pair(b, a, (1, 2, 0.7))
    assert dice(a, b) == dice(b, a)
    assert iou(a, b) == pytest.approx(dice(a, b) / (2 - dice(a, b)))
    for metric in (hd, hd95, assd, masd):
        assert metric(there) == pytest.approx(metric(back))
    assert nsd(there, 1.2) == pytest.approx(nsd(back, 1.2))


@given(masks, masks, st.sampled_from([0.5, 2.0, 4.0]))
@settings(max_examples=40, deadline=None)
def test_scaling_the_spacing_scales_distances_and_leaves_overlap(a, b, k):
    if not (a.any() and b.any()):
        return
    small, large = pair(a, b, (1, 2, 0.5)), pair(a, b, (k, 2 * k, 0.5 * k))
    for metric in (hd, hd95, assd):
        assert metric(large) == pytest.approx(k * metric(small))
    assert nsd(large, 1.3 * k) == pytest.approx(nsd(small, 1.3))


@given(masks)
@settings(max_examples=30, deadline=None)
def test_a_mask_agrees_with_itself(a):
    if not a.any():
        return
    measured = pair(a, a)
    assert (dice(a, a), iou(a, a), hd(measured), assd(measured), nsd(measured, 0.1)) == (1, 1, 0, 0, 1)
    assert volume_error(a, a) == 0


@given(masks, masks, st.tuples(*[st.integers(0, 3)] * 3))
@settings(max_examples=30, deadline=None)
def test_background_around_the_masks_changes_nothing(a, b, rim):
    if not (a.any() and b.any()):
        return
    wide = [np.pad(x, [(n, n + 1) for n in rim]) for x in (a, b)]
    small, large = pair(a, b), pair(*wide)
    assert (hd95(small), assd(small), nsd(small, 1.0)) == (hd95(large), assd(large), nsd(large, 1.0))


def smooth_masks(rng, shape):
    from scipy import ndimage

    return [ndimage.gaussian_filter(rng.normal(size=shape), rng.uniform(0, 1.5)) > 0.05 for _ in range(2)]


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("flat", [False, True])
def test_all_surface_metrics_equal_monai(seed, flat):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch
        from monai.metrics import (
            compute_average_surface_distance,
            compute_hausdorff_distance,
            compute_surface_dice,
        )

        rng = np.random.default_rng(seed)
        shape = (*rng.integers(4, 18, 2), 1) if flat else tuple(rng.integers(3, 16, 3))
        spacing, tolerance = rng.uniform(0.5, 3, 3), rng.uniform(0.4, 3)
        a, b = smooth_masks(rng, shape)
        if not (a.any() and b.any()):
            return
        seen = [torch.as_tensor(x[..., 0] if flat else x)[None, None].float() for x in (a, b)]
        how = {"include_background": True, "spacing": list(spacing[: 2 if flat else 3])}
        theirs = [
            compute_hausdorff_distance(*seen, **how),
            compute_hausdorff_distance(*seen, percentile=95, **how),
            compute_average_surface_distance(*seen, symmetric=True, **how),
            compute_surface_dice(*seen, [tolerance], use_subvoxels=True, **how),
        ]
    measured = pair(a, b, spacing)
    ours = [hd(measured), hd95(measured), assd(measured), nsd(measured, tolerance)]
    assert ours == pytest.approx([float(t) for t in theirs], abs=2e-5)


@pytest.mark.parametrize("spacing", [(1, 1, 1), (0.7, 1.3, 3.1), (2.5, 0.4, 0.9)])
def test_every_surface_element_has_the_area_monai_gives_it(spacing):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from monai.metrics.utils import get_code_to_measure_table

        table, kernel = get_code_to_measure_table(spacing)
    weights = kernel.numpy().reshape(2, 2, 2)
    ours = element_sizes(np.diag(np.array(spacing, float)))
    for code in range(256):
        inside = [c for i, c in enumerate(product((0, 1), repeat=3)) if code & (1 << i)]
        theirs = int(sum(weights[c] for c in inside))
        assert ours[code] == pytest.approx(float(table[theirs]), rel=1e-5, abs=1e-7), code
