"""Whether a map says what the answer rests on: deletion curves against random orders, and drawn weights."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from medseg.data.plan import Plan
from medseg.learning.explain_maps import Map, Question, answers
from medseg.learning.networks import build_network
from medseg.learning.parts import places
from medseg.learning.settings import Explaining

LEAST = 0.02
"""Mean probability that hiding in the order of the map must take away beyond a random order."""
ALIKE = 0.7
"""Rank correlation from which a map counts as untouched by what the network has learnt."""

Floats = NDArray[np.float64]


def faithfulness(
    questions: Sequence[Question], found: Map, sides_mm: Sequence[float], settings: Explaining
) -> dict[str, Any]:
    """Hide blocks of the window in the order of the map, and in random orders, and watch the probability.

    Parameters
    ----------
    questions : sequence of Question
        What was asked.
    found : array ``[I, J, K]``
        The map on the window.
    sides_mm : (float, float, float)
        Sides of the window, so that blocks are cubes of tissue.
    settings : Explaining
        Its blocks, steps, draws and seed.

    Returns
    -------
    dict
        ``faithful``; ``reason`` when it is not; ``gain``: how far the mean of the curve in the order of
        the map lies under that of random orders, with ``gain_interval``, in which the gain over one more
        random order would lie (95 %); ``insertion_gain``: the same for the curve that hides the least
        important first, which should lie above; the curves over ``fractions`` hidden.
    """
    ids = block_ids(found.shape, sides_mm, settings.blocks)
    weight = block_means(found, ids)
    rng = np.random.default_rng(settings.seed)
    orders = [np.lexsort((rng.random(len(weight)), sign * weight)) for sign in (-1, 1)]  # ties at random
    orders += [rng.permutation(len(weight)) for _ in range(settings.draws)]
    hidden = _hidden_counts(len(weight), settings.steps)
    curves = _curves(questions, ids, orders, hidden, settings.batch)
    return _verdict(curves, hidden / len(weight), found)


def block_ids(shape: Sequence[int], sides_mm: Sequence[float], blocks: int) -> NDArray[np.int64]:
    """Number of the block each voxel lies in, ``[I, J, K]``: cubes as far as whole voxels allow."""
    edge = max(sides_mm) / blocks
    counts = [min(n, max(1, round(mm / edge))) for n, mm in zip(shape, sides_mm, strict=True)]
    along = [np.arange(n) * count // n for n, count in zip(shape, counts, strict=True)]
    i, j, k = np.meshgrid(*along, indexing="ij")
    return (i * counts[1] + j) * counts[2] + k


def block_means(found: Map, ids: NDArray[np.int64]) -> Floats:
    """Mean of the map in each block."""
    flat = ids.ravel()
    return np.bincount(flat, found.ravel().astype(np.float64)) / np.bincount(flat)


def alike(first: Floats, second: Floats) -> float | None:
    """Spearman's rank correlation; None when one of them is the same everywhere."""
    from scipy.stats import rankdata

    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    return round(float(np.corrcoef(rankdata(first), rankdata(second))[0, 1]), 4)


def drawn_anew(network: nn.Module, plan: Plan, seed: int) -> dict[str, nn.Module]:
    """Copies of a network with weights drawn anew from the answer backwards.

    Returns
    -------
    dict
        ``head``, ``upper half`` (of its depths) and ``everything``; the network stays as it is.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = build_network(plan).state_dict()
    where = places(fresh, plan.network)
    last = max((place.depth for place in where.values()), default=0)
    first_depth = {"head": last, "upper half": (last + 1) // 2, "everything": 0}
    made = {}
    for name, depth in first_depth.items():
        made[name] = copy.deepcopy(network)
        chosen = {key: value for key, value in fresh.items() if where[key].depth >= depth}
        made[name].load_state_dict(chosen, strict=False)
    return made


def _hidden_counts(blocks: int, steps: int) -> NDArray[np.int64]:
    """How many blocks are hidden at each point: close together at first, where maps differ most."""
    return np.unique(np.rint(blocks * (np.arange(steps + 1) / steps) ** 2).astype(np.int64))


def _curves(
    questions: Sequence[Question],
    ids: NDArray[np.int64],
    orders: Sequence[NDArray[np.int64]],
    hidden: NDArray[np.int64],
    batch: int,
) -> Floats:
    """Probability ``[orders, points]``; the ends, nothing and everything hidden, are asked once."""
    ranks = np.stack([np.argsort(order) for order in orders])
    ends = answers(questions, np.stack([np.zeros(ids.shape, bool), np.ones(ids.shape, bool)]))
    curves = np.empty((len(orders), len(hidden)))
    curves[:, 0], curves[:, -1] = ends
    between = [(order, point) for order in range(len(orders)) for point in range(1, len(hidden) - 1)]
    for first in range(0, len(between), batch):
        some = between[first : first + batch]
        patterns = np.stack([(ranks[order] < hidden[point])[ids] for order, point in some])
        for place, answer in zip(some, answers(questions, patterns), strict=True):
            curves[place] = answer
    return curves


def _verdict(curves: Floats, fractions: Floats, found: Map) -> dict[str, Any]:
    areas: Floats = np.trapezoid(curves, fractions, axis=1)  # type: ignore[assignment]
    first, last, random = areas[0], areas[1], areas[2:]
    gain = float(random.mean() - first)
    reach = _reach(random)
    why = _why_not(curves, gain, gain - reach, found)
    return {
        "faithful": not why,
        "reason": why,
        "gain": round(gain, 6),
        "gain_interval": [round(gain - reach, 6), round(gain + reach, 6)],
        "insertion_gain": round(float(last - random.mean()), 6),
        "draws": len(random),
        "fractions": _rounded(fractions),
        "most_important_first": _rounded(curves[0]),
        "least_important_first": _rounded(curves[1]),
        "random_mean": _rounded(curves[2:].mean(0)),
        "random_range": [_rounded(curves[2:].min(0)), _rounded(curves[2:].max(0))],
    }


def _reach(random: Floats) -> float:
    """Half the width of the interval in which one more random order lies (95 %)."""
    from scipy.stats import t

    draws = len(random)
    return float(t.ppf(0.975, draws - 1) * random.std(ddof=1) * np.sqrt(1 + 1 / draws))


def _why_not(curves: Floats, gain: float, low: float, found: Map) -> str:
    """In words why a map is not to be trusted; empty when it may be."""
    if np.ptp(found) == 0:
        return "the map is the same everywhere"
    if np.ptp(curves) < LEAST:
        return "hiding any part of the image hardly changes the answer"
    if low <= 0:
        return "some random orders lower the answer as much as hiding what it marks"
    return "" if gain >= LEAST else f"hiding what it marks lowers the answer by {gain:.3f} beyond chance"


def _rounded(values: Floats) -> list[float]:
    return [round(float(value), 6) for value in values]
