"""Which part of a network a parameter belongs to, and how deep it lies: by the names of its modules."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Part = Literal["stem", "encoder", "decoder", "head"]
PARTS: tuple[Part, ...] = ("stem", "encoder", "decoder", "head")

Rules = Sequence[tuple[str, Part]]

_UNET: Rules = (
    (r"encoder\.levels\.0\.0\.", "stem"),
    (r"encoder\.levels\.(\d+)", "encoder"),
    (r"decoder\.\w+\.(\d+)", "decoder"),
    (r"(class_)?head\.", "head"),
)
_SLICES: Rules = (
    (r"encoder\.(conv1|bn1)\.", "stem"),
    (r"encoder\.layer(\d+)", "encoder"),
    (r"summary\.", "decoder"),
    (r"head\.", "head"),
)

RULES: Mapping[str, Rules] = {
    "unet": _UNET,
    "joint_unet": _UNET,
    "attention_unet": _UNET,
    "unetpp": _UNET,
    "residual_unet": ((r"encoder\.stem\.", "stem"), *_UNET[1:]),
    "slices_lstm": _SLICES,
    "slices_attention": _SLICES,
    "segresnet": (
        (r"convInit", "stem"),
        (r"down_layers\.(\d+)", "encoder"),
        (r"up_\w+\.(\d+)", "decoder"),
        (r"conv_final", "head"),
    ),
    "dynunet": (
        (r"input_block", "stem"),
        (r"downsamples\.(\d+)", "encoder"),
        (r"bottleneck", "encoder"),
        (r"upsamples\.(\d+)", "decoder"),
        (r"(output_block|deep_supervision_heads|heads)", "head"),
        (r"skip_layers", "decoder"),
    ),
    "swinunetr": (
        (r"swinViT\.patch_embed", "stem"),
        (r"swinViT\.layers(\d+)", "encoder"),
        (r"encoder(\d+)", "decoder"),  # what prepares the skips: published encoders are the transformer alone
        (r"decoder(\d+)", "decoder"),
        (r"out\.", "head"),
    ),
    "monai_unet": (
        (r"model\.0\.", "stem"),
        (r"model\.2\.", "head"),
        (r"model\.1\.submodule\.(?:1\.submodule\.)*2\.", "decoder"),
        (r"model\.1\.", "encoder"),
    ),
    "mednext": (
        (r"stem\.", "stem"),
        (r"(?:enc_stages|down_blocks)\.(\d+)", "encoder"),
        (r"bottleneck", "encoder"),
        (r"(?:up_blocks|dec_stages)\.(\d+)", "decoder"),
        (r"out_", "head"),
    ),
    "unetr": (
        (r"vit\.(patch_embedding|cls_token)", "stem"),
        (r"vit\.blocks\.(\d+)", "encoder"),
        (r"vit\.norm", "encoder"),
        (r"(?:encoder|decoder)(\d+)", "decoder"),
        (r"out\.", "head"),
    ),
    "resnet": (
        (r"(conv1|bn1|norm1)\.", "stem"),
        (r"layer(\d+)", "encoder"),
        (r"fc\.", "head"),
    ),
    "densenet": (
        (r"features\.(conv0|norm0)\.", "stem"),
        (r"features\.(?:denseblock|transition)(\d+)", "encoder"),
        (r"features\.norm5", "encoder"),
        (r"class_layers", "head"),
    ),
    "efficientnet": (
        (r"(_conv_stem|_bn0)\.", "stem"),
        (r"_blocks\.(\d+)", "encoder"),
        (r"(_conv_head|_bn1)\.", "encoder"),
        (r"_fc\.", "head"),
    ),
    "senet": (
        (r"layer0", "stem"),
        (r"layer(\d+)", "encoder"),
        (r"last_linear", "head"),
    ),
    "vit": (
        (r"(patch_embedding|cls_token)", "stem"),
        (r"blocks\.(\d+)", "encoder"),
        (r"norm\.", "encoder"),
        (r"classification_head", "head"),
    ),
}
"""Network -> patterns of parameter names, the first that is found counts; a group is the stage's number."""

_HEAD = re.compile(r"(^|\.)(head|fc|classifier|class_layers|out|final|output)\w*\.")


@dataclass(frozen=True)
class Place:
    """Where a parameter lies: its part, and its depth (0 the stem, the head the largest)."""

    part: Part
    depth: int


def plain(name: str) -> str:
    """A tensor's name without what wrappers of flat networks put before it."""
    return re.sub(r"^(network\.)+", "", name)


def places(names: Iterable[str], network: str) -> dict[str, Place]:
    """The place of each parameter (or buffer) of a network, in the order given.

    Networks that are not in `RULES` are all encoder in one piece but for what is named like a head.
    """
    keyed = {name: _key(plain(name), network) for name in names}
    order = {key: depth for depth, key in enumerate(sorted(set(keyed.values())))}
    return {name: Place(PARTS[key[0]], order[key]) for name, key in keyed.items()}


def _key(name: str, network: str) -> tuple[int, int]:
    """(part, stage), sortable."""
    for pattern, part in RULES.get(network, ()):
        found = re.match(pattern, name)
        if found:
            number = next((g for g in found.groups() if g and g.isdecimal()), None)
            return PARTS.index(part), 10**6 if number is None and part == "encoder" else int(number or 0)
    return PARTS.index("head" if _HEAD.search(name) else "encoder"), 0
