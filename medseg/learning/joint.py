"""Segmentation and classification from one encoder: a U-Net whose coarsest features also tell the class.

A plan for it is one of segmentation that knows classes as well (``network: joint_unet``). The mask has
its usual loss; the class adds a `Term`. The class is that of a whole image: plans whose patch holds what
decides it serve best. In use the patch about the middle of what was segmented is classified.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from medseg.core.errors import MedsegError
from medseg.data.plan import Plan
from medseg.learning.sampling import UNKNOWN, cut
from medseg.learning.unet import Steps, UNet

NAME = "joint_unet"


class Logits(list[Tensor]):
    """Logits of the mask as deep supervision has them (the finest first), and of the class in `classes`."""

    classes: Tensor


class JointUNet(UNet):
    """Our U-Net with a class head on its coarsest features.

    While training it gives `Logits`; else logits of the mask, and those of the class by `class_logits`.
    """

    def __init__(
        self,
        dimensions: int,
        inputs: int,
        outputs: int,
        widths: Sequence[int],
        strides: Steps,
        kernels: Steps,
        norm: str,
        classes: int,
    ) -> None:
        super().__init__(dimensions, inputs, outputs, widths, strides, kernels, norm)
        self.class_head = nn.Linear(2 * widths[-1], classes)

    def forward(self, x: Tensor) -> Any:
        encoded = self.encoded(x)
        masks = self.decoded(encoded)
        if not self.training:
            return masks
        both = Logits(masks if isinstance(masks, list) else [masks])
        both.classes = self._classes(encoded[-1])
        return both

    def class_logits(self, x: Tensor) -> Tensor:
        """``[B, C, I, J, K] -> [B, classes]``."""
        return self._classes(self.encoded(x)[-1])

    def _classes(self, coarsest: Tensor) -> Tensor:
        """Mean and maximum of each coarse feature over the patch, then a linear layer."""
        flat = coarsest.flatten(2)
        return self.class_head(torch.cat([flat.mean(2), flat.amax(2)], dim=1))


def joint_unet(
    plan: Plan,
    widths: list[int],
    strides: list[list[int]],
    kernels: list[list[int]],
    norm: str = "batch",
) -> nn.Module:
    """The network of a plan that knows labels and classes.

    Raises
    ------
    MedsegError
        The plan has no classes.
    """
    if len(plan.classes) < 2:
        raise MedsegError(
            "a joint network needs cases with a class besides their masks",
            evidence=f"classes: {', '.join(plan.classes) or 'none'}",
            mend="give a manifest with columns for reference and class, or take network unet",
        )
    sizes = plan.dimensions, len(plan.channels), plan.outputs
    return JointUNet(*sizes, widths, strides, kernels, norm, len(plan.classes))


def terms_of(plan: Plan) -> list[Any]:
    """What a plan's network adds to the loss of its own accord: the class, where it is joint."""
    return [ClassTerm(plan)] if plan.network == NAME else []


class ClassTerm:
    """The class's part of the loss: cross-entropy, with `weight` beside the loss of the mask."""

    def __init__(self, plan: Plan, weight: float = 0.5) -> None:
        self.multilabel, self.weight = plan.multilabel, weight

    def __call__(self, moment: Any) -> Tensor:
        logits = moment.logits.classes.float()
        target = torch.as_tensor(moment.drawn.classes, device=logits.device)
        known = (target != UNKNOWN).reshape(len(target), -1).all(1)
        if not known.any():
            return 0.0 * logits.sum()
        logits, target = logits[known], target[known]
        if self.multilabel:
            return self.weight * functional.binary_cross_entropy_with_logits(logits, target.float())
        return self.weight * functional.cross_entropy(logits, target)


def classify_segmented(
    network: nn.Module,
    plan: Plan,
    array: NDArray[np.float32],
    mask: NDArray[np.bool_],
    device: torch.device,
) -> NDArray[np.float32]:
    """Class probabilities ``[classes]`` of the patch about the middle of a mask ``[I, J, K]``."""
    patch = torch.tensor(cut(array, middle_of(mask, plan), plan.patch))[None].to(device)
    joint: Any = network.eval()
    with torch.inference_mode():
        logits = joint.class_logits(patch).float()
    return (logits.sigmoid() if plan.multilabel else logits.softmax(1))[0].cpu().numpy()


def middle_of(mask: NDArray[np.bool_], plan: Plan) -> list[float]:
    """Middle of the patch whose class is told, in voxel edges: about a mask, or an image without one."""
    found = np.argwhere(mask)
    middle = (found.min(0) + found.max(0) + 1) / 2 if len(found) else np.array(mask.shape) / 2
    low = np.array(plan.patch) / 2
    return np.clip(middle, low, np.maximum(low, np.array(mask.shape) - low)).tolist()


class ClassAlone(nn.Module):
    """A joint network of which only the class is asked: ``[B, C, I, J, K] -> [B, classes]``."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        joint: Any = self.network
        return joint.class_logits(x)
