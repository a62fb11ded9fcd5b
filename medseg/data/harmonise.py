"""Grey values of one site brought to the distribution of another: quantiles and the map between them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from medseg.core.errors import CaseError

Floats = NDArray[np.floating]

KNOTS = 101
"""Quantiles kept: the percentiles 0, 1, ... 100."""
_SAMPLE = 200_000


def quantiles_of(values: Floats, nonzero: bool = False) -> Floats:
    """The percentiles 0 to 100 of an image; with `nonzero` of what lies above its smallest value."""
    inside = values[values > values.min()] if nonzero else values.ravel()
    if not inside.size:
        inside = values.ravel()
    some = inside[:: max(1, inside.size // _SAMPLE)].astype(np.float64)
    found = np.percentile(some, np.linspace(0, 100, KNOTS))
    found[[0, -1]] = inside.min(), inside.max()
    return found


def mean_quantiles(images: Iterable[Floats], nonzero: bool = False) -> Floats:
    """Mean of the percentiles over images: what a typical image of the site looks like."""
    return np.mean([quantiles_of(image, nonzero) for image in images], axis=0)


def named(quantiles: Floats, nonzero: bool = False) -> dict[str, float]:
    """Percentiles as the settings of an intensity rule: ``q000`` to ``q100``."""
    found = {f"q{n:03d}": float(f"{value:.6g}") for n, value in enumerate(quantiles)}
    return found | ({"nonzero": 1.0} if nonzero else {})


def unnamed(settings: Mapping[str, float]) -> Floats:
    """The percentiles of `named`."""
    return np.array([settings[f"q{n:03d}"] for n in range(KNOTS)])


def match_quantiles(values: Floats, wanted: Floats, nonzero: bool = False) -> NDArray[np.float32]:
    """Values moved so that their percentiles become `wanted`, in their own order, linear in between.

    With `nonzero` the image's smallest value is its outside: it becomes 0 and counts for nothing.

    Raises
    ------
    CaseError
        The image is constant.
    """
    own = quantiles_of(values, nonzero)
    if not own[-1] > own[0]:
        raise CaseError(
            "the image is constant: there is nothing to see in it",
            mend="check the export, or leave the case out",
        )
    # equal percentiles (a flat background) stand for all the ranks they take up
    levels, place = np.unique(own, return_inverse=True)
    targets = np.bincount(place, weights=wanted) / np.bincount(place)
    moved = np.interp(values, levels, targets).astype(np.float32)
    return np.where(values > values.min(), moved, np.float32(0)) if nonzero else moved


def matched(values: NDArray[np.float32], nonzero: float = 0.0, **quantiles: float) -> NDArray[np.float32]:
    """Intensity rule: the image's own percentiles become those of the settings (``q000`` ... ``q100``).

    The settings hold percentiles *after* the rule they take the place of: any image whose values rise
    with those of the source gives what the source's rule would have given, whatever its units.
    """
    return match_quantiles(values, unnamed(quantiles), bool(nonzero))
