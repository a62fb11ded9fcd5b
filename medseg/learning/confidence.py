"""How sure a model is of its own mask: a quality score without a reference, and candidates for lesions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.imaging.candidates import candidates
from medseg.imaging.grid import Grid
from medseg.imaging.image import Image
from medseg.learning.inference import Thresholds, label_map
from medseg.learning.model import Models
from medseg.learning.settings import Prediction

Probabilities = tuple[NDArray[np.float32], Grid]


def segment_with_confidence(
    models: Models,
    image: Image,
    prediction: Prediction | None = None,
    thresholds: Thresholds | None = None,
) -> tuple[Image, dict[str, Any], dict[str, list[dict[str, Any]]]]:
    """A mask with what the model thinks of it, from one pass over the image.

    Returns
    -------
    mask : Image
        As `Models.segment` gives it.
    quality : dict
        ``quality`` (see `expected_dice`; mean over configurations) and ``by_label``.
    candidates : dict
        Label name -> candidates with ``point_mm`` (RAS), ``score`` (largest probability) and ``ml``.
    """
    parts = models.parts(image, prediction)
    chosen = models.postprocessing.thresholds if thresholds is None else thresholds
    mask = image.but(label_map(parts, image.grid, models.labels, chosen))
    names = [label.name for label in models.labels]
    first = models.plan.outputs - len(names)  # background comes before labels, and not before regions
    seen = [expected_dice(array) if first else _of_regions(array) for array, _ in parts]
    by_label = {n: _mean([one[i] for one in seen]) for i, n in enumerate(names)}
    found = [value for value in by_label.values() if value is not None]
    quality = {"quality": float(np.mean(found)) if found else 0.0, "by_label": by_label}
    array, grid = parts[0]
    return mask, quality, {n: candidates(array[i + first], grid) for i, n in enumerate(names)}


def expected_dice(array: NDArray[np.float32]) -> list[float | None]:
    """The Dice that the probabilities themselves expect of the most probable mask, by label.

    Parameters
    ----------
    array : array [L, ...]
        Probabilities, background first.

    Returns
    -------
    list of float or None
        ``2 sum(p m) / (sum(p) + sum(m))`` with m the mask of the label; None where the mask is empty.

    Notes
    -----
    It needs calibrated probabilities to be a Dice; to put cases in order of trust it needs only that surer is
    better. It is judged by its risk-coverage curve (`medseg.evaluation.quality`).
    """
    best = array.argmax(0)
    found: list[float | None] = []
    for label in range(1, len(array)):
        mask = best == label
        inside, size = float(array[label][mask].sum(dtype=np.float64)), int(mask.sum())
        total = float(array[label].sum(dtype=np.float64)) + size
        found.append(2 * inside / total if size else None)
    return found


def _of_regions(array: NDArray[np.float32]) -> list[float | None]:
    """The same for regions, which have a background each."""
    return [expected_dice(np.stack([1 - one, one]))[0] for one in array]


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
