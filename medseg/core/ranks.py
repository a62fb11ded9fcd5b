"""Which of several processes this one is, as ``torchrun`` or SLURM's ``srun`` started it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from medseg.core.errors import MedsegError
from medseg.core.values import Value

_PORT = 29500
_PORTS = 1000
"""Jobs on one node take ports of their own from so many above `_PORT`."""


class Ranks(Value):
    """This process among those that train together; the one of rank 0 leads.

    ``local`` counts within a machine (it chooses the GPU); ``host`` and ``port`` are where they meet.
    """

    rank: int = 0
    size: int = 1
    local: int = 0
    host: str = "127.0.0.1"
    port: int = _PORT


def ranks_of(environment: Mapping[str, str] | None = None) -> Ranks:
    """What the environment says: ``torchrun``'s variables, else those of an ``srun`` step of several tasks.

    A single process, whatever the size of the allocation around it, is alone.

    Raises
    ------
    MedsegError
        Variables that contradict one another.
    """
    given = os.environ if environment is None else environment
    if "RANK" in given and "WORLD_SIZE" in given:
        found = _numbers(given, "RANK", "WORLD_SIZE", "LOCAL_RANK")
        host = given.get("MASTER_ADDR", "127.0.0.1")
        port = _numbers(given, "MASTER_PORT")[0] or _PORT
    elif "SLURM_STEP_NUM_TASKS" in given and "SLURM_PROCID" in given:
        found = _numbers(given, "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID")
        host = given.get("MASTER_ADDR") or first_host(given.get("SLURM_STEP_NODELIST", "127.0.0.1"))
        asked, job = _numbers(given, "MASTER_PORT", "SLURM_JOB_ID")
        port = asked or _PORT + job % _PORTS
        if "," not in given.get("CUDA_VISIBLE_DEVICES", ","):  # a task that is shown one GPU has that one
            found[2] = 0
    else:
        return Ranks()
    rank, size, local = found
    if not 0 <= rank < size:
        raise MedsegError(
            "the environment contradicts itself about the processes that train together",
            evidence=f"rank {rank} of {size}",
            mend="start them with torchrun or srun, or unset RANK and WORLD_SIZE",
        )
    return Ranks(rank=rank, size=size, local=local, host=host, port=port)


def first_host(nodes: str) -> str:
    """The first name of a SLURM node list: ``gpu[03-05,9],cpu1`` -> ``gpu03``."""
    found = re.match(r"([^,\[]+)(?:\[([^\],-]+)[^\]]*\]([^,\[]*))?", nodes)
    if found is None:
        return nodes
    stem, number, ending = found.groups()
    return stem + (number or "") + (ending or "")


def _numbers(given: Mapping[str, str], *names: str) -> list[int]:
    try:
        return [int(given.get(name, "0")) for name in names]
    except ValueError as error:
        raise MedsegError(
            "a variable that says which process this is holds no number",
            evidence=", ".join(f"{name}={given.get(name)}" for name in names),
            mend="start the processes with torchrun or srun",
        ) from error
