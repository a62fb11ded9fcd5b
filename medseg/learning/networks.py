"""Networks by name: ``(plan, **arguments) -> module``. A dotted name of your own works in their place.

Every network takes ``[B, C, I, J, K]`` (K = 1 in 2-D). For segmentation it gives logits
``[B, L, I, J, K]`` (or a list of them while training), for classification ``[B, L]``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from medseg.core.errors import MedsegError
from medseg.core.registry import look_up
from medseg.core.values import nearest
from medseg.data.plan import Plan
from medseg.learning.devices import channels_last
from medseg.learning.unet import UNet


def build_network(plan: Plan) -> nn.Module:
    """The plan's network with fresh weights, in channels-last memory.

    Raises
    ------
    MedsegError
        An unknown network, or an argument it does not take.
    """
    function = look_up(NETWORKS, plan.network, "network")
    _check_arguments(function, plan)
    return function(plan, **plan.network_arguments).to(memory_format=channels_last(plan.dimensions))


def unet(
    plan: Plan,
    widths: list[int],
    strides: list[list[int]],
    kernels: list[list[int]],
    norm: str = "batch",
    supervised: int = 0,
) -> nn.Module:
    """Our U-Net (see `medseg.learning.unet`)."""
    return UNet(plan.dimensions, len(plan.channels), plan.outputs, widths, strides, kernels, norm, supervised)


def monai_unet(plan: Plan, **arguments: Any) -> nn.Module:
    """MONAI's residual U-Net."""
    from monai.networks.nets.unet import UNet as Network

    defaults = {"channels": (16, 32, 64, 128), "strides": (2, 2, 2), "num_res_units": 2, "norm": "batch"}
    return _flat(plan, Network(**_sizes(plan), **(defaults | arguments)))  # type: ignore[arg-type]


def segresnet(plan: Plan, **arguments: Any) -> nn.Module:
    """MONAI's SegResNet."""
    from monai.networks.nets.segresnet import SegResNet

    return _flat(plan, SegResNet(**_sizes(plan), **arguments))


def dynunet(plan: Plan, **arguments: Any) -> nn.Module:
    """MONAI's DynUNet (nnU-Net's architecture) with the plan's levels."""
    from monai.networks.nets.dynunet import DynUNet

    strides, kernels = (arguments.pop(k, None) for k in ("strides", "kernels"))
    cut = plan.dimensions
    strides = [s[:cut] for s in strides or [[1] * 3, [2] * 3, [2] * 3]]
    kernels = [k[:cut] for k in kernels or [[3] * 3] * len(strides)]
    made = DynUNet(
        **_sizes(plan), kernel_size=kernels, strides=strides, upsample_kernel_size=strides[1:], **arguments
    )
    return _flat(plan, made)


def resnet(plan: Plan, depth: int = 10, **arguments: Any) -> nn.Module:
    """MONAI's ResNet-10/18/34/50 as a classifier of whole images."""
    from monai.networks import nets

    make = getattr(nets, f"resnet{depth}")
    network = make(
        spatial_dims=plan.dimensions, n_input_channels=len(plan.channels), num_classes=plan.outputs,
        **({"widen_factor": 0.5} | arguments),
    )  # fmt: skip
    return _flat(plan, network)


def densenet(plan: Plan, depth: int = 121, **arguments: Any) -> nn.Module:
    """MONAI's DenseNet as a classifier of whole images."""
    from monai.networks import nets

    make = getattr(nets, f"DenseNet{depth}")
    return _flat(plan, make(**_sizes(plan), **arguments))


NETWORKS: Mapping[str, Callable[..., nn.Module]] = {
    "unet": unet,
    "monai_unet": monai_unet,
    "segresnet": segresnet,
    "dynunet": dynunet,
    "resnet": resnet,
    "densenet": densenet,
}


class _Flat(nn.Module):
    """A network of flat images behind our three-axis interface."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        y = self.network(x.squeeze(-1))
        return y.unsqueeze(-1) if y.ndim == 4 else y


def _flat(plan: Plan, network: nn.Module) -> nn.Module:
    return _Flat(network) if plan.dimensions == 2 else network


def _sizes(plan: Plan) -> dict[str, int]:
    return {
        "spatial_dims": plan.dimensions,
        "in_channels": len(plan.channels),
        "out_channels": plan.outputs,
    }


def _check_arguments(function: Callable[..., nn.Module], plan: Plan) -> None:
    """Refuse an argument the function cannot take, before anything is built."""
    known = inspect.signature(function).parameters
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in known.values()):
        return
    for name in plan.network_arguments:
        if name not in known:
            guess = nearest(name, list(known)[1:])
            raise MedsegError(
                f"network '{plan.network}' has no argument '{name}'",
                evidence=f"arguments: {', '.join(list(known)[1:])}",
                mend=f"did you mean '{guess}'?" if guess else None,
            )
