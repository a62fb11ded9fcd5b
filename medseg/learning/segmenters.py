"""MONAI's segmentation networks behind our interface: ``(plan, **arguments) -> module``.

What they need of an image's sides (multiples of 8, 16, 32) is met inside: a patch that does not fit is padded
at its edges, and the logits are cut back.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from medseg.data.plan import Plan
from medseg.learning.classifiers import sizes

SWIN_STEP, VIT_STEP = 32, 16
"""Sides of a patch are brought to multiples of these for SwinUNETR and for UNETR."""
_SEGRESNET, _MEDNEXT = (1, 2, 2, 4), (2, 2, 2, 2)
"""Blocks of each level on the way down, where none are given."""


def monai_unet(plan: Plan, **arguments: Any) -> nn.Module:
    """MONAI's residual U-Net."""
    from monai.networks.nets.unet import UNet

    defaults = {"channels": (16, 32, 64, 128), "strides": (2, 2, 2), "num_res_units": 2, "norm": "batch"}
    chosen: dict[str, Any] = defaults | arguments
    return fitted(plan, "monai_unet", UNet(**sizes(plan), **chosen))


def segresnet(plan: Plan, **arguments: Any) -> nn.Module:
    """MONAI's SegResNet; as many blocks up as down, one each, unless ``blocks_up`` says otherwise."""
    from monai.networks.nets.segresnet import SegResNet

    return fitted(plan, "segresnet", SegResNet(**sizes(plan), **segresnet_arguments(**arguments)))


def segresnet_arguments(**arguments: Any) -> dict[str, Any]:
    """What MONAI's class takes: a block up for each halving."""
    ups = len(arguments.get("blocks_down", _SEGRESNET)) - 1
    return {"blocks_up": [1] * ups, **arguments}


def dynunet(plan: Plan, **arguments: Any) -> nn.Module:
    """MONAI's DynUNet (nnU-Net's architecture) with the plan's levels.

    ``supervised`` levels below the finest give logits of their own while training.
    """
    from monai.networks.nets.dynunet import DynUNet

    return fitted(plan, "dynunet", DynUNet(**sizes(plan), **dynunet_arguments(plan, **arguments)))


def dynunet_arguments(plan: Plan, supervised: int = 0, **arguments: Any) -> dict[str, Any]:
    """What MONAI's class takes, of the plan's levels and what is set by hand."""
    strides, kernels = (arguments.pop(k, None) for k in ("strides", "kernels"))
    cut = plan.dimensions
    strides = [s[:cut] for s in strides or [[1] * 3, [2] * 3, [2] * 3]]
    kernels = [k[:cut] for k in kernels or [[3] * 3] * len(strides)]
    heads = min(supervised, len(strides) - 2)
    deep = {"deep_supervision": True, "deep_supr_num": heads} if heads > 0 else {}
    shape = {"kernel_size": kernels, "strides": strides, "upsample_kernel_size": strides[1:]}
    return shape | deep | arguments


def mednext(plan: Plan, supervised: int = 0, **arguments: Any) -> nn.Module:
    """MONAI's MedNeXt; as many blocks up as down unless ``blocks_up`` says otherwise.

    Any number of `supervised` levels means all of them: it has a head at each.
    """
    from monai.networks.nets.mednext import MedNeXt

    down = arguments.get("blocks_down", _MEDNEXT)
    defaults = {"blocks_up": list(reversed(down)), "kernel_size": 3, "use_residual_connection": True}
    made = MedNeXt(**sizes(plan), deep_supervision=supervised > 0, **(defaults | arguments))
    return fitted(plan, "mednext", made, several=supervised > 0)


