"""Random changes of a batch, on the device it lies on: one fused resampling, then grey values."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from medseg.learning.settings import Augmenting

_FIELD = 4
"""Knots an axis of the slowly varying field."""
_SELDOM = 0.25
"""Share of the patches that are blurred, and share of those that lose resolution."""
_BEND = 10
"""Voxels between the knots of the elastic displacement."""


def augment(
    image: Tensor,
    target: Tensor,
    patch: Sequence[int],
    spacing_mm: Sequence[float],
    seeds: NDArray[np.int64],
    settings: Augmenting,
) -> tuple[Tensor, Tensor]:
    """Windows to patches: turned, scaled, shifted, mirrored, bent; then blur and loss of resolution,
    contrast, brightness, field, noise, gamma.

    Parameters
    ----------
    image : Tensor
        ``[B, C, *window]`` float32.
    target : Tensor
        ``[B, *window]`` class indices (resampled with the image, nearest), or classes ``[B]`` or ``[B, L]``.
    patch : (I, J, K)
        Size of the result; the windows' centres stay the centres.
    seeds : array (B,)
        One for each window: what is drawn depends on them alone, not on the batch around.

    Returns
    -------
    tuple of Tensor
        ``[B, C, *patch]`` float32 and ``[B, *patch]`` int64 (or the classes).
    """
    rngs = [np.random.default_rng(int(seed)) for seed in seeds]
    maps = np.stack([_affine(rng, patch, spacing_mm, settings) for rng in rngs])
    grid = sampling_grid(maps, patch, image.shape[2:]).to(image.device)
    if settings.elastic:
        grid = grid + _bends(rngs, patch, spacing_mm, image, settings)
    moved = sample(image, grid, "bilinear")
    if target.ndim > 2:
        target = sample(target[:, None].float(), grid, "nearest")[:, 0]
    return _grey(moved, rngs, settings), target.long()


def centre_patch(image: Tensor, patch: Sequence[int]) -> Tensor:
    """The middle ``patch`` of windows ``[B, C, *window]``."""
    starts = [(w - p) // 2 for w, p in zip(image.shape[2:], patch, strict=True)]
    i, j, k = (slice(s, s + p) for s, p in zip(starts, patch, strict=True))
    return image[:, :, i, j, k]


def sampling_grid(maps: NDArray[np.float64], patch: Sequence[int], window: Sequence[int]) -> Tensor:
    """Where each patch voxel is taken from, for `sample`.

    Parameters
    ----------
    maps : array (B, 3, 4)
        Voxel offset from the patch's centre -> voxel offset from the window's centre.

    Returns
    -------
    Tensor
        ``[B, I, J, K, 3]`` in torch's normalised coordinates (last axis first).
    """
    half_patch, half_window = np.array(patch) / 2, np.array(window) / 2
    scaled = maps / half_window[:, None]
    scaled[:, :, :3] *= half_patch
    theta = np.concatenate([scaled[:, ::-1, 2::-1], scaled[:, ::-1, 3:]], axis=2)
    size = [len(maps), 1, *patch]
    return functional.affine_grid(
        torch.from_numpy(np.ascontiguousarray(theta, np.float32)), size, align_corners=False
    )


def sample(array: Tensor, grid: Tensor, mode: str) -> Tensor:
    """``[B, C, *window]`` at the points of `sampling_grid`; edge voxels go on outside."""
    if array.shape[-1] == 1:  # flat: a plane at a time is eight times less work
        flat = functional.grid_sample(
            array[..., 0], grid[..., 0, 1:], mode=mode, padding_mode="border", align_corners=False
        )
        return flat[..., None]
    return functional.grid_sample(array, grid, mode=mode, padding_mode="border", align_corners=False)


def _affine(
    rng: np.random.Generator, patch: Sequence[int], spacing_mm: Sequence[float], settings: Augmenting
) -> NDArray[np.float64]:
    """One random map (3, 4) in voxels: mirror, scale and turn in mm, then shift."""
    mm = np.array(spacing_mm, float)
    flat = np.array(patch) == 1
    turn = rotation(rng.uniform(-1, 1, 3) * np.radians(settings.rotation_deg) * turnable(mm, flat))
    scale = np.exp(rng.uniform(-1, 1) * np.log1p(settings.scale) * np.where(flat, 0, 1))
    draw = rng.random(3)
    mirror = np.where([axis in settings.mirror and draw[axis] < 0.5 for axis in range(3)], -1.0, 1.0)
    linear = (turn * (scale * mirror)[None, :]) * mm[None, :] / mm[:, None]
    shift = rng.uniform(-1, 1, 3) * settings.shift * np.array(patch) * ~flat
    return np.concatenate([linear, shift[:, None]], axis=1)


def _bends(
    rngs: Sequence[np.random.Generator],
    patch: Sequence[int],
    spacing_mm: Sequence[float],
    image: Tensor,
    settings: Augmenting,
) -> Tensor:
    """Smooth random displacements ``[B, I, J, K, 3]`` to add to a sampling grid; equal in mm on all axes."""
    mm, flat = np.array(spacing_mm, float), np.array(patch) == 1
    knots = [1 if p == 1 else max(2, round(p / _BEND)) + 1 for p in patch]
    voxels = settings.elastic * mm[~flat].min() / mm * ~flat
    unit = (voxels * 2 / np.array(image.shape[2:])).reshape(3, 1, 1, 1)
    drawn = np.stack([rng.standard_normal((3, *knots)) * unit for rng in rngs]).astype(np.float32)
    smooth = functional.interpolate(
        torch.from_numpy(drawn).to(image.device), size=list(patch), mode="trilinear", align_corners=True
    )
    return smooth.flip(1).permute(0, 2, 3, 4, 1)


def turnable(mm: NDArray[np.float64], flat: NDArray[np.bool_]) -> NDArray[np.float64]:
    """How far one may turn about each axis (0..1): a turn moves content between the two other axes."""
    out = np.ones(3)
    for axis in range(3):
        a, b = (i for i in range(3) if i != axis)
        out[axis] = 0.0 if flat[a] or flat[b] else min(mm[a], mm[b]) / max(mm[a], mm[b])
    return out


def rotation(angles: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rotation matrix: about the first axis, then the second, then the third (radians)."""
    matrix = np.eye(3)
    for axis, angle in enumerate(angles):
        a, b = (i for i in range(3) if i != axis)
        step = np.eye(3)
        step[a, a] = step[b, b] = np.cos(angle)
        step[a, b], step[b, a] = -np.sin(angle), np.sin(angle)
        matrix = step @ matrix
    return matrix


