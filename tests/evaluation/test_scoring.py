"""Scores and their summary: the contract of scores.csv and summary.json."""

from __future__ import annotations

import json

import numpy as np
import pytest

from medseg.core.errors import MedsegError
from medseg.evaluation.policy import STATUSES, Scoring
from medseg.evaluation.scoring import Scores
from medseg.evaluation.summary import summarise


def row(case, value, *, label="kidney", metric="dice", status="ok", patient=None, unit=""):
    who = patient or case
    names = ("case", "patient", "label", "metric", "value", "unit", "status")
    return dict(zip(names, (case, who, label, metric, value, unit, status), strict=True))


def rows_of(values, **more):
    return [row(f"c{i:02d}", v, **more) for i, v in enumerate(values)]


def test_the_table_reads_back_as_it_was_written(tmp_path):
    rows = [*rows_of([0.5, 1 / 3, None]), row("d", 12.25, metric="hd95", unit="mm", status="missed")]
    Scores(rows).to_csv(tmp_path / "scores.csv")
    head, first, *_ = (tmp_path / "scores.csv").read_text().splitlines()
    assert head == "case,patient,label,metric,value,unit,status"
    assert first == "c00,c00,kidney,dice,0.5,,ok"
    back = Scores.from_csv(tmp_path / "scores.csv").rows
    assert [r["value"] for r in back] == [0.5, pytest.approx(1 / 3, abs=1e-9), None, 12.25]
    assert [{k: v for k, v in r.items() if k != "value"} for r in back] == [
        {k: v for k, v in r.items() if k != "value"} for r in rows
    ]


@pytest.mark.parametrize(
    "name", ["=cmd|'/C calc'!A0", "+1", "-1", "@x", "<script>alert(1)</script>", 'a,"b"\nc']
)
def test_hostile_names_are_kept_and_cannot_run_in_a_spreadsheet(tmp_path, name):
    Scores([row(name, 0.5)]).to_csv(tmp_path / "s.csv")
    cell = (tmp_path / "s.csv").read_text().splitlines()[1]
    assert not cell.startswith(("=", "+", "-", "@", '"=', '"+'))
    assert Scores.from_csv(tmp_path / "s.csv").rows[0]["case"] == name


@pytest.mark.parametrize(
    "text",
    ["a,b\n1,2\n", "case,patient,label,metric,value,unit,status\na,a,k,dice,much,,ok\n",
     "case,patient,label,metric,value,unit,status\na,a,k,dice,0.5,,fine\n"],
)  # fmt: skip
def test_another_table_is_refused(tmp_path, text):
    (tmp_path / "s.csv").write_text(text)
    with pytest.raises(MedsegError):
        Scores.from_csv(tmp_path / "s.csv")


def test_the_worst_cases_come_first_for_metrics_of_either_direction():
    rows = [*rows_of([0.9, 0.2, 0.5]), *rows_of([1.0, 30.0, 4.0], metric="hd95")]
    assert [r["case"] for r in Scores(rows).worst(2)] == ["c01", "c02"]
    assert [r["case"] for r in Scores(rows).worst(1, "hd95")] == ["c01"]


def test_a_summary_says_all_the_contract_asks_for():
    rows = [
        *rows_of(np.linspace(0.6, 0.99, 20)),
        row("x", 0.0, status="missed"),
        row("y", None, status="both_empty"),
    ]
    cell = summarise(rows)["labels"]["kidney"]["dice"]
    assert (cell["n"], cell["cases"]) == (21, 22)
    assert cell["status"] == dict.fromkeys(STATUSES, 0) | {"ok": 20, "missed": 1, "both_empty": 1}
    assert cell["worst"] == {"case": "x", "value": 0.0, "status": "missed"}
    assert cell["mean_ci"][0] < cell["mean"] < cell["mean_ci"][1]
    assert cell["iqr"][0] <= cell["median"] <= cell["iqr"][1]
    assert {"sd", "min", "max", "median_ci"} <= set(cell)


def test_a_summary_carries_conventions_versions_digests_and_seed():
    found = summarise(
        rows_of([0.9, 0.8]), Scoring(seed=7), {"digests": {"model": "abc"}, "notes": ["mind the gap"]}
    )
    assert found["seed"] == 7
    assert found["digests"]["model"] == "abc"
    assert len(found["digests"]["scores.csv"]) == 64
    assert found["notes"] == ["mind the gap"]
    assert {"medseg", "numpy", "scipy"} <= set(found["versions"])
    assert "dice" in found["conventions"]["metrics"]


def test_the_same_rows_give_the_same_bytes():
    rows = rows_of(np.random.default_rng(0).random(30))
    one, other = (
        json.dumps(summarise(r), sort_keys=True, allow_nan=False) for r in (rows, [dict(r) for r in rows])
    )
    assert one == other


def test_the_mean_over_labels_weighs_labels_equally():
    rows = [*rows_of([1.0] * 9), row("z", 0.0, label="tumour")]
    assert summarise(rows)["mean_over_labels"]["dice"]["mean"] == pytest.approx(0.5)


def test_a_label_without_any_value_is_said_to_have_none():
    cell = summarise([row("a", None, status="both_empty")])["labels"]["kidney"]["dice"]
    assert (cell["n"], cell["mean"], cell["note"]) == (0, None, "no case has a value")


def test_scores_say_what_they_are():
    assert repr(Scores(rows_of([0.5, 0.7]))) == "Scores(2 cases; mean Dice: kidney 0.600)"
