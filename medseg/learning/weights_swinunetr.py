"""Self-supervised SwinUNETR weights: the Swin transformer alone, under the names it was trained with."""

from __future__ import annotations

import re
from typing import Any

from torch import Tensor

from medseg.learning.weights_open import Raw

_NAMES = (
    (r"^(?:swinViT\.|encoder\.)?(patch_embed|layers\d)\.", r"swinViT.\1."),
    # one of the published files numbers the stage once more: layers1.0.0.blocks
    (r"^(swinViT\.layers\d\.0)\.0\.", r"\1."),
    (r"\.mlp\.fc([12])\.", r".mlp.linear\1."),
)


def lacks(raw: Raw) -> str:
    """Why these are not Swin weights, or nothing."""
    names = {_ours(name) for name in raw.tensors}
    for wanted in ("swinViT.patch_embed.proj.weight", "swinViT.layers1.0.blocks.0.attn.qkv.weight"):
        if wanted not in names:
            return f"there is no {wanted.removeprefix('swinViT.')}"
    return ""


def read(raw: Raw) -> tuple[dict[str, Tensor], dict[str, Any], dict[str, int]]:
    """The transformer (and the rest of the network, where the file has it); pretext heads are left behind."""
    named = {_ours(name): tensor for name, tensor in raw.tensors.items()}
    whole = any(name.startswith("decoder1.") for name in named)
    ours = ("swinViT.", "encoder", "decoder", "out.") if whole else ("swinViT.",)
    kept = {
        n: t for n, t in named.items() if n.startswith(ours) and not n.endswith("relative_position_index")
    }
    left = sum(t.numel() for n, t in named.items() if n not in kept and not n.endswith("position_index"))
    first = kept["swinViT.patch_embed.proj.weight"]
    facts = {
        "network": "swinunetr",
        "network_arguments": _arguments(kept),
        "dimensions": first.ndim - 2,
        "task": "segmentation",
    }
    return kept, facts, {"heads of the pretext tasks": left} if left else {}


def _arguments(tensors: dict[str, Tensor]) -> dict[str, Any]:
    stages = range(1, 5)
    tables = "swinViT.layers{}.0.blocks.0.attn.relative_position_bias_table"
    blocks = [
        {name.split(".")[4] for name in tensors if name.startswith(f"swinViT.layers{n}.0.blocks.")}
        for n in stages
    ]
    return {
        "feature_size": int(tensors["swinViT.patch_embed.proj.weight"].shape[0]),
        "depths": [len(found) for found in blocks],
        "num_heads": [int(tensors[tables.format(n)].shape[1]) for n in stages],
    }


def _ours(name: str) -> str:
    for pattern, new in _NAMES:
        name = re.sub(pattern, new, name)
    return name
