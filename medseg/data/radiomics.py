"""What an image is like in some dozens of numbers: shape, grey values, edges. The plain rival of a network.

Named and computed in our own simple way; they are not those of the IBSI standard.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.imaging.grid import Grid
from medseg.imaging.image import Image, canonical

Floats = NDArray[np.float64]
Bool = NDArray[np.bool_]

_BINS = 32
_PERCENTILES = (5, 10, 25, 50, 75, 90, 95)
_SCALES = (1.0, 3.0)
"""Widths in voxels of the smoothing before gradients are taken."""
LARGEST = 2**21
"""Voxels of the largest image that is measured whole: of larger ones every second, third, ... voxel."""


def radiomics(image: Image, mask: Image | None, channels: Sequence[str]) -> dict[str, float]:
    """Shape of the foreground, and for each channel grey values and gradients inside it and overall.

    Parameters
    ----------
    image : Image
        ``[C, I, J, K]``.
    mask : Image, optional
        Its foreground on the same grid. Without one it is what lies above the lowest value of a mask, or
        above Otsu's threshold of the first channel.

    Returns
    -------
    dict
        Lengths in mm (pixels where the spacing is not known); every value is a finite number.
    """
    image, mask = _thinned(canonical(image)), None if mask is None else _thinned(canonical(mask))
    inside = _foreground(image, None if mask is None else mask.array[0] > 0)
    found = _shape(inside, image.grid.spacing_mm)
    for name, array in zip(channels, image.array.astype(np.float32), strict=True):
        grey = {**_grey(array[inside], "in"), **_grey(array.ravel(), "all"), **_edges(array, inside)}
        found |= {f"{name}_{key}": value for key, value in grey.items()}
    return {name: float(f"{value:.9g}") for name, value in found.items()}


def _thinned(image: Image) -> Image:
    """Every n-th voxel along the axes of more than 64 voxels, so that at most `LARGEST` are left."""
    shape, n = image.grid.shape, 1
    while np.prod([-(-s // n) if s > 64 else s for s in shape]) > LARGEST:
        n += 1
    if n == 1:
        return image
    steps = [n if s > 64 else 1 for s in shape]
    array = image.array[:, :: steps[0], :: steps[1], :: steps[2]]
    affine = image.grid.affine @ np.diag([*steps, 1.0])
    return Image(np.ascontiguousarray(array), Grid(array.shape[1:], affine, image.grid.spacing_known))


def otsu(values: NDArray[Any]) -> float:
    """The threshold that parts grey values into two groups as different as can be (Otsu 1979).

    Of equally good ones the middle; of values that are all equal, that value.
    """
    counts, edges = np.histogram(values, 256)
    middles = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)
    sums = np.cumsum(counts * middles)
    above = below[-1] - below
    with np.errstate(invalid="ignore", divide="ignore"):
        between = below * above * (sums / below - (sums[-1] - sums) / above) ** 2
    between = np.nan_to_num(between, nan=0.0)
    best = np.flatnonzero(between >= between.max() * (1 - 1e-12))
    return float(edges[1 + best].mean()) if between.max() > 0 else float(values.max())


def _foreground(image: Image, mask: Bool | None) -> Bool:
    first = image.array[0]
    few = np.unique(first.ravel()[:2000]).size <= 2 and np.unique(first).size == 2
    limit = first.min() if few else otsu(first)
    inside = np.asarray(first > limit) if mask is None else mask
    return inside if inside.any() else np.ones(first.shape, bool)


def _shape(inside: Bool, spacing_mm: Sequence[float]) -> dict[str, float]:
    """Size, surface, axes, thickness, place and pieces of the foreground."""
    from scipy import ndimage

    axes = [a for a in range(3) if inside.shape[a] > 1] or [0]
    at = np.argwhere(inside)
    low, high = at.min(0), at.max(0) + 1
    flat = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    box = np.pad(inside[flat], [(3, 3) if a in axes else (0, 0) for a in range(3)])
    box = box.reshape([box.shape[a] for a in axes])
    mm = np.array([spacing_mm[a] for a in axes])
    content, surface = float(inside.sum() * np.prod(mm)), _surface(box, mm)
    depth = ndimage.distance_transform_edt(box, sampling=mm)
    inner = np.asarray(depth)[box]
    pieces = np.bincount(np.asarray(ndimage.label(box)[0]).ravel())[1:]  # type: ignore[index]
    sides = (high - low)[axes] * mm
    middle = (at.mean(0)[axes] + 0.5) / np.array(inside.shape)[axes]
    named = {
        "size": content,
        "surface": surface,
        "surface_per_size": surface / content,
        "roundness": _roundness(content, surface, len(axes)),
        "filled_box": content / float(np.prod(sides)),
        "share": float(inside.mean()),
        "pieces": float(len(pieces)),
        "largest_piece": float(pieces.max() / pieces.sum()),
        "holes": float(np.asarray(ndimage.binary_fill_holes(box)).sum() / box.sum() - 1),
        "thickness_mean": float(inner.mean()),
        "thickness_sd": float(inner.std()),
        "thickness_p90": float(np.percentile(inner, 90)),
        "thickness_most": float(inner.max()),
        **{f"side_{'ijk'[a]}": float(side) for a, side in zip(axes, sides, strict=True)},
        **{f"place_{'ijk'[a]}": float(place) for a, place in zip(axes, middle, strict=True)},
    }
    return {
        f"shape_{key}": value
        for key, value in (named | _principal(at[:, axes].astype(np.float64) * mm)).items()
    }


def _surface(box: Bool, mm: Floats) -> float:
    """Area (perimeter when flat) as the sum of the gradient of the slightly smoothed mask."""
    from scipy import ndimage

    smooth = np.asarray(ndimage.gaussian_filter(box.astype(np.float64), 1.0))
    steps = [np.gradient(smooth, step, axis=a) for a, step in enumerate(mm)]
    return float(np.sqrt(np.sum(np.square(steps), axis=0)).sum() * np.prod(mm))


def _roundness(content: float, surface: float, axes: int) -> float:
    """Surface of the ball (disc) of the same content over the surface: 1 for a ball, less for the rest."""
    ball = {3: (36 * np.pi) ** (1 / 3) * content ** (2 / 3), 2: 2 * np.sqrt(np.pi * content)}
    return ball.get(axes, surface) / max(surface, 1e-9)


def _principal(points_mm: Floats) -> dict[str, float]:
    """Lengths of the principal axes, longest first, and their ratios."""
    spread = np.cov(points_mm.T) if len(points_mm) > 1 else np.zeros((points_mm.shape[1],) * 2)
    lengths = 4 * np.sqrt(np.clip(np.sort(np.linalg.eigvalsh(np.atleast_2d(spread)))[::-1], 0, None))
    named = {f"axis_{n}": float(length) for n, length in enumerate(lengths, start=1)}
    return named | {
        f"axis_{n}_to_1": float(lengths[n - 1] / max(lengths[0], 1e-9)) for n in range(2, len(lengths) + 1)
    }


def _grey(values: NDArray[Any], where: str) -> dict[str, float]:
    """First-order statistics of some grey values."""
    mean, sd = float(values.mean(dtype=np.float64)), float(values.std(dtype=np.float64))
    scaled = (values - mean) / sd if sd > 1e-9 * max(1.0, abs(mean)) else np.zeros(values.shape)
    counts = np.histogram(values, _BINS)[0] / values.size
    levels = zip(_PERCENTILES, np.percentile(values, _PERCENTILES), strict=True)
    named = {
        "mean": mean,
        "sd": sd,
        "least": float(values.min()),
        "most": float(values.max()),
        "skewness": float((scaled * scaled * scaled).mean(dtype=np.float64)),
        "kurtosis": float(np.square(np.square(scaled)).mean(dtype=np.float64)),
        "entropy": float(-np.sum(counts[counts > 0] * np.log2(counts[counts > 0]))),
        **{f"p{p:02d}": float(v) for p, v in levels},
    }
    return {f"{where}_{key}": value for key, value in named.items()}


def _edges(array: NDArray[Any], inside: Bool) -> Mapping[str, float]:
    """How strong grey values change from voxel to voxel, finely and coarsely."""
    from scipy import ndimage

    found = {}
    for scale in _SCALES:
        widths = [scale if n > 1 else 0.0 for n in array.shape]
        smooth = np.asarray(ndimage.gaussian_filter(array, widths))
        steps = [np.gradient(smooth, axis=a) for a, n in enumerate(array.shape) if n > 1]
        size = np.sqrt(np.sum(np.square(steps), axis=0))
        rest = (array - smooth)[inside]
        found |= {
            f"edges{scale:g}_mean": float(size[inside].mean()),
            f"edges{scale:g}_sd": float(size[inside].std()),
            f"edges{scale:g}_all": float(size.mean()),
            f"detail{scale:g}": float(rest.std()),
        }
    return found
