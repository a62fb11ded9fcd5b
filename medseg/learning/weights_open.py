"""Open files of weights: safetensors, or torch files read as tensors alone. Nothing in them is executed."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from medseg.core.errors import MedsegError

WRAPPED = ("state_dict", "model_state_dict", "network_weights", "model", "net", "network", "weights")
"""Names under which training programs keep the tensors, the likeliest first."""

_PARALLEL = ("module.", "_orig_mod.")
"""What wrappers of torch put before every name."""

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Raw:
    """A file of weights as it lies on disk: tensors by name, and the plain data beside them."""

    tensors: Tensors
    beside: Mapping[str, Any] = field(default_factory=dict)


def open_weights(file: Path, *, numpy_scalars: bool = False) -> Raw:
    """Tensors of a ``.safetensors`` or torch file; names lose what wrappers put before all of them.

    Parameters
    ----------
    numpy_scalars : bool
        Also let numpy's plain numbers through (nnU-Net logs them into its checkpoints).

    Raises
    ------
    MedsegError
        Not such a file, damaged, or a pickle that holds more than tensors and plain data: opening it
        would run code of whoever wrote it.
    """
    if not file.is_file():
        raise MedsegError("the file of weights is not there", file=str(file))
    if file.suffix == ".safetensors":
        return Raw(_bare(_read_safetensors(file)), {})
    return _unwrapped(_read_torch(file, numpy_scalars), file)


def _read_safetensors(file: Path) -> Tensors:
    try:
        with safe_open(file, framework="pt") as opened:
            return {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise MedsegError(
            "the file is not safetensors",
            file=str(file),
            evidence=str(error).partition(":")[0],
            mend="it is cut off, damaged or of another kind: fetch or copy it again",
        ) from error


def _read_torch(file: Path, numpy_scalars: bool) -> Any:
    with _numpy_scalars() if numpy_scalars else nullcontext(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of pickles it then refuses
        try:
            return torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises a dozen kinds: each means that it is not taken
            raise _refusal(file, error) from error


def _refusal(file: Path, error: Exception) -> MedsegError:
    named = re.search(r"GLOBAL ([\w.]+)", str(error))
    if named and named[1].startswith(("numpy", "_codecs")):
        return MedsegError(
            "the file holds numpy objects beside its tensors and is not opened as it is",
            file=str(file),
            evidence=f"{named[1]} in the pickle",
            mend="an nnU-Net checkpoint: 'medseg import-weights FILE OUT --format nnunet'; else save the "
            "state dict alone, as safetensors",
        )
    if named or "TorchScript" in str(error) or _is_pickle(file):
        held = f"{named[1]} in the pickle" if named else type(error).__name__
        return MedsegError(
            "the file holds more than tensors: opening it would run code of whoever wrote it",
            file=str(file),
            evidence=held,
            mend="save the state dict alone where you trust the file: "
            "safetensors.torch.save_file(model.state_dict(), 'weights.safetensors')",
        )
    return MedsegError(
        "the file is neither safetensors nor a torch file of weights",
        file=str(file),
        evidence=type(error).__name__,
        mend="give a .safetensors, .pt or .pth file, or a folder (medseg model, MONAI bundle)",
    )


def _is_pickle(file: Path) -> bool:
    """Whether a file begins as pickles of the last twenty years do."""
    with file.open("rb") as stream:
        return stream.read(1) == b"\x80"


@contextmanager
def _numpy_scalars() -> Iterator[None]:
    """Allow numpy's numbers (not its objects) while a file is read: their maker, and types of numbers."""
    import numpy as np
    from numpy._core.multiarray import scalar  # where numpy >= 2 keeps it; older files name the old place

    kinds = [np.float16, np.float32, np.float64, np.int32, np.int64, np.uint8, np.bool_]
    allowed: list[Any] = [np.dtype, *(type(np.dtype(kind)) for kind in kinds)]
    allowed += [(scalar, f"numpy.{home}.multiarray.scalar") for home in ("core", "_core")]
    with torch.serialization.safe_globals(allowed):
        yield


def _unwrapped(found: Any, file: Path) -> Raw:
    """The tensors out of what a training program saved, wherever it put them."""
    for _ in range(3):
        tensors = _tensors_in(found)
        if tensors:
            return Raw(_bare(tensors), {k: v for k, v in found.items() if k not in tensors})
        inside = [k for k in WRAPPED if isinstance(found, Mapping) and _may_hold(found.get(k))]
        if not inside:
            break
        beside = {k: v for k, v in found.items() if k != inside[0]}
        if tensors := _tensors_in(found[inside[0]]):
            return Raw(_bare(tensors), beside)
        found = found[inside[0]]
    raise MedsegError(
        "the file holds no tensors by name",
        file=str(file),
        evidence=f"it holds {_kinds(found)}",
        mend=f"save a state dict, bare or under one of: {', '.join(WRAPPED)}",
    )


def _tensors_in(found: Any) -> Tensors:
    if not isinstance(found, Mapping):
        return {}
    return {str(k): v.detach() for k, v in found.items() if isinstance(v, Tensor)}


def _may_hold(found: Any) -> bool:
    return isinstance(found, Mapping) and bool(found)


def _bare(tensors: Tensors) -> Tensors:
    for prefix in _PARALLEL:
        if tensors and all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
    return tensors


def _kinds(found: Any) -> str:
    if isinstance(found, Mapping):
        return "a dictionary of " + ", ".join(
            sorted({type(v).__name__ for v in found.values()}) or ["nothing"]
        )
    return f"one {type(found).__name__}"
