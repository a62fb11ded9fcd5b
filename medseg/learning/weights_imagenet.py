"""Encoders trained on photographs (torchvision, timm, lukemelas, Cadene) -> MONAI's networks of that name.

Photographs are arrays of rows and columns from the top left; our pictures have the columns first and both
axes towards right and front (RAS). The kernels are turned likewise, so that they see what they were
trained to see.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import Tensor

from medseg.learning.weights_open import Raw

Tensors = dict[str, Tensor]

_RESNETS: Mapping[tuple[int, ...], tuple[int, int]] = {
    (1, 1, 1, 1): (10, 10), (2, 2, 2, 2): (18, 18), (3, 4, 6, 3): (34, 50), (3, 4, 23, 3): (101, 101),
    (3, 8, 36, 3): (152, 152), (3, 24, 36, 3): (200, 200),
}  # fmt: skip
"""Blocks of each layer -> depth with two, and with three convolutions a block."""

_DENSENETS: Mapping[tuple[int, ...], int] = {
    (6, 12, 24, 16): 121,
    (6, 12, 32, 32): 169,
    (6, 12, 48, 32): 201,
    (6, 12, 64, 48): 264,
}

_EFFICIENTNETS = {
    (32, 1280, 16): "b0", (32, 1280, 23): "b1", (32, 1408, 23): "b2", (40, 1536, 26): "b3",
    (48, 1792, 32): "b4", (48, 2048, 39): "b5", (56, 2304, 45): "b6", (64, 2560, 55): "b7",
}  # fmt: skip
"""(Stem, last convolution, blocks) -> which of the family."""

_HEADS = {"fc.", "class_layers.", "_fc.", "last_linear.", "classification_head."}


def lacks(raw: Raw) -> str:
    """Why these are not the weights of a known encoder of photographs, or nothing."""
    if family_of(raw.tensors) is not None:
        return ""
    some = ", ".join(list(raw.tensors)[:3])
    return f"names such as {some} are of no flat ResNet, DenseNet, EfficientNet, SE-ResNet or ViT"


def read(raw: Raw) -> tuple[Tensors, dict[str, Any], dict[str, int]]:
    """Renamed, kernels turned, the thousand classes left behind."""
    family = family_of(raw.tensors)
    assert family is not None
    network, rename = _FAMILIES[family]
    named, arguments = rename(raw.tensors)
    kept = {n: turned(t) for n, t in named.items() if not n.startswith(tuple(_HEADS))}
    classes = sum(t.numel() for n, t in named.items() if n not in kept)
    facts = {
        "network": network,
        "network_arguments": arguments,
        "dimensions": 2,
        "task": "classification",
        "notes": ["kernels turned from rows and columns to our axes"],
    }
    return kept, facts, {"head for the classes of ImageNet": classes} if classes else {}


def family_of(tensors: Mapping[str, Tensor]) -> str | None:
    """Which published layout the names and shapes are of, or None."""
    for family, (first, other) in _MARKS.items():
        if first in tensors and other in tensors and tensors[first].ndim == 4:
            return family
    return None


def turned(tensor: Tensor) -> Tensor:
    """A kernel ``[O, I, rows, columns]`` for our axes: ``[O, I, columns, rows]``, both backwards."""
    if tensor.ndim != 4 or tensor.shape[-1] == tensor.shape[-2] == 1:
        return tensor
    return tensor.transpose(-1, -2).flip(-1, -2)


def _turned_places(places: Tensor) -> Tensor:
    """Position embeddings ``[1, rows * columns, D]`` of a square picture, turned like the kernels."""
    side = round(places.shape[1] ** 0.5)
    if side * side != places.shape[1]:
        return places
    grid = places.reshape(1, side, side, -1)
    return grid.transpose(1, 2).flip(1, 2).reshape(places.shape)


def depth_of(tensors: Mapping[str, Tensor]) -> int:
    """Depth of a ResNet by its blocks; 0 when they are none of the published ones."""
    found = tuple(len(_numbers(tensors, rf"layer{n}\.(\d+)\.")) for n in (1, 2, 3, 4))
    plain, bottleneck = _RESNETS.get(found, (0, 0))
    return bottleneck if "layer1.0.conv3.weight" in tensors else plain


def _resnet(tensors: Tensors) -> tuple[Tensors, dict[str, Any]]:
    arguments = {
        "depth": depth_of(tensors),
        "shortcut_type": "B",
        "bias_downsample": False,
        "conv1_t_stride": 2,
        "widen_factor": 1.0,
    }
    return tensors, arguments


def _densenet(tensors: Tensors) -> tuple[Tensors, dict[str, Any]]:
    names = {
        name: re.sub(r"(denselayer\d+)\.(norm|conv)\.?([12])\.", r"\1.layers.\2\3.", name).replace(
            "classifier.", "class_layers.out."
        )
        for name in tensors
    }
    counts = tuple(
        len(_numbers(tensors, rf"features\.denseblock{n}\.denselayer(\d+)\.")) for n in (1, 2, 3, 4)
    )
    return {names[n]: t for n, t in tensors.items()}, {"depth": _DENSENETS.get(counts, 0)}


def _efficientnet(tensors: Tensors) -> tuple[Tensors, dict[str, Any]]:
    """lukemelas: blocks numbered through; MONAI's stand in stages, a new one where the width changes."""
    blocks = _numbers(tensors, r"_blocks\.(\d+)\.")
    stage_of: dict[int, int] = {}
    stage, before = -1, 0
    for block in blocks:
        width = int(tensors[f"_blocks.{block}._project_conv.weight"].shape[0])
        stage += width != before
        stage_of[block], before = stage, width
    named = {
        re.sub(r"^_blocks\.(\d+)\.", lambda m: f"_blocks.{stage_of[int(m[1])]}.{m[1]}.", name): tensor
        for name, tensor in tensors.items()
    }
    key = (tensors["_conv_stem.weight"].shape[0], tensors["_conv_head.weight"].shape[0], len(blocks))
    return named, {"variant": _EFFICIENTNETS.get(key, "")}


