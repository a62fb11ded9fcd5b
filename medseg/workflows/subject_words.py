"""A tested model in sentences: what the report, the methods text and the checklists say of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medseg.core.errors import MedsegError
from medseg.core.files import read_json
from medseg.data.plan import Plan
from medseg.imaging.labels import Label, Labels

Card = Mapping[str, Any]


def of_models(plan: Plan, cards: Sequence[Card]) -> dict[str, str]:
    """Sentences about models of ours, from their plan and cards."""
    first = cards[0]
    size = f", {first['parameters']:,} parameters" if "parameters" in first else ""
    many = f"{len(cards)} networks whose probabilities are averaged" if len(cards) > 1 else "a single network"
    return {
        "what": f"a {plan.dimensions}-D {plan.network}",
        "task": plan.task,
        "network": f"{plan.dimensions}-D {plan.network}{size}",
        "input": f"input: {', '.join(plan.channels)}, windows of {_by(plan.patch)} voxels",
        "preparation": f"images are brought to {_by(plan.spacing_mm)} mm; intensity: {_intensity(plan)}",
        "prediction": "windows overlap and are weighted by a Gaussian; probabilities are resampled onto the "
        "image's own grid before the most probable label is taken"
        if plan.task == "segmentation"
        else "",
        "ensemble": many,
        "weights": _weights(first),
        "training": _training(first),
        "choice": _choice(first),
    }


def of_bundle(place: Path) -> tuple[dict[str, str], Labels]:
    """Sentences about a MONAI bundle and its labels, from ``configs/metadata.json``."""
    file = place / "configs" / "metadata.json"
    try:
        told = dict(read_json(file)) if file.is_file() else {}
    except ValueError as error:
        raise MedsegError("the bundle's metadata.json cannot be read", file=str(file)) from error
    name = str(told.get("name") or "a MONAI bundle")
    about = {
        "what": f"the MONAI bundle '{name}', version {told.get('version', 'unknown')}",
        "task": str(told.get("task") or "segmentation"),
        "network": str(told.get("description") or ""),
        "preparation": "the transforms of the bundle's configuration",
        "prediction": "the inferer of the bundle's configuration",
        "training": str(told.get("data_source") or ""),
    }
    return about, _bundle_labels(told)


def _bundle_labels(told: Mapping[str, Any]) -> Labels:
    """Labels of the output's ``channel_def``: the channel's number is the value in the mask."""
    outputs = (told.get("network_data_format") or {}).get("outputs") or {}
    named = (next(iter(outputs.values()), {}) or {}).get("channel_def") or {}
    pairs = [(int(k), str(v)) for k, v in named.items() if str(k).isdigit() and int(k) > 0]
    return tuple(Label(value=value, name=name) for value, name in sorted(pairs))


def _by(values: Sequence[float]) -> str:
    return " x ".join(f"{v:g}" for v in values)


def _intensity(plan: Plan) -> str:
    return ", ".join(sorted({rule.name.replace("_", " ") for rule in plan.intensity.values()}))


def _weights(card: Card) -> str:
    start = card.get("start")
    return "weights were carried over from another training" if start else "random initial weights"


def _training(card: Card) -> str:
    how, data = card.get("training") or {}, card.get("training_data") or {}
    if not how:
        return ""
    on = f"trained on {data['cases']} cases of {data['patients']} patients" if "cases" in data else "trained"
    turned = how.get("augment") or {}
    moved = "with" if any(v for v in turned.values()) else "without"
    return f"{on} for {card.get('steps', '?')} steps, rate {how.get('rate', '?')}, {moved} augmentation"


def _choice(card: Card) -> str:
    monitored = (card.get("training_data") or {}).get("monitor_cases")
    return (
        f"the checkpoint that was best on {monitored} cases set aside from the training" if monitored else ""
    )