def _grey(image: Tensor, rngs: Sequence[np.random.Generator], settings: Augmenting) -> Tensor:
    """Contrast, brightness, slow field, noise, gamma: each in its own strength for each image and channel.

    Before them blur and loss of resolution, equal for the channels of an image.
    """
    channels, device = image.shape[1], image.device
    if settings.blur or settings.low_resolution:
        image = along_axes(image, [_coarsening(rng, image.shape[2:], settings) for rng in rngs])

    def drawn(low: float, high: float) -> Tensor:
        values = np.stack([rng.uniform(low, high, channels) for rng in rngs])
        return torch.from_numpy(values.astype(np.float32)).to(device)[:, :, None, None, None]

    gain = drawn(1 - settings.contrast, 1 + settings.contrast)
    offset = drawn(-settings.brightness, settings.brightness)
    strength = drawn(0, settings.noise)
    if settings.field:
        gain = gain * (1 + settings.field * _field(rngs, image))
    image = image * gain + offset
    if settings.noise:
        image = image + strength * _noise(rngs, image)
    return _curved(image, drawn(-settings.gamma, settings.gamma).exp()) if settings.gamma else image


def along_axes(image: Tensor, maps: Sequence[Sequence[Tensor] | None]) -> Tensor:
    """Linear maps ``[n, n]`` along each axis of each image; None leaves an image as it is."""
    changed = [n for n, of_axes in enumerate(maps) if of_axes is not None]
    if not changed:
        return image
    part = image[changed]
    for axis in range(2, 5):
        if image.shape[axis] > 1:
            rows = torch.stack([of_axes[axis - 2] for of_axes in maps if of_axes is not None]).to(part)
            part = torch.einsum("bij,bc...j->bc...i", rows, part.movedim(axis, 4)).movedim(4, axis)
    out = image.clone()
    out[changed] = part
    return out


def blurring(size: int, sd: float) -> Tensor:
    """A Gaussian of standard deviation `sd` voxels as a map ``[n, n]`` whose rows add up to 1."""
    at = torch.arange(size, dtype=torch.float32)
    weights = torch.exp(-0.5 * ((at[:, None] - at) / max(sd, 1e-3)) ** 2)
    return weights / weights.sum(1, keepdim=True)


def coarsening(size: int, kept: float) -> Tensor:
    """To the nearest voxels of a grid with the share `kept` of them, and linearly back: a map ``[n, n]``."""
    few = max(1, round(size * kept))
    eye = torch.eye(size)[None]  # what happens to each unit vector is a column of the map
    small = functional.interpolate(eye, size=few, mode="nearest")
    return functional.interpolate(small, size=size, mode="linear", align_corners=False)[0].T


def _coarsening(rng: np.random.Generator, shape: Sequence[int], settings: Augmenting) -> list[Tensor] | None:
    """The maps of one image: blurred, coarse, both, or (most often) neither."""
    blurred, coarse = rng.random(2) < _SELDOM
    sd, lost = rng.uniform(0, 1, 2) * [settings.blur, settings.low_resolution]
    if not (blurred and sd) and not (coarse and lost):
        return None
    maps = [torch.eye(n) for n in shape]
    if blurred and sd:
        maps = [blurring(n, sd) @ before for n, before in zip(shape, maps, strict=True)]
    if coarse and lost:
        maps = [coarsening(n, 1 - lost) @ before for n, before in zip(shape, maps, strict=True)]
    return maps


def _curved(image: Tensor, power: Tensor) -> Tensor:
    """Raise grey values, scaled to 0..1 over the patch, to `power`; the range stays."""
    low, high = image.amin((2, 3, 4), keepdim=True), image.amax((2, 3, 4), keepdim=True)
    width = (high - low).clamp(min=1e-6)
    return ((image - low) / width) ** power * width + low


def _field(rngs: Sequence[np.random.Generator], image: Tensor) -> Tensor:
    knots = np.stack([rng.standard_normal((1, _FIELD, _FIELD, _FIELD)) for rng in rngs]).astype(np.float32)
    if image.shape[-1] == 1:
        knots = knots[..., :1]
    field = torch.from_numpy(knots).to(image.device)
    return functional.interpolate(field, size=image.shape[2:], mode="trilinear", align_corners=False)


def _noise(rngs: Sequence[np.random.Generator], image: Tensor) -> Tensor:
    parts = []
    for rng in rngs:
        generator = torch.Generator(image.device).manual_seed(int(rng.integers(2**62)))
        parts.append(torch.randn(image.shape[1:], generator=generator, device=image.device))
    return torch.stack(parts)
