"""Stages ``rate`` and ``memory``: how fast this machine trains a plan, and what memory there is.

Stages, so that both are measured once a run folder: a later run, or one on a busy machine, plans the same.
"""

from __future__ import annotations

from pathlib import Path

from medseg.core.files import read_json, write_json
from medseg.core.stage import Artifact, stage
from medseg.data.plan import Plan
from medseg.learning.settings import Precision, Training

NAME, MEMORY = "rate.json", "memory.json"


@stage(version=1, in_process=True)
def rate(plan: Plan, *, precision: Precision, out: Path) -> None:
    """Measure 1e9 operations a second over a few steps of training, on the device of the plan."""
    from medseg.learning.devices import pick_device
    from medseg.learning.pace import rate_of

    device = pick_device("cpu" if plan.spent.device == "cpu" else "auto")
    found = rate_of(plan, Training(precision=precision), device)
    write_json(out / NAME, {"gflops": found, "device": plan.spent.device})


@stage(version=1, in_process=True)
def memory(kind: str, *, out: Path) -> None:
    """GB that a training on this machine's ``cpu`` or ``gpu`` may use."""
    from medseg.learning.devices import pick_device
    from medseg.learning.pace import memory_of

    device = pick_device("cpu" if kind == "cpu" else "auto")
    write_json(out / MEMORY, {"gb": memory_of(device), "device": kind})


def read_memory(artifact: Artifact) -> float:
    """GB, as the stage has found them."""
    return float(read_json(artifact / MEMORY)["gb"])


def read_rate(artifact: Artifact) -> float:
    """1e9 operations a second, as the stage has measured them."""
    return float(read_json(artifact / NAME)["gflops"])
