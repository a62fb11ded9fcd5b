"""How fast a machine trains is measured over real steps, and told coarsely."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from medseg.data.budget import STEP, coarse_rate
from medseg.data.plan import Intensity, Plan
from medseg.data.rules_classes import resnet_gflop
from medseg.imaging.labels import labels
from medseg.learning import pace
from medseg.learning.settings import Training

PLAN = Plan(
    channels=("MR", "PET"),
    labels=labels(organ=1, lesion=2),
    spacing_mm=(1.0, 1.0, 1.0),
    patch=(16, 16, 16),
    batch=2,
    intensity={"MR": Intensity(name="zscore"), "PET": Intensity(name="zscore")},
    network="unet",
    network_arguments={
        "widths": (4, 8),
        "strides": ((1, 1, 1), (2, 2, 2)),
        "kernels": ((3, 3, 3), (3, 3, 3)),
    },
)
CPU = torch.device("cpu")


def test_a_rate_is_told_in_steps_of_a_quarter() -> None:
    assert coarse_rate(100.0) == coarse_rate(104.0)
    for gflops in (0.5, 37.0, 260.0, 18_000.0):
        told = coarse_rate(gflops)
        assert abs(math.log(told / gflops, STEP)) <= 0.501
        assert coarse_rate(told) == told


def test_the_fastest_of_several_steps_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shown = iter([9.0, 0.3, 0.2, 0.5])

    def steps(*_):
        yield from shown

    monkeypatch.setattr(pace, "_steps", steps)
    assert pace.seconds_per_step(PLAN, Training(), CPU, seconds=0) == 0.2, "and the first does not"


def test_on_a_busy_processor_its_own_time_counts() -> None:
    threads = torch.get_num_threads()
    busy = pace.shortest((0.0, 0.0, 0.0), (10.0, 2.0, 2.0 * threads), CPU)
    idle = pace.shortest((0.0, 0.0, 0.0), (2.0, 1.9, 1.9 * threads), CPU)
    assert busy == 2.0
    assert idle == 1.9
    assert pace.shortest((0.0, 0.0, 0.0), (10.0, 2.0, 2.0), torch.device("cuda")) == 10.0


def test_what_is_timed_is_a_step_of_the_real_loop() -> None:
    assert 0 < pace.seconds_per_step(PLAN, Training(batch=3), CPU, seconds=0) < 30


def test_a_rate_does_not_depend_on_what_is_not_measured() -> None:
    wide = PLAN.but(network_arguments={**PLAN.network_arguments, "widths": (32, 64)})
    assert pace.probe_of(wide) == pace.probe_of(PLAN.but(fingerprint={"cases": 3}, members=3, why={"a": "b"}))
    assert pace.probe_of(PLAN.but(patch=(32, 16, 16))) != pace.probe_of(PLAN)
    assert math.isfinite(pace.rate_of(PLAN, Training(), CPU, seconds=0))


def test_residual_networks_are_measured_by_their_own_arithmetic(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = PLAN.but(
        task="classification", labels=(), classes=("x", "y"), network="resnet", patch=(32, 32, 1), batch=8,
        network_arguments={"depth": 18, "widen_factor": 1.0},
    )  # fmt: skip
    narrow = plan.but(network_arguments={**plan.network_arguments, "widen_factor": 0.5})
    assert pace.probe_of(plan) == pace.probe_of(narrow)
    monkeypatch.setattr(pace, "seconds_per_step", lambda *_: 0.5)
    gflop = 3 * resnet_gflop(plan.patch, depth=18, widen=0.25, inputs=2)
    assert pace.rate_of(plan, Training(), CPU) == coarse_rate(8 * gflop / 0.5)
