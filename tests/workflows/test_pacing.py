"""A plan for a budget of minutes is made for this machine, and is the same when it is made again."""

from __future__ import annotations

from pathlib import Path

import pytest

import medseg as ms
from medseg.learning import pace


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Rates that the machine will show, the next one first."""
    shown: list[float] = []
    monkeypatch.setattr(pace, "rate_of", lambda *_: shown.pop(0))
    return shown


def _plan(tiny_msd: Path, root: Path, **told) -> ms.Plan:
    run = ms.Run(root, quiet=True)
    plan = ms.make_plan(run, ms.ingest_all(run, ms.Cohort.from_msd(tiny_msd)), device="cpu", **told)
    run.close()
    return plan


def test_a_busy_machine_does_not_change_a_plan_that_was_made(
    tiny_msd: Path, tmp_path: Path, measured: list[float]
) -> None:
    measured += [400.0, 3.0]
    first = _plan(tiny_msd, tmp_path / "run", budget_minutes=1)
    again = _plan(tiny_msd, tmp_path / "run", budget_minutes=1)
    assert first == again
    assert first.spent.rate_gflops == 400.0
    assert "400 GFLOP/s on cpu, measured" in first.why["network_arguments"]
    slower = _plan(tiny_msd, tmp_path / "other", budget_minutes=1)
    assert slower.network_arguments["widths"][0] < first.network_arguments["widths"][0]


def test_a_rate_that_is_given_is_not_measured(tiny_msd: Path, tmp_path: Path, measured: list[float]) -> None:
    plan = _plan(tiny_msd, tmp_path / "run", budget_minutes=1, rate_gflops=123)
    assert plan.spent.rate_gflops == 123
    assert "123" in (tmp_path / "run" / "plan.yaml").read_text()
    assert not (tmp_path / "run" / "rate").exists()
    _plan(tiny_msd, tmp_path / "run", budget_minutes=1, cores=4)
    _plan(tiny_msd, tmp_path / "run")
    assert not (tmp_path / "run" / "rate").exists(), "nor for other machines, nor without a budget"
