"""Candidates, mask steps and the test part, on the road a user takes: ``medseg train``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from medseg.cli import main
from medseg.core.config import load_config
from medseg.core.errors import MedsegError
from medseg.core.files import read_json
from medseg.learning.model import chosen_with, model_folders, open_models
from medseg.learning.settings import Prediction
from medseg.workflows.settings import TrainSettings
from tests.conftest import QUICK

FOLDS = ("split.folds=2", "split.test=0.25", "tracking.enabled=false", "cohort.format=msd")


def train(data: Path, run: Path, *words: str) -> int:
    given = ["train", str(Path(__file__).with_name("plain.yaml")), f"cohort.root={data}"]
    return main([*given, *QUICK, *FOLDS, *words, "--run", str(run), "--quiet"])


@pytest.fixture(scope="module")
def chosen(tiny_msd: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that chose between 3-D, 2-D and both."""
    run = tmp_path_factory.mktemp("chosen") / "run"
    assert train(tiny_msd, run, "candidates=3d,2d,3d+2d") == 0
    return run


def test_every_candidate_was_trained_on_the_same_folds_and_the_choice_has_a_reason(chosen: Path) -> None:
    choice = read_json(chosen / "choice.json")
    assert {c["name"] for c in choice["candidates"]} == {"3d", "2d", "3d+2d"}
    assert choice["reason"] and choice["rule"]
    cases = [(chosen / "candidates" / n / "scores.csv").read_text() for n in ("3d", "2d", "3d+2d")]
    judged = [{line.split(",")[0] for line in text.splitlines()[1:]} for text in cases]
    assert judged[0] == judged[1] == judged[2]
    flat = read_json(chosen / "candidates/2d/train/fold0/model/plan.json")["patch"]
    assert flat[2] == 1


def test_the_test_part_is_judged_once_and_by_the_chosen_one_alone(chosen: Path) -> None:
    choice = read_json(chosen / "choice.json")["chosen"]
    tested = {row.split(",")[0] for row in (chosen / "test/scores.csv").read_text().splitlines()[1:]}
    validated = {row.split(",")[0] for row in (chosen / "scores.csv").read_text().splitlines()[1:]}
    assert tested and not tested & validated
    for folder in (chosen / "candidates").iterdir():
        predicted = {p.name for p in (folder / "predict").iterdir()}
        assert bool(predicted & tested) == (folder.name == choice)
    assert len(read_json(chosen / "test/opened.json")) == 1
    assert "by cross-validation" in read_json(chosen / "summary.json")["facts"]["judged"]
    assert "2 folds" in read_json(chosen / "test/summary.json")["facts"]["judged"]


def test_the_run_folder_predicts_with_what_was_chosen(chosen: Path, tiny_msd: Path, tmp_path: Path) -> None:
    choice = read_json(chosen / "choice.json")["chosen"]
    folders = model_folders(chosen)
    assert {f.relative_to(chosen).parts[1] for f in folders} == set(choice.split("+"))
    image = next((tiny_msd / "imagesTr").glob("*.nii.gz"))
    assert main(["predict", str(chosen / "final/model"), str(image), str(tmp_path / "out"), "--quiet"]) == 0
    report = read_json(tmp_path / "out/report.json")
    assert len(report["model"]["models"]) == len(folders)


def test_mask_steps_are_carried_with_the_models(chosen: Path, tmp_path: Path) -> None:
    import shutil

    copy = Path(shutil.copytree(chosen / "final/model", tmp_path / "carried"))
    final = read_json(copy / "final.json")
    assert chosen_with(copy) == chosen_with(chosen)
    assert chosen_with(copy)[0] == open_models(copy, "cpu").postprocessing
    final["postprocessing"] = {"steps": [{"step": "keep_largest"}]}
    final["prediction"] = {"turn_deg": 8}
    (copy / "final.json").write_text(json.dumps(final))
    models = open_models(copy, "cpu")
    assert models.postprocessing.steps[0].step == "keep_largest"
    assert models.prediction == Prediction(turn_deg=8)


def test_candidates_need_folds_and_names_that_are_known(tiny_msd: Path, tmp_path: Path, capsys) -> None:
    assert train(tiny_msd, tmp_path / "a", "candidates=3d,2d", "split.folds=1") == 2
    assert "single fold" in capsys.readouterr().err
    assert train(tiny_msd, tmp_path / "b", "candidates=3d,2dd") == 2
    assert "did you mean '2d'" in capsys.readouterr().err