def unetr(plan: Plan, **arguments: Any) -> nn.Module:
    """MONAI's UNETR: a vision transformer on blocks of 16 voxels a side, and a convolutional way up."""
    from monai.networks.nets.unetr import UNETR

    sides = [_up(side, VIT_STEP) for side in plan.patch[: plan.dimensions]]
    hidden = arguments.get("hidden_size", 192)
    defaults = {"hidden_size": hidden, "mlp_dim": 4 * hidden, "num_heads": max(1, hidden // 64)}
    return fitted(plan, "unetr", UNETR(**sizes(plan), img_size=sides, **(defaults | arguments)))


def swinunetr(plan: Plan, **arguments: Any) -> nn.Module:
    """MONAI's SwinUNETR."""
    from monai.networks.nets.swin_unetr import SwinUNETR

    return fitted(plan, "swinunetr", SwinUNETR(**sizes(plan), **arguments))


def steps_of(plan: Plan, name: str) -> list[int]:
    """What the sides of the images of one of these networks must be multiples of, axis by axis."""
    arguments, axes = plan.network_arguments, range(plan.dimensions)
    if name == "swinunetr":
        single = all(side <= SWIN_STEP for side in plan.patch)  # a norm over one voxel has nothing to go by
        return [SWIN_STEP * (2 if single and axis == 0 else 1) for axis in axes]
    if "strides" in arguments:
        each = [[s] * 3 if isinstance(s, int) else list(s) for s in arguments["strides"]]
        return [prod(s[axis] for s in each) for axis in axes]
    down = len(arguments.get("blocks_down", _MEDNEXT if name == "mednext" else _SEGRESNET))
    step = {"mednext": 2**down, "segresnet": 2 ** (down - 1), "monai_unet": 8, "dynunet": 4}
    return [step.get(name, VIT_STEP)] * plan.dimensions


def fits(plan: Plan, name: str) -> bool:
    """Whether the plan's patch needs no padding."""
    return all(side % step == 0 for side, step in zip(plan.patch, steps_of(plan, name), strict=False))


def fitted(plan: Plan, name: str, network: nn.Module, several: bool = False) -> nn.Module:
    """A network of MONAI's behind our interface; itself where it already fits, and gives one thing."""
    several = several or bool(getattr(network, "deep_supervision", False))
    if plan.dimensions == 3 and fits(plan, name) and not several:
        return network
    return Fitted(network, steps_of(plan, name))


class Fitted(nn.Module):
    """A network given images of the sides and the axes it can take, its logits cut back to the image.

    Several logits (deep supervision) become a list, the finest first.
    """

    def __init__(self, network: nn.Module, steps: Sequence[int]) -> None:
        super().__init__()
        self.network, self.steps = network, list(steps)

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        flat = len(self.steps) == 2
        x = x.squeeze(-1) if flat else x
        lacks = [-side % step for side, step in zip(x.shape[2:], self.steps, strict=True)]
        pads = [(lack // 2, lack - lack // 2) for lack in lacks]
        padded = functional.pad(x, [n for pad in reversed(pads) for n in pad], mode="replicate")
        found = [self._cut(y, padded, x, pads) for y in self._several(self.network(padded))]
        found = [y.unsqueeze(-1) for y in found] if flat else found
        return found if self.training and len(found) > 1 else found[0]

    def _several(self, given: Tensor | Sequence[Tensor]) -> list[Tensor]:
        """What the network gives as a list: DynUNet stacks its logits after the batch."""
        if isinstance(given, Tensor):
            stacked = given.ndim > 2 + len(self.steps)
            return list(given.unbind(1)) if stacked else [given]
        return list(given)

    def _cut(self, y: Tensor, padded: Tensor, x: Tensor, pads: Sequence[tuple[int, int]]) -> Tensor:
        """Logits without what was padded; coarser ones of a padded image are first brought to its size."""
        if not any(sum(pad) for pad in pads):
            return y
        if y.shape[2:] != padded.shape[2:]:
            mode = "bilinear" if x.ndim == 4 else "trilinear"
            y = functional.interpolate(y, size=padded.shape[2:], mode=mode)
        inner = [slice(low, low + side) for (low, _), side in zip(pads, x.shape[2:], strict=True)]
        return y[(..., *inner)]


def _up(side: int, step: int) -> int:
    return -(-side // step) * step
