"""prepare: an image as the network sees it. The same line in training and in use."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from inspect import signature

import numpy as np
from numpy.typing import NDArray

from medseg.core.errors import CaseError, MedsegError
from medseg.core.registry import look_up
from medseg.data.harmonise import matched
from medseg.data.plan import IMAGE, MASK, Intensity, Preparation
from medseg.imaging.grid import Grid
from medseg.imaging.image import Image, canonical, same_place
from medseg.imaging.resample import resample, resample_labels

Array = NDArray[np.float32]

IGNORED = 255
"""Class index of voxels that nobody knows, in prepared references and in targets."""
SAME_SPACING = 0.01
"""Spacings this close (relative) to the plan's are left alone: resampling would only blur."""


def prepare(image: Image, preparation: Preparation, mask: Image | None = None) -> Image:
    """Bring an image to the plan's region, axes (RAS), intensities and spacing.

    Parameters
    ----------
    image : Image
        ``[C, I, J, K]`` in any axis order, with the channels of the preparation in their order.
    mask : Image, optional
        On the image's grid; needed where the region is that of a mask, and for nothing else.

    Returns
    -------
    Image
        float32 on the canonical grid with the plan's spacing. Intensities are normalised before
        resampling, so that a metal implant cut off by the window cannot ring.

    Raises
    ------
    CaseError
        Another number of channels, a channel whose intensities cannot be normalised (constant), or a
        region whose mask is missing or empty.
    """
    if len(image.array) != len(preparation.channels):
        raise CaseError(
            "the image does not have the channels the plan asks for",
            evidence=f"{len(image.array)} channels, the plan has {', '.join(preparation.channels)}",
        )
    region = preparation.region, preparation.margin_mm, preparation.channels
    image = canonical(region_of(image, mask, *region))
    channels = zip(preparation.channels, image.array, strict=True)
    array = np.stack([_normalised(name, values, preparation) for name, values in channels])
    return resample(image.but(array), prepared_grid(image.grid, preparation), order=3, antialias=True)


def prepare_mask(mask: Image, preparation: Preparation) -> Image:
    """A reference as class indices: 0 background, then 1, 2, ... in the order of the label values.

    Voxels that nobody knows (`Preparation.ignore`) become `IGNORED`.

    uint8 on the same grid as `prepare` gives for its image.

    Raises
    ------
    CaseError
        A value that is not among the plan's labels.
    """
    mask = canonical(mask)
    values = (0, *preparation.label_values)
    known = values if preparation.ignore is None else (*values, preparation.ignore)
    index = np.zeros(max(known) + 1, np.uint8)
    index[list(values)] = np.arange(len(values))
    index[list(known[len(values) :])] = IGNORED
    strange = np.setdiff1d(np.unique(mask.array), known)
    if strange.size:
        raise CaseError(
            "the reference has values that are no label of the plan",
            evidence=f"values {', '.join(str(v) for v in strange)}; labels {values[1:]}",
            mend="add the label to the configuration, or map the value to a known one",
        )
    return resample_labels(mask.but(index[mask.array]), prepared_grid(mask.grid, preparation))


def prepare_pair(image: Image, mask: Image | None, preparation: Preparation) -> tuple[Image, Image | None]:
    """Image and reference, checked to lie on one grid."""
    if mask is not None:
        same_place(image, mask)
    prepared = prepare(image, preparation, mask)
    if mask is None or preparation.whole is not None:  # a class needs no mask beside it
        return prepared, None
    return prepared, prepare_mask(mask, preparation)


def region_of(
    image: Image, mask: Image | None, region: str, margin_mm: float, channels: Sequence[str]
) -> Image:
    """The part of an image that is looked at (`Plan.region`): all of it, or a mask's box and a margin.

    Raises
    ------
    CaseError
        There is no mask, or nothing in it.
    """
    if region == IMAGE:
        return image
    if region == MASK and mask is None and np.unique(image.array[0]).size == 2:
        inside = above_lowest(image.array[0])  # the image itself is a mask
    elif region == MASK:
        inside = None if mask is None else mask.array[0] > 0
    else:
        inside = above_lowest(image.array[list(channels).index(region)])
    if inside is None or not inside.any():
        raise CaseError(
            "the plan looks at the foreground of a mask, and the case has none",
            evidence="no mask was given" if inside is None else "the mask is empty",
            mend="give the mask, as reference or as the channel the plan names, or plan.region=image",
        )
    return _cut_out(image, inside, margin_mm)


