"""How fast this machine trains, for a plan that has to fill a budget of minutes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medseg.core.run import Run
from medseg.core.values import digest
from medseg.data.plan import Plan
from medseg.data.rules import UNETS


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
    if overrides.get("budget_minutes") is None or given or plan.network not in UNETS:
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
