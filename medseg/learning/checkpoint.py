"""Checkpoints: the whole state of a training, written whole, read back to the last bit. No pickle."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from medseg.core.files import read_json, sha256_of, write_json, written_whole

log = logging.getLogger("medseg")

KEPT = 2


@dataclass
class State:
    """What a training is made of; `facts` is plain data (step, seconds, history, best, ...)."""

    network: nn.Module
    average: dict[str, Tensor]
    optimizer: Optimizer
    best: dict[str, Tensor] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    terms: Sequence[Any] = ()
    """Terms of the loss; those that keep state have ``state_dict`` and ``load_state_dict``."""

    @property
    def keepers(self) -> dict[str, Any]:
        """The terms that keep state, by their prefix in a checkpoint."""
        return {f"term.{n}.": term for n, term in enumerate(self.terms) if hasattr(term, "state_dict")}


def save_checkpoint(folder: Path, state: State) -> None:
    """Write ``<step>.safetensors`` and then ``<step>.json`` (which makes it valid); the last two stay.

    The best weights so far have a file of their own, written only when they change.
    """
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{state.facts['step']:08d}"
    best = _best_name(state.facts)
    if best and not (folder / best).is_file():
        _write(folder / best, state.best)
    _write(folder / f"{name}.safetensors", _tensors(state))
    facts = {**state.facts, "sha256": sha256_of(folder / f"{name}.safetensors")}
    write_json(folder / f"{name}.json", facts)
    _clear(folder)


def load_checkpoint(folder: Path, state: State) -> bool:
    """Fill `state` from the newest whole checkpoint; False when there is none.

    A damaged one is passed over for the one before it.
    """
    for note in sorted(folder.glob("[0-9]*.json"), reverse=True):
        try:
            facts = read_json(note)
            tensors = _checked(note.with_suffix(".safetensors"), facts.pop("sha256"))
            best = _best_name(facts)
            state.best = load_file(folder / best) if best else {}
        except (OSError, ValueError, KeyError, json.JSONDecodeError, SafetensorError) as error:
            log.warning("checkpoint %s cannot be used (%s)", note.stem, type(error).__name__)
            continue
        _restore(state, tensors)
        state.facts = {**state.facts, **facts}
        return True
    return False


def _tensors(state: State) -> dict[str, Tensor]:
    out = {f"network.{k}": v for k, v in state.network.state_dict().items()}
    out |= {f"average.{k}": v for k, v in state.average.items()}
    for index, values in state.optimizer.state_dict()["state"].items():
        out |= {f"optimizer.{index}.{k}": v for k, v in values.items()}
    for prefix, term in state.keepers.items():
        out |= {prefix + k: v for k, v in term.state_dict().items()}
    return out


def _restore(state: State, tensors: Mapping[str, Tensor]) -> None:
    """Copy into the tensors that are there, so that their memory layout stays what it was."""
    with torch.no_grad():
        for name, tensor in state.network.state_dict().items():
            tensor.copy_(tensors[f"network.{name}"])
        for name, tensor in state.average.items():
            tensor.copy_(tensors[f"average.{name}"])
    parameters = [p for group in state.optimizer.param_groups for p in group["params"]]
    for index, parameter in enumerate(parameters):
        prefix = f"optimizer.{index}."
        found = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        state.optimizer.state[parameter] = {k: _like(v, parameter) for k, v in found.items()}
    for prefix, term in state.keepers.items():
        term.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})


def _like(value: Tensor, parameter: Tensor) -> Tensor:
    if value.shape != parameter.shape or value.ndim == 0:
        return value
    return torch.empty_like(parameter, requires_grad=False).copy_(value)


def alone(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous tensors, each in memory of its own: safetensors keeps none that share it."""
    plain: dict[str, Tensor] = {}
    places: set[int] = set()
    for name, value in tensors.items():
        one = value.detach().cpu().contiguous()
        plain[name] = one.clone() if one.data_ptr() in places else one
        places.add(one.data_ptr())
    return plain


def _write(file: Path, tensors: Mapping[str, Tensor]) -> None:
    plain = alone(tensors)
    with written_whole(file) as beside:
        save_file(plain, beside)


def _checked(file: Path, expected: str) -> dict[str, Tensor]:
    if sha256_of(file) != expected:
        raise ValueError("the checkpoint is not what was written")
    return load_file(file)


def _best_name(facts: Mapping[str, Any]) -> str | None:
    best = facts.get("best")
    return f"best-{best['step']:08d}.safetensors" if best else None


def _clear(folder: Path) -> None:
    """Leave the newest checkpoints and the best weights they name."""
    notes = sorted(folder.glob("[0-9]*.json"), reverse=True)
    keep = {_best_name(read_json(note)) for note in notes[:KEPT]}
    for note in notes[KEPT:]:
        note.unlink()
        note.with_suffix(".safetensors").unlink(missing_ok=True)
    for file in folder.glob("best-*.safetensors"):
        if file.name not in keep:
            file.unlink()
