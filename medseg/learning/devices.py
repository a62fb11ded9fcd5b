"""The machine under the training: device, number format, memory allocator."""

from __future__ import annotations

import ctypes
import logging
import random
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from medseg.core.errors import MedsegError
from medseg.data.plan import Plan
from medseg.learning.settings import Precision

log = logging.getLogger("medseg")

_ROOM = 0.3
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def pick_device(name: str = "auto") -> torch.device:
    """``auto`` (CUDA, else MPS, else CPU), ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.

    Raises
    ------
    MedsegError
        A device that this machine, or this build of torch, does not have.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise MedsegError(f"'{name}' is no device", mend="take auto, cpu, cuda, cuda:1 or mps") from error
    if not _there(device):
        raise MedsegError(
            f"device '{name}' is not there",
            evidence=f"torch {torch.__version__}, {torch.cuda.device_count()} CUDA devices",
            mend="use --device cpu, or install a torch built for your GPU",
        )
    return device


def hardware(name: str = "auto") -> str:
    """``gpu`` or ``cpu``: the kind of device that a plan is made for."""
    return "gpu" if pick_device(name).type == "cuda" else "cpu"


def keep_memory() -> None:
    """Tell glibc to keep freed blocks instead of handing them back to the system.

    Activations of megabytes are allocated and freed at every operation; returned to the system and
    faulted in again they cost a fifth of a training's CPU time. Does nothing where there is no glibc.
    """
    try:
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, 2**30)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
    except (AttributeError, OSError):
        log.debug("mallopt is not available")


def number_format(device: torch.device, precision: Precision, plan: Plan) -> torch.dtype:
    """float32, or what is asked for, or (``auto``) bfloat16 or float16 where the device is faster with it.

    On CPUs that multiply in bfloat16 (AMX, AVX-512 BF16) networks train at up to twice the speed in it;
    those that would compute wrongly or more slowly stay in float32 (`medseg.learning.narrow`).
    """
    from medseg.learning.narrow import narrow_enough

    if precision != "auto":
        return getattr(torch, precision)
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    fast = device.type == "cpu" and _multiplies_bfloat16() and narrow_enough(plan)
    return torch.bfloat16 if fast else torch.float32


def _multiplies_bfloat16() -> bool:
    asked = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(getattr(torch.cpu, name, lambda: False)() for name in asked)


def resident(cases: Iterable[Any], device: torch.device, wanted: bool | None) -> bool:
    """Whether prepared cases are held in the memory of the device: as told, or on a GPU with room for them.

    Parameters
    ----------
    cases : of PreparedCase
        Their arrays may take up to `_ROOM` of the memory that is free.
    """
    if wanted is not None:
        return wanted
    if device.type != "cuda":
        return False
    free, _ = torch.cuda.mem_get_info(device)
    return sum(case.nbytes for case in cases) <= _ROOM * free


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[object]:
    """Computation in `dtype`; nothing changes for float32."""
    if dtype == torch.float32:
        return nullcontext()
    return torch.autocast(device.type, dtype=dtype)


def seed_everything(seed: int) -> None:
    """Seed torch's and Python's generators (weights and dropout come from them; data order does not)."""
    random.seed(seed)
    torch.manual_seed(seed)


def channels_last(dimensions: int) -> torch.memory_format:
    """The memory format in which convolutions are fastest."""
    return torch.channels_last if dimensions == 2 else torch.channels_last_3d


def _there(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count()
    return device.type == "cpu" or (device.type == "mps" and torch.backends.mps.is_available())
