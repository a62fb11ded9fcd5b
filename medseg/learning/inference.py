"""A network over a whole image: windows, weights, and the way back to the image's own grid."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations, product

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from medseg.data.plan import Plan, Triple
from medseg.data.rules import UNETS
from medseg.imaging.grid import Grid
from medseg.imaging.image import canonical_grid, from_canonical
from medseg.imaging.labels import Labels, painting, values_of
from medseg.imaging.resample import apply_matrix, axis_maps, matrix
from medseg.learning.devices import autocast, channels_last, number_format
from medseg.learning.sampling import cut
from medseg.learning.settings import Prediction
from medseg.learning.views import seen_anew

Predict = Callable[[Tensor], Tensor]
Part = tuple[NDArray[np.float32], Grid]
"""Class probabilities ``[L, I, J, K]`` (background first; of regions these alone) and their grid."""
Thresholds = Mapping[int, float]
"""Label value -> the probability it needs (`medseg.imaging.masks.Postprocessing`)."""

WHOLE = 2.0
"""An image of up to this many patches in volume goes through the network in one piece."""
SURE = 0.5
"""A voxel lies in a region from this probability on."""
_SLAB_VOXELS = 2**22


def probabilities(
    network: nn.Module | Sequence[nn.Module],
    plan: Plan,
    array: NDArray[np.float32],
    settings: Prediction,
    device: torch.device,
) -> NDArray[np.float32]:
    """Class probabilities ``[L, I, J, K]`` of a prepared image ``[C, I, J, K]``.

    A small image is computed in one piece; a larger one in windows of the plan's patch, overlapping
    and weighted by a Gaussian, several at a time. Mirrored, turned and enlarged copies (``settings``) are
    averaged, and so are several networks.
    """
    step = strides_of(plan)
    size = _network_size(array.shape[1:], plan.patch, step)
    padded, inner = _padded(array, size)
    networks = [network] if isinstance(network, nn.Module) else network
    soft = _averaged([_soft(one, plan, settings, device) for one in networks])
    predict = _mirrored(seen_anew(soft, plan, settings), settings.mirror)
    with torch.inference_mode():
        image = torch.from_numpy(padded)[None]
        whole = int(np.prod(padded.shape[1:])) <= WHOLE * np.prod(plan.patch)
        if whole and plan.network in UNETS:
            out = predict(image)[0]
        else:
            out = _in_windows(predict, image, plan, settings)
    return out[(slice(None), *inner)].contiguous().numpy()


def strides_of(plan: Plan) -> Triple:
    """Sides given to the network must be multiples of these."""
    if plan.network not in UNETS:
        return plan.patch
    i, j, k = np.prod(np.array(plan.network_arguments["strides"]), axis=0)
    return int(i), int(j), int(k)


def label_map(
    parts: Sequence[Part], source: Grid, labels: Labels, thresholds: Thresholds | None = None
) -> NDArray[np.unsignedinteger]:
    """Probabilities on prepared grids -> label values ``[I, J, K]`` on the source grid.

    Several parts (configurations of their own spacing) count alike: the mean on the source grid decides.
    Resampled linearly and decided slab by slab: exactly what resampling everything and then
    deciding (`class_indices`) gives, without ever holding it all. Axes return to the source's order.
    """
    target = canonical_grid(source)
    table = np.array([0, *values_of(labels)])
    table = table.astype(np.uint8 if table.max() <= 255 else np.uint16)
    return from_canonical(table[_decided(parts, target, labels, thresholds)][None], source)[0]


def class_indices(
    found: NDArray[np.float32], labels: Labels, thresholds: Thresholds | None = None
) -> NDArray[np.uint16]:
    """Probabilities ``[L, ...]`` -> class indices as prepared references hold them, ``[...]``.

    The most probable class. Of regions, each voxel takes the value that lies in just the regions of
    probability 0.5 or more; where no value does, what is said contradicts itself and the smallest of these
    regions decides (`medseg.imaging.labels.painting`).

    Parameters
    ----------
    thresholds : mapping, optional
        Label value -> threshold t other than 0.5: the class of the largest ``p (1 - t) / t`` is taken, which
        for a single label is ``p > t``; a region from t on.
    """
    needed = thresholds or {}
    if not any(label.region for label in labels):
        if needed:
            odds = [1.0, *(1 / needed.get(value, SURE) - 1 for value in values_of(labels))]
            found = found * np.array(odds, np.float32).reshape(-1, *[1] * (found.ndim - 1))
        return found.argmax(0).astype(np.uint16)
    table = np.searchsorted([0, *values_of(labels)], painting(labels)).astype(np.uint16)
    codes = np.zeros(found.shape[1:], np.uint16)
    for n, (one, label) in enumerate(zip(found, labels, strict=True)):
        codes |= (one >= needed.get(label.value, SURE)).astype(np.uint16) << n
    return table[codes]


def mean_slabs(parts: Sequence[Part], target: Grid) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """Mean probabilities of several parts on `target`, slab by slab along its first axis."""
    if len(parts) == 1 and parts[0][1].matches(target):
        yield slice(0, target.shape[0]), parts[0][0]
        return
    slabs = [_slabs(array, prepared, target) for array, prepared in parts]
    planes = max(1, _SLAB_VOXELS // (target.shape[1] * target.shape[2] * len(parts[0][0])))
    for first in range(0, target.shape[0], planes):
        total = slabs[0](first, planes)
        for slab in slabs[1:]:
            total = total + slab(first, planes)
        yield slice(first, first + planes), total if len(slabs) == 1 else total / np.float32(len(slabs))


def window_starts(size: int, patch: int, overlap: float) -> list[int]:
    """First voxels of windows that cover `size`, evenly spread, overlapping by at least `overlap`."""
    if size <= patch:
        return [0]
    count = int(np.ceil((size - patch) / max(1, int(patch * (1 - overlap))))) + 1
    return [round(n * (size - patch) / (count - 1)) for n in range(count)]


def gaussian(patch: Sequence[int]) -> Tensor:
    """Weights of a window ``[I, J, K]``: 1 in the middle, sd an eighth of the side, never 0."""
    sides = [torch.exp(-0.5 * ((torch.arange(p) - (p - 1) / 2) / max(p / 8, 0.5)) ** 2) for p in patch]
    weights = sides[0][:, None, None] * sides[1][None, :, None] * sides[2][None, None, :]
    return weights.clamp(min=1e-3)


def _network_size(shape: Sequence[int], patch: Sequence[int], step: Sequence[int]) -> list[int]:
    """Multiples of the strides around an image computed in one piece; else at least a patch."""
    multiple = [-(-n // s) * s for n, s in zip(shape, step, strict=True)]
    if np.prod(multiple) <= WHOLE * np.prod(patch):
        return multiple
    return [max(n, p) for n, p in zip(shape, patch, strict=True)]


def _padded(array: NDArray[np.float32], size: Sequence[int]) -> tuple[NDArray[np.float32], list[slice]]:
    """The image in the middle of an array of `size`, edge voxels repeated; and where it lies."""
    lack = [w - n for w, n in zip(size, array.shape[1:], strict=True)]
    pads = [(gap // 2, gap - gap // 2) for gap in lack]
    inner = [slice(a, a + n) for (a, _), n in zip(pads, array.shape[1:], strict=True)]
    return np.ascontiguousarray(np.pad(array, [(0, 0), *pads], mode="edge")), inner


def _soft(network: nn.Module, plan: Plan, settings: Prediction, device: torch.device) -> Predict:
    """``[B, C, ...]`` anywhere -> probabilities ``[B, L, ...]`` float32 on the CPU."""
    network = network.eval()
    dtype = number_format(device, settings.precision, plan)

    def predict(x: Tensor) -> Tensor:
        x = x.to(device)
        if plan.dimensions == 3:
            x = x.contiguous(memory_format=channels_last(3))
        with autocast(device, dtype):
            logits = network(x)
        return (logits.float().sigmoid() if plan.apart else logits.float().softmax(1)).cpu()

    return predict


def _averaged(predicts: Sequence[Predict]) -> Predict:
    """Mean over networks."""
    if len(predicts) == 1:
        return predicts[0]

    def averaged(x: Tensor) -> Tensor:
        total = predicts[0](x)
        for predict in predicts[1:]:
            total += predict(x)
        return total / len(predicts)

    return averaged


def _mirrored(predict: Predict, axes: Sequence[int]) -> Predict:
    """Mean over all combinations of mirrored axes."""
    if not axes:
        return predict
    turns = mirrorings(axes)

    def averaged(x: Tensor) -> Tensor:
        return torch.stack([predict(x.flip(t)).flip(t) for t in turns]).mean(0)

    return averaged


def mirrorings(axes: Sequence[int]) -> list[list[int]]:
    """Tensor axes to flip for every combination of the given image axes, the empty one first."""
    return [[a + 2 for a in turn] for n in range(len(axes) + 1) for turn in combinations(axes, n)]


def _in_windows(predict: Predict, image: Tensor, plan: Plan, settings: Prediction) -> Tensor:
    """Weighted mean over windows, ``[L, I, J, K]``; in 2-D a window is a slice."""
    shape, patch = image.shape[2:], plan.patch
    starts = list(
        product(*(window_starts(n, p, settings.overlap) for n, p in zip(shape, patch, strict=True)))
    )
    weight = gaussian(patch)
    total = torch.zeros(plan.outputs, *shape)
    weights = torch.zeros(shape)
    size = settings.batch * (1 if plan.dimensions == 3 else 16)
    for first in range(0, len(starts), size):
        places = [
            tuple(slice(s, s + p) for s, p in zip(start, patch, strict=True))
            for start in starts[first : first + size]
        ]
        windows = torch.cat([image[(slice(None), slice(None), *place)] for place in places])
        for place, part in zip(places, predict(windows), strict=True):
            total[(slice(None), *place)] += part * weight
            weights[place] += weight
    return total / weights


def _decided(
    parts: Sequence[Part], target: Grid, labels: Labels, thresholds: Thresholds | None
) -> NDArray[np.uint16]:
    """Class index of each voxel of `target`."""
    out = np.empty(target.shape, np.uint16)
    for slab, mean in mean_slabs(parts, target):
        out[slab] = class_indices(mean, labels, thresholds)
    return out


def _slabs(
    array: NDArray[np.float32], prepared: Grid, target: Grid
) -> Callable[[int, int], NDArray[np.float32]]:
    """``(first plane, planes) -> probabilities`` resampled to these planes of `target`."""
    if prepared.matches(target):
        return lambda first, planes: array[:, first : first + planes]
    axes = axis_maps(prepared, target)
    assert axes is not None, "both grids are canonical"
    weights = [matrix(axis, order=1) for axis in axes]

    def slab(first: int, planes: int) -> NDArray[np.float32]:
        rows = weights[0][first : first + planes]
        used = np.flatnonzero(rows.any(axis=0))
        low, high = used[0], used[-1] + 1
        cut_out = apply_matrix(array[:, low:high], rows[:, low:high], 1)
        return apply_matrix(apply_matrix(cut_out, weights[1], 2), weights[2], 3)

    return slab


def classify(
    network: nn.Module, plan: Plan, array: NDArray[np.float32], settings: Prediction, device: torch.device
) -> NDArray[np.float32]:
    """Class probabilities ``[classes]`` of a prepared image: its middle patch, edge voxels repeated."""
    middle = [n / 2 for n in array.shape[1:]]
    patch = cut(array, middle, plan.patch)
    predict = seen_anew(_soft(network, plan, settings, device), plan, settings)
    with torch.inference_mode():
        image = torch.tensor(patch)[None]  # a copy: the patch may be a view of a mapped file
        parts = [predict(image.flip(turn)) for turn in mirrorings(settings.mirror)]
        return torch.cat(parts).mean(0).numpy()
