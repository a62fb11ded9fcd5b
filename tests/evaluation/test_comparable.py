"""Tables that were not measured alike are refused, and what only one of them has is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from medseg.core.errors import MedsegError
from medseg.core.files import write_json
from medseg.evaluation.comparable import patients_of
from medseg.evaluation.compare import compare
from medseg.evaluation.policy import LesionRule, Scoring
from medseg.evaluation.scoring import Scores

QUICK = Scoring(repeats=100)


def table(folder: Path, values: dict[str, float], scoring: Scoring, metric: str = "nsd", **more: str) -> Path:
    """A folder with scores.csv and summary.json, as medseg evaluate writes them."""
    row = {"label": "organ", "metric": metric, "unit": "", "status": "ok", **more}
    rows = [{"case": c, "patient": c, "value": v, **row} for c, v in values.items()]
    scores = Scores(rows, scoring)
    scores.to_csv(folder / "scores.csv")
    write_json(folder / "summary.json", scores.summary())
    return folder / "scores.csv"


@pytest.mark.parametrize(
    ("metric", "other", "said"),
    [
        ("nsd", {"tolerance_mm": 2.0}, "NSD tolerance of organ"),
        ("nsd", {"tolerances_mm": {"organ": 3.0}}, "A 1.0, B 3.0"),
        ("hd95", {"missed": "exclude"}, "missed structures"),
        ("lesion_f1", {"lesions": LesionRule(iou=0.1)}, "lesions"),
        ("dice", {"ignore": 255}, "ignored value"),
        ("dice", {"regions": {"organ": (1, 2)}}, "region organ"),
    ],
)
def test_another_way_of_measuring_is_refused(tmp_path: Path, metric: str, other: dict, said: str) -> None:
    values = {"x": 0.5, "y": 0.6}
    a = table(tmp_path / "a", values, QUICK, metric)
    b = table(tmp_path / "b", values, QUICK.but(**other), metric)
    with pytest.raises(MedsegError, match="not measured alike") as caught:
        compare(a, b, tmp_path / "out", QUICK)
    assert said in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_choices_that_no_common_number_depends_on_may_differ(tmp_path: Path) -> None:
    values = {"x": 0.5, "y": 0.6}
    a = table(tmp_path / "a", values, QUICK, "dice")
    b = table(tmp_path / "b", values, QUICK.but(tolerance_mm=3.0, missed="exclude", seed=4), "dice")
    assert compare(a, b, tmp_path / "out", QUICK).summary["differences"][0]["n"] == 2


def test_a_summary_of_another_table_says_nothing(tmp_path: Path) -> None:
    a = table(tmp_path / "a", {"x": 0.5, "y": 0.6}, QUICK)
    b = table(tmp_path / "b", {"x": 0.5, "y": 0.7}, QUICK.but(tolerance_mm=3.0))
    b.write_bytes(a.read_bytes())
    assert compare(a, b, tmp_path / "out", QUICK).summary["differences"][0]["difference"] == 0


def test_cases_and_labels_of_one_table_alone_are_named(tmp_path: Path) -> None:
    a = table(tmp_path / "a", {"x": 0.5, "y": 0.6, "z": 0.7}, QUICK, "dice")
    rows = Scores.from_csv(table(tmp_path / "b", {"x": 0.5, "y": 0.6}, QUICK, "dice")).rows
    Scores([*rows, *({**row, "label": "vessel"} for row in rows)]).to_csv(tmp_path / "c.csv")
    done = compare(a, tmp_path / "c.csv", tmp_path / "out", QUICK)
    assert "1 case only in A, left out: z" in done.text
    assert "1 label only in B, left out: vessel" in done.text
    assert "1 label only in B, left out: vessel" in done.page.read_text()


def test_nothing_in_common_shows_what_each_has(tmp_path: Path) -> None:
    a = table(tmp_path / "a", {"x": 0.5}, QUICK, "dice")
    b = table(tmp_path / "b", {"x": 0.5}, QUICK, "dice", label="vessel")
    with pytest.raises(MedsegError, match="in common") as caught:
        compare(a, b, tmp_path / "out", QUICK)
    assert "labels organ" in str(caught.value)
    assert "labels vessel" in str(caught.value)


def test_the_table_that_knows_patients_decides_who_belongs_together(tmp_path: Path) -> None:
    rows = Scores.from_csv(table(tmp_path / "a", {"x": 0.5, "y": 0.6, "z": 0.7}, QUICK, "dice")).rows
    known = [{**row, "patient": "p" if row["case"] < "z" else "q"} for row in rows]
    assert patients_of(rows, known) == patients_of(known, rows) == {"x": "p", "y": "p", "z": "q"}
    Scores(known).to_csv(tmp_path / "b.csv")
    (cell,) = compare(tmp_path / "a" / "scores.csv", tmp_path / "b.csv", tmp_path / "out", QUICK).summary[
        "differences"
    ]
    assert cell["patients"] == 2
