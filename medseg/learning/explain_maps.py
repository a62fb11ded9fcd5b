"""Maps of what a network's answer rests on: Grad-CAM, Grad-CAM++ and occlusion, on one window of an image."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from medseg.core.errors import CaseError, MedsegError
from medseg.core.values import nearest
from medseg.learning.inference import window_starts

Map = NDArray[np.float32]

FINE = 4
"""Features along the longest side of a map that can still show a place; a coarser layer is passed over."""

MIXES = 4
"""Random mixtures of channels of which it is measured where they look."""


@dataclass(frozen=True, eq=False)
class Question:
    """One output of a network at one window of an image.

    ``window`` and ``fill`` (what hidden voxels become) are ``[1, C, I, J, K]``; ``region`` is a bool mask
    ``[I, J, K]`` of the voxels asked about when the network gives masks, None when it gives classes.
    """

    network: nn.Module
    window: Tensor
    fill: Tensor
    target: int
    region: Tensor | None = None
    multilabel: bool = False


def answers(questions: Sequence[Question], hidden: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Probability of the target when voxels are hidden, ``[B]``: the mean over the networks asked.

    Parameters
    ----------
    questions : sequence of Question
        The same window and target for one or several networks.
    hidden : array of bool ``[B, I, J, K]``
        Voxels that take the fill value, one pattern a row.
    """
    found = [_probability(question, torch.from_numpy(hidden)) for question in questions]
    return np.mean([one.double().cpu().numpy() for one in found], axis=0)


def raw_map(question: Question, method: str, layer: str) -> Map:
    """Grad-CAM or Grad-CAM++ at the size of the layer's features, ``[i, j, k]``, not negative.

    For masks the score is the logit of the label over the region (Seg-Grad-CAM), as its mean: the sum,
    divided by the number of voxels. The network is copied and stays as it is; running statistics too.

    Raises
    ------
    CaseError
        The map is not finite.
    """
    from monai.visualize.class_activation_maps import GradCAM, GradCAMpp

    asked, window = _Asked(question), question.window.clone().requires_grad_(True)
    make = GradCAMpp if method == "gradcam++" else GradCAM
    with torch.enable_grad(), torch.backends.cudnn.flags(enabled=False):  # recurrent parts, in evaluation
        found = make(asked, target_layers=f"network.{layer}").compute_map(window, question.target)
    array = _stacked(found, window.shape[-1])[0].detach().float().cpu().numpy()
    if not np.isfinite(array).all():
        raise CaseError("the map of this layer is not finite", evidence=f"layer '{layer}'")
    return array


