"""Grey values of one site brought to another: what a monotone change did is undone."""

from __future__ import annotations

import numpy as np
import pytest

from medseg.core.errors import CaseError
from medseg.data.harmonise import match_quantiles, matched, named, quantiles_of, unnamed


def _image(seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (
        np.concatenate([rng.normal(0, 1, 4000), rng.normal(6, 2, 2000)])
        .reshape(20, 20, 15)
        .astype(np.float32)
    )


def test_an_affine_change_is_undone_exactly():
    image = _image()
    back = match_quantiles(-3000 + 1e4 * image, quantiles_of(image))
    np.testing.assert_allclose(back, image, atol=1e-3)


@pytest.mark.parametrize("law", [lambda x: np.exp(x / 4), lambda x: x**3, np.arctan])
def test_a_monotone_change_is_undone_up_to_the_distance_of_the_knots(law):
    image = _image()
    back = match_quantiles(law(image), quantiles_of(image))
    inner = slice(image.size // 100, -image.size // 100)
    order = np.argsort(image, axis=None)[inner]
    assert np.abs(back.ravel()[order] - image.ravel()[order]).max() < 0.25
    assert np.abs(back - image).mean() < 0.05
    np.testing.assert_array_equal(np.argsort(back, axis=None, kind="stable")[[0, -1]],
                                  np.argsort(image, axis=None, kind="stable")[[0, -1]])  # fmt: skip


def test_percentiles_of_the_result_are_the_wanted_ones():
    wanted = quantiles_of(_image(1))
    np.testing.assert_allclose(quantiles_of(match_quantiles(_image(2), wanted)), wanted, atol=0.05)


def test_a_flat_background_takes_one_value_and_the_rest_stays_in_order():
    image = _image()
    image[:8] = -5.0
    moved = match_quantiles(image, quantiles_of(_image(3)))
    assert len(np.unique(moved[:8])) == 1
    assert (np.diff(moved.ravel()[np.argsort(image, axis=None, kind="stable")]) >= 0).all()


def test_what_was_cut_away_stays_nought_and_counts_for_nothing():
    image, source = _image(), _image(4)
    masked = image - image.min() + 1
    masked[:10] = 0.0
    moved = matched(masked, **named(quantiles_of(source), nonzero=True))
    assert (moved[:10] == 0).all()
    np.testing.assert_allclose(quantiles_of(moved[10:]), quantiles_of(source), atol=0.05)


def test_settings_hold_the_percentiles():
    wanted = quantiles_of(_image())
    np.testing.assert_allclose(unnamed(named(wanted)), wanted, rtol=1e-5)


def test_a_constant_image_is_refused():
    with pytest.raises(CaseError, match="constant"):
        matched(np.ones((4, 4, 4), np.float32), **named(quantiles_of(_image())))
