"""Which weights move, how fast and from when: parameter groups for the optimiser."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from torch import nn

from medseg.core.errors import MedsegError
from medseg.data.plan import Plan
from medseg.learning.parts import Place, places
from medseg.learning.settings import Tuning

Group = dict[str, Any]
NEVER = 2.0
"""Later than the end of any training."""


def groups_of(network: nn.Module, plan: Plan, tuning: Tuning, carried: Collection[str]) -> list[Group]:
    """Groups of parameters that share a rate and a moment of release.

    Parameters
    ----------
    carried : collection of str
        Names of the parameters that hold carried weights; the others are new and move from the start
        at the full rate.

    Returns
    -------
    list of dict
        ``params``; ``scale``, the factor on the rate; ``free_from``, the progress from which they move.

    Raises
    ------
    MedsegError
        Nothing would ever move.
    """
    where = places([name for name, _ in network.named_parameters()], plan.network)
    deepest = max((place.depth for place in where.values()), default=0)
    if all(name in carried for name, _ in network.named_parameters()):
        tuning = tuning.but(head_warm_up=0.0)  # nothing is new: nothing is to warm up
    groups: dict[tuple[float, float], Group] = {}
    for name, parameter in network.named_parameters():
        scale, free_from = 1.0, 0.0
        if name in carried:
            scale = tuning.layer_decay ** (deepest - where[name].depth)
            free_from = _release(where[name], deepest, tuning)
        key = (scale, free_from)
        group = groups.setdefault(key, {"params": [], "scale": scale, "free_from": free_from})
        group["params"].append(parameter)
    return _checked(list(groups.values()))


def set_free(network: nn.Module, groups: Sequence[Mapping[str, Any]], progress: float) -> None:
    """Let the groups that are due move; the others stand still, running statistics included.

    To be called after ``network.train()``: modules whose own parameters all stand still are put in
    evaluation mode.
    """
    for group in groups:
        for parameter in group["params"]:
            parameter.requires_grad_(progress >= group["free_from"])
    for module in network.modules():
        own = list(module.parameters(recurse=False))
        if own and not any(parameter.requires_grad for parameter in own):
            module.eval()


def _checked(groups: list[Group]) -> list[Group]:
    if groups and all(group["free_from"] >= NEVER for group in groups):
        raise MedsegError(
            "every weight of the network is carried and frozen: nothing is left to train",
            mend="leave a part out of transfer.tuning.frozen, or out of transfer.parts",
        )
    return groups


def _release(place: Place, deepest: int, tuning: Tuning) -> float:
    if place.part in tuning.frozen:
        return NEVER
    # the layer next to the head is freed first, the stem last
    turn = (deepest - place.depth) / max(1, deepest)
    return max(tuning.head_warm_up, tuning.unfreeze * turn)
