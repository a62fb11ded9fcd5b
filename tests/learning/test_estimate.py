"""What a plan costs is measured on this machine."""

from __future__ import annotations

import subprocess
import sys

import pytest

from medseg.data.plan import Cascade, Intensity, Plan
from medseg.data.rules import levels, widths
from medseg.imaging.labels import labels
from medseg.learning import estimate
from medseg.learning.estimate import counted, expect, expect_cascade
from medseg.learning.settings import Training

PLAN = Plan(
    channels=("MR",),
    labels=labels(organ=1),
    spacing_mm=(1.0, 1.0, 1.0),
    patch=(16, 16, 16),
    batch=2,
    intensity={"MR": Intensity(name="zscore")},
    network="unet",
    network_arguments={
        "widths": (4, 8),
        "strides": ((1, 1, 1), (2, 2, 2)),
        "kernels": ((3, 3, 3), (3, 3, 3)),
    },
)


def test_epochs_are_counted_in_steps_of_all_networks() -> None:
    found = expect(PLAN.but(members=2), cases=80, training=Training(epochs=3), device="cpu")
    assert found.steps == 3 * 38 * 2, "four of the 80 cases are monitor cases"
    assert found.seconds_per_step > 0
    assert found.peak_gb > 0.05


def test_a_budget_is_kept_and_filled() -> None:
    found = expect(PLAN, cases=80, training=Training(budget_minutes=2, monitor=0), device="cpu", seconds=0)
    assert found.minutes == 2
    assert (
        found.steps == int(120 / found.seconds_per_step)
        or abs(found.steps * found.seconds_per_step - 120) < 5
    )


def test_looks_at_monitor_cases_and_folds_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "seconds_per_step", lambda *_: 0.5)
    monkeypatch.setattr(estimate, "_forward_seconds", lambda *_: 2.0)
    training = Training(epochs=2, steps_per_epoch=30, monitor=0.1, monitor_every=0.25)
    found = expect(PLAN, cases=40, training=training, device="cpu")
    assert found.minutes * 60 == pytest.approx(2 * 30 * 0.5 + 4 * 4 * 2.0, abs=1)
    large = {"shape": {"median": [32, 16, 16]}, "spacing_mm": {"median": [1, 1, 1]}}
    assert expect(PLAN.but(fingerprint=large), 40, training, "cpu").case_seconds == 3 * found.case_seconds
    five = found.times(5)
    assert (five.steps, five.networks) == (5 * found.steps, 5)
    assert five.minutes == pytest.approx(5 * found.minutes)


def test_every_network_of_a_cascade_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "seconds_per_step", lambda plan, *_: 1.0 if plan.cascade else 0.25)
    monkeypatch.setattr(estimate, "_forward_seconds", lambda plan, *_: 0.1 if plan.cascade else 0.05)
    plan = PLAN.but(cascade=Cascade(spacing_mm=(2.0, 2.0, 2.0), patch=PLAN.patch), members=2)
    training = Training(epochs=2, steps_per_epoch=30, monitor=0)
    alone = expect_cascade(plan, PLAN, 60, training, "cpu", inner=3)
    first = 60 * 0.25 + 3 * 60 * 0.25 + 60 * 0.05  # the one that is used, three inner ones, their answers
    assert alone.first_minutes * 60 == pytest.approx(first, abs=1)
    assert alone.minutes * 60 == pytest.approx(2 * 60 * 1.0 + first, abs=1)
    assert (alone.networks, alone.first_networks, alone.steps) == (6, 4, 120)
    assert alone.case_seconds == pytest.approx(2 * 0.1 + 2 * 0.05)
    folds = expect_cascade(plan, PLAN, 60, training, "cpu").times(5)
    assert (folds.networks, folds.first_networks) == (15, 5), "the folds answer for one another"


def test_classes_are_looked_at_one_by_one_and_only_where_there_are_enough() -> None:
    plan = PLAN.but(task="classification", labels=(), classes=("x", "y"), patch=(16, 16, 1))
    few = counted(plan, 300, Training(epochs=1, monitor=0.05), 1.0, 0.5)
    assert (few.steps, few.minutes) == (150, 2.5), "15 would be too few: none is looked at"
    many = counted(plan, 300, Training(epochs=1, monitor=0.1), 1.0, 0.5)
    assert (many.steps, many.minutes) == (135, pytest.approx((135 + 10 * 30 * 0.5) / 60))
    budget = counted(plan, 300, Training(budget_minutes=10, monitor=0.1), 1.0, 0.5)
    assert (budget.steps, budget.minutes) == (600 - 9 * 15, 10.25), "all looks but the last are within it"


@pytest.mark.parametrize(
    ("patch", "batch", "precision"),
    [((32, 32, 32), 4, "float32"), pytest.param((96, 96, 1), 8, "auto", marks=pytest.mark.slow)],
)
def test_memory_is_told_within_a_third_of_what_a_training_takes(
    patch: tuple[int, int, int], batch: int, precision: str
) -> None:
    """In a process of its own: the peak of this one has seen other things."""
    strides, kernels = levels(patch, (1, 1, 1))
    shape = {"widths": widths(16, len(strides)), "strides": strides, "kernels": kernels}
    plan = PLAN.but(patch=patch, batch=batch, network_arguments=shape)
    script = (
        "import sys, torch\n"
        "from medseg.data.plan import Plan\n"
        "from medseg.learning import estimate, pace\n"
        "plan = Plan.model_validate_json(sys.stdin.read())\n"
        f"how, cpu = estimate.Training(precision='{precision}'), torch.device('cpu')\n"
        "pace._LEAST_STEPS = 0\n"
        "pace.seconds_per_step(plan, how, cpu, 0)\n"
        "print(estimate.used_gb(cpu), estimate.peak_gb(plan, how, cpu))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        input=plan.model_dump_json(),
        capture_output=True,
        text=True,
        check=True,
    )
    used, told = map(float, done.stdout.split())
    assert told == pytest.approx(used, rel=0.3)
