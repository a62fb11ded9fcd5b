"""Dask as the executor: the same results, one case lost when a worker is killed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_run import copy, where

from medseg.core.cluster import dask_executor
from medseg.core.errors import MedsegError
from medseg.core.run import Run

distributed = pytest.importorskip("distributed", reason="Dask (medseg[cluster]) is not installed")
pytestmark = pytest.mark.filterwarnings("ignore")  # Dask's own, from its threads


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two worker processes behind a scheduler on loopback."""
    import dask

    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None, silence_logs=50
        ) as cluster,
    ):
        yield cluster


def test_dask_gives_what_a_loop_gives(cluster: Any, tmp_path: Path) -> None:
    items = {f"n{i}": str(i) for i in range(5)} | {"bad": "case error"}
    spread = Run(tmp_path / "dask", f"dask:{cluster.scheduler_address}").map(copy, items)
    loop = Run(tmp_path / "loop").map(copy, items)
    assert {n: a.digest for n, a in spread.items()} == {n: a.digest for n, a in loop.items()}
    assert list(spread.failed) == ["bad"]


def test_work_is_done_by_the_workers(cluster: Any, tmp_path: Path) -> None:
    done = Run(tmp_path / "run", f"dask:{cluster.scheduler_address}").map(where, {"a": "x", "b": "y"})
    assert str(os.getpid()) not in {(a / "pid.txt").read_text() for a in done.values()}


def test_a_scheduler_file_leads_to_the_scheduler(cluster: Any, tmp_path: Path) -> None:
    file = tmp_path / "scheduler.json"
    file.write_text(json.dumps({"type": "Scheduler", "address": cluster.scheduler_address}))
    assert len(Run(tmp_path / "run", f"dask:{file}").map(copy, {"a": "1", "b": "2"})) == 2


def test_a_killed_dask_worker_loses_its_case_and_no_other(cluster: Any, tmp_path: Path) -> None:
    items = {f"n{i}": "kill" if i == 2 else str(i) for i in range(6)}
    results = Run(tmp_path / "run", f"dask:{cluster.scheduler_address}").map(copy, items)
    assert list(results.failed) == ["n2"]
    assert len(results) == 5


def test_an_absent_scheduler_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medseg.core.cluster.TIMEOUT", "1s")
    with pytest.raises(MedsegError, match="no Dask scheduler answers"):
        dask_executor("tcp://127.0.0.1:9")
