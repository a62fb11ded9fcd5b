"""Differences of two sites: known effect sizes."""

from __future__ import annotations

import numpy as np
import pytest

from medseg.data.fingerprint import fingerprint
from medseg.data.shift import cliffs_delta, differences, distance
from medseg.imaging.grid import Grid
from medseg.imaging.image import Image


def _print(seed: int, gain: float, spacing: float):
    array = np.random.default_rng(seed).normal(10, 3, (1, 8, 9, 10)).astype(np.float32) * gain
    return fingerprint(Image(array, Grid.from_spacing((8, 9, 10), (spacing, 1.0, 1.0))), channels=["MR"])


def test_delta_counts_pairs():
    assert cliffs_delta([1, 2, 3, 4], [2.5]) == 0.0
    assert cliffs_delta([1, 2], [3, 1.5]) == 0.5
    assert cliffs_delta([5], [1, 2]) == -1.0


def test_the_distance_of_a_shifted_curve_is_the_shift_in_sd():
    curve = np.linspace(-1, 1, 101)
    assert distance(curve, curve + 0.5) == pytest.approx(0.5 / curve.std())


def test_what_changed_is_told_and_what_did_not_is_not():
    source = [_print(n, 1.0, 1.0) for n in range(6)]
    target = [_print(10 + n, 100.0, 2.0) for n in range(5)]
    rows = {row["quantity"]: row for row in differences(source, target)}
    assert rows["MR.mean"]["delta"] == rows["MR.sd"]["delta"] == 1.0
    assert rows["MR.mean"]["target_outside_source"] == 1.0
    assert rows["spacing_i_mm"]["delta"] == rows["size_i_mm"]["delta"] == 1.0
    assert rows["spacing_j_mm"]["delta"] == 0.0
    assert abs(rows["MR.mean_in_range"]["delta"]) < 0.9
