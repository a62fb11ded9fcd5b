"""A sweep: each trial once, on the same folds, and what fails stands in the table."""

from __future__ import annotations

import csv
import json
import shlex
from pathlib import Path

import pytest

from medseg.cli import main
from medseg.core.errors import MedsegError
from medseg.core.run import Run
from medseg.workflows import sweeping
from medseg.workflows.sweeping import Trial, sweep
from tests.conftest import QUICK

RECIPE = Path(__file__).with_name("plain.yaml")
SAME = ("split.folds=2", "split.test=0.25", "tracking.enabled=false", "cohort.format=msd")


def words(data: Path, *more: str) -> list[str]:
    return [f"cohort.root={data}", *QUICK, *SAME, *more]


@pytest.fixture(scope="module")
def swept(tiny_msd: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two trials that end, and one that cannot begin."""
    run = tmp_path_factory.mktemp("swept") / "run"
    given = words(tiny_msd, "training.rate=1e-2,1e-3", "plan.network=unet")
    given += ["plan.batch=2,none_such"]
    assert main(["sweep", str(RECIPE), *given, "--run", str(run), "--quiet"]) == 3
    return run


def test_the_table_has_a_row_for_each_trial_best_first(swept: Path) -> None:
    rows = list(csv.DictReader((swept / "sweep.csv").read_text().splitlines()))
    assert [row["status"] for row in rows] == ["ok", "ok", "failed", "failed"]
    assert float(rows[0]["mean"]) >= float(rows[1]["mean"])
    assert rows[0]["best_less_this"] == "" and float(rows[1]["best_less_this"]) >= 0
    assert {row["training.rate"] for row in rows[:2]} == {"1e-2", "1e-3"}
    assert "batch" in rows[2]["reason"]


def test_cases_are_read_and_prepared_once_and_the_test_part_is_left_alone(swept: Path) -> None:
    assert len(list(swept.glob("prepared/*"))) == 1
    ingested = {p.name for p in swept.glob("ingest/*")}
    predicted = [{p.name for p in f.glob("*")} for f in swept.glob("trials/*/predict")]
    assert len(predicted) == 2 and predicted[0] == predicted[1]
    assert len(ingested - predicted[0]) == 2  # a quarter of eight
    assert {p.name for p in swept.glob("prepared/*/prepare/*")} == predicted[0]
    assert not (swept / "test").exists()


def test_the_same_line_again_does_nothing_and_a_further_value_is_one_trial(swept, tiny_msd, capsys) -> None:
    before = {f: f.stat().st_mtime_ns for f in swept.glob("trials/*/train/*/model/weights.safetensors")}
    given = words(tiny_msd, "training.rate=1e-2,1e-3,5e-3", "plan.network=unet", "plan.batch=2")
    assert main(["sweep", str(RECIPE), *given, "--run", str(swept), "--json", "--quiet"]) == 0
    after = {f: f.stat().st_mtime_ns for f in swept.glob("trials/*/train/*/model/weights.safetensors")}
    assert {f: after[f] for f in before} == before
    assert len(after) == len(before) + 2
    told = json.loads(capsys.readouterr().out)
    assert len(told["trials"]) == 3 and told["test_part"] == "not looked at"


def test_a_search_learns_from_its_trials(tiny_msd, tmp_path, monkeypatch) -> None:
    pytest.importorskip("optuna")

    def tried(ground, config, same, point, tracking):
        value = 1 - abs(float(point["training.rate"]) - 0.004) * 50
        same = {"label": "x", "metric": "dice", "value": value, "unit": "", "status": "ok"}
        rows = [{"case": case, "patient": case, **same} for case in "abc"]
        return Trial(point["training.rate"], point, "ok", rows, (1, 10))

    monkeypatch.setattr(sweeping, "_tried", tried)
    run = Run(tmp_path / "run", quiet=True)
    spaced = "training.augment={blur: 1, gamma: 0}"
    outcome = sweep(RECIPE, words(tiny_msd, "training.rate=1e-4..1e-2", spaced), run, trials=25)
    found, line = outcome.summary, outcome.text.splitlines()[-1].partition(": ")[2]
    assert shlex.split(line)[:2] == ["medseg", "train"] and spaced in shlex.split(line), "a shell can read it"
    best = found["trials"][0]
    assert float(best["settings"]["training.rate"]) == pytest.approx(0.004, abs=5e-4)
    assert best["ci"] is not None


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["training.rate=1e-3"], "nothing to try"),
        (["training.rate=1,2", "candidates=2d,3d"], "candidates"),
        (["training.rate=1..2"], "--trials"),
        (["training.speed=1,2"], "did you mean"),
    ],
)
def test_what_cannot_be_swept_is_said(tiny_msd, tmp_path, capsys, given, says) -> None:
    assert main(["sweep", str(RECIPE), *words(tiny_msd, *given), "--run", str(tmp_path / "r")]) == 2
    assert says in capsys.readouterr().err


def test_a_trial_with_a_case_that_failed_on_the_way_is_done_again(tmp_path: Path) -> None:
    home = Run(tmp_path, quiet=True)
    (tmp_path / "scores.csv").write_text("case,patient,label,metric,value,unit,status\n")
    for whole in (True, False):
        sweeping._write(home, Trial("k", {}, "ok", cost=(1, 2), whole=whole), "cases")
        assert (sweeping._kept(home, "k", {}, "cases") is not None) == whole
    assert sweeping._kept(home, "k", {}, "other cases") is None


def test_a_trial_of_which_nothing_can_be_predicted_has_failed(tmp_path: Path, monkeypatch) -> None:
    from types import SimpleNamespace

    home = Run(tmp_path, quiet=True)
    nothing = SimpleNamespace(judges={"a": ()}, predicted={})
    monkeypatch.setattr(sweeping, "configuration", lambda *_: nothing)
    with pytest.raises(MedsegError, match="no case could be predicted"):
        # a stand-in for the ground: it ends before anything of a recipe is asked
        sweeping._trained(SimpleNamespace(settings=None), home, "k", {}, 0.0)  # type: ignore[arg-type]
