"""What a training does about steps that are not numbers, and what it advises when memory runs out."""

from __future__ import annotations

import logging
import math
from typing import Any

import torch

from medseg.core.errors import MedsegError
from medseg.data.plan import Plan
from medseg.learning.checkpoint import State
from medseg.learning.settings import Training

log = logging.getLogger("medseg")

FRESH = {"bad": 0, "bad_row": 0, "eased": 0, "scale": 2.0**16, "scaled_well": 0}
"""Of a training's facts: bad steps in all and in a row, how often the rate was halved; the factor on the loss
in float16, and the good steps since it last changed."""
_IN_A_ROW = 3
_LEAST_SCALE = 1.0
_GROW_AFTER = 2000
_STARVED = ("not enough memory", "can't allocate memory", "out of memory")


class StoppedError(MedsegError):
    """The end of a training that all processes taking part in it come to at the same step."""

    agreed = True


def pass_over(state: State, training: Training, dtype: torch.dtype, epoch: int) -> None:
    """After a step that was not taken, as loss or gradient is no number: leave the network fit to go on.

    Running statistics that were spoilt come back from the averaged weights. After three such steps
    in a row all weights do, the optimiser forgets its moments, and the rate is halved.

    Raises
    ------
    StoppedError
        There were more such steps than the settings allow.
    """
    facts = state.facts
    if dtype == torch.float16 and facts["scale"] > _LEAST_SCALE:  # to be expected: the factor was too large
        facts["scale"], facts["scaled_well"] = facts["scale"] / 2, 0
        _mend_buffers(state)
        return
    facts["bad"], facts["bad_row"] = facts["bad"] + 1, facts["bad_row"] + 1
    if facts["bad"] > training.bad_steps:
        raise _given_up(facts, training, dtype, epoch)
    if facts["bad_row"] % _IN_A_ROW:
        _mend_buffers(state)
        return
    state.network.load_state_dict(state.average)
    state.optimizer.state.clear()
    facts["eased"] += 1
    log.warning(
        "epoch %d: %d steps in a row were not numbers; back to the averaged weights, at %g of the rate",
        epoch, facts["bad_row"], 0.5 ** facts["eased"],
    )  # fmt: skip


def went_well(facts: dict[str, Any], dtype: torch.dtype) -> None:
    """After a step that was taken; in float16 the factor on the loss grows again after many of them."""
    facts["bad_row"] = 0
    if dtype == torch.float16:
        facts["scaled_well"] += 1
        if facts["scaled_well"] >= _GROW_AFTER:
            facts["scale"], facts["scaled_well"] = facts["scale"] * 2, 0


def starved(error: BaseException) -> bool:
    """Whether an error says that memory, of the machine or of the GPU, has run out."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _STARVED)


def out_of_memory(plan: Plan, training: Training, device: torch.device) -> MedsegError:
    """What to lower, and to what, when a step did not fit into memory."""
    batch = training.batch or plan.batch
    where = "the GPU" if device.type == "cuda" else "the machine"
    return MedsegError(
        f"a training step does not fit into the memory of {where}",
        evidence=f"batch {batch}, patch {' x '.join(map(str, plan.patch))}, network {plan.network}",
        mend=_less(plan, training, batch),
    )


def _less(plan: Plan, training: Training, batch: int) -> str:
    if batch > 1:
        fewer = batch // 2
        times = math.ceil(batch / fewer) * training.accumulate
        memory = f"{plan.spent.memory_gb / 2:g}" if plan.spent.memory_gb else "..."
        return (
            f"set training.batch={fewer} training.accumulate={times}: half the memory, nearly the same "
            f"steps; or have a smaller plan made with plan.memory_gb={memory}"
        )
    step = [math.prod(s) for s in zip(*plan.network_arguments.get("strides", [[1, 1, 1]]), strict=True)]
    patch = [max(s, round(p * 0.8 / s) * s) for p, s in zip(plan.patch, step, strict=True)]
    return f"set plan.patch={patch}".replace(" ", "") + ", or a narrower network (plan.network_arguments)"


def _given_up(facts: dict[str, Any], training: Training, dtype: torch.dtype, epoch: int) -> StoppedError:
    rate = training.rate * 0.5 ** facts["eased"]
    return StoppedError(
        f"the loss is not a number any more in epoch {epoch}",
        evidence=f"{facts['bad']} bad steps, rate {rate:.3g} at the end, {str(dtype).removeprefix('torch.')}",
        mend="lower training.rate, or set training.precision=float32; if it happens from the first step on, "
        "look at the loss and at the intensities of the images (medseg audit)",
    )


def _mend_buffers(state: State) -> None:
    for name, buffer in state.network.named_buffers():
        if name in state.average and not torch.isfinite(buffer).all():
            buffer.copy_(state.average[name])
