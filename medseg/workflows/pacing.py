"""How fast this machine trains, for a plan that has to fill a budget of minutes."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from medseg.core.run import Run
from medseg.core.values import digest
from medseg.data.budget import unet_gflop
from medseg.data.cohort import Split
from medseg.data.plan import Plan
from medseg.data.rules import levels, plan_gflop, widths
from medseg.learning.settings import Training

if TYPE_CHECKING:
    from medseg.learning.estimate import Expectation

log = logging.getLogger("medseg")

_NARROW = 16
_MINUTES = 1.0
"""A training of less is not worth measuring before."""


def said(cost: Expectation) -> tuple[str, str, str]:
    """An expectation in three lines: minutes and memory, what they are made of, what they leave out."""
    networks = "one network" if cost.networks == 1 else f"{cost.networks} networks"
    first = f"; {_coarse(cost)}" if cost.first_networks else ""
    return (
        f"{cost.minutes:.3g} minutes of training, {cost.peak_gb:.2g} GB",
        f"{networks} of a fold{first}, {cost.steps} steps of {cost.seconds_per_step:.2g} s in all (measured "
        "here: reading, augmentation, network, optimiser) and the looks at the monitor cases",
        f"not counted: reading and preparing the images, scores and report, and {cost.case_seconds:.2g} s "
        "for each case predicted",
    )


def _coarse(cost: Expectation) -> str:
    """The part that coarse networks have in an expectation."""
    return (
        f"{cost.first_networks} of them coarse, for the first answer of the cascade: "
        f"{cost.first_minutes:.3g} of the minutes"
    )


@contextmanager
def expected(
    run: Run,
    plan: Plan,
    training: Training,
    split: Split,
    names: Mapping[str, Sequence[str]],
    device: str,
    first: tuple[Run, Plan] | None = None,
) -> Iterator[None]:
    """Tell before trainings of more than a minute what they will cost, and after them what they did.

    Silent where they are there already, were begun before, or are sent to workers.

    Parameters
    ----------
    first : (run, plan), optional
        Of the coarse networks of a cascade: they are trained before.
    """
    folders = [run.root / "train" / name for fold in names.values() for name in fold]
    folders += [first[0].root / "train"] if first else []
    begun = any(f.exists() or (f.parent / f".{f.name}.partial").exists() for f in folders)
    plans = [plan, *([first[1]] if first else [])]
    here = run.workers in (None, 0, 1) and not begun
    if not here or not any(_long(one, training, split) for one in plans):
        yield
        return
    from medseg.learning.devices import pick_device
    from medseg.learning.estimate import used_gb

    cost = expectation(*plans, split=split, training=training, device=device).times(len(split.folds))
    start = time.monotonic()
    log.info(
        "%-12s %.3g minutes and %.2g GB for %d networks%s",
        "expected",
        cost.minutes,
        cost.peak_gb,
        cost.networks,
        f"; {_coarse(cost)}" if cost.first_networks else "",
    )
    yield
    took, used = (time.monotonic() - start) / 60, used_gb(pick_device(device))
    log.info(
        "%-12s %.3g minutes (expected %.3g), %.2g GB (%.2g)", "took", took, cost.minutes, used, cost.peak_gb
    )


def expectation(
    plan: Plan, first: Plan | None = None, *, split: Split, training: Training, device: str
) -> Expectation:
    """What the networks of a fold will cost, those of a cascade that answer first included."""
    from medseg.learning.cascade import INNER_FOLDS
    from medseg.learning.estimate import expect, expect_cascade

    cases = len(split.folds[0].train)
    if first is None:
        return expect(plan, cases, training, device)
    return expect_cascade(
        plan, first, cases, training, device, inner=0 if len(split.folds) > 1 else INNER_FOLDS
    )


def _long(plan: Plan, training: Training, split: Split) -> bool:
    """Whether all folds take a minute by the usual arithmetic: it pays to measure."""
    if training.budget_minutes is not None:
        return training.budget_minutes >= _MINUTES
    if not plan.spent.rate_gflops:
        return False
    gflop = _gflop(plan) * (training.batch or plan.batch) * (training.members or plan.members)
    cases, epochs = len(split.folds[0].train), training.epochs or 50
    steps = len(split.folds) * epochs * (training.steps_per_epoch or max(20, cases // plan.batch))
    return steps * gflop / plan.spent.rate_gflops >= 60 * _MINUTES


def _gflop(plan: Plan) -> float:
    """Arithmetic of training on one patch; of networks that are not counted that of a narrow U-Net."""
    if (known := plan_gflop(plan)) is not None:
        return known
    strides, kernels = levels(plan.patch, plan.spacing_mm)
    arguments = {"widths": widths(_NARROW, len(strides)), "strides": strides, "kernels": kernels}
    return unet_gflop(plan.patch, arguments, plan.inputs, plan.outputs)


def with_memory(run: Run, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """What planning is told, and the memory of this machine where it is not told that.

    Found once and kept in ``memory/`` of the run folder. For a machine that is not this one (a device that
    is not here, ``cores`` set by hand) nothing is added.
    """
    kind = overrides.get("device") or "cpu"
    if overrides.get("memory_gb") is not None or overrides.get("cores") or not _here(kind):
        return dict(overrides)
    from medseg.stages.rate import memory, read_memory

    made = run.map(memory, {kind: kind})
    return {**overrides, **({"memory_gb": read_memory(made[kind])} if kind in made else {})}


def measured_rate(run: Run, plan: Plan, overrides: Mapping[str, Any]) -> float | None:
    """What this machine trains at, in 1e9 operations a second; None where it is given or not needed.

    Parameters
    ----------
    run : Run
        The rate is measured once and kept in ``rate/`` of its folder: a plan made again is the same.
    plan : Plan
        Made with the usual rate: its patch, levels and number format are what is measured.
    overrides : mapping
        What planning was told. ``rate_gflops`` or ``cores`` in it, or a device that is not here, mean
        that the plan is made for another machine.
    """
    given = overrides.get("rate_gflops") or overrides.get("cores")
    if overrides.get("budget_minutes") is None or given or plan_gflop(plan) is None:
        return None
    if not _here(plan.spent.device):
        return None
    return _kept(run, plan, overrides.get("precision") or "auto")


def _here(kind: str) -> bool:
    from medseg.learning.devices import hardware

    return kind != "gpu" or hardware() == "gpu"


def _kept(run: Run, plan: Plan, precision: str) -> float | None:
    from medseg.learning.pace import probe_of
    from medseg.stages.rate import rate, read_rate

    probe = probe_of(plan)
    name = f"{plan.spent.device}-{digest(probe)[:8]}"
    made = run.map(rate, {name: probe}, precision=precision)
    return read_rate(made[name]) if name in made else None