def test_candidates_are_written_as_names_or_with_choices_of_their_own() -> None:
    listed = load_config(TrainSettings, None, ["candidates=[3d, 2d, 3d+2d ensemble]"])
    assert list(listed.candidates) == ["3d", "2d", "3d+2d"]
    own = load_config(TrainSettings, None, ["candidates.wide.network_arguments.widths=[8,16]"])
    assert own.candidates == {"wide": {"network_arguments": {"widths": [8, 16]}}}
    with pytest.raises(MedsegError):
        load_config(TrainSettings, None, ["candidates.wide=3"])


REGIONS = "cohort.labels={all: [1, 2, 3], two: [2, 3], lesion: [3]}"


@pytest.mark.parametrize(("folds", "words"), [(1, ()), (2, (REGIONS,))])
def test_a_cascade_is_trained_on_answers_of_networks_that_had_not_seen_the_case(
    tiny_msd: Path, tmp_path: Path, folds: int, words: tuple[str, ...]
) -> None:
    run = tmp_path / "run"
    assert train(tiny_msd, run, "plan.cascade=true", f"split.folds={folds}", *words) == 0
    model = run / "train/fold0/model"
    assert (model / "first/weights.safetensors").is_file()
    assert read_json(model / "plan.json")["cascade"] is not None
    assert read_json(model / "first/plan.json")["cascade"] is None
    for record in run.glob("answer/*/record.json"):
        case, inputs = record.parent.name, read_json(record)["inputs"]
        answered = {inputs[f"item.{n}"] for n in range(2, len([k for k in inputs if k.startswith("item.")]))}
        inner = run / ("first" if folds > 1 else "first/inner") / "train"
        unseen = [f for f in inner.iterdir() if f"item.{case}" not in read_json(f / "record.json")["inputs"]]
        assert len(answered) == len(unseen) == 1
    assert (run / "scores.csv").is_file()


def test_a_threshold_of_a_recipe_makes_its_masks_and_is_carried(tiny_msd: Path, tmp_path: Path) -> None:
    from medseg.imaging.image import read_mask
    from medseg.imaging.masks import Postprocessing

    run = tmp_path / "run"
    assert train(tiny_msd, run, "split.folds=1", "postprocessing.thresholds.1=0.999") == 0
    assert open_models(run / "final/model", "cpu").postprocessing == Postprocessing(thresholds={1: 0.999})
    image = next((tiny_msd / "imagesTr").glob("*.nii.gz"))
    sizes = []
    for n, words in enumerate(([], ["postprocessing.thresholds.1=0.001"])):
        given = ["predict", str(run), str(image), str(tmp_path / f"out{n}"), *words, "--quiet"]
        assert main(given) == 0
        mask = read_mask(next((tmp_path / f"out{n}").glob("*.nii.gz")))
        sizes.append(int((mask.array == 1).sum()))
    assert sizes[0] == 0 < sizes[1]
    made = [read_mask(file) for file in run.glob("predict/*/mask.nii.gz")]
    assert made and not any((mask.array == 1).any() for mask in made)


def test_thresholds_are_tried_on_cases_not_trained_on_and_those_kept_make_the_masks(
    tiny_msd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from medseg.evaluation import choice_thresholds
    from medseg.imaging.image import read_mask

    decide, run = choice_thresholds.choose_thresholds, tmp_path / "run"

    def kept(tries, options, scoring, confidence):
        assert {row["option"] for row in tries} == {"0.5", *(option.said for option in options)}
        return decide(tries, options, scoring, confidence) | {"thresholds": {"1": 0.999}}

    monkeypatch.setattr(choice_thresholds, "choose_thresholds", kept)
    assert train(tiny_msd, run, "choosing.thresholds=[0.3,0.999]") == 0
    assert chosen_with(run)[0] == open_models(run / "final/model", "cpu").postprocessing
    assert open_models(run, "cpu").postprocessing.thresholds == {1: 0.999}
    scored = {row.split(",")[0] for row in (run / "scores.csv").read_text().splitlines()[1:]}
    assert {p.name for p in run.glob("try_thresholds/*") if p.is_dir()} == scored
    made = [read_mask(file) for file in run.glob("predict/*/mask.nii.gz")]
    assert len(made) == 8  # the test part too
    assert not any((mask.array == 1).any() for mask in made)
    assert read_json(run / "thresholds.json")["confidence_of_all"] == pytest.approx(0.975)
