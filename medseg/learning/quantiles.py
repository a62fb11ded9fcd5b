"""Grey values of the training cases as a network sees them: mean percentiles of each channel."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from medseg.data.harmonise import mean_quantiles
from medseg.data.plan import Plan
from medseg.learning.sampling import PreparedCase

_MOST = 50
"""Cases looked at, evenly spread."""


def quantiles_by_channel(cases: Sequence[PreparedCase], plan: Plan) -> dict[str, list[float]]:
    """Percentiles 0 to 100, each the mean over cases, of each channel after the plan's intensity rule."""
    some = cases[:: max(1, -(-len(cases) // _MOST))]
    found = {}
    for n, name in enumerate(plan.channels):
        images = (np.asarray(case.image[n], np.float32) for case in some)
        values = mean_quantiles(_inside(images, cut_away(plan, name)))
        found[name] = [float(f"{v:.6g}") for v in values]
    return found


def cut_away(plan: Plan, channel: str) -> bool:
    """Whether the channel's outside is cut away: it stays 0 and counts for nothing."""
    return bool(plan.intensity[channel].settings.get("nonzero"))


def _inside(images: Iterable[NDArray[np.float32]], cut: bool) -> Iterator[NDArray[np.float32]]:
    return (image[image != 0] if cut and (image != 0).any() else image.ravel() for image in images)
