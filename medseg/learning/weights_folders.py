"""Folders of weights: a medseg model, what we imported before, a MONAI bundle."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from medseg.core.errors import MedsegError
from medseg.core.files import read_json
from medseg.learning.weights_open import Raw

FILES = (
    "weights.safetensors",
    "models/model.safetensors",
    "models/model.pt",
    "checkpoint_final.pth",
    "fold_0/checkpoint_final.pth",
)
"""Files of weights in the folders we know, the first that is there counts."""

_NOTES = {
    "plan": ("plan.json",),
    "card": ("card.json",),
    "imported": ("origin.json",),
    "metadata": ("configs/metadata.json", "../configs/metadata.json"),
    "inference": ("configs/inference.json", "../configs/inference.json"),
    "plans": ("plans.json", "../plans.json"),
    "dataset": ("dataset.json", "../dataset.json"),
}

Read = tuple[dict[str, Tensor], dict[str, Any], dict[str, int]]


def beside(folder: Path, file: Path) -> dict[str, Any]:
    """The JSON files that belong to a file of weights, by what they are."""
    found = {}
    for name, places in _NOTES.items():
        for place in places:
            note = (file.parent if place.startswith("..") else folder) / place
            if note.is_file():
                found.setdefault(name, _json(note))
    return found


def lacks_model(raw: Raw) -> str:
    """Why it is no medseg model, or nothing."""
    return "" if {"plan", "card"} <= set(raw.beside) else "there is no plan.json and card.json beside it"


def read_model(raw: Raw) -> Read:
    """A medseg model: names as they are, network and classes from its plan."""
    plan = raw.beside["plan"]
    labels = [label["name"] for label in plan.get("labels", [])]
    if not any(label.get("region") for label in plan.get("labels", [])):  # regions have no background
        labels.insert(0, "background")
    facts = {
        "network": plan["network"],
        "network_arguments": plan["network_arguments"],
        "dimensions": 2 if plan["patch"][2] == 1 else 3,
        "outputs": list(plan["classes"]) if plan["task"] == "classification" else labels,
        "channels": list(plan["channels"]),
        "task": plan["task"],
    }
    return raw.tensors, facts, {}


def lacks_weights(raw: Raw) -> str:
    """Why it is not what ``medseg import-weights`` wrote, or nothing."""
    return "" if "imported" in raw.beside else "there is no origin.json beside it"


def read_weights(raw: Raw) -> Read:
    """What was imported before: its own form and sha256 go on being told."""
    about = raw.beside["imported"]
    facts = {**about["facts"], "format": about["format"], "sha256": about["sha256"]}
    return raw.tensors, facts, dict(about["dropped"])


def lacks_bundle(raw: Raw) -> str:
    """Why it is no MONAI bundle, or nothing."""
    if "metadata" not in raw.beside:
        return "there is no configs/metadata.json"
    return "" if "monai_version" in raw.beside["metadata"] else "metadata.json names no monai_version"


def read_bundle(raw: Raw) -> Read:
    """A MONAI bundle: names as its own network gives them, classes from its metadata."""
    about = raw.beside["metadata"]
    outputs = about.get("network_data_format", {}).get("outputs", {}).get("pred", {}).get("channel_def", {})
    names = [str(outputs[key]) for key in sorted(outputs, key=str)] if _numbered(outputs) else []
    facts: dict[str, Any] = {"notes": [f"bundle {about.get('name', '')} {about.get('version', '')}".strip()]}
    facts |= _network(raw.beside.get("inference", {}))
    return raw.tensors, facts | ({"outputs": names} if names else {}), {}


_MONAI = {"SegResNet": "segresnet", "SwinUNETR": "swinunetr", "DynUNet": "dynunet", "UNet": "monai_unet"}
"""MONAI's classes -> our names of them."""

_SIZES = ("spatial_dims", "in_channels", "out_channels", "dimensions", "inputs", "outputs", "img_size")
"""What the plan says; of ``img_size`` older bundles tell, newer networks do not take it."""

_DYNUNET = {"kernel_size": "kernels", "strides": "strides", "upsample_kernel_size": None}


def _network(config: Mapping[str, Any]) -> dict[str, Any]:
    """Network and arguments, where the configuration says them in plain values (nothing is evaluated)."""
    found = next((config[k] for k in ("network_def", "network") if isinstance(config.get(k), dict)), {})
    if isinstance(plan := found.get("plan"), dict):  # written by us
        return {k: plan[k] for k in ("network", "network_arguments") if k in plan}
    home, _, name = str(found.get("_target_", "")).rpartition(".")
    arguments = {k: v for k, v in found.items() if not k.startswith("_") and k not in _SIZES}
    if home == "medseg.learning.unet" and name == "UNet":
        return {"network": "unet", "network_arguments": arguments, "task": "segmentation"}
    if name not in _MONAI or any(sign in repr(arguments) for sign in "$@%"):
        return {}
    if name == "DynUNet":
        arguments = {_DYNUNET.get(k, k): v for k, v in arguments.items() if _DYNUNET.get(k, k)}
    return {"network": _MONAI[name], "network_arguments": arguments, "task": "segmentation"}


def _numbered(outputs: Any) -> bool:
    return isinstance(outputs, dict) and bool(outputs) and all(str(key).isdecimal() for key in outputs)


def _json(file: Path) -> dict[str, Any]:
    try:
        found = read_json(file)
    except (OSError, ValueError) as error:
        raise MedsegError(
            f"{file.name} cannot be read", file=str(file), evidence=type(error).__name__
        ) from error
    return found if isinstance(found, dict) else {}
