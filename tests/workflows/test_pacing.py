"""A plan for a budget of minutes is made for this machine, and is the same when it is made again."""

from __future__ import annotations

from pathlib import Path

import pytest

import medseg as ms
from medseg.data.rules import plan_gflop
from medseg.data.rules_classes import resnet_gflop
from medseg.learning import estimate, pace
from medseg.learning.estimate import Expectation
from medseg.workflows import pacing


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
    assert "400 GFLOP/s on cpu" in first.why["network_arguments"]
    slower = _plan(tiny_msd, tmp_path / "other", budget_minutes=1)
    assert slower.network_arguments["widths"][0] < first.network_arguments["widths"][0]


def test_a_training_of_some_length_tells_what_it_will_cost_and_what_it_did(
    tiny_msd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cost = Expectation(seconds_per_step=0.5, steps=300, minutes=2.5, peak_gb=0.7)
    monkeypatch.setattr(estimate, "expect", lambda *_: cost)
    run, cohort = ms.Run(tmp_path / "run", quiet=True), ms.Cohort.from_msd(tiny_msd)
    split, plan = cohort.split(folds=2), ms.make_plan(run, ms.ingest_all(run, cohort))
    names = {"fold0": ("fold0",), "fold1": ("fold1",)}
    with caplog.at_level("INFO", "medseg"):
        with pacing.expected(run, plan, ms.Training(budget_minutes=2), split, names, "cpu"):
            assert "5 minutes and 0.7 GB for 2 networks" in caplog.text
        assert "(expected 5)" in caplog.text
        caplog.clear()
        coarse = cost.but(networks=2, minutes=4.0, first_networks=1, first_minutes=1.5)
        monkeypatch.setattr(estimate, "expect_cascade", lambda *_, inner: coarse)
        first = run.at("first"), plan
        with pacing.expected(run, plan, ms.Training(budget_minutes=2), split, names, "cpu", first):
            assert "8 minutes and 0.7 GB for 4 networks; 2 of them coarse" in caplog.text
            assert "3 of the minutes" in caplog.text
        caplog.clear()
        with pacing.expected(run, plan, ms.Training(epochs=1, steps_per_epoch=1), split, names, "cpu"):
            pass
        (run.root / "train" / "fold0").mkdir(parents=True)
        with pacing.expected(run, plan, ms.Training(budget_minutes=2), split, names, "cpu"):
            pass
    assert not caplog.text, "nothing is told of short trainings, nor of what is there already"


def test_a_classification_is_long_by_its_own_arithmetic(tiny_pictures: Path, tmp_path: Path) -> None:
    run, cohort = ms.Run(tmp_path / "run", quiet=True), ms.Cohort.from_csv(tiny_pictures)
    split, plan = cohort.split(folds=2), ms.make_plan(run, ms.ingest_all(run, cohort), device="cpu")
    gflop = 3 * resnet_gflop(plan.patch, depth=18, widen=1.0, inputs=len(plan.channels), conv1_t_stride=2)
    plan = plan.but(network_arguments={"depth": 18, "widen_factor": 1.0, "conv1_t_stride": 2})
    assert plan_gflop(plan) == pytest.approx(gflop)
    steps = 60 * plan.spent.rate_gflops / (gflop * plan.batch * len(split.folds))  # of a minute
    for share, long in ((0.9, False), (1.1, True)):
        training = ms.Training(epochs=1, steps_per_epoch=round(share * steps))
        assert pacing._long(plan, training, split) == long


def test_a_rate_that_is_given_is_not_measured(tiny_msd: Path, tmp_path: Path, measured: list[float]) -> None:
    plan = _plan(tiny_msd, tmp_path / "run", budget_minutes=1, rate_gflops=123)
    assert plan.spent.rate_gflops == 123
    assert "123" in (tmp_path / "run" / "plan.yaml").read_text()
    assert not (tmp_path / "run" / "rate").exists()
    _plan(tiny_msd, tmp_path / "run", budget_minutes=1, cores=4)
    _plan(tiny_msd, tmp_path / "run")
    assert not (tmp_path / "run" / "rate").exists(), "nor for other machines, nor without a budget"


def test_a_plan_is_drawn_and_reckons_with_the_training_that_is_named(
    tiny_msd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from medseg.workflows.looking import plan

    monkeypatch.setattr(estimate, "seconds_per_step", lambda *_: 0.1)
    run = ms.Run(tmp_path / "run", quiet=True)
    told = (
        "cascade=true",
        "split.folds=1",
        "epochs=3",
        "training.steps_per_epoch=20",
        "network_arguments={widths: [4, 8]}",
        "patch=[16,16,8]",
    )
    outcome = plan(tiny_msd, lambda: ms.Cohort.from_msd(tiny_msd), run, told, "cpu", preview=True)
    assert outcome.summary["expected"]["steps"] == 60
    assert outcome.summary["expected"]["networks"] == 1 + 4, "a single fold has three more that answer"
    assert "4 of them coarse" in outcome.text
    assert outcome.summary["network_arguments"]["widths"] == [4, 8]
    assert (run.root / "preview.png").read_bytes()[:4] == b"\x89PNG"
    assert "minutes of training" in outcome.text
    with pytest.raises(ms.MedsegError, match="no choice 'epoch'"):
        plan(tiny_msd, lambda: ms.Cohort.from_msd(tiny_msd), run, ["epoch=3"], "cpu")
