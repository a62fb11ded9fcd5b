"""What a plan will cost on this machine: a few steps of its training measured, the rest counted."""

from __future__ import annotations

import math
import resource
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from medseg.core.values import Value
from medseg.data.budget import unet_gb
from medseg.data.cohort import Task
from medseg.data.overrides import LEVELS
from medseg.data.plan import Plan
from medseg.data.rules import UNETS
from medseg.learning.devices import autocast, channels_last, number_format, pick_device
from medseg.learning.inference import window_starts
from medseg.learning.monitor import LEAST, LEAST_PATIENTS, MOST, PATCHES, patches_of
from medseg.learning.monitor import OVERLAP as MONITOR_OVERLAP
from medseg.learning.networks import build_network
from medseg.learning.pace import clocks, seconds_per_step, shortest
from medseg.learning.settings import Prediction, Training

_AT_ONCE: Mapping[Task, int] = {"segmentation": 4, "classification": 1}
"""Patches that are predicted together."""


class Expectation(Value):
    """Cost of the networks of a fold (or of several folds, see `times`).

    ``minutes`` are those of training: drawing, augmentation, steps, and the looks at monitor cases. Reading
    and preparing images, predicting, scoring and the report come on top; ``case_seconds`` is what predicting
    a case of the median size takes with all networks of a fold. ``peak_gb`` is the memory of the process
    that trains (on a GPU: of the GPU). Of a cascade everything but ``steps`` and their seconds counts the
    coarse networks too.
    """

    seconds_per_step: float
    steps: int
    networks: int = 1
    minutes: float
    peak_gb: float
    case_seconds: float = 0.0
    first_networks: int = 0
    first_minutes: float = 0.0
    """Of a cascade: coarse networks among ``networks``, and their part of the minutes, answers included."""

    def times(self, folds: int) -> Expectation:
        """The same for so many folds, trained one after another."""
        counted = {n: getattr(self, n) * folds for n in ("steps", "networks", "first_networks")}
        minutes = {n: round(getattr(self, n) * folds, 2) for n in ("minutes", "first_minutes")}
        return self.but(**counted, **minutes)


def expect(
    plan: Plan, cases: int, training: Training | None = None, device: str = "auto", seconds: float = 1.5
) -> Expectation:
    """Train a few steps on noise of the plan's shape, predict a patch, and count up.

    Parameters
    ----------
    plan : Plan
    cases : int
        Training cases of a fold: they set the steps of an epoch.
    training : Training, optional
        Epochs or budget; with a budget the minutes are the budget and the looks, and the steps what fits.
    seconds : float
        Time spent on measuring steps, at least.
    """
    training, where = training or Training(), pick_device(device)
    step = seconds_per_step(plan, training, where, seconds)
    forward = _forward_seconds(plan, where)
    peak = max(peak_gb(plan, training, where), used_gb(where))  # the steps are counted in
    return counted(plan, cases, training, step, forward).but(peak_gb=round(peak, 2))


def expect_cascade(
    plan: Plan,
    first: Plan,
    cases: int,
    training: Training | None = None,
    device: str = "auto",
    inner: int = 0,
) -> Expectation:
    """As `expect`, with the coarse networks of a cascade and their answers for the training cases.

    Parameters
    ----------
    first : Plan
        Of the coarse network.
    inner : int
        Coarse networks trained beside the one that is used, because a single fold has no others.
    """
    training = training or Training()
    own, alone = expect(plan, cases, training, device), training.but(members=1)
    low = expect(first, cases, alone, device)
    most = cases * (inner - 1) // inner if inner else 0
    again = counted(first, most, alone, low.seconds_per_step, low.case_seconds / _windows(first))
    minutes = low.minutes + inner * again.minutes + cases * low.case_seconds / 60
    return own.but(
        networks=own.networks + 1 + inner,
        minutes=round(own.minutes + minutes, 2),
        peak_gb=max(own.peak_gb, low.peak_gb),
        case_seconds=round(own.case_seconds + own.networks * low.case_seconds, 3),
        first_networks=1 + inner,
        first_minutes=round(minutes, 2),
    )


