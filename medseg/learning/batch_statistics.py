"""AdaBN: the statistics of batch normalisation re-estimated on images of another site, without labels.

After Li et al. 2017: what a layer saw of the source is forgotten, weights stay. Layer after layer, in the
order they are called, over all images at once: each sees what the layers before it, already adapted, give
in evaluation mode. The result does not depend on the size or the order of the batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from medseg.core.errors import MedsegError


class _ReachedError(Exception):
    """The layer asked about has been reached: the rest of the network need not be computed."""


def restate(network: nn.Module, batches: Sequence[Tensor], device: torch.device) -> int:
    """Set mean and variance of every batch normalisation to those of `batches`.

    Parameters
    ----------
    batches : sequence of Tensor
        ``[B, C, I, J, K]`` images as the network sees them.

    Returns
    -------
    int
        How many layers were set.

    Raises
    ------
    MedsegError
        The network has no batch statistics.
    """
    was_training = network.training
    network.eval()
    layers = _in_order(network, batches[0][:1].to(device))
    if not layers:
        raise MedsegError(
            "the network has no batch statistics to re-estimate",
            evidence="it normalises each image by itself",
            mend="take another method, histogram for example",
        )
    for layer in layers:
        mean, var = _moments(network, layer, batches, device)
        layer.running_mean.copy_(mean)  # type: ignore[union-attr]
        layer.running_var.copy_(var)  # type: ignore[union-attr]
    network.train(was_training)
    return len(layers)


@contextmanager
def statistics_kept(network: nn.Module) -> Any:
    """Within the block batches are normalised by themselves and move no running statistics."""
    layers = [m for m in network.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    for layer in layers:
        layer.track_running_stats = False
    try:
        yield
    finally:
        for layer in layers:
            layer.track_running_stats = True


def _in_order(network: nn.Module, image: Tensor) -> list[_BatchNorm]:
    """Layers with running statistics in the order they are called."""
    seen: dict[_BatchNorm, None] = {}

    def note(layer: nn.Module, given: tuple[Any, ...]) -> None:
        seen.setdefault(layer)  # type: ignore[arg-type]

    known = [m for m in network.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]
    handles = [layer.register_forward_pre_hook(note) for layer in known]
    try:
        with torch.inference_mode():
            network(image)
    finally:
        for handle in handles:
            handle.remove()
    return list(seen)


def _moments(
    network: nn.Module, layer: _BatchNorm, batches: Sequence[Tensor], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Mean and variance of all values a layer is given, by channel."""
    parts: list[tuple[int, Tensor, Tensor]] = []

    def look(_: nn.Module, given: tuple[Any, ...]) -> None:
        values = given[0].detach().transpose(0, 1).flatten(1).float()
        var, mean = torch.var_mean(values, dim=1, correction=0)
        parts.append((values.shape[1], mean.cpu().double(), var.cpu().double()))
        raise _ReachedError

    handle = layer.register_forward_pre_hook(look)
    try:
        with torch.no_grad():
            for batch in batches:
                try:
                    network(batch.to(device))
                except _ReachedError:
                    continue
    finally:
        handle.remove()
    share = torch.tensor([n for n, _, _ in parts], dtype=torch.float64)
    share = (share / share.sum())[:, None]
    means, variances = torch.stack([m for _, m, _ in parts]), torch.stack([v for _, _, v in parts])
    mean = (share * means).sum(0)
    return mean, (share * (variances + (means - mean) ** 2)).sum(0)
