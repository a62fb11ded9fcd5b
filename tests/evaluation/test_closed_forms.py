"""Masks whose numbers are known: balls, plates, cubes, edges; and the tools whose conventions we share."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from medseg.evaluation.pairs import score_pair
from medseg.evaluation.policy import Scoring
from medseg.imaging.grid import Grid
from medseg.imaging.image import Image
from medseg.imaging.labels import labels

METRICS = ("dice", "iou", "hd", "hd95", "assd", "masd", "nsd", "volume_difference", "volume_error")


def scored(a, b, spacing=(1, 1, 1), metrics=METRICS, **choices):
    grid = Grid.from_spacing(a.shape, spacing)
    masks = [Image(np.asarray(x, np.uint8)[None], grid) for x in (a, b)]
    rows = score_pair(*masks, labels(organ=1), Scoring(metrics=metrics, **choices), "c")
    return {row["metric"]: row["value"] for row in rows}


def box(shape, start, stop):
    mask = np.zeros(shape, bool)
    mask[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))] = True
    return mask


@pytest.mark.parametrize("spacing", [(1, 1, 1), (0.7, 0.7, 5.0), (3.0, 0.4, 1.1)])
@pytest.mark.parametrize("shift", [(1, 0, 0), (0, 3, 0), (2, 1, 3)])
def test_a_shifted_cube(spacing, shift):
    size, shape = np.array((8, 7, 6)), (24, 24, 24)
    a = box(shape, (5, 5, 5), 5 + size)
    b = box(shape, 5 + np.array(shift), 5 + size + shift)
    shared, whole = np.prod(size - shift), np.prod(size)
    found = scored(a, b, spacing)
    assert found["dice"] == pytest.approx(shared / whole, abs=1e-12)
    assert found["iou"] == pytest.approx(shared / (2 * whole - shared), abs=1e-12)
    assert found["hd"] == pytest.approx(np.linalg.norm(np.multiply(shift, spacing)), abs=1e-6)
    assert found["volume_difference"] == 0


def test_a_cube_that_grew_by_a_shell_is_one_step_away_everywhere():
    a, b = box((20, 20, 20), (5, 5, 5), (15, 15, 15)), box((20, 20, 20), (6, 6, 6), (14, 14, 14))
    found = scored(a, b, (2, 2, 2))
    outer, inner = 10**3 - 8**3, 8**3 - 6**3
    corners, edges = 8 * np.sqrt(3), 12 * 8 * np.sqrt(2)
    there = 2 * (6 * 64 + edges + corners) / outer
    assert found["hd"] == pytest.approx(2 * np.sqrt(3))
    assert found["masd"] == pytest.approx((there + 2) / 2)
    assert found["assd"] == pytest.approx((there * outer + 2 * inner) / (outer + inner))
    assert found["volume_difference"] == pytest.approx((1000 - 512) * 8 / 1000)
    assert found["volume_error"] == pytest.approx(100 * (1000 - 512) / 512)


def test_two_plates_at_every_tolerance():
    a, b = box((24, 12, 12), (4, 1, 1), (5, 11, 11)), box((24, 12, 12), (8, 1, 1), (9, 11, 11))
    none, half, far, near = (scored(a, b, (2.5, 1, 1), tolerance_mm=t) for t in (7.4, 7.5, 9.9, 10.0))
    assert far["hd"] == far["hd95"] == far["assd"] == far["masd"] == 10.0
    assert (far["dice"], far["iou"]) == (0, 0)
    assert none["nsd"] == 0  # the inner faces lie three voxels apart, the outer ones four
    assert half["nsd"] == pytest.approx(0.5, abs=0.05)
    assert half["nsd"] == far["nsd"]
    assert near["nsd"] == 1


@pytest.mark.parametrize("spacing", [(1, 1, 1), (1, 1, 2)])
def test_two_balls_follow_their_closed_form_as_far_as_voxels_allow(spacing):
    radius, shift, shape = 20.0, 8.0, tuple(int(64 / s) for s in spacing)
    at = np.indices(shape).reshape(3, -1).T * spacing
    balls = [
        (np.linalg.norm(at - [x, 31.0, 31.0], axis=1) <= radius).reshape(shape) for x in (27.0, 27.0 + shift)
    ]
    found = scored(*balls, spacing, tolerance_mm=4.0)
    assert found["dice"] == pytest.approx((1 - shift / 40) ** 2 * (1 + shift / 80), abs=0.005)
    assert found["hd"] == pytest.approx(shift, abs=1e-6)
    assert found["hd95"] == pytest.approx(0.95 * shift, abs=max(spacing))
    assert found["assd"] == pytest.approx(shift / 2, rel=0.15)  # coinciding border voxels are at 0
    assert found["nsd"] == pytest.approx(0.5, abs=0.1)  # within half a voxel of the tolerance


@pytest.mark.parametrize("edge", ["low", "high", "both", "corner"])
def test_at_the_edge_of_the_image_numbers_are_what_they_are_inside(edge):
    shape = (12, 12, 12)
    start = {"low": (0, 3, 3), "high": (6, 3, 3), "both": (0, 3, 3), "corner": (0, 0, 0)}[edge]
    size = (12, 6, 6) if edge == "both" else (6, 6, 6)
    a = box(shape, start, np.add(start, size))
    b = box(shape, start, np.add(start, size) - (0, 1, 2))
    wide = [np.pad(m, 4) for m in (a, b)]
    found = scored(a, b, (1, 1, 3), tolerance_mm=2)
    inside = scored(*wide, (1, 1, 3), tolerance_mm=2)
    assert found == pytest.approx(inside, abs=1e-12)
    assert found["hd"] == pytest.approx(np.hypot(1, 6))


def test_a_two_dimensional_image_is_measured_in_its_plane():
    a, b = box((40, 40, 1), (5, 5, 0), (25, 25, 1)), box((40, 40, 1), (5, 5, 0), (25, 21, 1))
    found = scored(a, b, (0.5, 0.5, 8.0), tolerance_mm=0.5)
    assert found["dice"] == pytest.approx(2 * 320 / 720)
    assert found["hd"] == pytest.approx(2.0)
    assert found["assd"] > 0.2  # in 3-D every voxel of the slice would be border, most at distance 0
    assert found["volume_difference"] == pytest.approx(80 * 0.5 * 0.5 * 8 / 1000)


def random_pairs(n):
    from scipy import ndimage

    rng = np.random.default_rng(7)
    for _ in range(n):
        shape = tuple(rng.integers(4, 20, 3))
        a, b = (ndimage.gaussian_filter(rng.normal(size=shape), rng.uniform(0, 2)) > 0.05 for _ in range(2))
        if a.any() and b.any():
            yield a, b, tuple(rng.uniform(0.4, 3, 3)), float(rng.uniform(0.4, 3))


def test_nsd_equals_surface_distance():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it takes names from where scipy no longer wants them
        theirs = pytest.importorskip(
            "surface_distance.metrics", reason="an optional cross-check: pip install surface-distance"
        )
        for a, b, spacing, tolerance in random_pairs(25):
            distances = theirs.compute_surface_distances(a, b, spacing)
            wanted = theirs.compute_surface_dice_at_tolerance(distances, tolerance)
            ours = scored(a, b, spacing, ("nsd",), tolerance_mm=tolerance)["nsd"]
            assert ours == pytest.approx(wanted, abs=1e-9)


def test_hausdorff_distances_equal_monai():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch
        from monai.metrics import compute_hausdorff_distance

        for a, b, spacing, _ in random_pairs(15):
            seen = [torch.as_tensor(x)[None, None].float() for x in (a, b)]
            how = {"include_background": True, "spacing": list(spacing)}
            wanted = [float(compute_hausdorff_distance(*seen, percentile=q, **how)) for q in (95, None)]
            found = scored(a, b, spacing, ("hd95", "hd"))
            assert [found["hd95"], found["hd"]] == pytest.approx(wanted, abs=2e-5)


def test_a_swap_of_two_labels_is_seen_by_each():
    array = np.zeros((1, 12, 12, 12), np.uint8)
    array[0, 1:5, 2:8, 2:8], array[0, 7:11, 2:8, 2:8] = 1, 2
    grid = Grid.from_spacing((12, 12, 12))
    swapped = Image(np.choose(array, [0, 2, 1]).astype(np.uint8), grid)
    rows = score_pair(swapped, Image(array, grid), labels(left=1, right=2), Scoring(), "c")
    found = {(r["label"], r["metric"]): r["value"] for r in rows}
    assert found["left", "dice"] == found["right", "dice"] == 0
    assert found["left", "hd95"] == found["right", "hd95"] == pytest.approx(6.0)
    assert {row["status"] for row in rows} == {"ok"}
