"""A network begun from carried weights: fitted tensor by tensor, with an account of every parameter."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from medseg.core.words import names_nobody
from medseg.data.plan import Plan
from medseg.learning.account import Account, Tally, check_floor, nearest_prefixes, remarks
from medseg.learning.fitting import Place, by_class, fitted
from medseg.learning.job import Start
from medseg.learning.networks import build_network
from medseg.learning.parts import PARTS, places, plain
from medseg.learning.settings import Transfer
from medseg.learning.weights import Weights

log = logging.getLogger("medseg")

_COUNTERS = ("num_batches_tracked",)
INSIDE = {"slices_lstm": "encoder.", "slices_attention": "encoder."}
"""Networks that hold a flat ResNet -> what stands before its names."""

_DERIVED = ("relative_position_index", "attn_mask")
"""Buffers that the network makes itself."""


@dataclass(frozen=True)
class Fit:
    """What goes into a network: values by name, which of them hold carried weights whole, the account."""

    values: Mapping[str, Tensor]
    carried: frozenset[str]
    account: Account


def account_of(plan: Plan, weights: Weights, transfer: Transfer) -> Account:
    """What of the weights the plan's network would carry.

    Raises
    ------
    MedsegError
        Less than the floor could be carried: the account says what was left and why, and which prefix
        map would have carried more.
    """
    with torch.random.fork_rng(devices=[]):  # a look at the shapes must not change what is drawn later
        trial = fit(build_network(plan), plan, weights, transfer)
    check_floor(trial.account, _hint(plan, weights, transfer))
    return trial.account


def start_of(plan: Plan, weights: Weights, transfer: Transfer) -> Start:
    """The start of a training from carried weights; raises as `account_of` does."""
    account = account_of(plan, weights, transfer)
    log.info("weights carried (%s):\n%s", weights.format, account.table())

    def fill(network: nn.Module) -> set[str]:
        chosen = fit(network, plan, weights, transfer)
        with torch.no_grad():
            for name, tensor in network.state_dict().items():
                if name in chosen.values:
                    tensor.copy_(chosen.values[name])
        return set(chosen.carried)

    return Start(fill, transfer.tuned(), account.facts())


def fit(network: nn.Module, plan: Plan, weights: Weights, transfer: Transfer) -> Fit:
    """Find each of the network's tensors among the weights and bring it to its shape.

    Parameters of the network and of the file are counted, running statistics and counters are not.
    """
    weights = _inside(weights, plan)
    parameters = {name for name, _ in network.named_parameters()}
    where = places(network.state_dict(), plan.network)
    place = _place(network, plan, transfer)
    values: dict[str, Tensor] = {}
    told: dict[str, list[tuple[str, str, str, int]]] = {"adapted": [], "left": [], "exact": []}
    for name, ours in network.state_dict().items():
        part = where[name].part
        theirs = weights.tensors.get(plain(name))
        value, state, said = _one(plain(name), ours, theirs, part, place, plan, weights, transfer)
        if value is not None:
            values[name] = value
        if name in parameters:
            told[state].append((part, said, name, ours.numel()))
    carried = {row[2] for row in told["exact"] + [r for r in told["adapted"] if r[0] != "head"]}
    account = _account(told, _unused(weights, network), weights, transfer)
    return Fit(values, frozenset(carried), account)


def _one(
    name: str,
    ours: Tensor,
    theirs: Tensor | None,
    part: str,
    place: Place,
    plan: Plan,
    weights: Weights,
    transfer: Transfer,
) -> tuple[Tensor | None, str, str]:
    """(value, exact | adapted | left, what is said) of one tensor of the network."""
    if part not in transfer.parts:
        return None, "left", "not asked for"
    if theirs is None:
        return None, "left", "not among the weights"
    if name.endswith(_DERIVED):
        return None, "left", "made by the network itself"
    old, new = list(weights.facts.get("outputs") or ()), _outputs(plan)
    if name.startswith("class_head."):  # of a joint network: its classes are told nowhere else
        old = []
    if part == "head" and old and old != new and ours.ndim and ours.shape[0] == len(new):
        value, said = by_class(theirs, ours, old, new)
    elif part == "head" and theirs.shape[:1] != ours.shape[:1]:
        value, said = None, f"new head: {theirs.shape[0]} outputs before, {ours.shape[0]} now"
    else:
        value, said = fitted(theirs, ours.shape, name, place)
    if value is None:
        return None, "left", said
    return value.to(ours.dtype), ("adapted" if said else "exact"), said


def _place(network: nn.Module, plan: Plan, transfer: Transfer) -> Place:
    cuts = [t.shape[2:] for n, t in network.state_dict().items() if n.endswith("patch_embeddings.weight")]
    tokens = tuple(side // step for side, step in zip(plan.patch, cuts[0], strict=False)) if cuts else ()
    return Place(len(plan.channels), transfer.inflation, plan.dimensions, tokens)


def _inside(weights: Weights, plan: Plan) -> Weights:
    """Weights of a ResNet for a network that holds one."""
    prefix = INSIDE.get(plan.network)
    if prefix is None or weights.facts.get("network") != "resnet":
        return weights
    return replace(weights, tensors={prefix + name: tensor for name, tensor in weights.tensors.items()})


def _outputs(plan: Plan) -> list[str]:
    """The class of each logit."""
    if plan.task == "classification":
        return list(plan.classes)
    return [*([] if plan.overlapping else ["background"]), *(label.name for label in plan.labels)]


def _unused(weights: Weights, network: nn.Module) -> list[tuple[str, str, str, int]]:
    """Tensors of the file that the network has no place for, then what the reader left behind."""
    known = {plain(name) for name in network.state_dict()}
    counted = {n: t for n, t in weights.tensors.items() if not n.endswith((*_COUNTERS, *_DERIVED))}
    rows = [("-", "no place in the network", n, t.numel()) for n, t in counted.items() if n not in known]
    return rows + [("-", why, "not kept", count) for why, count in weights.dropped.items()]


def _account(
    told: Mapping[str, Sequence[tuple[str, str, str, int]]],
    unused: Sequence[tuple[str, str, str, int]],
    weights: Weights,
    transfer: Transfer,
) -> Account:
    tallies = {
        part: Tally(**{state: sum(n for p, _, _, n in rows if p == part) for state, rows in told.items()})
        for part in PARTS
    }
    return Account(
        format=weights.format,
        sha256=weights.sha256,
        origin=transfer.origin or _address(transfer),
        licence=transfer.licence,
        floor=transfer.floor,
        asked=transfer.parts,
        parts={part: tally for part, tally in tallies.items() if tally.total},
        adapted=remarks(told["adapted"]),
        left=remarks(told["left"]),
        unused=remarks(unused),
    )


def _address(transfer: Transfer) -> str:
    """Where the weights are from, as far as it may be told: a public address, or a name that names nobody."""
    if transfer.remote:
        return transfer.source.partition("?")[0]
    name = transfer.source.rstrip("/").rpartition("/")[2]
    return name if name and names_nobody(name.partition(".")[0]) else "a file of this machine"


def _hint(plan: Plan, weights: Weights, transfer: Transfer) -> str:
    """What may be wrong: the network, or what the names begin with."""
    made_for = weights.facts.get("network")
    if (
        made_for
        and plan.network not in INSIDE
        and (made_for, weights.facts.get("network_arguments")) != (plan.network, plan.network_arguments)
    ):
        arguments = ", ".join(f"{k}={v}" for k, v in (weights.facts.get("network_arguments") or {}).items())
        return (
            f"the weights are for plan.network={made_for} with {arguments}; the plan has {plan.network}: "
            "set these, or leave plan.network out and transfer.adopt on"
        )
    sizes = {n: t.numel() for n, t in weights.tensors.items()}
    with torch.random.fork_rng(devices=[]):
        ours = {plain(n): prod(t.shape) for n, t in build_network(plan).state_dict().items()}
    guess = nearest_prefixes({n: c for n, c in sizes.items() if n not in ours}, ours)
    return f"did you mean transfer.prefix: {guess}?" if guess and not transfer.prefix else ""


def facts_of(weights: Weights) -> dict[str, Any]:
    """Network and arguments that the weights were made for; empty when they do not tell them."""
    return {k: weights.facts[k] for k in ("network", "network_arguments") if weights.facts.get(k)}
