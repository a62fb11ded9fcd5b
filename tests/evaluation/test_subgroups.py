"""Subgroups: bands, differences to the rest, Holm over what was compared."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from medseg.evaluation.subgroups import (
    UNKNOWN,
    adjust,
    difference_of_groups,
    groups_of,
    spread_of_groups,
    subgroup_rows,
    thirds,
)


def three(n=60, seed=0):
    rng = np.random.default_rng(seed)
    names = np.repeat(["A", "B", "C"], n // 3)
    return rng.normal(0.85 - 0.06 * (names == "C"), 0.03), [f"p{i:03d}" for i in range(n)], names.tolist()


def test_each_group_is_held_against_the_rest():
    values, patients, groups = three()
    rows = subgroup_rows(values, patients, groups, bounds=(0, 1))
    assert [row["group"] for row in rows] == ["A", "B", "C"]
    c = rows[2]
    welch = stats.ttest_ind(values[40:], values[:40], equal_var=False)
    assert c["difference"] == pytest.approx(values[40:].mean() - values[:40].mean())
    assert c["p"] == pytest.approx(welch.pvalue)
    assert c["difference_ci"] == pytest.approx(list(welch.confidence_interval()))
    assert (c["n"], c["patients"], c["small"]) == (20, 20, False)


def test_copies_of_a_case_do_not_make_a_difference_surer():
    values, patients, groups = three()
    once = subgroup_rows(values, patients, groups)
    twice = subgroup_rows(
        np.repeat(values, 2), np.repeat(patients, 2).tolist(), np.repeat(groups, 2).tolist()
    )
    assert [r["p"] for r in twice] == pytest.approx([r["p"] for r in once])
    assert twice[0]["difference_ci"] == pytest.approx(once[0]["difference_ci"])


def test_patients_on_both_sides_are_paired():
    rng = np.random.default_rng(2)
    level = rng.normal(0, 1, 30)
    values = np.concatenate([level + 0.2, level]) + rng.normal(0, 0.1, 60)
    patients = [f"p{i}" for i in range(30)] * 2
    inside = np.arange(60) < 30
    difference, interval, p = difference_of_groups(values, patients, inside, ~inside)
    paired = stats.ttest_rel(values[:30], values[30:])
    half = (interval.high - interval.low) / 2
    assert difference == pytest.approx(
        paired.confidence_interval().low + np.diff(paired.confidence_interval())[0] / 2
    )
    assert half == pytest.approx(np.diff(paired.confidence_interval())[0] / 2, rel=0.1)
    assert p < 1e-6


def test_what_is_not_known_is_shown_and_not_tested():
    values, patients, groups = three()
    groups[:10] = [UNKNOWN] * 10
    rows = {row["group"]: row for row in subgroup_rows(values, patients, groups)}
    assert (rows[UNKNOWN]["n"], rows[UNKNOWN]["p"]) == (10, None)
    assert rows["B"]["difference"] == pytest.approx(
        values[20:40].mean() - np.append(values[10:20], values[40:]).mean()
    )


def test_small_groups_are_marked_and_single_patients_have_no_interval():
    values = np.array([0.5, 0.6, 0.7, 0.8])
    rows = subgroup_rows(values, list("abcd"), ["x", "y", "y", "y"])
    assert [row["small"] for row in rows] == [True, True]
    assert (rows[0]["mean"], rows[0]["mean_ci"], rows[0]["p"]) == (0.5, None, None)
    assert subgroup_rows(np.zeros(0), [], []) == []


def test_holm_counts_the_two_halves_of_one_comparison_once():
    def row(grouping, group, p):
        return {"grouping": grouping, "label": "l", "metric": "dice", "group": group, "p": p}

    rows = [row("sex", "F", 0.01), row("sex", "M", 0.01), row("site", "A", 0.02), row("site", "B", 0.5),
            row("site", "C", 0.04), row("site", UNKNOWN, None)]  # fmt: skip
    adjust(rows)
    assert [r["p_holm"] for r in rows] == [0.04, 0.04, pytest.approx(0.06), 0.5, pytest.approx(0.08), None]


def test_columns_become_groups():
    ages = groups_of("age", {"a": "067Y", "b": "9", "c": 40, "d": None})
    assert ages == {"a": "4 60 to below 80 years", "b": "1 below 18 years", "c": "3 40 to below 60 years",
                    "d": UNKNOWN}  # fmt: skip
    thick = groups_of("slice_thickness_mm", {"a": 1.0, "b": 0.9, "c": 7})
    assert sorted(thick.values()) == ["1 below 1 mm", "2 1 to below 3 mm", "4 5 mm and above"]
    assert groups_of("site", {"a": "X", "b": "Y", "c": ""}) == {"a": "X", "b": "Y", "c": UNKNOWN}
    assert groups_of("field", {"a": 1.5, "b": 3, "c": 3}) == {"a": "1.5", "b": "3", "c": "3"}
    assert len(set(groups_of("bmi", {str(i): 18 + i for i in range(30)}).values())) == 3


@pytest.mark.parametrize(
    "values", [{"a": "X", "b": "X"}, {}, {str(i): f"name {i}" for i in range(30)}, {"a": None}]
)
def test_columns_that_gather_nothing_are_left_out(values):
    assert groups_of("site", values) == {}


def test_months_are_no_years():
    assert groups_of("age", {"a": "018M", "b": "018Y"}) == {
        "a": "1 below 18 years",
        "b": "2 18 to below 40 years",
    }


def test_thirds_hold_a_third_each():
    found = thirds({str(i): float(i) for i in range(9)})
    assert (
        sorted(found.values())
        == ["1 small (up to 2.67 ml)"] * 3 + ["2 medium"] * 3 + ["3 large (above 5.33 ml)"] * 3
    )
    assert thirds({"a": 1.0, "b": 1.0, "c": 2.0}) == {}


def test_the_spread_of_groups():
    rows = [
        {"group": g, "mean": m, "small": s}
        for g, m, s in (("A", 0.9, False), ("B", 0.8, False), ("C", 0.1, True))
    ]
    found = spread_of_groups(rows, share=True)
    assert (found["sd"], found["skewed_error_ratio"]) == (
        pytest.approx(np.std([0.9, 0.8], ddof=1)),
        pytest.approx(2),
    )
    assert spread_of_groups(rows)["skewed_error_ratio"] is None
    assert spread_of_groups(rows[:1])["sd"] is None