def above_lowest(values: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Foreground of a channel that is a mask: what lies above its lowest value."""
    return np.asarray(values > values.min())


def _cut_out(image: Image, inside: NDArray[np.bool_], margin_mm: float) -> Image:
    """The image within the box of `inside`, grown by a margin as far as the image reaches."""
    low, high = [], []
    for axis, mm in enumerate(image.grid.spacing_mm):
        hit = np.flatnonzero(inside.any(axis=tuple(a for a in range(3) if a != axis)))
        more = int(np.ceil(margin_mm / mm))
        low.append(max(0, int(hit[0]) - more))
        high.append(min(inside.shape[axis], int(hit[-1]) + 1 + more))
    i, j, k = (slice(a, b) for a, b in zip(low, high, strict=True))
    grid = image.grid.cropped(low, [b - a for a, b in zip(low, high, strict=True)])
    return Image(image.array[:, i, j, k], grid)


def prepared_grid(grid: Grid, preparation: Preparation) -> Grid:
    """The grid `prepare` puts an image of canonical grid `grid` on."""
    now, wanted = np.array(grid.spacing_mm), np.array(preparation.spacing_mm)
    if preparation.whole is not None:
        extent = np.array(grid.shape) * now
        wanted = wanted * max(1.0, float((extent / (np.array(preparation.whole) * wanted)).max()))
    if (np.abs(now / wanted - 1) <= SAME_SPACING).all():
        return grid
    return grid.resampled([float(s) for s in wanted])


def zscore(values: Array, nonzero: float = 0.0) -> Array:
    """Zero mean and unit standard deviation, of this image alone.

    With `nonzero` set, mean and sd are those of the voxels above the image's smallest value, and
    that background stays 0: for images whose outside was cut away.
    """
    inside = values > values.min() if nonzero else np.ones(values.shape, bool)
    mean = float(values[inside].mean(dtype=np.float64)) if inside.any() else 0.0
    sd = float(values[inside].std(dtype=np.float64)) if inside.any() else 0.0
    if not sd > 1e-6 * max(1.0, abs(mean)):
        raise CaseError(
            "the image is constant: there is nothing to see in it",
            evidence=f"mean {mean:.6g}, standard deviation {sd:.3g}",
            mend="check the export, or leave the case out",
        )
    scaled = (values - np.float32(mean)) / np.float32(sd)
    return np.where(inside, scaled, np.float32(0)) if nonzero else scaled


def percentile_zscore(values: Array, low: float, high: float) -> Array:
    """Clip to the image's own percentiles ``low`` and ``high`` (0 to 100), then as `zscore`.

    For a channel whose scale is another from image to image, with bright spots that would decide it.
    """
    ends = np.percentile(values, [low, high])
    return zscore(np.clip(values, np.float32(ends[0]), np.float32(ends[1])))


def window_zscore(values: Array, low: float, high: float, mean: float, sd: float) -> Array:
    """Clip to ``low..high`` (HU on CT), then subtract a fixed mean and divide by a fixed sd."""
    return (np.clip(values, low, high) - np.float32(mean)) / np.float32(sd)


def window_unit(values: Array, low: float, high: float) -> Array:
    """Clip to ``low..high`` and scale that range to -1..1."""
    return (np.clip(values, low, high) - np.float32(low)) * np.float32(2 / (high - low)) - np.float32(1)


def binary(values: Array, above: float) -> Array:
    """1 above a value, else 0: for images that are masks."""
    return (values > above).astype(np.float32)


INTENSITIES: Mapping[str, Callable[..., Array]] = {
    "binary": binary,
    "matched": matched,
    "percentile_zscore": percentile_zscore,
    "zscore": zscore,
    "window_zscore": window_zscore,
    "window_unit": window_unit,
}


def check_intensity(rule: Intensity) -> None:
    """Refuse a rule set by hand that cannot be used: its name, a number too many, a number that is missing.

    Raises
    ------
    MedsegError
        With the names that are known, or the numbers the rule takes.
    """
    numbers = list(signature(look_up(INTENSITIES, rule.name, "intensity")).parameters.values())[1:]
    if any(p.kind is p.VAR_KEYWORD for p in numbers):
        return
    known = [p.name for p in numbers]
    lacking = [p.name for p in numbers if p.default is p.empty and p.name not in rule.settings]
    if ":" not in rule.name and (lacking or set(rule.settings) - set(known)):
        shown = ", ".join(f"{name}: ..." for name in known if name in lacking) or "..."
        raise MedsegError(
            f"intensity '{rule.name}' cannot be used with the settings given",
            evidence=f"it takes {', '.join(known) or 'none'}; given: {', '.join(rule.settings) or 'none'}",
            mend=f"write {{name: {rule.name}, settings: {{{shown}}}}}" if lacking else "leave the others out",
        )


def _normalised(name: str, values: Array, preparation: Preparation) -> Array:
    rule = preparation.intensity[name]
    function = look_up(INTENSITIES, rule.name, "intensity")
    return np.asarray(function(values.astype(np.float32, copy=False), **rule.settings), np.float32)


def foreground_voxels(indices: NDArray[np.uint8], most: int = 2000) -> NDArray[np.int32]:
    """Evenly spread voxels of each label: rows of (class index, i, j, k), at most `most` a label.

    An empty reference gives no rows. Where some voxels are `IGNORED` the known background has rows too (index
    0): patches that are to lie anywhere are centred there.
    """
    rows = []
    partly = bool((indices == IGNORED).any())
    for label in np.unique(indices[(indices != IGNORED) & (partly | (indices > 0))]):
        flat = np.flatnonzero(indices == label)
        some = flat[:: max(1, -(-flat.size // most))]
        places = np.unravel_index(some, indices.shape)
        rows.append(np.stack([np.full(some.size, label), *places], axis=1))
    return np.concatenate(rows).astype(np.int32) if rows else np.zeros((0, 4), np.int32)
