"""What a plan costs is measured on this machine."""

from __future__ import annotations

from medseg.data.plan import Intensity, Plan
from medseg.imaging.labels import labels
from medseg.learning.estimate import expect
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
    assert found.steps == 3 * 40 * 2
    assert found.seconds_per_step > 0
    assert found.peak_gb > 0.05


def test_a_budget_is_kept_and_filled() -> None:
    found = expect(PLAN, cases=80, training=Training(budget_minutes=2), device="cpu")
    assert found.minutes == 2
    assert (
        found.steps == int(120 / found.seconds_per_step)
        or abs(found.steps * found.seconds_per_step - 120) < 5
    )
