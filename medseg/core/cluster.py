"""Dask as an executor (extra ``medseg[cluster]``)."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

from medseg.core.errors import MedsegError

TIMEOUT = "20s"
"""How long a scheduler may take to answer."""


def dask_executor(where: str) -> Executor:
    """An executor on the Dask scheduler at `where` (``tcp://host:port`` or a scheduler file).

    Raises
    ------
    MedsegError
        Dask is not installed, or no scheduler answers.
    """
    try:
        from distributed import Client
    except ImportError as error:
        raise MedsegError(
            "--workers dask:... needs Dask, which is not installed",
            mend="pip install 'medseg[cluster]'",
        ) from error
    address: dict[str, Any] = {"scheduler_file": where} if Path(where).is_file() else {"address": where}
    try:
        client = Client(**address, timeout=TIMEOUT)
    except (OSError, ValueError) as error:
        raise MedsegError(
            "no Dask scheduler answers", evidence=where, mend="start one: dask scheduler"
        ) from error
    return _DaskExecutor(client)


class _DaskExecutor(Executor):
    """Dask's own executor with results never shared between equal calls, closed with its client."""

    def __init__(self, client: Any) -> None:
        self._client, self._inner = client, client.get_executor(pure=False, retries=0)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        return self._inner.submit(fn, *args, **kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self._inner.shutdown(wait=wait)
        self._client.close()
