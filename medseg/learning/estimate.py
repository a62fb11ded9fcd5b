"""What a plan will cost on this machine: a few steps of its training measured, the rest counted."""

from __future__ import annotations

import math
import resource
import sys
from pathlib import Path

import numpy as np
import torch

from medseg.core.values import Value
from medseg.data.budget import unet_gb
from medseg.data.overrides import LEVELS
from medseg.data.plan import Plan
from medseg.data.rules import UNETS
from medseg.learning.devices import autocast, channels_last, number_format, pick_device
from medseg.learning.inference import window_starts
from medseg.learning.monitor import LEAST_PATIENTS, MOST, PATCHES
from medseg.learning.networks import build_network
from medseg.learning.pace import clocks, seconds_per_step, shortest
from medseg.learning.settings import Prediction, Training

_OVERLAP = 0.5
_AT_ONCE = 4


class Expectation(Value):
    """Cost of the networks of a fold (or of several folds, see `times`).

    ``minutes`` are those of training: drawing, augmentation, steps, and the looks at monitor cases. Reading
    and preparing images, predicting, scoring and the report come on top; ``case_seconds`` is what predicting
    a case of the median size takes with all networks of a fold. ``peak_gb`` is the memory of the process
    that trains (on a GPU: of the GPU).
    """

    seconds_per_step: float
    steps: int
    networks: int = 1
    minutes: float
    peak_gb: float
    case_seconds: float = 0.0

    def times(self, folds: int) -> Expectation:
        """The same for so many folds, trained one after another."""
        more = {"steps": self.steps * folds, "networks": self.networks * folds}
        return self.but(minutes=round(self.minutes * folds, 2), **more)


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
    members = training.members or plan.members
    step = seconds_per_step(plan, training, where, seconds)
    forward = _forward_seconds(plan, where) * _windows(plan)
    steps = steps_of(plan, cases, training, step)
    looks = members * _looks(plan, cases, training) * forward
    length = training.length[1]
    spent = steps * step if length is None else length
    return Expectation(
        seconds_per_step=round(step, 4),
        steps=steps,
        networks=members,
        minutes=round((spent + looks) / 60, 2),
        peak_gb=round(max(peak_gb(plan, training, where), used_gb(where)), 2),  # the steps are counted in
        case_seconds=round(forward * members, 3),
    )


def steps_of(plan: Plan, cases: int, training: Training, step_seconds: float) -> int:
    """Steps of all networks of a fold."""
    epochs, budget = training.length
    if budget is not None:
        return int(budget / step_seconds)
    members, batch = training.members or plan.members, (training.batch or plan.batch) * training.accumulate
    an_epoch = training.steps_per_epoch or min(250, max(20, math.ceil(cases / batch)))
    return (epochs or 1) * an_epoch * members


def peak_gb(plan: Plan, training: Training, device: torch.device) -> float:
    """Peak memory of the training: counted for our U-Nets, else as it was when it was measured here."""
    if plan.network not in UNETS or not set(LEVELS) <= set(plan.network_arguments):
        return used_gb(device)
    dtype = number_format(device, training.precision, plan)
    kind, name = ("cpu" if device.type == "cpu" else "gpu"), str(dtype).removeprefix("torch.")
    batch, sizes = training.batch or plan.batch, (len(plan.channels), plan.outputs)
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
    """Seconds to predict one patch; the faster of two times."""
    network = build_network(plan).to(device).eval()
    image = torch.randn(_AT_ONCE, len(plan.channels), *plan.patch).to(device)
    image = image.contiguous(memory_format=channels_last(3))
    dtype, times = number_format(device, Prediction().precision, plan), []
    for _ in range(2):
        before = clocks()
        with torch.inference_mode(), autocast(device, dtype):
            _first(network(image)).float().sum().item()
        times.append(shortest(before, clocks(), device))
    return min(times) / _AT_ONCE


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


def _windows(plan: Plan) -> int:
    """Windows of a case of the median size."""
    sides = zip(_sides(plan), plan.patch, strict=True)
    return math.prod(len(window_starts(side, p, _OVERLAP)) for side, p in sides)


def _size(plan: Plan) -> float:
    """Volume of a case of the median size, in patches."""
    return math.prod(_sides(plan)) / math.prod(plan.patch)


def _looks(plan: Plan, cases: int, training: Training) -> float:
    """Monitor cases looked at over a whole training, counted again at each look (see `monitor.set_aside`)."""
    if not training.monitor or cases < LEAST_PATIENTS:
        return 0
    aside = float(np.clip(round(training.monitor * cases), 1, MOST[plan.task]))
    return max(1.0, min(aside, PATCHES / _size(plan))) / training.monitor_every