_TIMM = (
    (r"^conv_stem\.", "_conv_stem."),
    (r"^bn1\.", "_bn0."),
    (r"^conv_head\.", "_conv_head."),
    (r"^bn2\.", "_bn1."),
    (r"^classifier\.", "_fc."),
    (r"\.se\.conv_(reduce|expand)\.", r"._se_\1."),
    (r"\.conv_dw\.", "._depthwise_conv."),
)
_TIMM_FIRST = ((r"\.conv_pw\.", "._project_conv."), (r"\.bn([12])\.", r"._bn\1."))
_TIMM_OTHERS = (
    (r"\.conv_pwl\.", "._project_conv."),
    (r"\.conv_pw\.", "._expand_conv."),
    (r"\.bn([123])\.", lambda m: f"._bn{int(m[1]) - 1}."),
)


def _efficientnet_timm(tensors: Tensors) -> tuple[Tensors, dict[str, Any]]:
    """timm: blocks numbered within their stage -> lukemelas' names -> MONAI's."""
    places = sorted({(int(m[1]), int(m[2])) for m in _found(tensors, r"^blocks\.(\d+)\.(\d+)\.")})
    through = {place: n for n, place in enumerate(places)}
    flat = {}
    for name, tensor in tensors.items():
        inside = re.match(r"^blocks\.(\d+)\.(\d+)\.", name)
        for pattern, new in _TIMM:
            name = re.sub(pattern, new, name)
        if inside:
            plain = f"blocks.{inside[1]}.{inside[2]}.conv_pwl.weight" not in tensors
            for pattern, new in _TIMM_FIRST if plain else _TIMM_OTHERS:
                name = re.sub(pattern, new, name)
            block = through[int(inside[1]), int(inside[2])]
            name = re.sub(r"^blocks\.\d+\.\d+\.", f"_blocks.{block}.", name)
        flat[name] = tensor
    return _efficientnet(flat)


