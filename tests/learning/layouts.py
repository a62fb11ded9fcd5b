"""Weights as others publish them: the names and shapes of their files, with random numbers.

Written down from the published formats, not taken from the networks that are to be filled.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

Tensors = dict[str, Tensor]


def random(*shape: int) -> Tensor:
    """Small numbers, others for each call."""
    return torch.randn(shape) * 0.05


def norm(name: str, width: int) -> Tensors:
    """A batch norm."""
    values = {"weight": random(width) + 1, "bias": random(width), "running_mean": random(width)}
    values |= {"running_var": random(width).abs() + 1, "num_batches_tracked": torch.tensor(7)}
    return {f"{name}.{k}": v for k, v in values.items()}


def resnet(
    blocks: Sequence[int], *, bottleneck: bool = False, inputs: int = 3, classes: int = 1000, axes: int = 2,
    shortcuts: str = "B",
) -> Tensors:  # fmt: skip
    """torchvision's and timm's names; with three axes and one channel MedicalNet's."""

    def k(side: int) -> list[int]:
        return [side] * axes

    out = {"conv1.weight": random(64, inputs, *k(7)), **norm("bn1", 64)}
    before, grows = 64, 4 if bottleneck else 1
    for n, count in enumerate(blocks, start=1):
        width = 32 * 2**n
        for block in range(count):
            root = f"layer{n}.{block}"
            sides = [1, 3, 1] if bottleneck else [3, 3]
            widths = [width, width, width * grows] if bottleneck else [width, width]
            inner = before
            for m, (side, wide) in enumerate(zip(sides, widths, strict=True), start=1):
                out[f"{root}.conv{m}.weight"] = random(wide, inner, *k(side))
                out |= norm(f"{root}.bn{m}", wide)
                inner = wide
            if block == 0 and before != width * grows and shortcuts == "B":
                out[f"{root}.downsample.0.weight"] = random(width * grows, before, *k(1))
                out |= norm(f"{root}.downsample.1", width * grows)
            before = width * grows
    if classes:
        out |= {"fc.weight": random(classes, before), "fc.bias": random(classes)}
    return out


def medicalnet(depth: int = 10) -> dict[str, Any]:
    """``resnet_10_23dataset.pth``: under ``state_dict``, every name begins with ``module.``."""
    blocks, shortcuts = {10: ([1, 1, 1, 1], "B"), 18: ([2, 2, 2, 2], "A")}[depth]
    tensors = resnet(blocks, inputs=1, classes=0, axes=3, shortcuts=shortcuts)
    return {"state_dict": {f"module.{name}": tensor for name, tensor in tensors.items()}}


