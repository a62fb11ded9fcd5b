"""Weights of one shape brought to another: images with another number of axes, channels or outputs.

Each function keeps what the layer computes, as far as it can: an inflated kernel answers to a volume that
is constant in depth as the flat one did to a slice, a layer given fewer or more channels keeps the sum of
its weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

Inflation = Literal["repeat", "centre"]

POSITIONS = "position_embeddings"
BIAS_TABLE = "relative_position_bias_table"
_KEPT_NORM = 0.5
"""A kernel may be cut when its middle holds this share of its squared weights."""


@dataclass(frozen=True)
class Place:
    """What is known of the place a tensor is to be brought to."""

    channels: int
    """Channels of the image: a convolution that takes as many may take another number than before."""
    inflation: Inflation = "repeat"
    spatial: int = 3
    """Axes of the image: 2 or 3."""
    tokens: tuple[int, ...] = field(default=())
    """Patches along each axis, where the network cuts the image into patches."""


def fitted(theirs: Tensor, shape: Sequence[int], name: str, place: Place) -> tuple[Tensor | None, str]:
    """The tensor in another shape and what was done to it, or None and why it cannot be.

    Equal shapes give the tensor itself and an empty text.
    """
    shape = tuple(shape)
    if tuple(theirs.shape) == shape:
        return theirs, ""
    before = f"{_x(theirs.shape)} for {_x(shape)}"
    if name.endswith(POSITIONS):
        value, said = positions(theirs, shape, place.tokens)
    elif name.endswith(BIAS_TABLE):
        value, said = bias_table(theirs, shape, place.spatial)
    else:
        value, said = _kernel(theirs, shape, place)
    return (value, said) if value is not None else (None, f"another shape, {before}")


def inflate(kernel: Tensor, depth: int, how: Inflation = "repeat") -> Tensor:
    """A flat kernel ``[O, I, h, w]`` as ``[O, I, h, w, depth]``.

    ``repeat`` divides it evenly over the depth; ``centre`` puts it into the middle slice.
    """
    if how == "repeat" or depth == 1:
        return kernel[..., None].expand(*kernel.shape, depth) / depth
    deep = kernel.new_zeros(*kernel.shape, depth)
    deep[..., depth // 2] = kernel
    return deep


def flatten(kernel: Tensor) -> Tensor:
    """A deep kernel ``[O, I, h, w, d]`` summed over its depth: its answer to what is constant there."""
    return kernel.sum(-1)


def rechannel(kernel: Tensor, channels: int) -> Tensor:
    """A kernel ``[O, I, ...]`` for another number of input channels, the sum over them kept.

    The image's channels equal to one another give the answer that the old ones gave.
    """
    mean = kernel.sum(1, keepdim=True) / channels
    return mean.expand(kernel.shape[0], channels, *kernel.shape[2:])


def resize(kernel: Tensor, size: Sequence[int]) -> Tensor | None:
    """A kernel with other odd sides about the same middle: zeros around it, or its middle.

    None when a side is even (it has no middle), or when what would be cut off weighs more than what stays.
    """
    old = kernel.shape[2:]
    if any((a % 2 == 0 or b % 2 == 0) and a != b for a, b in zip(old, size, strict=True)):
        return None
    cut = kernel[(..., *(_middle(a, b) for a, b in zip(old, size, strict=True)))]
    if float(cut.square().sum()) < _KEPT_NORM * float(kernel.square().sum()):
        return None
    pads = [(b - a) // 2 for a, b in zip(cut.shape[2:], size, strict=True)]
    return functional.pad(cut, [side for pad in reversed(pads) for side in (pad, pad)])


def positions(theirs: Tensor, shape: Sequence[int], tokens: Sequence[int]) -> tuple[Tensor | None, str]:
    """Position embeddings ``[1, N, D]`` for another number of patches: interpolated between them.

    The old patches are taken to form a square or a cube, with one entry for the class before them or not.
    """
    if theirs.ndim != 3 or len(shape) != 3 or theirs.shape[2] != shape[2] or not tokens:
        return None, ""
    count, axes = theirs.shape[1], len(tokens)
    for extra in (0, 1):
        side = round((count - extra) ** (1 / axes))
        if side > 0 and side**axes == count - extra:
            grid = theirs[:, extra:].transpose(1, 2).reshape(1, -1, *[side] * axes)
            new = _interpolated(grid, tokens).flatten(2).transpose(1, 2)
            kept = theirs[:, :extra] if new.shape[1] + extra == shape[1] else theirs[:, :0]
            new = torch.cat([kept, new], dim=1)
            return (
                (new, f"positions interpolated from {side} to {_x(tokens)}")
                if new.shape == shape
                else (None, "")
            )
    return None, ""


def bias_table(theirs: Tensor, shape: Sequence[int], spatial: int) -> tuple[Tensor | None, str]:
    """Relative position biases ``[(2 w - 1) ** axes, heads]`` for another window: interpolated."""
    if theirs.ndim != 2 or len(shape) != 2 or theirs.shape[1] != shape[1]:
        return None, ""
    old, new = (round(n ** (1 / spatial)) for n in (theirs.shape[0], shape[0]))
    if old**spatial != theirs.shape[0] or new**spatial != shape[0]:
        return None, ""
    grid = theirs.T.reshape(1, -1, *[old] * spatial)
    table = _interpolated(grid, [new] * spatial).reshape(shape[1], -1).T
    return table, f"window biases interpolated from {(old + 1) // 2} to {(new + 1) // 2} voxels"


def by_class(
    theirs: Tensor, fresh: Tensor, old: Sequence[str], new: Sequence[str]
) -> tuple[Tensor | None, str]:
    """The rows of a head that are for classes of the same name; the other rows stay fresh.

    None when no class but the background is found, or the rows themselves have another shape.
    """
    shared = [name for name in new if name in set(old)]
    if theirs.shape[0] != len(old) or not set(shared) - {"background"}:
        return None, "no class in common"
    if theirs.shape[1:] != fresh.shape[1:]:
        return None, f"another shape, {_x(theirs.shape)} for {_x(fresh.shape)}"
    value = fresh.clone()
    for name in shared:
        value[list(new).index(name)] = theirs[list(old).index(name)].to(value)
    return value, f"{len(shared)} of {len(new)} outputs by the names of their classes"


def _kernel(theirs: Tensor, shape: tuple[int, ...], place: Place) -> tuple[Tensor | None, str]:
    """Axes, then channels, then sides."""
    said: list[str] = []
    value = theirs
    if (value.ndim, len(shape)) == (4, 5):
        value = inflate(value, shape[-1], place.inflation)
        said.append(f"2-D kernels inflated to 3-D ({place.inflation})")
    elif (value.ndim, len(shape)) == (5, 4):
        value = flatten(value)
        said.append("3-D kernels summed over their depth")
    if value.ndim != len(shape) or value.ndim < 4 or value.shape[0] != shape[0]:
        return None, ""
    if value.shape[1] != shape[1]:
        if shape[1] != place.channels:
            return None, ""
        said.append(f"{value.shape[1]} input channels to {shape[1]}, their sum kept")
        value = rechannel(value, shape[1])
    if value.shape[2:] != shape[2:]:
        sized = resize(value, shape[2:])
        if sized is None:
            return None, ""
        said.append(f"kernels of {_x(value.shape[2:])} to {_x(shape[2:])} about their middle")
        value = sized
    return value, "; ".join(said)


def _interpolated(grid: Tensor, size: Sequence[int]) -> Tensor:
    mode = {1: "linear", 2: "bicubic", 3: "trilinear"}[len(size)]
    return functional.interpolate(grid.float(), size=tuple(size), mode=mode, align_corners=False).to(
        grid.dtype
    )


def _middle(old: int, new: int) -> slice:
    spare = max(0, old - new) // 2
    return slice(spare, old - spare)


def _x(sizes: Sequence[int]) -> str:
    return " x ".join(str(size) for size in sizes)
