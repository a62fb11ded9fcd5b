"""What a plan will cost on this machine: measured over a few steps, not guessed."""

from __future__ import annotations

import math
import resource
import sys
import time

import torch
from torch import Tensor

from medseg.core.values import Value
from medseg.data.plan import Plan
from medseg.learning.devices import autocast, channels_last, keep_memory, number_format, pick_device
from medseg.learning.losses import loss_of
from medseg.learning.networks import build_network
from medseg.learning.settings import Training


class Expectation(Value):
    """Cost of a training: seconds a step, peak memory in GB, and minutes for all networks of a fold."""

    seconds_per_step: float
    peak_gb: float
    minutes: float
    steps: int


def expect(
    plan: Plan, cases: int, training: Training | None = None, device: str = "auto", measured: int = 3
) -> Expectation:
    """Train `measured` steps on noise of the plan's shape and count up.

    Parameters
    ----------
    plan : Plan
    cases : int
        Training cases of a fold: they set the steps of an epoch.
    training : Training, optional
        Epochs or budget.
    measured : int
        Steps timed, after one that is not.

    Returns
    -------
    Expectation
        Loading, augmentation and monitoring come on top: about a tenth. With a budget the minutes are
        the budget and the steps what fits into it.
    """
    training = training or Training()
    where = pick_device(device)
    seconds = _seconds_a_step(plan, training, where, measured)
    epochs, budget = training.length
    batch, members = training.batch or plan.batch, training.members or plan.members
    if budget is not None:
        return Expectation(
            seconds_per_step=round(seconds, 4),
            peak_gb=_peak_gb(where),
            minutes=budget / 60,
            steps=int(budget / seconds),
        )
    steps = (
        (epochs or 1) * (training.steps_per_epoch or min(250, max(20, math.ceil(cases / batch)))) * members
    )
    minutes = round(steps * seconds / 60, 1)
    return Expectation(
        seconds_per_step=round(seconds, 4), peak_gb=_peak_gb(where), minutes=minutes, steps=steps
    )


def _seconds_a_step(plan: Plan, training: Training, device: torch.device, measured: int) -> float:
    keep_memory()
    network = build_network(plan).to(device).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=True)
    loss, dtype = loss_of(plan, training.loss), number_format(device, training.precision, plan)
    image, target = _noise(plan, training.batch or plan.batch, device)
    start = 0.0
    for step in range(measured + 1):
        if step == 1:
            _wait(device)
            start = time.perf_counter()
        with autocast(device, dtype):
            logits = network(image)
        optimizer.zero_grad(set_to_none=True)
        loss(logits, target).backward()
        optimizer.step()
    _wait(device)
    return (time.perf_counter() - start) / measured


def _noise(plan: Plan, batch: int, device: torch.device) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(batch, len(plan.channels), *plan.patch, generator=generator)
    shape = (batch,) if plan.task == "classification" else (batch, *plan.patch)
    shape = (batch, len(plan.classes)) if plan.task == "classification" and plan.multilabel else shape
    target = torch.randint(0, 2 if plan.multilabel else plan.outputs, shape, generator=generator)
    return image.to(device).contiguous(memory_format=channels_last(3)), target.to(device)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _peak_gb(device: torch.device) -> float:
    """Peak of this process so far, or of the GPU."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 1e9, 2)
    unit = 1 if sys.platform == "darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9, 2)
