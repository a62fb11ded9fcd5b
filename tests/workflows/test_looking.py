"""What ``medseg plan`` takes, refuses and shows."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import get_args

import pytest

import medseg as ms
from medseg.cli import main
from medseg.data.overrides import sorted_out
from medseg.learning import estimate
from medseg.learning.settings import Precision
from medseg.workflows.looking import in_words, plan
from medseg.workflows.opening import open_cohort, words_of_cohort
from medseg.workflows.settings import CohortSettings, TrainSettings


@pytest.fixture(autouse=True)
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "seconds_per_step", lambda *_: 0.1)


@pytest.fixture
def two_channels(tiny_msd: Path, tmp_path: Path) -> Path:
    """Three cases of two images, a mask that is no label, and a reference."""
    images, labels = (sorted((tiny_msd / part).glob("*.nii.gz")) for part in ("imagesTr", "labelsTr"))
    for n in range(3):
        folder = tmp_path / "set" / f"case{n}"
        folder.mkdir(parents=True)
        for name in ("t1", "t2"):
            shutil.copy(images[n], folder / f"{name}.nii.gz")
        for name in ("brainmask", "label"):
            shutil.copy(labels[n], folder / f"{name}.nii.gz")
    return tmp_path / "set"


def test_the_mend_of_unclear_channels_is_one_that_plan_and_ingest_take(
    two_channels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["plan", str(two_channels), "--run", str(tmp_path / "run"), "--quiet", "--json"]
    assert main([*asked, "memory_gb=4", "patch=[16,16,8]"]) == 2
    said = capsys.readouterr().err
    word = next(part for part in said.split() if part.startswith("channels="))
    assert main([*asked, "memory_gb=4", "patch=[16,16,8]", word]) == 0
    assert json.loads(capsys.readouterr().out)["channels"] == ["t1", "t2"]
    assert main(["ingest", str(two_channels), word, "--run", str(tmp_path / "other"), "--quiet"]) == 0
    assert main(["plan", str(tmp_path / "run"), "channels=[t1]"]) == 2
    assert "comes too late" in capsys.readouterr().err


def test_words_of_the_cohort_are_told_from_choices() -> None:
    of_cohort = ["channels=[t1]", "dicom.tilt=shear", "cohort.ids=names"]
    others = ["patch=[8,8,8]", "training.epochs=2", "region=mask", "reference_=1"]
    assert words_of_cohort([*of_cohort, *others]) == (of_cohort, others)


def test_images_without_references_are_no_segmentation_to_plan_or_train(
    tiny_msd: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_msd / "imagesTr", tmp_path / "images")
    with pytest.raises(ms.MedsegError, match="no case has a reference"):
        open_cohort(CohortSettings(root=str(tmp_path / "images")), quiet=True)
    run = ms.Run(tmp_path / "run", quiet=True)
    with pytest.raises(ms.MedsegError, match="no case has a reference"):
        plan(tmp_path / "images", lambda: ms.Cohort.open(tmp_path / "images", quiet=True), run)


def test_a_cascade_can_be_asked_for_where_no_rule_does(tiny_msd: Path, tmp_path: Path) -> None:
    run, cohort = ms.Run(tmp_path / "run", quiet=True), ms.Cohort.from_msd(tiny_msd)
    small = ("patch=[16,16,8]", "memory_gb=4", "network_arguments={widths: [4, 8]}")
    outcome = plan(tiny_msd, lambda: cohort, run, (*small, "cascade=true"), "cpu")
    assert outcome.summary["cascade"]["spacing_mm"][0] > outcome.summary["spacing_mm"][0]
    assert "cascade:\n" in (run.root / "plan.yaml").read_text()


def test_epochs_that_are_named_count_beside_minutes_the_plan_is_for(tiny_msd: Path, tmp_path: Path) -> None:
    run, cohort = ms.Run(tmp_path / "run", quiet=True), ms.Cohort.from_msd(tiny_msd)
    length = ("epochs=3", "steps_per_epoch=20", "members=1", "budget_minutes=2", "rate_gflops=100")
    told = (*length, "patch=[16,16,8]", "memory_gb=4")
    assert plan(tiny_msd, lambda: cohort, run, told, "cpu").summary["expected"]["steps"] == 60


def test_refused_cases_show_in_the_exit_code(tiny_msd: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_msd, tmp_path / "set")
    next((tmp_path / "set" / "labelsTr").glob("*.nii.gz")).unlink()
    run = ms.Run(tmp_path / "run", quiet=True)
    told = ("memory_gb=4", "patch=[16,16,8]", "network_arguments={widths: [4, 8]}")
    outcome = plan(tmp_path / "set", lambda: ms.Cohort.from_msd(tmp_path / "set", quiet=True), run, told)
    assert outcome.exit_code == 3


def test_choices_are_shown_as_a_recipe_would_have_them() -> None:
    assert in_words({"foreground": 0.5, "label_weights": []}) == "{foreground: 0.5, label_weights: []}"
    assert in_words(None) == "none"
    assert in_words([1.0, 1.0, 2.5]) == "[1.0, 1.0, 2.5]"


def test_a_plan_can_be_made_for_every_number_format_of_a_training() -> None:
    for precision in get_args(Precision):
        settings = TrainSettings(training=ms.Training(precision=precision))
        assert sorted_out(settings.choices("cpu"))[0].precision == precision
