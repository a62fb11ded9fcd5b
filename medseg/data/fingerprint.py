"""What a case looks like in numbers: enough to plan a training without opening an image again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from medseg.core.values import Value
from medseg.imaging.image import Image, canonical

_SAMPLE = 200_000
"""Voxels looked at for percentiles: a regular subset of larger images."""


class ChannelFacts(Value):
    """Intensities of one channel, of the whole image and of the foreground (None without a mask)."""

    low: float
    """0.5th percentile of the image."""
    high: float
    """99.5th percentile of the image."""
    mean: float
    sd: float
    background_share: float
    """Share of voxels that equal the smallest value: large where the image was masked or padded."""
    least: float = 0.0
    most: float = 0.0
    """Extremes of the image."""
    levels: int = 0
    """Values that occur, where they are few (up to 4): an image with two of them is a mask. Else 0."""
    box: tuple[int, int, int] | None = None
    """Extent in voxels of what lies above the lowest value, of a mask."""
    foreground: dict[str, float] | None = None
    """``p005``, ``p500``, ``p995``, ``mean``, ``sd`` of the voxels under any label."""


class CaseFingerprint(Value):
    """One case in numbers; axes in RAS order (see `canonical`).

    ``box`` is the foreground's extent in voxels, None where there is no foreground or no mask. Where
    ``spacing_known`` is False, ``spacing_mm`` and ``volume_ml`` count pixels.
    """

    case: str
    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    spacing_known: bool = True
    channels: dict[str, ChannelFacts]
    voxels: dict[int, int] = {}
    volume_ml: dict[int, float] = {}
    box: tuple[int, int, int] | None = None
    modality: str | None = None
    label_class: str | None = None


def fingerprint(
    image: Image,
    mask: Image | None = None,
    *,
    channels: Sequence[str],
    label_values: Sequence[int] = (),
    case: str = "case",
    modality: str | None = None,
    label_class: str | None = None,
) -> CaseFingerprint:
    """Look at one case.

    Parameters
    ----------
    image : Image
        ``[C, I, J, K]``, one entry of `channels` for each C.
    mask : Image, optional
        Labels on the same grid; None for classification.
    label_values : sequence of int
        Labels to count; a label that is absent counts 0.

    Returns
    -------
    CaseFingerprint
        Numbers rounded to six significant digits, so that they do not depend on the machine.
    """
    image = canonical(image)
    labels = None if mask is None else canonical(mask).array[0]
    known = [int(v) for v in label_values]
    inside = None if labels is None else np.isin(labels, known) if known else labels > 0
    facts = {name: _channel(array, inside) for name, array in zip(channels, image.array, strict=True)}
    counts = {} if labels is None else {int(v): int((labels == v).sum()) for v in label_values}
    return CaseFingerprint(
        case=case,
        shape=image.grid.shape,
        spacing_mm=_rounded(image.grid.spacing_mm),
        spacing_known=image.grid.spacing_known,
        channels=facts,
        voxels=counts,
        volume_ml={v: _round(n * image.grid.voxel_ml) for v, n in counts.items()},
        box=None if inside is None else _box(inside),
        modality=modality,
        label_class=label_class,
    )


def _channel(array: NDArray[np.float32], inside: NDArray[np.bool_] | None) -> ChannelFacts:
    some = array.ravel()[:: max(1, array.size // _SAMPLE)]
    low, high = np.percentile(some, [0.5, 99.5])
    levels = _levels(array, some)
    return ChannelFacts(
        least=_round(array.min()),
        most=_round(array.max()),
        levels=levels,
        box=_box(array > array.min()) if levels == 2 else None,
        low=_round(low),
        high=_round(high),
        mean=_round(array.mean(dtype=np.float64)),
        sd=_round(array.std(dtype=np.float64)),
        background_share=_round((some == array.min()).mean()),
        foreground=None if inside is None or not inside.any() else _foreground(array[inside]),
    )


def _levels(array: NDArray[np.float32], some: NDArray[np.float32]) -> int:
    """How many values occur, 0 when more than four; the whole image is counted only when it may pay."""
    if np.unique(some[:2000]).size > 4:
        return 0
    found = np.unique(array).size
    return found if found <= 4 else 0


def _foreground(values: NDArray[np.float32]) -> dict[str, float]:
    some = values[:: max(1, values.size // _SAMPLE)].astype(np.float64)
    p005, p500, p995 = np.percentile(some, [0.5, 50, 99.5])
    named: Mapping[str, float] = {
        "p005": p005, "p500": p500, "p995": p995, "mean": some.mean(), "sd": some.std(),
    }  # fmt: skip
    return {name: _round(value) for name, value in named.items()}


def _box(inside: NDArray[np.bool_]) -> tuple[int, int, int] | None:
    if not inside.any():
        return None
    extent = []
    for axis in range(3):
        hit = np.flatnonzero(inside.any(axis=tuple(a for a in range(3) if a != axis)))
        extent.append(int(hit[-1] - hit[0] + 1))
    return extent[0], extent[1], extent[2]


def _rounded(values: Sequence[float]) -> tuple[float, float, float]:
    return _round(values[0]), _round(values[1]), _round(values[2])


def _round(value: float) -> float:
    return float(f"{float(value):.6g}")