def displacement(question: Question, layer: str) -> list[float]:
    """Voxels by which the features of a layer lie off an even spread over the window, along each axis.

    A convolution of stride 2 and width 3 looks at every other voxel, the first one included: its features
    lie half a voxel before the middle of the two they stand for, and deeper layers add to that. Measured:
    the middle of what the middle feature sees in a window of noise; never more than half a feature.
    """
    seen: list[Tensor] = []
    asked, shape = _Asked(question), question.window.shape
    chance = torch.Generator().manual_seed(0)
    noise = torch.randn(shape, generator=chance).to(question.window).requires_grad_(True)
    asked.network.get_submodule(layer).register_forward_hook(lambda _m, _x, y: seen.append(y))
    with torch.enable_grad(), torch.backends.cudnn.flags(enabled=False):
        asked.network(noise)
        features = _stacked(seen[0], shape[-1])
        at = [n // 2 for n in features.shape[1:]]
        middle = features[:, *at]
        mixes = [torch.randn(middle.shape, generator=chance).to(middle) for _ in range(MIXES)]
        slopes = [torch.autograd.grad(middle, noise, mix, retain_graph=True)[0] for mix in mixes]
    weight = torch.cat(slopes).square().sum((0, 1)).double().cpu().numpy()
    return [_off(weight, axis, at[axis], features.shape[1 + axis]) for axis in range(3)]


def occluded(
    questions: Sequence[Question], sides: Sequence[int], overlap: float, batch: int
) -> NDArray[np.float32]:
    """How much the probability falls when the place is covered, ``[I, J, K]``; 0 where it rises.

    A voxel has the mean over the boxes of ``sides`` voxels that cover it.
    """
    shape = tuple(questions[0].window.shape[2:])
    boxes = list(_boxes(shape, sides, overlap))
    total, times = np.zeros(shape), np.zeros(shape)
    whole = answers(questions, np.zeros((1, *shape), bool))[0]
    for first in range(0, len(boxes), batch):
        some = boxes[first : first + batch]
        hidden = np.zeros((len(some), *shape), bool)
        for row, box in zip(hidden, some, strict=True):
            row[box] = True
        for box, answer in zip(some, answers(questions, hidden), strict=True):
            total[box] += whole - answer
            times[box] += 1
    return np.maximum(total / times, 0).astype(np.float32)


def layer_of(question: Question, wanted: str = "") -> str:
    """Name of the module whose features Grad-CAM weighs.

    Of a classifier the last module that gives a map of at least `FINE` features along its longest side;
    of a segmenter the last of those that give the coarsest such map. A module used several times is
    passed over (it has no features of its own), and so are parts of an attention (their sides are tokens).

    Raises
    ------
    MedsegError
        No module of the name wanted, or none that gives a map.
    """
    names = [name for name, _ in question.network.named_modules() if name]
    if wanted:
        return _named(names, wanted)
    maps = _maps(question)
    fine = {name: sides for name, sides in maps.items() if max(sides) >= FINE} or maps
    if not fine:
        raise MedsegError(
            "no module of this network gives a map of features",
            mend="take explain.method=occlusion, which asks the network alone",
        )
    if question.region is None:
        return list(fine)[-1]
    least = min(int(np.prod(sides)) for sides in fine.values())
    return [name for name, sides in fine.items() if int(np.prod(sides)) == least][-1]


def filling(window: Tensor, kind: str) -> Tensor:
    """What hidden voxels become, ``[1, C, I, J, K]``: see `medseg.learning.settings.Explaining.fill`."""
    from scipy.ndimage import gaussian_filter

    if kind == "blur":
        sigma = [0, 0, *(n / 6 if n > 1 else 0 for n in window.shape[2:])]
        return torch.from_numpy(gaussian_filter(window.cpu().numpy(), sigma, mode="nearest")).to(window)
    if kind == "background":
        rim = torch.ones(window.shape[2:], dtype=torch.bool, device=window.device)
        rim[tuple(slice(1, -1) if n > 2 else slice(None) for n in rim.shape)] = False
        value = window[0][:, rim].median(1).values
    else:
        value = window[0].flatten(1).mean(1)
    return value.view(1, -1, 1, 1, 1).expand_as(window).clone()


class _Asked(nn.Module):
    """A copy of a network whose answer is one number a class, fit for hooks and gradients.

    The score is given without its value: the gradients are the same, and Grad-CAM++, which takes its
    exponential, cannot overflow.
    """

    def __init__(self, question: Question) -> None:
        super().__init__()
        self.network = copy.deepcopy(question.network).to(  # type: ignore[call-overload]
            memory_format=torch.contiguous_format
        )
        self.region = question.region
        for module in self.network.modules():
            if getattr(module, "inplace", False):
                module.inplace = False  # type: ignore[assignment]
        self.requires_grad_(True).eval()

    def forward(self, x: Tensor) -> Tensor:
        logits = _over(self.network(x), self.region)
        return logits - logits.detach()


def _over(logits: Tensor, region: Tensor | None) -> Tensor:
    """``[B, L]`` from logits or probabilities: as they are, or their mean over the region."""
    if region is None:
        return logits
    return logits.flatten(2)[:, :, region.flatten().to(logits.device)].mean(2)


def _probability(question: Question, hidden: Tensor) -> Tensor:
    covered = hidden.to(question.window.device)[:, None]
    with torch.inference_mode():
        logits = question.network.eval()(torch.where(covered, question.fill, question.window)).float()
        soft = logits.sigmoid() if question.multilabel else logits.softmax(1)
        return _over(soft, question.region)[:, question.target]


def _stacked(features: Tensor, depth: int) -> Tensor:
    """``[B, C, i, j(, k)]`` -> ``[C, i, j, k]``: flat maps get their third axis, slices are stacked."""
    if features.ndim == 5:
        return features[0]
    return features[0][..., None] if depth == 1 else features.movedim(0, -1)


def _off(weight: NDArray[np.float64], axis: int, at: int, count: int) -> float:
    """How far the middle of `weight` along an axis lies from feature `at` of `count` spread evenly."""
    profile = weight.sum(axis=tuple(a for a in range(3) if a != axis))
    stride = len(profile) / count
    if not profile.sum() > 0 or count == 1:
        return 0.0
    middle = float((profile * np.arange(len(profile))).sum() / profile.sum())
    return float(np.clip(middle - ((at + 0.5) * stride - 0.5), -stride / 2, stride / 2))


def _maps(question: Question) -> dict[str, tuple[int, ...]]:
    """Module name -> sides of the map it gives, in the order they finish; modules used once alone."""
    seen: list[tuple[str, Any]] = []
    network, depth = question.network, question.window.shape[-1]
    within = [f"{name}." for name, module in network.named_modules() if name and _attends(module)]
    named = [(n, m) for n, m in network.named_modules() if n and not n.startswith(tuple(within))]
    hooks = [m.register_forward_hook(lambda _m, _x, y, name=n: seen.append((name, y))) for n, m in named]
    try:
        with torch.inference_mode():
            network.eval()(question.window)
    finally:
        for hook in hooks:
            hook.remove()
    times = [name for name, _ in seen]
    maps = {name: _sides(y, depth) for name, y in seen if times.count(name) == 1}
    return {name: sides for name, sides in maps.items() if max(sides, default=1) > 1}


def _attends(module: nn.Module) -> bool:
    kind = type(module).__name__.lower()
    return any(word in kind for word in ("attention", "sablock"))


def _sides(output: Any, depth: int) -> tuple[int, ...]:
    """Sides of a map of features; of a network over slices its batch is the third."""
    if not isinstance(output, Tensor) or output.ndim not in (4, 5):
        return ()
    if output.ndim == 4 and depth > 1:
        return (*output.shape[2:], len(output)) if len(output) > 1 else ()
    return tuple(output.shape[2:])


def _named(names: Sequence[str], wanted: str) -> str:
    for name in (wanted, f"network.{wanted}"):  # flat networks stand in a wrapper
        if name in names:
            return name
    guess = nearest(wanted, names)
    raise MedsegError(
        f"the network has no module '{wanted}'",
        evidence=f"its outermost: {', '.join(n for n in names if n.count('.') == 0)}",
        mend=f"did you mean '{guess}'?" if guess else "leave explain.layer out",
    )


def _boxes(
    shape: Sequence[int], sides: Sequence[int], overlap: float
) -> Iterator[tuple[slice, slice, slice]]:
    starts = [window_starts(n, side, overlap) for n, side in zip(shape, sides, strict=True)]
    for start in product(*starts):
        i, j, k = (slice(s, s + side) for s, side in zip(start, sides, strict=True))
        yield i, j, k
