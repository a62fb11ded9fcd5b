"""``medseg doctor``: versions, devices, memory, codecs; what is missing, and the line that mends it."""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Literal

from medseg.core.values import Value
from medseg.core.version import __version__
from medseg.workflows.outcome import Outcome

_GB = 2**30


class Check(Value):
    """One thing looked at: `missing` stops some work, `note` is worth knowing."""

    what: str
    state: Literal["ok", "note", "missing"]
    seen: str
    mend: str = ""


def examine() -> Outcome:
    """Look at everything; exit code 1 when something required is missing."""
    checks = [check for look in _LOOKS for check in look()]
    missing = [check.what for check in checks if check.state == "missing"]
    text = "\n".join(_line(check) for check in checks)
    end = f"missing: {', '.join(missing)}" if missing else "nothing is missing"
    summary = {"checks": [check.model_dump() for check in checks], "missing": missing}
    return Outcome(summary, f"{text}\n{end}", 1 if missing else 0)


def _line(check: Check) -> str:
    mend = f"\n{'':<28}mend: {check.mend}" if check.mend else ""
    return f"{check.state:<8}{check.what:<20}{check.seen}{mend}"


def _python() -> Iterator[Check]:
    fits = (3, 11) <= sys.version_info[:2] <= (3, 13)
    seen = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    mend = "" if fits else "make the environment with Python 3.11, 3.12 or 3.13"
    yield Check(what="python", state="ok" if fits else "missing", seen=seen, mend=mend)
    yield Check(what="medseg", state="ok", seen=__version__)


def _packages() -> Iterator[Check]:
    """Everything that ``pip install medseg`` asks for; extras are notes."""
    for requirement in metadata.requires("medseg") or []:
        name = re.split(r"[^\w.-]", requirement, maxsplit=1)[0]
        extra = re.search(r"extra == ['\"](\w+)['\"]", requirement)
        if extra and extra[1] not in ("cluster", "pacs"):
            continue
        yield _package(name, requirement.partition(";")[0], bool(extra))


def _package(name: str, requirement: str, optional: bool) -> Check:
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        state = "note" if optional else "missing"
        return Check(
            what=name, state=state, seen="not installed", mend=f"pip install '{requirement.strip()}'"
        )
    if not _satisfied(requirement, version):
        mend = f"pip install '{requirement.strip()}'"
        return Check(
            what=name, state="missing", seen=f"{version}, {requirement.strip()} is needed", mend=mend
        )
    return Check(what=name, state="ok", seen=version)


def _satisfied(requirement: str, version: str) -> bool:
    try:
        from packaging.requirements import Requirement
    except ImportError:  # it comes with most environments, but we do not ask for it
        return True
    return Requirement(requirement).specifier.contains(version, prereleases=True)


def _processor() -> Iterator[Check]:
    import psutil

    memory, disk = psutil.virtual_memory(), shutil.disk_usage(Path.cwd())
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    yield Check(what="processor", state="ok", seen=f"{cores} cores")
    free = memory.available / _GB
    mend = "" if free > 3 else "close other programs, or train with a smaller patch: plan.patch=[...]"
    seen = f"{free:.1f} of {memory.total / _GB:.1f} GiB free"
    yield Check(what="memory", state="ok" if free > 3 else "note", seen=seen, mend=mend)
    room = disk.free / _GB
    mend = "" if room > 5 else "free some space, or give another folder with --run"
    yield Check(what="disk here", state="ok" if room > 5 else "note", seen=f"{room:.0f} GiB free", mend=mend)


def _devices() -> Iterator[Check]:
    try:
        import torch
    except ImportError:
        return  # told by _packages
    for number in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(number)
        seen = f"{about.name}, {about.total_memory / _GB:.0f} GiB, CUDA {torch.version.cuda}"
        yield Check(what=f"cuda:{number}", state="ok", seen=seen)
    if torch.backends.mps.is_available():
        yield Check(what="mps", state="ok", seen="Apple GPU")
    if torch.cuda.device_count() == 0:
        yield _no_cuda(torch.version.cuda)


def _no_cuda(built_for: str | None) -> Check:
    """A machine whose GPU this torch cannot use deserves a line of its own."""
    found = _nvidia_gpus()
    if not found:
        return Check(what="gpu", state="ok", seen="none: networks run on the processor")
    if built_for is None:
        mend = "install a CUDA build of torch (see docs/install.md), or make env SYSTEM_TORCH=1"
        return Check(what="gpu", state="note", seen=f"{found}, but torch is built without CUDA", mend=mend)
    mend = "update the NVIDIA driver, or install a torch for an older CUDA"
    return Check(what="gpu", state="note", seen=f"{found}, but CUDA {built_for} does not start", mend=mend)


def _nvidia_gpus() -> str:
    try:
        import pynvml

        pynvml.nvmlInit()
        return f"{pynvml.nvmlDeviceGetCount()} NVIDIA GPU"
    except Exception:  # no library, no driver, no permission: NVML has an error class for each
        return ""


def _codecs() -> Iterator[Check]:
    try:
        from medseg.imaging.dicom_codecs import codecs

        found = codecs()
    except ImportError:
        return  # told by _packages
    lost = [name for name, there in found.items() if not there]
    mend = "pip install pyjpegls pylibjpeg pylibjpeg-openjpeg pylibjpeg-rle python-gdcm" if lost else ""
    seen = f"no decoder for {', '.join(lost)}" if lost else ", ".join(found)
    yield Check(what="DICOM codecs", state="missing" if lost else "ok", seen=seen, mend=mend)


def _tracking() -> Iterator[Check]:
    server = "MLFLOW_TRACKING_URI" in os.environ
    seen = "the server of MLFLOW_TRACKING_URI" if server else "mlflow.db beside each run folder"
    yield Check(what="tracking", state="ok", seen=seen)


_LOOKS: tuple[Callable[[], Iterator[Check]], ...] = (
    _python,
    _packages,
    _processor,
    _devices,
    _codecs,
    _tracking,
)
