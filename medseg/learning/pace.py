"""How fast this machine trains a plan: a few steps of the real loop on noise, by the clock."""

from __future__ import annotations

import math
import os
import tempfile
import threading
import time
from collections.abc import Generator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from medseg.core.files import write_json
from medseg.data.budget import STEP, coarse_rate
from medseg.data.plan import Plan
from medseg.data.rules import plan_gflop, widths
from medseg.learning.devices import keep_memory, seed_everything
from medseg.learning.job import Job
from medseg.learning.sampling import PreparedCase
from medseg.learning.settings import Training

PROBE_WIDTH = 16
"""Width of the network that the rate of a machine is measured with."""
_MOST_VOXELS = 2**18
_LEAST_STEPS, _MOST_STEPS = 3, 12


def rate_of(plan: Plan, training: Training, device: torch.device, seconds: float = 2.0) -> float:
    """Arithmetic of training on this machine, in 1e9 operations a second, rounded coarsely.

    Parameters
    ----------
    plan : Plan
        One whose arithmetic is known (`medseg.data.rules.plan_gflop`); its patch, levels and number format
        are what is measured, at `PROBE_WIDTH`.
    training : Training
        Its precision and its augmentation.
    seconds : float
        Time to spend after the first steps; at least three steps are timed.

    Returns
    -------
    float
        From the best step, see `seconds_per_step`; a power of 1.25.
    """
    probe = probe_of(plan)
    best = seconds_per_step(probe, training.but(batch=None), device, seconds)
    gflop = plan_gflop(probe)
    assert gflop is not None
    return coarse_rate(gflop * probe.batch / best)


def memory_of(device: torch.device) -> float:
    """GB that a training may use: nine tenths of a GPU's, three quarters of the machine's or the job's.

    Rounded down to a power of 1.25. What other programs use at the moment is not looked at: the same
    machine gives the same plan.
    """
    if device.type == "cuda":
        return _floor(0.9 * torch.cuda.get_device_properties(device).total_memory / 1e9)
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return _floor(0.75 * min(whole, *_job_limits(whole)) / 1e9)


def _job_limits(whole: int) -> list[int]:
    """What the batch system or the container allows, in bytes."""
    found = [whole]
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            found.append(int(Path(file).read_text()))
        except (OSError, ValueError):  # not there, or "max"
            continue
    return found


def _floor(gb: float) -> float:
    return float(f"{STEP ** math.floor(math.log(gb, STEP)):.3g}")


def probe_of(plan: Plan) -> Plan:
    """The plan with a network of `PROBE_WIDTH` and a batch that is quickly seen: what a rate depends on."""
    if plan.task == "classification":
        width: dict[str, Any] = {"widen_factor": PROBE_WIDTH / 64}
    else:
        width = {"widths": widths(PROBE_WIDTH, len(plan.network_arguments["widths"]))}
    batch = int(np.clip(_MOST_VOXELS // np.prod(plan.patch), 2, plan.batch))
    return plan.but(
        network_arguments={**plan.network_arguments, **width},
        batch=batch, members=1, fingerprint={}, why={},
    )  # fmt: skip


def seconds_per_step(plan: Plan, training: Training, device: torch.device, seconds: float = 2.0) -> float:
    """Seconds of one step of the loop: drawing, augmentation, both passes, optimiser, averaging.

    Returns
    -------
    float
        Of the fastest of several steps. On a CPU that has other work to do, a step is counted by the
        processor time of its own threads where that is less than what the clock says.
    """
    keep_memory()
    seed_everything(0)
    with tempfile.TemporaryDirectory() as folder:
        steps = _steps(plan, training, device, Path(folder))
        next(steps)
        start, taken = time.perf_counter(), [next(steps)]
        while len(taken) < _MOST_STEPS and (
            len(taken) < _LEAST_STEPS or time.perf_counter() - start < seconds
        ):
            taken.append(next(steps))
        steps.close()
    return min(taken)


def _steps(plan: Plan, training: Training, device: torch.device, folder: Path) -> Generator[float]:
    """Seconds of one step after another."""
    cases = [_noise_case(plan, folder / name, number) for number, name in enumerate(("a", "b"))]
    how = training.but(
        epochs=10_000, budget_minutes=None, steps_per_epoch=1, monitor=0.0, checkpoint_seconds=1e9
    )
    job = Job(cases, [], plan, how, device, folder)
    bar: Any = SimpleNamespace(n=0, update=lambda _: None)
    rows = job.epochs(threading.Event(), bar)
    while True:
        before = clocks()
        next(rows)
        yield shortest(before, clocks(), device)


def clocks() -> tuple[float, float, float]:
    """The clock on the wall, that of this thread, and that of the whole process."""
    return time.perf_counter(), time.thread_time(), time.process_time()


def shortest(before: tuple[float, ...], after: tuple[float, ...], device: torch.device) -> float:
    """What a step takes of a machine that has nothing else to do."""
    wall, own, whole = (b - a for a, b in zip(before, after, strict=True))
    if device.type != "cpu":
        return wall
    return min(wall, max(own, whole / torch.get_num_threads()))


def _noise_case(plan: Plan, folder: Path, seed: int) -> PreparedCase:
    """A prepared case of noise: image and labels as large as a patch, every label somewhere."""
    rng = np.random.default_rng(seed)
    folder.mkdir()
    image = rng.standard_normal((plan.inputs, *plan.patch), np.float32).astype(np.float16)
    labels = rng.integers(0, plan.outputs, plan.patch).astype(np.uint8)
    places = np.argwhere(labels > 0)[:2000]
    rows = np.concatenate([labels[tuple(places.T)][:, None], places], axis=1).astype(np.int32)
    for name, array in (("image", image), ("reference", labels), ("foreground", rows)):
        np.save(folder / f"{name}.npy", array, allow_pickle=False)
    known = [seed % len(plan.classes)] if plan.classes else None
    voxels = np.bincount(labels.ravel(), minlength=len(plan.labels) + 1).tolist()
    facts = {"case": folder.name, "patient": folder.name, "class_indices": known, "voxels": voxels}
    write_json(folder / "prepared.json", facts)
    return PreparedCase(folder.name, folder)
