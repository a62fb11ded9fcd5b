"""An image looked at several times, each time a little turned or enlarged, and the answers averaged.

Training turns and scales its patches, so that a network should give the same answer to each look; what its
answers differ in is its error, and the mean has less of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from medseg.data.plan import Plan
from medseg.learning.augment import rotation, sample, sampling_grid, turnable
from medseg.learning.settings import Prediction

Predict = Callable[[Tensor], Tensor]
Linear = NDArray[np.float64]
"""Voxel offset from the middle of a view -> voxel offset from the middle of the image, (3, 3)."""


def seen_anew(predict: Predict, plan: Plan, settings: Prediction) -> Predict:
    """The mean answer to an image ``[B, C, I, J, K]`` and to its turned and enlarged views.

    Answers with axes are brought back to where the image is; classes ``[B, L]`` are averaged as they are.
    Outside the image its edge voxels go on.
    """
    looks = views(plan.patch, plan.spacing_mm, settings)
    if not looks:
        return predict

    def averaged(x: Tensor) -> Tensor:
        total = predict(x)
        for look in looks:
            answer = predict(_moved(x, look))
            inverse: Linear = np.linalg.inv(look).astype(np.float64)
            back = _moved(answer, inverse) if answer.ndim == x.ndim else answer
            total = total + back
        return total / (1 + len(looks))

    return averaged


def views(patch: Sequence[int], spacing_mm: Sequence[float], settings: Prediction) -> list[Linear]:
    """The maps of all views but the image itself: turned about each axis to both sides, larger, smaller."""
    mm, flat = np.array(spacing_mm, float), np.array(patch) == 1
    about = np.diag(np.radians(settings.turn_deg) * turnable(mm, flat))
    turns = [rotation(sign * angles) for angles in about if angles.any() for sign in (1, -1)]
    factors = (1 + settings.zoom, 1 / (1 + settings.zoom)) if settings.zoom else ()
    zooms = [np.diag(np.where(flat, 1.0, factor)) for factor in factors]
    return [linear * mm[None, :] / mm[:, None] for linear in (*turns, *zooms)]


def _moved(x: Tensor, linear: Linear) -> Tensor:
    """``x`` under a map about its middle."""
    shape = x.shape[2:]
    one = np.concatenate([linear, np.zeros((3, 1))], axis=1)
    grid = sampling_grid(one[None], shape, shape).to(x.device)
    return sample(x, grid.expand(len(x), *grid.shape[1:]), "bilinear")
