"""The whole road on phantoms: what lies on disk at the end, and the story in Python."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest

import medseg as ms
from medseg.workflows.opening import open_cohort
from medseg.workflows.settings import CohortSettings, TrainSettings


def test_every_room_of_the_run_folder_is_filled(tiny_run: Path) -> None:
    stages = {p.name for p in tiny_run.iterdir() if p.is_dir()}
    before = {"ingest", "audit", "fingerprint", "prepare", "train"}
    assert stages >= before | {"predict", "postprocess", "score", "report", "export"}
    assert not list(tiny_run.rglob("*.partial"))
    for record in tiny_run.rglob("record.json"):
        content = json.loads(record.read_text())
        assert {"stage", "version", "key", "inputs", "outputs", "seconds"} <= set(content)


def test_the_test_part_is_planned_and_trained_without(tiny_run: Path) -> None:
    judged = {row["case"] for row in csv.DictReader((tiny_run / "scores.csv").read_text().splitlines())}
    for stage in ("fingerprint", "prepare"):
        assert not judged & {p.name for p in (tiny_run / stage).iterdir()}
    assert judged == {p.name for p in (tiny_run / "export").iterdir()}


def test_the_objects_of_the_recipe_are_written_for_each_case_judged(tiny_run: Path) -> None:
    for folder in (tiny_run / "export").iterdir():
        made = {file.name.removeprefix(f"{folder.name}.") for file in folder.glob("*.dcm")}
        assert made == {"rtstruct.dcm", "seg.dcm", "sr.dcm"}  # a report needs its segments


def test_nothing_in_a_run_names_a_patient_a_path_or_a_date(tiny_run: Path, tiny_dicom: Path) -> None:
    import pydicom

    header = pydicom.dcmread(next(tiny_dicom.glob("*/ct/*.dcm")), stop_before_pixels=True)
    secrets = [str(header.PatientName), str(header.PatientID), str(header.StudyInstanceUID), str(tiny_dicom)]
    for file in tiny_run.rglob("*"):
        if not file.is_file() or (file.suffix == ".dcm" and file.parent.parent.name == "export"):
            continue
        content = file.read_bytes()
        found = [s for s in secrets if len(s) > 3 and s.encode() in content]
        assert not found, f"{file.relative_to(tiny_run)} holds an identifier"


def test_the_plan_is_a_page_with_a_reason_for_each_choice(tiny_run: Path) -> None:
    text = (tiny_run / "plan.yaml").read_text()
    for choice in ("spacing_mm", "patch", "batch", "intensity", "network"):
        assert re.search(rf"^# [^\n]+\n{choice}:", text, re.MULTILINE), choice


def test_a_misspelt_loss_is_refused_before_preparation(tiny_msd: Path, tmp_path: Path, capsys) -> None:
    from medseg.cli import main

    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"name: x\ncohort: {{root: '{tiny_msd}', format: msd}}\ntraining: {{epochs: 1}}\n")
    words = ["train", str(recipe), "training.loss=tverski", "--run", str(tmp_path / "run"), "--quiet"]
    assert main(words) == 2
    assert "did you mean 'tversky'" in capsys.readouterr().err
    assert (tmp_path / "run/plan.yaml").is_file() and not (tmp_path / "run/prepare").exists()


def test_the_story_in_python_is_short_and_runs(tiny_msd: Path, tmp_path: Path) -> None:
    cohort = ms.Cohort.from_msd(tiny_msd)
    run = ms.Run(tmp_path / "runs" / "story", quiet=True)
    raw = ms.ingest_all(run, cohort)
    plan = ms.make_plan(run, raw, network_arguments={"widths": (4, 8), "strides": ((1, 1, 1), (2, 2, 2))})
    plan = plan.but(patch=(32, 32, 16))
    training = ms.Training(epochs=1, steps_per_epoch=2)
    scores = ms.cross_validate(run, cohort, plan, training, folds=2, device="cpu")
    assert set(scores.summary()["labels"]) == {"liver", "spleen", "lesion"}
    assert len({row["case"] for row in scores.rows}) == len(cohort)
    image = ms.read_image(next((tiny_msd / "imagesTr").glob("*.nii.gz")))
    assert scores.models[0].segment(image).grid.matches(image.grid)


def test_a_recipe_without_images_says_what_to_add() -> None:
    with pytest.raises(ms.MedsegError, match="does not say where the images are"):
        open_cohort(CohortSettings())


def test_a_recipe_for_another_task_is_refused(tiny_classes: Path) -> None:
    with pytest.raises(ms.MedsegError, match="for classification"):
        open_cohort(CohortSettings(root=str(tiny_classes)), "segmentation")


def test_the_networks_of_a_fold_are_averaged(tiny_msd: Path, tmp_path: Path) -> None:
    from medseg.learning.model import open_models
    from medseg.learning.tracking import Tracking

    cohort = ms.Cohort.from_msd(tiny_msd)
    run = ms.Run(tmp_path / "runs" / "members", quiet=True)
    raw = ms.ingest_all(run, cohort)
    plan = ms.make_plan(run, raw, network_arguments={"widths": (4, 8), "strides": ((1, 1, 1), (2, 2, 2))})
    training = ms.Training(epochs=1, steps_per_epoch=1, members=2)
    off = Tracking(enabled=False)
    scores = ms.cross_validate(run, cohort, plan, training, folds=2, device="cpu", tracking=off)
    assert {p.name for p in (run.root / "train").iterdir()} == {"fold0-1", "fold0-2", "fold1-1", "fold1-2"}
    members = open_models(run.root).members
    assert len({m.about["weights_sha256"] for m in members}) == len(members) == 4
    assert [len(fold.members) for fold in scores.models] == [2, 2]


def test_a_recipe_that_keeps_no_case_to_judge_ends_in_models_alone(tiny_msd: Path, tmp_path: Path) -> None:
    from medseg.learning.model import open_models
    from medseg.workflows.training import train

    given = {
        "cohort": {"root": str(tiny_msd), "format": "msd"},
        "split": {"test": 0, "folds": 1},
        "plan": {"network_arguments": {"widths": (4, 8)}, "patch": (16, 16, 8), "memory_gb": 4},
        "training": {"epochs": 1, "steps_per_epoch": 1, "batch": 1},
        "tracking": {"enabled": False},
    }
    run = ms.Run(tmp_path / "run", quiet=True)
    outcome = train(TrainSettings.model_validate(given), run, "cpu")
    assert outcome.exit_code == 0
    assert "trained on 8 cases; none was judged" in outcome.text
    assert len(open_models(run.root).members) == 1
    assert not (run.root / "scores.csv").exists()
