"""Features of shape and grey values, on bodies with known answers."""

from __future__ import annotations

import numpy as np
import pytest

from medseg.data.radiomics import LARGEST, otsu, radiomics
from medseg.imaging.grid import Grid
from medseg.imaging.image import Image


def _ball(radius_mm: float, spacing=(1.0, 1.0, 1.0), side_mm: float = 40.0, stretch=(1, 1, 1)) -> Image:
    shape = tuple(int(side_mm / s) for s in spacing)
    at = np.stack(np.meshgrid(*(np.arange(n) + 0.5 for n in shape), indexing="ij"), -1) * np.array(spacing)
    inside = np.linalg.norm((at - side_mm / 2) / np.array(stretch), axis=-1) < radius_mm
    return Image(inside[None].astype(np.float32) * 255, Grid.from_spacing(shape, spacing))


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.8, 0.8, 1.6)])
def test_a_ball_has_the_size_surface_and_thickness_of_a_ball(spacing):
    found = radiomics(_ball(12, spacing), None, ["m"])
    assert found["shape_size"] == pytest.approx(4 / 3 * np.pi * 12**3, rel=0.02)
    assert found["shape_surface"] == pytest.approx(4 * np.pi * 12**2, rel=0.06)
    assert found["shape_roundness"] == pytest.approx(1, abs=0.06)
    assert found["shape_thickness_most"] == pytest.approx(12, rel=0.1)
    assert found["shape_axis_2_to_1"] == pytest.approx(1, abs=0.02)
    assert found["shape_pieces"] == 1


def test_a_flat_disc_has_an_area_and_a_perimeter():
    ball = _ball(14, (1, 1, 40))
    found = radiomics(Image(ball.array, Grid.from_spacing(ball.grid.shape)), None, ["m"])
    assert found["shape_size"] == pytest.approx(np.pi * 14**2, rel=0.02)
    assert found["shape_surface"] == pytest.approx(2 * np.pi * 14, rel=0.05)
    assert "shape_side_k" not in found


def test_a_stretched_body_is_longer_and_less_round():
    ball, egg = (radiomics(_ball(8, stretch=s), None, ["m"]) for s in ((1, 1, 1), (1, 1, 2)))
    assert egg["shape_axis_2_to_1"] == pytest.approx(0.5, abs=0.03)
    assert egg["shape_roundness"] < ball["shape_roundness"] - 0.02


def test_grey_values_are_those_under_the_mask():
    rng = np.random.default_rng(0)
    mask = _ball(10)
    array = np.where(
        mask.array > 0, 100 + rng.normal(0, 5, mask.array.shape), rng.normal(0, 1, mask.array.shape)
    )
    found = radiomics(mask.but(array.astype(np.float32)), mask.but((mask.array > 0).astype(np.uint8)), ["CT"])
    assert found["CT_in_mean"] == pytest.approx(100, abs=0.5)
    assert found["CT_in_sd"] == pytest.approx(5, abs=0.3)
    assert abs(found["CT_in_skewness"]) < 0.2
    assert found["CT_all_mean"] < 50
    alone = radiomics(mask.but(array.astype(np.float32)), None, ["CT"])  # Otsu finds the bright ball
    assert alone["CT_in_mean"] == pytest.approx(100, abs=0.5)


def test_every_image_gives_the_same_finite_features():
    rng = np.random.default_rng(0)
    images = [
        rng.normal(size=(1, 20, 20, 8)),
        np.zeros((1, 20, 20, 8)),
        np.eye(20)[None, ..., None] * np.ones(8),
    ]
    tables = [radiomics(Image(a, Grid.from_spacing(a.shape[1:])), None, ["x"]) for a in images]
    assert len({tuple(t) for t in tables}) == 1
    assert all(np.isfinite(list(t.values())).all() for t in tables)


def test_otsu_parts_two_heaps():
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(0, 1, 5000), rng.normal(20, 1, 500)])
    assert 4 < otsu(values) < 16


def test_a_large_image_is_measured_on_fewer_voxels():
    small, large = _ball(12, (0.5, 0.5, 0.5)), _ball(12, (0.25, 0.25, 0.25))
    assert large.array.size > LARGEST > small.array.size
    a, b = (radiomics(image, None, ["m"]) for image in (small, large))
    assert b["shape_size"] == pytest.approx(a["shape_size"], rel=0.02)
    assert b["shape_axis_1"] == pytest.approx(a["shape_axis_1"], rel=0.02)
