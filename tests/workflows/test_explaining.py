"""Explanations as a journey: in a recipe's report, and by the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from medseg.cli import main
from medseg.core.config import load_config
from medseg.core.errors import MedsegError
from medseg.core.files import read_json
from medseg.core.run import Run
from medseg.evaluation.scoring import Scores
from medseg.imaging.image import read_image
from medseg.learning.settings import Explaining
from medseg.workflows.explaining import explain, worst_cases
from medseg.workflows.settings import TrainSettings
from medseg.workflows.training import train

QUICK = Explaining(draws=3, steps=3, blocks=4)
WORDS = ["draws=3", "steps=3", "blocks=4"]


@pytest.fixture(scope="module")
def classified(tiny_classes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished classification whose two worst cases are explained."""
    words = [
        f"cohort.root={tiny_classes}", "cohort.format=csv", "task=classification", "name=classes",
        "split.folds=1", "split.test=0.34", "training.epochs=1", "training.steps_per_epoch=1",
        "training.batch=2",
        "plan.network=resnet", "plan.network_arguments.depth=10", "plan.network_arguments.widen_factor=0.125",
        "scoring.repeats=100", "tracking.enabled=false", "explain.cases=2",
        *(f"explain.{word}" for word in WORDS),
    ]  # fmt: skip
    settings = load_config(TrainSettings, None, words)
    run = Run(tmp_path_factory.mktemp("classified"), quiet=True)
    assert train(settings, run, "cpu").exit_code == 0
    run.close()
    return run.root


def test_the_worst_cases_of_a_recipe_are_explained_in_its_report(classified: Path) -> None:
    worst = worst_cases(Scores.from_csv(classified / "scores.csv"), 2)
    assert sorted(folder.name for folder in (classified / "explain").iterdir()) == sorted(worst)
    page = (classified / "report" / "index.html").read_text()
    assert "Where the model looked" in page
    for case in worst:
        told = read_json(classified / "explain" / case / "explain.json")
        (one,) = told["maps"]
        assert f"<b>{case}: {one['target']}</b>" in page
        found = read_image(classified / "explain" / case / one["file"])
        assert found.grid.matches(read_image(classified / "ingest" / case / "image.nii.gz").grid)
        assert found.array.min() >= 0
        assert found.array.max() <= 1
        # a network of one step decides nothing: its maps must not be sold as explanations
        assert not one["faithfulness"]["faithful"]
        assert "not better than random" in one["warnings"][0]
    assert page.count("not better than random</span>") == 2
    assert str(classified) not in page


def test_least_sure_of_the_own_class_is_worst() -> None:
    def rows(case: str, own: str, p: float) -> list[dict]:
        known = {"case": case, "patient": case, "unit": "", "status": "ok"}
        found = []
        for label, value in (("a", p), ("b", 1 - p)):
            found.append({**known, "label": label, "metric": "probability", "value": value})
            found.append({**known, "label": label, "metric": "truth", "value": float(label == own)})
        return found

    scores = Scores([*rows("x", "a", 0.9), *rows("y", "b", 0.8), *rows("z", "b", 0.4)])
    assert worst_cases(scores, 2) == ["y", "z"]


def test_a_run_is_explained_by_the_models_that_had_not_seen_the_case(tiny_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = [str(tiny_run), str(tiny_run), str(out), "--cases", "worst:1", "--method", "occlusion", "--json"]
    assert main(["explain", *words, "--device", "cpu", *WORDS, "window_mm=40"]) == 0
    (case,) = worst_cases(Scores.from_csv(tiny_run / "scores.csv"), 1)
    told = read_json(out / "explain" / case / "explain.json")
    image = read_image(tiny_run / "ingest" / case / "image.nii.gz")
    for one in told["maps"]:
        assert read_image(out / "explain" / case / one["file"]).grid.matches(image.grid)
        assert one["method"] == "occlusion"
        assert 0 < one["region_share"] <= 1
    assert told["maps"] or told["remark"]
    assert "Where the model looked" in (out / "report" / "index.html").read_text()


def test_new_images_are_explained_and_a_bad_one_is_named(
    classified: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from medseg.imaging.image import write_image

    case = next((classified / "explain").iterdir()).name
    image = read_image(classified / "ingest" / case / "image.nii.gz")
    write_image(image, tmp_path / "in" / "good.nii.gz")
    write_image(image.but(np.zeros_like(image.array)), tmp_path / "in" / "empty.nii.gz")
    words = [str(classified), str(tmp_path / "in"), str(tmp_path / "out"), "--json", *WORDS]
    assert main(["explain", *words, "--device", "cpu"]) == 3
    told = capsys.readouterr()
    assert [c["case"] for c in json.loads(told.out)["cases"]] == ["good"]
    assert "empty" in told.err
    assert "constant" in told.err
    first = (tmp_path / "out" / "explain" / "good" / "explain.json").read_bytes()
    assert main(["explain", *words, "--device", "cpu"]) == 3
    assert (tmp_path / "out" / "explain" / "good" / "explain.json").read_bytes() == first


def test_unknown_cases_and_missing_scores_are_usage_errors(classified: Path, tmp_path: Path) -> None:
    case = next((classified / "explain").iterdir()).name
    with pytest.raises(MedsegError, match="there is no case") as told:
        explain(classified, classified, Run(tmp_path / "a", quiet=True), explaining=QUICK, cases=f"{case}x")
    assert case in str(told.value.mend)
    image = read_image(classified / "ingest" / case / "image.nii.gz")
    from medseg.imaging.image import write_image

    write_image(image, tmp_path / "in" / "one.nii.gz")
    run = Run(tmp_path / "b", quiet=True)
    with pytest.raises(MedsegError, match="told by scores"):
        explain(classified, tmp_path / "in", run, explaining=QUICK, cases="worst:3")
    run.close()
