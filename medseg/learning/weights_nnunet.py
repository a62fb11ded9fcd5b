"""nnU-Net v2 checkpoints -> our U-Nets (plain and residual encoder), which compute the same.

Biases of convolutions before an instance norm have no effect (the norm takes the mean away) and are left
behind; each encoder tensor stands in the file up to four times. nnU-Net's axes are those of its arrays
(depth, rows, columns, perhaps transposed): kernels are brought to ours.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from medseg.learning.weights_open import Raw

Tensors = dict[str, Tensor]

_FIRST = "encoder.stages.0.0.convs.0.conv.weight"
_RESIDUAL = "encoder.stem.convs.0.conv.weight"
_OLD = "conv_blocks_context.0.blocks.0.conv.weight"
_DOUBLED = re.compile(r"^decoder\.encoder\.|\.all_modules\.")


def lacks(raw: Raw) -> str:
    """Why these are not of nnU-Net v2, or nothing."""
    names = raw.tensors
    if _FIRST in names or _RESIDUAL in names:
        return ""
    if _OLD in names:
        return "this is a checkpoint of nnU-Net v1, whose weights are of another network"
    return f"there is no {_FIRST}"


def read(raw: Raw) -> tuple[Tensors, dict[str, Any], dict[str, int]]:
    """Our U-Net's tensors and arguments, the classes, the plan's patch and spacing, and what was left."""
    residual = _RESIDUAL in raw.tensors
    theirs = {name: t for name, t in raw.tensors.items() if not _DOUBLED.search(name)}
    spatial = theirs[_RESIDUAL if residual else _FIRST].ndim - 2
    axes = axes_of(_plans(raw), spatial)
    depth = 1 + max(int(m[1]) for n in theirs if (m := re.match(r"encoder\.stages\.(\d+)\.", n)))
    kept: Tensors = {}
    dropped: dict[str, int] = {}
    for name, tensor in theirs.items():
        ours = _ours(name, depth, residual)
        if ours is None or ours.startswith("without effect"):
            why = ours or "no place in our U-Net"
            dropped[why] = dropped.get(why, 0) + tensor.numel()
        else:
            kept[ours] = turned(tensor, axes)
    facts = {
        "network": "residual_unet" if residual else "unet",
        "network_arguments": _arguments(kept, depth, residual),
        "dimensions": spatial,
        "task": "segmentation",
        **_about(raw, axes),
    }
    return kept, facts, dropped


def axes_of(plans: Mapping[str, Any], spatial: int) -> list[int]:
    """Which of the network's axes is our I, J (and K): nnU-Net's are K, J, I in the order of its plans."""
    order = list(plans.get("transpose_forward", [0, 1, 2]))
    if spatial == 3:
        return [order.index(axis) for axis in (2, 1, 0)]
    inside = order[1:]  # flat networks see the last two
    return sorted(range(2), key=lambda n: -inside[n])


def turned(tensor: Tensor, axes: Sequence[int]) -> Tensor:
    """A kernel with its spatial axes in our order; other tensors as they are."""
    if tensor.ndim != len(axes) + 2:
        return tensor
    return tensor.permute(0, 1, *(axis + 2 for axis in axes))


def _ours(name: str, depth: int, residual: bool) -> str | None:
    """Our name of a tensor; None when there is no place, or why it has no effect."""
    if residual and name.startswith("encoder."):
        return _residual(name)
    if found := re.match(
        r"(encoder|decoder)\.stages\.(\d+)\.(?:0\.)?convs\.([01])\.(conv|norm)\.(\w+)$", name
    ):
        side, level, number, kind, what = found.groups()
        if kind == "conv" and what == "bias":
            return _BIAS
        return f"{side}.levels.{level}.{number}.{0 if kind == 'conv' else 1}.{what}"
    if found := re.match(r"decoder\.transpconvs\.(\d+)\.(\w+)$", name):
        return f"decoder.ups.{found[1]}.{found[2]}"
    if found := re.match(r"decoder\.seg_layers\.(\d+)\.(\w+)$", name):
        level = depth - 2 - int(found[1])  # theirs run from the coarsest to the finest
        return f"head.{level}.{found[2]}"
    return None


_BIAS = "without effect: biases before an instance norm"
_WAYS = {"conv1": "first", "conv2": "second"}


def _residual(name: str) -> str | None:
    """Our name of a tensor of a residual encoder."""
    found = re.match(
        r"encoder\.(?:stem\.convs\.0|stages\.(\d+)\.blocks\.(\d+)\.(conv1|conv2|skip\.[01]))\.(conv|norm)\.(\w+)$",
        name,
    )
    if found is None:
        return None
    level, block, way, kind, what = found.groups()
    if kind == "conv" and what == "bias":
        return _BIAS
    home = "encoder.stem" if level is None else f"encoder.levels.{level}.{block}.{_WAYS.get(way, 'project')}"
    return f"{home}.{0 if kind == 'conv' else 1}.{what}"


def _arguments(kept: Tensors, depth: int, residual: bool) -> dict[str, Any]:
    """Arguments of our U-Net, read off the shapes (three axes each, as our plans have them)."""
    first = "encoder.levels.{}.0.first.0.weight" if residual else "encoder.levels.{}.0.0.weight"
    firsts = [kept[first.format(n)] for n in range(depth)]
    ups = [kept[f"decoder.ups.{depth - 2 - n}.weight"] for n in range(depth - 1)]
    strides = [[1, 1, 1], *(_three(t) for t in ups)]
    return {
        "widths": [int(t.shape[0]) for t in firsts],
        "strides": strides,
        "kernels": [_three(t) for t in firsts],
        "supervised": max(0, sum(f"head.{n}.weight" in kept for n in range(depth)) - 1),
        **(_counted(kept, depth) if residual else {"norm": "instance"}),
    }


def _counted(kept: Tensors, depth: int) -> dict[str, Any]:
    """Blocks of each level of a residual encoder, and convolutions of a level on the way up."""
    blocks = [sum(f"encoder.levels.{n}.{b}.first.0.weight" in kept for b in range(99)) for n in range(depth)]
    return {"blocks": blocks, "convolutions": sum(f"decoder.levels.0.{c}.0.weight" in kept for c in range(2))}


def _three(kernel: Tensor) -> list[int]:
    sides = [int(side) for side in kernel.shape[2:]]
    return [*sides, 1] if len(sides) == 2 else sides


def _plans(raw: Raw) -> Mapping[str, Any]:
    """The plans inside the checkpoint, else those in the folder."""
    return _start(raw).get("plans") or raw.beside.get("plans") or {}


def _start(raw: Raw) -> Mapping[str, Any]:
    found = raw.beside.get("init_args")
    return found if isinstance(found, Mapping) else {}


def _about(raw: Raw, axes: Sequence[int]) -> dict[str, Any]:
    """Classes, channels, patch and spacing, as far as checkpoint and folder tell them."""
    dataset = _start(raw).get("dataset_json") or raw.beside.get("dataset") or {}
    labels, channels = dataset.get("labels", {}), dataset.get("channel_names", {})
    plans = _plans(raw)
    chosen = plans.get("configurations", {}).get(_start(raw).get("configuration"), {})
    facts: dict[str, Any] = {}
    if labels and all(isinstance(value, int) for value in labels.values()):
        facts["outputs"] = [name for name, _ in sorted(labels.items(), key=lambda item: item[1])]
    if channels:
        facts["channels"] = [str(channels[key]) for key in sorted(channels, key=str)]
    for name, ours in (("patch_size", "patch"), ("spacing", "spacing_mm")):
        if len(chosen.get(name, ())) == len(axes):
            facts[ours] = [float(chosen[name][axis]) for axis in axes]
    notes = "axes K, J, I turned to I, J, K; left-right and front-back as the training images were stored"
    return facts | {"notes": [f"trainer {raw.beside.get('trainer_name', 'not told')}", notes]}