def counted(plan: Plan, cases: int, training: Training, step: float, forward: float) -> Expectation:
    """What seconds of a step and of a patch predicted come to, memory left out."""
    members, budget = training.members or plan.members, training.length[1]
    aside = _aside(plan, cases, training)
    look = aside * forward * _windows(plan, MONITOR_OVERLAP)
    looks = members * look / training.monitor_every
    if budget is None:
        steps = members * _steps_of_epochs(plan, cases - round(aside), training)
        seconds = steps * step + looks
    else:  # looks but the last are part of it
        steps = int(max(1.0, (budget - looks + members * look) / step))
        seconds = budget + members * look
    return Expectation(
        seconds_per_step=round(step, 4),
        steps=steps,
        networks=members,
        minutes=round(seconds / 60, 2),
        peak_gb=0.0,
        case_seconds=round(forward * _windows(plan) * members, 3),
    )


def _steps_of_epochs(plan: Plan, cases: int, training: Training) -> int:
    """Steps of one network."""
    batch = (training.batch or plan.batch) * training.accumulate
    an_epoch = training.steps_per_epoch or min(250, max(20, math.ceil(cases / batch)))
    return (training.length[0] or 1) * an_epoch


def peak_gb(plan: Plan, training: Training, device: torch.device) -> float:
    """Peak memory of the training: counted for our U-Nets, else as it was when it was measured here."""
    if plan.network not in UNETS or not set(LEVELS) <= set(plan.network_arguments):
        return used_gb(device)
    dtype = number_format(device, training.precision, plan)
    kind, name = ("cpu" if device.type == "cpu" else "gpu"), str(dtype).removeprefix("torch.")
    batch, sizes = training.batch or plan.batch, (plan.inputs, plan.outputs)
    half = "bfloat16" if name != "float32" else name
    return unet_gb(plan.patch, batch, plan.network_arguments, *sizes, kind, half)


def used_gb(device: torch.device) -> float:
    """Peak of this process so far, or of the GPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss of a process begins with the peak of the one that started it
        peak = next((line for line in status.read_text().splitlines() if line.startswith("VmHWM")), "")
        if peak:
            return int(peak.split()[1]) * 1024 / 1e9
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def _forward_seconds(plan: Plan, device: torch.device) -> float:
    """Seconds to predict one patch; the fastest of three times."""
    network = build_network(plan).to(device).eval()
    image = torch.randn(_AT_ONCE[plan.task], plan.inputs, *plan.patch).to(device)
    image = image.contiguous(memory_format=channels_last(3))
    dtype, times = number_format(device, Prediction().precision, plan), []
    for _ in range(3):
        before = clocks()
        with torch.inference_mode(), autocast(device, dtype):
            _first(network(image)).float().sum().item()
        times.append(shortest(before, clocks(), device))
    return min(times) / _AT_ONCE[plan.task]


def _first(answer: object) -> torch.Tensor:
    found = answer[0] if isinstance(answer, list | tuple) else answer
    return found if isinstance(found, torch.Tensor) else torch.zeros(1)


def _sides(plan: Plan) -> tuple[int, ...]:
    """Median image on the plan's grid, in voxels; no smaller than a patch."""
    if plan.task == "classification" or not plan.fingerprint:
        return plan.patch
    shape, mm = (plan.fingerprint[name]["median"] for name in ("shape", "spacing_mm"))
    sides = np.maximum(plan.patch, np.round(np.multiply(shape, mm) / plan.spacing_mm))
    return tuple(int(side) for side in sides)


def _windows(plan: Plan, overlap: float | None = None) -> int:
    """Windows of a case of the median size."""
    overlap = Prediction().overlap if overlap is None else overlap
    sides = zip(_sides(plan), plan.patch, strict=True)
    return math.prod(len(window_starts(side, p, overlap)) for side, p in sides)


def _aside(plan: Plan, cases: int, training: Training) -> float:
    """Monitor cases, where each is of another patient (see `monitor.set_aside`)."""
    if not training.monitor or cases < LEAST_PATIENTS:
        return 0
    wanted = float(np.clip(round(training.monitor * cases), 1, MOST[plan.task]))
    size = patches_of(math.prod(_sides(plan)), plan)
    return 0 if wanted < LEAST[plan.task] else max(1.0, min(wanted, PATCHES / size))
