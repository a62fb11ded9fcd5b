"""How busy the machine is: processor, memory and GPU, read once an epoch."""

from __future__ import annotations

import contextlib
from typing import Any

_MB = 1e6


class SystemMeter:
    """Reads the load since the last reading, under the names MLflow shows as system metrics.

    ``read()`` gives percent and megabytes; on a machine without an NVIDIA GPU the ``gpu`` names are absent.
    """

    def __init__(self) -> None:
        import psutil

        self._process = psutil.Process()
        self._gpus = _gpus()
        psutil.cpu_percent()  # the first reading starts the clock

    def read(self) -> dict[str, float]:
        """Values by name; the processor's is the mean since the last call."""
        import psutil

        memory = psutil.virtual_memory()
        found = {
            "system/cpu_utilization_percentage": psutil.cpu_percent(),
            "system/system_memory_usage_percentage": memory.percent,
            "system/system_memory_usage_megabytes": (memory.total - memory.available) / _MB,
            "system/process_memory_usage_megabytes": self._process.memory_info().rss / _MB,
        }
        for number, gpu in enumerate(self._gpus):
            found.update(_read_gpu(number, gpu))
        return found


def _gpus() -> list[Any]:
    """NVML handles of the GPUs; none where there is no NVIDIA driver."""
    try:
        import pynvml

        pynvml.nvmlInit()
        return [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
    except Exception:  # no library, no driver, no permission: NVML has an error class for each
        return []


def _read_gpu(number: int, gpu: Any) -> dict[str, float]:
    import pynvml

    found: dict[str, float] = {}
    with contextlib.suppress(pynvml.NVMLError):
        memory = pynvml.nvmlDeviceGetMemoryInfo(gpu)
        found[f"system/gpu_{number}_memory_usage_megabytes"] = float(memory.used) / _MB
        found[f"system/gpu_{number}_memory_usage_percentage"] = (
            100.0 * float(memory.used) / float(memory.total)
        )
    with contextlib.suppress(pynvml.NVMLError):
        load = pynvml.nvmlDeviceGetUtilizationRates(gpu)
        found[f"system/gpu_{number}_utilization_percentage"] = float(load.gpu)
    return found