_CADENE = (
    (r"^(layer\d\.\d+)\.conv(\d)\.", r"\1.conv\2.conv."),
    (r"^(layer\d\.\d+)\.bn(\d)\.", r"\1.conv\2.adn.N."),
    (r"^(layer\d\.\d+)\.downsample\.0\.", r"\1.project.conv."),
    (r"^(layer\d\.\d+)\.downsample\.1\.", r"\1.project.adn.N."),
    (r"\.se_module\.fc1\.", ".se_layer.fc.0."),
    (r"\.se_module\.fc2\.", ".se_layer.fc.2."),
)


def _senet(tensors: Tensors) -> tuple[Tensors, dict[str, Any]]:
    """Cadene's SE-ResNets: squeeze and excitation by convolutions of one voxel -> by matrices."""
    named = {}
    for name, tensor in tensors.items():
        for pattern, new in _CADENE:
            name = re.sub(pattern, new, name)
        flat = ".se_layer." in name and tensor.ndim == 4
        named[name] = tensor.flatten(1) if flat else tensor
    return named, {"depth": depth_of(tensors)}


_VIT = (
    (r"^patch_embed\.proj\.", "patch_embedding.patch_embeddings."),
    (r"^pos_embed$", "patch_embedding.position_embeddings"),
    (r"\.attn\.proj\.", ".attn.out_proj."),
    (r"\.mlp\.fc([12])\.", r".mlp.linear\1."),
    (r"^head\.", "classification_head.0."),
)


def _vit(tensors: Tensors) -> tuple[Tensors, dict[str, Any]]:
    """timm's vision transformers; the place of the class token, which MONAI's has not, is added to it."""
    places = tensors["pos_embed"]
    own = {"cls_token": tensors["cls_token"] + places[:, :1], "pos_embed": _turned_places(places[:, 1:])}
    tensors, named = {**tensors, **own}, {}
    for name, tensor in tensors.items():
        for pattern, new in _VIT:
            name = re.sub(pattern, new, name)
        named[name] = tensor
    width, _, side, _ = tensors["patch_embed.proj.weight"].shape
    arguments = {
        "hidden_size": int(width),
        "num_layers": len(_numbers(tensors, r"blocks\.(\d+)\.")),
        "num_heads": max(1, int(width) // 64),
        "patch_size": [int(side), int(side)],
        "qkv_bias": "blocks.0.attn.qkv.bias" in tensors,
    }
    return named, arguments


_MARKS = {
    "senet": ("layer0.conv1.weight", "layer1.0.se_module.fc1.weight"),
    "resnet": ("conv1.weight", "layer4.0.bn1.weight"),
    "densenet": ("features.conv0.weight", "features.norm5.weight"),
    "efficientnet": ("_conv_stem.weight", "_blocks.0._project_conv.weight"),
    "efficientnet_timm": ("conv_stem.weight", "blocks.0.0.conv_dw.weight"),
    "vit": ("patch_embed.proj.weight", "blocks.0.attn.qkv.weight"),
}
"""Layout -> its first kernel, which is flat, and another tensor it has; the first that fits counts."""

_FAMILIES: Mapping[str, tuple[str, Callable[[Tensors], tuple[Tensors, dict[str, Any]]]]] = {
    "senet": ("senet", _senet),
    "resnet": ("resnet", _resnet),
    "densenet": ("densenet", _densenet),
    "efficientnet": ("efficientnet", _efficientnet),
    "efficientnet_timm": ("efficientnet", _efficientnet_timm),
    "vit": ("vit", _vit),
}


def _numbers(names: Iterable[str], pattern: str) -> list[int]:
    return sorted({int(m[1]) for m in _found(names, pattern)})


def _found(names: Iterable[str], pattern: str) -> list[re.Match[str]]:
    return [found for name in names if (found := re.match(pattern, name))]
