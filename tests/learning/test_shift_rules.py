"""What is seen of a shift, and what the stated rules make of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_patients import small_plan

from medseg.learning.model import Model
from medseg.learning.networks import build_network
from medseg.learning.sampling import PreparedCase
from medseg.learning.shift import RULES, advice, told_apart, view

CPU = torch.device("cpu")
AGREE = {
    "grey_distance": {"MR": 0.02},
    "told_apart": 0.5,
    "sure_target": {"share": 0.9, "empty": 0.0},
    "batch_statistics": True,
    "source_cases": 30,
    "target_cases": 30,
}


def _worth(**changes: object) -> dict[str, str]:
    return {row["method"]: row["worth"] for row in advice({**AGREE, **changes})}


def test_sites_that_agree_need_nothing():
    assert set(_worth().values()) == {"no"}
    assert set(_worth()) == set(RULES)


def test_other_grey_values_are_matched_unless_they_may_be_content():
    found = _worth(grey_distance={"MR": 0.8})
    assert (found["histogram"], found["adabn"]) == ("yes", "yes")
    rows = [{"quantity": "size_i_mm", "delta": -0.9}]
    seen = {**AGREE, "grey_distance": {"MR": 0.8}}
    assert {r["method"]: r["worth"] for r in advice(seen, rows)}["histogram"] == "maybe"


def test_a_network_without_statistics_has_none_to_estimate():
    assert _worth(told_apart=0.9, batch_statistics=False)["adabn"] == "no"
    assert _worth(told_apart=0.9, target_cases=3)["adabn"] == "maybe"


def test_a_teacher_that_finds_nothing_does_not_teach():
    assert _worth(told_apart=0.9)["self_training"] == "maybe"
    assert _worth(told_apart=0.9, sure_target={"share": 0.9, "empty": 0.5})["self_training"] == "no"
    assert _worth(told_apart=0.9, sure_target={"share": 0.2, "empty": 0.0})["self_training"] == "no"


def test_an_opponent_needs_cases_of_both_sites_and_something_to_tell():
    assert _worth(told_apart=0.9)["adversarial_features"] == "maybe"
    for changes in ({"told_apart": 0.7}, {"target_cases": 6}, {"source_cases": 0}):
        assert _worth(**({"told_apart": 0.9} | changes))["adversarial_output"] == "no"
    assert _worth(told_apart=0.9, source_cases=0)["fourier"] == "no"


def test_clouds_apart_are_told_apart_and_one_cloud_is_not():
    rng = np.random.default_rng(0)
    a, b = rng.normal(0, 1, (2, 40, 8)).astype(np.float32)
    assert told_apart(a, b + 5) == 1.0
    assert told_apart(a, b) == pytest.approx(0.5, abs=0.25)
    assert told_apart(a[:4], b) is None


def test_a_view_tells_grey_values_features_and_confidence(cases, tmp_path):
    plan = small_plan()
    torch.manual_seed(0)
    model = Model(plan, build_network(plan).eval(), {}, CPU)
    dark = []
    for case in cases[:6]:
        folder = tmp_path / case.id
        folder.mkdir()
        np.save(folder / "image.npy", (np.asarray(case.image, np.float32) - 2).astype(np.float16))
        dark.append(PreparedCase(case.id, folder))
    seen = view(model, cases, dark, 0.5)
    sd = np.std(np.concatenate([np.asarray(c.image, np.float32).ravel() for c in cases]))
    assert seen["grey_distance"]["MR"] == pytest.approx(2 / sd, rel=0.25)
    assert seen["told_apart"] > 0.9
    assert seen["batch_statistics"] is True
    assert set(seen["sure_target"]) == {"share", "empty"}
    assert view(model, [], dark, 0.5)["grey_distance"] == {}
