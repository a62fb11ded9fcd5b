"""Networks by name: ``(plan, **arguments) -> module``. A dotted name of your own works in their place.

Every network takes ``[B, C, I, J, K]`` (K = 1 in 2-D). For segmentation it gives logits
``[B, L, I, J, K]`` (or a list of them while training), for classification ``[B, L]``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from medseg.core.errors import MedsegError
from medseg.core.registry import look_up
from medseg.core.values import nearest
from medseg.data.plan import Plan
from medseg.learning import classifiers
from medseg.learning.classifiers import flat, sizes
from medseg.learning.devices import channels_last
from medseg.learning.joint import joint_unet
from medseg.learning.residual_unet import residual_unet
from medseg.learning.sequence import slices_attention, slices_lstm
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
    return _channels_last(function(plan, **plan.network_arguments))


def _channels_last(network: nn.Module) -> nn.Module:
    """Convolutions of two and of three dimensions (a network may have both) in their fastest layout."""
    for parameter in network.parameters():
        if parameter.ndim in (4, 5):
            layout = channels_last(parameter.ndim - 2)
            parameter.data = parameter.data.to(memory_format=layout)
    return network


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
    return flat(plan, Network(**sizes(plan), **(defaults | arguments)))  # type: ignore[arg-type]


def segresnet(plan: Plan, **arguments: Any) -> nn.Module:
    """MONAI's SegResNet."""
    from monai.networks.nets.segresnet import SegResNet

    return flat(plan, SegResNet(**sizes(plan), **arguments))


def dynunet(plan: Plan, **arguments: Any) -> nn.Module:
    """MONAI's DynUNet (nnU-Net's architecture) with the plan's levels."""
    from monai.networks.nets.dynunet import DynUNet

    strides, kernels = (arguments.pop(k, None) for k in ("strides", "kernels"))
    cut = plan.dimensions
    strides = [s[:cut] for s in strides or [[1] * 3, [2] * 3, [2] * 3]]
    kernels = [k[:cut] for k in kernels or [[3] * 3] * len(strides)]
    made = DynUNet(
        **sizes(plan), kernel_size=kernels, strides=strides, upsample_kernel_size=strides[1:], **arguments
    )
    return flat(plan, made)


def swinunetr(plan: Plan, **arguments: Any) -> nn.Module:
    """MONAI's SwinUNETR; sides of the patch must be multiples of 32, one of them more than 32."""
    from monai.networks.nets.swin_unetr import SwinUNETR

    return flat(plan, SwinUNETR(**sizes(plan), **arguments))


NETWORKS: Mapping[str, Callable[..., nn.Module]] = {
    "unet": unet,
    "monai_unet": monai_unet,
    "segresnet": segresnet,
    "dynunet": dynunet,
    "swinunetr": swinunetr,
    "joint_unet": joint_unet,
    "residual_unet": residual_unet,
    "resnet": classifiers.resnet,
    "densenet": classifiers.densenet,
    "efficientnet": classifiers.efficientnet,
    "senet": classifiers.senet,
    "vit": classifiers.vit,
    "slices_lstm": slices_lstm,
    "slices_attention": slices_attention,
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
