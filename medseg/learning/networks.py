"""Networks by name: ``(plan, **arguments) -> module``. A dotted name of your own works in their place.

Every network takes ``[B, C, I, J, K]`` (K = 1 in 2-D). For segmentation it gives logits
``[B, L, I, J, K]`` (or a list of them while training), for classification ``[B, L]``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import nn

from medseg.core.registry import look_up
from medseg.data.plan import Plan
from medseg.learning import classifiers
from medseg.learning.arguments import check_arguments
from medseg.learning.cascade import Second, inner_plan
from medseg.learning.devices import channels_last
from medseg.learning.joint import joint_unet
from medseg.learning.nested_unet import attention_unet, unetpp
from medseg.learning.residual_unet import residual_unet
from medseg.learning.segmenters import dynunet, mednext, monai_unet, segresnet, swinunetr, unetr
from medseg.learning.sequence import slices_attention, slices_lstm
from medseg.learning.unet import UNet


def build_network(plan: Plan) -> nn.Module:
    """The plan's network with fresh weights, in channels-last memory.

    Raises
    ------
    MedsegError
        An unknown network, or an argument it does not take.
    """
    if plan.cascade is not None:
        return Second(build_network(inner_plan(plan)), len(plan.channels), len(plan.labels))
    function = look_up(NETWORKS, plan.network, "network")
    check_arguments(f"network '{plan.network}'", function, plan.network_arguments, own=1)
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


NETWORKS: Mapping[str, Callable[..., nn.Module]] = {
    "unet": unet,
    "residual_unet": residual_unet,
    "attention_unet": attention_unet,
    "unetpp": unetpp,
    "joint_unet": joint_unet,
    "dynunet": dynunet,
    "segresnet": segresnet,
    "mednext": mednext,
    "unetr": unetr,
    "swinunetr": swinunetr,
    "monai_unet": monai_unet,
    "resnet": classifiers.resnet,
    "densenet": classifiers.densenet,
    "efficientnet": classifiers.efficientnet,
    "senet": classifiers.senet,
    "vit": classifiers.vit,
    "slices_lstm": slices_lstm,
    "slices_attention": slices_attention,
}