def densenet121(old_names: bool = False) -> Tensors:
    """torchvision's; the files on its server still have the dots of older names (``norm.1``)."""
    dot = "." if old_names else ""
    out = {"features.conv0.weight": random(64, 3, 7, 7), **norm("features.norm0", 64)}
    width = 64
    for n, layers in enumerate((6, 12, 24, 16), start=1):
        for m in range(1, layers + 1):
            root = f"features.denseblock{n}.denselayer{m}"
            out |= norm(f"{root}.norm{dot}1", width)
            out[f"{root}.conv{dot}1.weight"] = random(128, width, 1, 1)
            out |= norm(f"{root}.norm{dot}2", 128)
            out[f"{root}.conv{dot}2.weight"] = random(32, 128, 3, 3)
            width += 32
        if n < 4:
            out |= norm(f"features.transition{n}.norm", width)
            out[f"features.transition{n}.conv.weight"] = random(width // 2, width, 1, 1)
            width //= 2
    out |= norm("features.norm5", width)
    return out | {"classifier.weight": random(1000, width), "classifier.bias": random(1000)}


_B0 = (
    (1, 16, 3, 1),
    (6, 24, 3, 2),
    (6, 40, 5, 2),
    (6, 80, 3, 3),
    (6, 112, 5, 3),
    (6, 192, 5, 4),
    (6, 320, 3, 1),
)
"""EfficientNet-B0: expansion, width, kernel and blocks of each stage."""


def efficientnet_b0(timm: bool = False) -> Tensors:
    """lukemelas' names (blocks numbered through), or timm's (blocks within stages)."""
    stem, bn0, top, bn1, last = (
        ("conv_stem", "bn1", "conv_head", "bn2", "classifier") if timm
        else ("_conv_stem", "_bn0", "_conv_head", "_bn1", "_fc")
    )  # fmt: skip
    out = {f"{stem}.weight": random(32, 3, 3, 3), **norm(bn0, 32)}
    before, through = 32, 0
    for stage, (expansion, width, side, count) in enumerate(_B0):
        for n in range(count):
            root = f"blocks.{stage}.{n}" if timm else f"_blocks.{through}"
            wide, names = before * expansion, _names(timm, expansion == 1)
            if expansion != 1:
                out |= {f"{root}.{names['expand']}.weight": random(wide, before, 1, 1)}
                out |= norm(f"{root}.{names['norm0']}", wide)
            out[f"{root}.{names['depthwise']}.weight"] = random(wide, 1, side, side)
            out |= norm(f"{root}.{names['norm1']}", wide)
            squeezed = max(1, before // 4)
            for name, shape in (("reduce", (squeezed, wide)), ("grow", (wide, squeezed))):
                out[f"{root}.{names[name]}.weight"] = random(*shape, 1, 1)
                out[f"{root}.{names[name]}.bias"] = random(shape[0])
            out[f"{root}.{names['project']}.weight"] = random(width, wide, 1, 1)
            out |= norm(f"{root}.{names['norm2']}", width)
            before, through = width, through + 1
    out |= {f"{top}.weight": random(1280, 320, 1, 1), **norm(bn1, 1280)}
    return out | {f"{last}.weight": random(1000, 1280), f"{last}.bias": random(1000)}


def _names(timm: bool, first: bool) -> dict[str, str]:
    if not timm:
        return {
            "expand": "_expand_conv", "norm0": "_bn0", "depthwise": "_depthwise_conv", "norm1": "_bn1",
            "reduce": "_se_reduce", "grow": "_se_expand", "project": "_project_conv", "norm2": "_bn2",
        }  # fmt: skip
    se = {"reduce": "se.conv_reduce", "grow": "se.conv_expand", "depthwise": "conv_dw"}
    if first:
        return se | {"norm1": "bn1", "project": "conv_pw", "norm2": "bn2"}
    return se | {"expand": "conv_pw", "norm0": "bn1", "norm1": "bn2", "project": "conv_pwl", "norm2": "bn3"}


def se_resnet50() -> Tensors:
    """Cadene's: squeeze and excitation by convolutions; half precision, to write less."""
    plain = resnet([3, 4, 6, 3], bottleneck=True, classes=0)
    out: Tensors = {}
    for name, tensor in plain.items():
        stem = name.startswith(("conv1.", "bn1."))
        out[f"layer0.{name}" if stem else name] = tensor
        if name.endswith("conv3.weight"):
            root, wide = name.removesuffix("conv3.weight") + "se_module", tensor.shape[0]
            for n, shape in ((1, (wide // 16, wide)), (2, (wide, wide // 16))):
                out |= {f"{root}.fc{n}.weight": random(*shape, 1, 1), f"{root}.fc{n}.bias": random(shape[0])}
    out |= {"last_linear.weight": random(1000, 2048), "last_linear.bias": random(1000)}
    return {name: t.half() if t.is_floating_point() else t for name, t in out.items()}


def vit_tiny(layers: int = 2, side: int = 16, tokens: int = 14) -> Tensors:
    """timm's ``vit_tiny_patch16_224`` (with fewer layers)."""
    d = 192
    out = {
        "cls_token": random(1, 1, d), "pos_embed": random(1, 1 + tokens**2, d),
        "patch_embed.proj.weight": random(d, 3, side, side), "patch_embed.proj.bias": random(d),
    }  # fmt: skip
    for n in range(layers):
        root = f"blocks.{n}"
        for name, shape in (
            ("norm1", (d,)), ("attn.qkv", (3 * d, d)), ("attn.proj", (d, d)), ("norm2", (d,)),
            ("mlp.fc1", (4 * d, d)), ("mlp.fc2", (d, 4 * d)),
        ):  # fmt: skip
            out |= {f"{root}.{name}.weight": random(*shape), f"{root}.{name}.bias": random(shape[0])}
    out |= {"norm.weight": random(d), "norm.bias": random(d)}
    return out | {"head.weight": random(1000, d), "head.bias": random(1000)}


def swin(width: int = 48, depths: Sequence[int] = (2, 2, 2, 2), heads: Sequence[int] = (3, 6, 12, 24), *,
         window: int = 7, again: bool = False) -> dict[str, Any]:  # fmt: skip
    """``model_swinvit.pt``: ``module.`` and the transformer, with the heads of its pretext tasks.

    `again`: the layout of ``ssl_pretrained_weights.pth`` instead (``encoder.layers1.0.0.blocks``).
    """
    out = {"patch_embed.proj.weight": random(width, 1, 2, 2, 2), "patch_embed.proj.bias": random(width)}
    voxels = window**3
    for n, (depth, count) in enumerate(zip(depths, heads, strict=True), start=1):
        d = width * 2 ** (n - 1)
        stage = f"layers{n}.0.0" if again else f"layers{n}.0"
        for m in range(depth):
            root = f"{stage}.blocks.{m}"
            for name, shape in (
                ("norm1", (d,)), ("attn.qkv", (3 * d, d)), ("attn.proj", (d, d)), ("norm2", (d,)),
                ("mlp.fc1", (4 * d, d)), ("mlp.fc2", (d, 4 * d)),
            ):  # fmt: skip
                name = name.replace("fc", "linear") if again else name
                out |= {f"{root}.{name}.weight": random(*shape), f"{root}.{name}.bias": random(shape[0])}
            out[f"{root}.attn.relative_position_bias_table"] = random((2 * window - 1) ** 3, count)
            out[f"{root}.attn.relative_position_index"] = torch.zeros(voxels, voxels, dtype=torch.long)
        out |= {f"{stage}.downsample.reduction.weight": random(2 * d, 8 * d)}
        out |= {
            f"{stage}.downsample.norm.weight": random(8 * d),
            f"{stage}.downsample.norm.bias": random(8 * d),
        }
    if again:
        out |= {"mask_token": random(1, width, 1, 1, 1), "norm.weight": random(16 * width)}
        return {"model": {f"encoder.{name}": tensor for name, tensor in out.items()}}
    out |= {"rotation_head.weight": random(4, 16 * width), "contrastive_head.weight": random(512, 16 * width)}
    return {"state_dict": {f"module.{name}": tensor for name, tensor in out.items()}}


class PlainConvUNet(nn.Module):
    """The plain network of nnU-Net v2 as its checkpoints show it, to compute with and to save.

    Each block stands twice in its state (``conv`` and ``all_modules.0``), the encoder again in the decoder.
    """

    def __init__(self, inputs: int, outputs: int, widths: Sequence[int], strides: Sequence[Any],
                 kernels: Sequence[Any]) -> None:  # fmt: skip
        super().__init__()
        self.flat = len(kernels[0]) == 2
        self.encoder = nn.Module()
        before = [inputs, *widths]
        self.encoder.stages = nn.Sequential(
            *(
                nn.Sequential(self._stack(before[n], width, kernels[n], strides[n]))
                for n, width in enumerate(widths)
            )
        )
        self.decoder = nn.Module()
        self.decoder.encoder = self.encoder
        up = nn.ConvTranspose2d if self.flat else nn.ConvTranspose3d
        conv = nn.Conv2d if self.flat else nn.Conv3d
        levels = list(reversed(range(len(widths) - 1)))
        ones = [1] * len(kernels[0])
        self.decoder.stages = nn.ModuleList(
            self._stack(2 * widths[n], widths[n], kernels[n], ones) for n in levels
        )
        self.decoder.transpconvs = nn.ModuleList(
            up(widths[n + 1], widths[n], tuple(strides[n + 1]), tuple(strides[n + 1])) for n in levels
        )
        self.decoder.seg_layers = nn.ModuleList(conv(widths[n], outputs, 1) for n in levels)

    def _stack(self, inputs: int, width: int, kernel: Any, stride: Any) -> nn.Module:
        stack = nn.Module()
        conv = nn.Conv2d if self.flat else nn.Conv3d
        norms = nn.InstanceNorm2d if self.flat else nn.InstanceNorm3d
        blocks = []
        for n in range(2):
            block = nn.Module()
            step = tuple(stride) if n == 0 else 1
            block.conv = conv(
                inputs if n == 0 else width, width, tuple(kernel), step, [k // 2 for k in kernel]
            )
            block.norm = norms(width, affine=True)
            nn.init.normal_(block.norm.weight, 1, 0.1)
            nn.init.normal_(block.norm.bias, 0, 0.1)
            block.all_modules = nn.Sequential(block.conv, block.norm, nn.LeakyReLU(0.01))
            blocks.append(block)
        stack.convs = nn.Sequential(*blocks)
        return stack

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for stage in self.encoder.stages:
            x = self._run(stage[0], x)
            skips.append(x)
        for n, stage in enumerate(self.decoder.stages):
            x = torch.cat([self.decoder.transpconvs[n](x), skips[-2 - n]], dim=1)
            x = self._run(stage, x)
        return self.decoder.seg_layers[-1](x)

    @staticmethod
    def _run(stack: Any, x: Tensor) -> Tensor:
        for block in stack.convs:
            x = block.all_modules(x)
        return x


class ResidualEncoderUNet(PlainConvUNet):
    """The network of nnU-Net's ResEnc presets: a stem, blocks of two convolutions with a way past them."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        widths: Sequence[int],
        strides: Sequence[Any],
        kernels: Sequence[Any],
        blocks: Sequence[int],
    ) -> None:
        super().__init__(inputs, outputs, widths, strides, kernels)
        self.encoder.stem = nn.Module()
        self.encoder.stem.convs = nn.Sequential(self._block(inputs, widths[0], kernels[0], 1))
        before = [widths[0], *widths]
        self.encoder.stages = nn.Sequential(
            *(
                self._residual(before[n], width, kernels[n], strides[n], blocks[n])
                for n, width in enumerate(widths)
            )
        )
        for stage in self.decoder.stages:
            stage.convs = stage.convs[:1]

    def _block(
        self, inputs: int, width: int, kernel: Any, stride: Any, bias: bool = True, end: bool = True
    ) -> Any:
        block = nn.Module()
        conv = nn.Conv2d if self.flat else nn.Conv3d
        norms = nn.InstanceNorm2d if self.flat else nn.InstanceNorm3d
        block.conv = conv(inputs, width, tuple(kernel), stride, [k // 2 for k in kernel], bias=bias)
        block.norm = norms(width, affine=True)
        nn.init.normal_(block.norm.weight, 1, 0.1)
        nn.init.normal_(block.norm.bias, 0, 0.1)
        block.all_modules = nn.Sequential(block.conv, block.norm, *([nn.LeakyReLU(0.01)] if end else []))
        return block

    def _residual(self, inputs: int, width: int, kernel: Any, stride: Any, count: int) -> nn.Module:
        stage = nn.Module()
        blocks = []
        for n in range(count):
            block, before, step = nn.Module(), inputs if n == 0 else width, tuple(stride) if n == 0 else 1
            block.conv1 = self._block(before, width, kernel, step)
            block.conv2 = self._block(width, width, kernel, 1, end=False)
            past: list[nn.Module] = []
            if n == 0 and any(side != 1 for side in stride):
                past.append((nn.AvgPool2d if self.flat else nn.AvgPool3d)(step, step))
            if before != width:
                past.append(self._block(before, width, [1] * len(kernel), 1, bias=False, end=False))
            block.skip = nn.Sequential(*past)
            blocks.append(block)
        stage.blocks = nn.Sequential(*blocks)
        return stage

    def forward(self, x: Tensor) -> Tensor:
        x, skips = self._run(self.encoder.stem, x), []
        for stage in self.encoder.stages:
            for block in stage.blocks:
                past = x
                for part in block.skip:
                    past = part.all_modules(past) if hasattr(part, "all_modules") else part(past)
                x = block.conv2.all_modules(block.conv1.all_modules(x)) + past
                x = nn.functional.leaky_relu(x, 0.01)
            skips.append(x)
        for n, stage in enumerate(self.decoder.stages):
            x = torch.cat([self.decoder.transpconvs[n](x), skips[-2 - n]], dim=1)
            x = self._run(stage, x)
        return self.decoder.seg_layers[-1](x)


def nnunet(
    network: nn.Module,
    *,
    order: Sequence[int] = (0, 1, 2),
    labels: Sequence[str] = ("large", "small"),
    patch: Sequence[int] = (16, 16, 8),
) -> dict[str, Any]:
    """``checkpoint_final.pth``: numpy numbers in the log, plans and labels in ``init_args``."""
    import numpy as np

    chosen = {"patch_size": list(patch), "spacing": [3.0, 1.5, 1.0][-len(patch) :]}
    plans = {
        "dataset_name": "Dataset004_Hippocampus",
        "plans_name": "nnUNetPlans",
        "transpose_forward": list(order),
        "configurations": {"3d_fullres": chosen},
    }
    dataset = {
        "labels": {"background": 0, **{n: v for v, n in enumerate(labels, start=1)}},
        "channel_names": {"0": "MR"},
        "numTraining": 20,
        "file_ending": ".nii.gz",
    }
    return {
        "network_weights": network.state_dict(),
        "optimizer_state": torch.optim.SGD(network.parameters(), 0.01, 0.99, nesterov=True).state_dict(),
        "grad_scaler_state": None,
        "logging": {"mean_fg_dice": [np.float64(0.5)], "ema_fg_dice": [np.float32(0.5)], "lrs": [0.01]},
        "_best_ema": np.float64(0.87),
        "current_epoch": 1000,
        "init_args": {"plans": plans, "configuration": "3d_fullres", "fold": 0, "dataset_json": dataset,
                      "unpack_dataset": True, "device": torch.device("cpu")},
        "trainer_name": "nnUNetTrainer",
        "inference_allowed_mirroring_axes": (0, 1, 2),
    }  # fmt: skip
