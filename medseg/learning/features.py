"""What a network sees of an image, as one vector: the last stage of its encoder, averaged over space."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from medseg.core.errors import MedsegError
from medseg.data.plan import Plan
from medseg.learning.classifiers import Flat
from medseg.learning.inference import window_starts
from medseg.learning.sampling import cut
from medseg.learning.segmenters import Fitted

Place = tuple[nn.Module, bool]
"""A module, and whether its input (not its output) is what is looked at."""


@dataclass
class Tap:
    """Features of the network's last forward pass, ``[B, F, ...]``; None before there was one."""

    last: Tensor | None = None

    def pooled(self) -> Tensor:
        """``[B, F]``: the mean over space."""
        assert self.last is not None, "the network has not been called yet"
        return self.last.flatten(2).mean(2) if self.last.ndim > 2 else self.last


def tap(network: nn.Module, plan: Plan) -> tuple[Tap, Callable[[], None]]:
    """Keep the features of the last encoder stage at every call, until the function given back is called.

    Raises
    ------
    MedsegError
        It is not known where the encoder of this network ends.
    """
    found = Tap()
    module, of_input = _place(network, plan)

    def before(_: nn.Module, given: tuple[Any, ...]) -> None:
        found.last = given[0]

    def after(_: nn.Module, given: tuple[Any, ...], out: Any) -> None:
        found.last = out[-1] if isinstance(out, list | tuple) else out

    handle = module.register_forward_pre_hook(before) if of_input else module.register_forward_hook(after)
    return found, handle.remove


@contextmanager
def tapped(network: nn.Module, plan: Plan) -> Iterator[Tap]:
    """`tap` for the length of a block."""
    found, close = tap(network, plan)
    try:
        yield found
    finally:
        close()


def embedding(
    network: nn.Module,
    plan: Plan,
    array: NDArray[np.float32],
    device: torch.device,
    batch: int = 8,
) -> NDArray[np.float32]:
    """Features ``[F]`` of a prepared image ``[C, I, J, K]``, the mean over windows that cover it.

    An image no larger than the patch is one window; of a 2-D plan every slice is one. The network is in
    evaluation mode: nothing in it moves, running statistics included.
    """
    network = network.eval()
    sides = [window_starts(n, p, 0.0) for n, p in zip(array.shape[1:], plan.patch, strict=True)]
    middles = [
        [s + p / 2 if n > p else n / 2 for s, p, n in zip(start, plan.patch, array.shape[1:], strict=True)]
        for start in product(*sides)
    ]
    parts = []
    with torch.inference_mode(), tapped(network, plan) as seen:
        for first in range(0, len(middles), batch):
            windows = [cut(array, middle, plan.patch) for middle in middles[first : first + batch]]
            network(torch.from_numpy(np.stack(windows)).to(device))
            parts.append(seen.pooled().float().cpu())
    return torch.cat(parts).mean(0).numpy()


def _place(network: nn.Module, plan: Plan) -> Place:
    inner = network.network if isinstance(network, Flat | Fitted) else network
    rule = ENDS.get(plan.network, _before_the_last_layer)
    return rule(inner)


def _before_the_last_layer(network: Any) -> Place:
    """What the last linear layer is given: pooled features of a classifier."""
    layers = [module for module in network.modules() if isinstance(module, nn.Linear)]
    if not layers:
        raise MedsegError(
            "it is not known where the encoder of this network ends",
            evidence="there is no linear layer at its end",
            mend=f"take a classifier, or one of {', '.join(sorted(ENDS))}",
        )
    return layers[-1], True


def _innermost(network: Any) -> Place:
    """MONAI's nested U-Net: what lies inside its last skip connection."""
    insides = [module.submodule for module in network.modules() if hasattr(module, "submodule")]
    return insides[-1], False


ENDS: Mapping[str, Callable[[Any], Place]] = {
    "unet": lambda network: (network.encoder, False),
    "joint_unet": lambda network: (network.encoder, False),
    "segresnet": lambda network: (network.down_layers[-1], False),
    "dynunet": lambda network: (network.bottleneck, False),
    "monai_unet": _innermost,
}
"""Where the encoder of a network ends; of all others the last linear layer's input is taken."""
