"""Choosing by cross-validation: known differences, and the rule at its edges."""

from __future__ import annotations

import numpy as np
import pytest

from medseg.evaluation.choice import choose_best, gain, gain_of_rows, mean_of, values_of
from medseg.evaluation.classification import class_rows
from medseg.evaluation.policy import Scoring

QUICK = Scoring(repeats=500)
COSTS = {"simple": (1, 100), "large": (1, 900), "both": (2, 1000)}


def rows(values, label="organ", status="ok", metric="dice"):
    found = []
    for n, value in enumerate(values):
        row = {"case": f"c{n}", "patient": f"p{n}", "label": label, "metric": metric, "unit": ""}
        empty = value is None
        row |= {"value": None if empty else float(value), "status": "both_empty" if empty else status}
        found.append(row)
    return found


def noisy(mean, seed, n=30, spread=0.02):
    return mean + spread * np.random.default_rng(seed).standard_normal(n)


def test_the_gain_is_the_mean_over_labels_of_the_mean_over_cases():
    first = rows([0.5, 0.5]) + rows([0.2], "lesion")
    second = rows([0.6, 0.7]) + rows([0.3], "lesion")
    found = gain(values_of(first, "dice"), values_of(second, "dice"), QUICK)
    assert found.difference == pytest.approx((0.15 + 0.1) / 2)
    assert (found.n, found.patients) == (2, 2)
    back = gain(values_of(second, "dice"), values_of(first, "dice"), QUICK)
    assert back.difference == pytest.approx(-found.difference)


def test_an_empty_mask_of_an_empty_reference_counts_as_perfect():
    invented, clean = rows([0.0, 0.9], status="false_positive"), rows([None, 0.9])
    found = gain(values_of(invented, "dice"), values_of(clean, "dice"), QUICK)
    assert found.difference == pytest.approx(0.5)
    assert values_of(rows([None], metric="hd95"), "hd95")["organ"]["c0"][1] == 0.0


def test_of_distances_the_lower_one_is_the_gain():
    near, far = rows([1.0, 2.0], metric="hd95"), rows([3.0, 4.0], metric="hd95")
    assert gain_of_rows(far, near, "hd95", QUICK).difference == pytest.approx(2.0)


def test_nothing_in_common_shows_nothing():
    found = gain(values_of(rows([0.5]), "dice"), values_of(rows([0.5], "other"), "dice"), QUICK)
    assert found.difference is None and not found.shown


def test_a_lead_that_is_shown_is_taken():
    tables = {"simple": rows(noisy(0.80, 1)), "large": rows(noisy(0.90, 2))}
    found = choose_best(tables, COSTS, QUICK)
    assert (found["best"], found["chosen"]) == ("large", "large")
    assert "over simple is shown" in found["reason"]
    assert [c["name"] for c in found["candidates"]] == ["large", "simple"]
    gap = found["candidates"][1]["best_less_this"]
    assert 0 < gap["ci"][0] < gap["difference"] < gap["ci"][1]


def test_a_lead_that_may_be_chance_goes_to_the_simpler_one():
    base = noisy(0.80, 1)
    wobble = noisy(0.0, 5)
    better = base + wobble - wobble.mean() + 0.001
    tables = {"both": rows(better), "simple": rows(base), "large": rows(base - 0.1)}
    found = choose_best(tables, COSTS, QUICK)
    assert found["chosen"] == "simple"
    assert found["best"] == "both"
    assert "may be chance" in found["reason"]


def test_equal_ones_go_to_the_simplest_and_a_worse_simple_one_does_not_win():
    base = noisy(0.80, 1)
    tables = {"both": rows(base), "large": rows(base), "simple": rows(base - 0.05)}
    assert choose_best(tables, COSTS, QUICK)["chosen"] == "large"


def test_the_reason_tells_of_one_other_and_of_several():
    base = noisy(0.80, 1)
    equal = {name: rows(base) for name in COSTS}
    assert choose_best(equal, COSTS, QUICK)["reason"].endswith("and none of large, both is simpler")
    two = {name: equal[name] for name in ("simple", "large")}
    assert choose_best(two, COSTS, QUICK)["reason"].endswith("and large is not simpler")


def test_the_mean_is_that_of_the_metric_that_decides():
    told = mean_of(rows([0.5, 0.7]) + rows([0.2, None], "lesion"), "dice", QUICK)
    assert told["mean"] == pytest.approx((0.6 + 0.6) / 2)


def test_classifiers_are_compared_by_their_areas():
    rng = np.random.default_rng(0)
    sharp, blunt = [], []
    for n in range(60):
        truth = "yes" if n % 2 else "no"
        for table, noise in ((sharp, 0.1), (blunt, 2.0)):
            p = 1 / (1 + np.exp(-(2.0 * (n % 2) - 1 + noise * rng.standard_normal())))
            table += class_rows(f"c{n}", f"p{n}", {"yes": p, "no": 1 - p}, truth, ("yes", "no"))
    costs = {"sharp": (2, 500), "blunt": (1, 100)}
    found = choose_best({"blunt": blunt, "sharp": sharp}, costs, QUICK)
    assert (found["metric"], found["chosen"]) == ("auroc", "sharp")
