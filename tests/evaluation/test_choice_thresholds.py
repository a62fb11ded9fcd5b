"""Thresholds are kept where they pay on cases nobody trained on, and nowhere else."""

from __future__ import annotations

import pytest

from medseg.evaluation.choice import said_of
from medseg.evaluation.choice_thresholds import (
    NOTHING,
    choose_thresholds,
    thresholds_for,
)
from medseg.evaluation.policy import Scoring
from medseg.imaging.labels import Label, labels

ORGANS = labels(liver=1, lesion=2)
OPTIONS = thresholds_for(ORGANS, (0.3, 0.4, 0.5, 0.6))
QUICK = Scoring(repeats=500)


def tries(moved):
    """Dice of 20 cases: `moved` maps an option to what it adds to (liver, lesion), by case."""
    return [
        {
            "case": f"c{n}", "patient": f"p{n}", "option": option,
            "dice": {"liver": 0.8 + change(n)[0], "lesion": 0.6 + change(n)[1]},
        }
        for option, change in {NOTHING: lambda n: (0, 0), **moved}.items()
        for n in range(20)
    ]  # fmt: skip


def chosen(moved):
    return choose_thresholds(tries(moved), OPTIONS, QUICK, 0.95)


def test_what_is_tried():
    assert [option.said for option in OPTIONS[:3]] == ["liver at 0.3", "liver at 0.4", "liver at 0.6"]
    assert len(OPTIONS) == 6
    regions = (Label(name="whole", value=1, region=(1, 2)), Label(name="core", value=2, region=(2,)))
    assert thresholds_for(regions, (0.3,)) == ()


def test_the_largest_gain_of_those_shown_is_kept():
    found = chosen({
        "lesion at 0.4": lambda n: (0, 0.02 + 0.001 * (n % 3)),
        "lesion at 0.3": lambda n: (0, 0.05 + 0.001 * (n % 3)),
        "lesion at 0.6": lambda n: (0, -0.02),
        "liver at 0.4": lambda n: (0.3 * (n == 4), 0),
    })  # fmt: skip
    assert found["thresholds"] == {"2": 0.3}
    kept = [row for row in found["tried"] if row["kept"]]
    assert [row["option"] for row in kept] == ["lesion at 0.3"]
    assert kept[0]["difference"] == pytest.approx(0.051 / 2, abs=1e-3)
    assert next(said_of("thresholds", found)).startswith("lesion at 0.3, mean Dice +0.02")


def test_what_a_label_takes_from_another_counts():
    assert chosen({"lesion at 0.3": lambda n: (-0.06, 0.05 + 0.001 * (n % 3))})["thresholds"] == {}


def test_nothing_shown_is_nothing_kept():
    found = chosen({})
    assert found["thresholds"] == {}
    assert next(said_of("thresholds", found)).startswith("all at 0.5: of 6 others")
    assert found["confidence"] == pytest.approx(1 - 0.05 / 6)
