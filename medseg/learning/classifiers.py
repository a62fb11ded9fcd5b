"""Classifiers of whole images, of MONAI's parts: ``(plan, **arguments) -> [B, C, I, J, K] -> [B, L]``."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from medseg.core.errors import MedsegError
from medseg.data.plan import Plan


def resnet(plan: Plan, depth: int = 10, **arguments: Any) -> nn.Module:
    """MONAI's ResNet of 10, 18, 34, 50, 101, 152 or 200 layers."""
    made = _made("resnet", depth, (10, 18, 34, 50, 101, 152, 200))(
        spatial_dims=plan.dimensions, n_input_channels=len(plan.channels), num_classes=plan.outputs,
        **({"widen_factor": 0.5} | arguments),
    )  # fmt: skip
    return flat(plan, made)


def densenet(plan: Plan, depth: int = 121, **arguments: Any) -> nn.Module:
    """MONAI's DenseNet of 121, 169, 201 or 264 layers."""
    return flat(plan, _made("DenseNet", depth, (121, 169, 201, 264))(**sizes(plan), **arguments))


def efficientnet(plan: Plan, variant: str = "b0", **arguments: Any) -> nn.Module:
    """MONAI's EfficientNet, ``b0`` to ``b8``."""
    from monai.networks.nets.efficientnet import EfficientNetBN

    made = EfficientNetBN(
        f"efficientnet-{variant}", pretrained=False, spatial_dims=plan.dimensions,
        in_channels=len(plan.channels), num_classes=plan.outputs, **arguments,
    )  # fmt: skip
    return flat(plan, made)


def senet(plan: Plan, depth: int = 50, **arguments: Any) -> nn.Module:
    """MONAI's ResNet with squeeze-and-excitation, of 50, 101 or 152 layers."""
    make = _made("SEResNet", depth, (50, 101, 152))
    made = make(
        spatial_dims=plan.dimensions, in_channels=len(plan.channels), num_classes=plan.outputs, **arguments
    )
    return flat(plan, made)


def vit(
    plan: Plan, patch_size: list[int] | None = None, hidden_size: int = 192, num_layers: int = 6,
    num_heads: int = 3, **arguments: Any,
) -> nn.Module:  # fmt: skip
    """MONAI's vision transformer; ``patch_size`` in voxels, by default an eighth of the patch's sides."""
    from monai.networks.nets.vit import ViT

    sides = plan.patch[: plan.dimensions]
    tokens = list(patch_size or [_token(side) for side in sides])[: plan.dimensions]
    made = ViT(
        in_channels=len(plan.channels), img_size=sides, patch_size=tokens, spatial_dims=plan.dimensions,
        hidden_size=hidden_size, mlp_dim=4 * hidden_size, num_layers=num_layers, num_heads=num_heads,
        classification=True, num_classes=plan.outputs, post_activation="none", **arguments,
    )  # fmt: skip
    return flat(plan, First(made))


class First(nn.Module):
    """A network that gives several things, of which the first is asked for."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)[0]


class Flat(nn.Module):
    """A network of flat images behind our three-axis interface."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        y = self.network(x.squeeze(-1))
        return y.unsqueeze(-1) if y.ndim == 4 else y


def flat(plan: Plan, network: nn.Module) -> nn.Module:
    """The network behind the three-axis interface, whatever the plan's dimensions."""
    return Flat(network) if plan.dimensions == 2 else network


def sizes(plan: Plan) -> dict[str, int]:
    """What MONAI calls dimensions, inputs and outputs."""
    return {
        "spatial_dims": plan.dimensions,
        "in_channels": len(plan.channels),
        "out_channels": plan.outputs,
    }


def _made(kind: str, depth: int, known: tuple[int, ...]) -> Any:
    from monai.networks import nets

    if depth not in known:
        raise MedsegError(
            f"there is no {kind.lower()} of {depth} layers", evidence=f"depths: {', '.join(map(str, known))}"
        )
    return getattr(nets, f"{kind}{depth}")


def _token(side: int) -> int:
    """The largest divisor of a side that leaves at least eight tokens along it (or one voxel each)."""
    return next((n for n in range(side // 8, 0, -1) if side % n == 0), 1)
