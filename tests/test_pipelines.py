"""Every pipeline script is run as a user runs it."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import QUICK

PROJECT = Path(__file__).resolve().parents[1]


def run_script(name: str, *words: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run ``pipelines/<name>`` in `folder`."""
    command = [sys.executable, str(PROJECT / "pipelines" / name), *map(str, words)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def table(file: Path) -> list[dict[str, str]]:
    """The rows of a CSV file."""
    return list(csv.DictReader(file.read_text(encoding="utf-8").splitlines()))


@pytest.fixture(scope="module")
def trained(tiny_msd: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of ``train_segmentation.py`` on tiny phantoms."""
    folder = tmp_path_factory.mktemp("pipelines")
    recipe = PROJECT / "configs" / "segmentation" / "hippocampus_3d.yaml"
    words = [recipe, f"cohort.root={tiny_msd}", "cohort.format=msd", *QUICK, "--run", "runs/seg"]
    done = run_script("train_segmentation.py", *words, folder=folder)
    assert done.returncode == 0, done.stderr
    return folder / "runs" / "seg"


def test_all_five_scripts_are_here_and_tested() -> None:
    names = {file.name for file in (PROJECT / "pipelines").glob("*.py")}
    assert names == {
        "ingest.py", "train_segmentation.py", "train_classifier.py", "predict.py", "validate.py",
    }  # fmt: skip


def test_ingest_leaves_a_folder_a_case_and_a_table(tiny_msd: Path, tmp_path: Path) -> None:
    done = run_script("ingest.py", f"cohort.root={tiny_msd}", "--run", "runs/x", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = table(tmp_path / "runs/x/ingest.csv")
    assert [row["status"] for row in rows] == ["taken"] * 8
    assert len(list((tmp_path / "runs/x/ingest").glob("*/image.nii.gz"))) == 8


def test_training_leaves_everything_the_contract_names(trained: Path) -> None:
    assert (trained / "plan.yaml").is_file()
    assert (trained / "train/fold0/model/weights.safetensors").is_file()
    rows = table(trained / "scores.csv")
    assert set(rows[0]) == {"case", "patient", "label", "metric", "value", "unit", "status"}
    summary = json.loads((trained / "summary.json").read_text())
    assert summary["cases"] == len({row["case"] for row in rows}) == 2
    assert "<html" in (trained / "report/index.html").read_text()


def test_predicting_by_script_writes_masks_and_a_report(
    trained: Path, tiny_msd: Path, tmp_path: Path
) -> None:
    image = next((tiny_msd / "imagesTr").glob("*.nii.gz"))
    words = [f"model={trained}", f"src={image}", "out=masks"]
    done = run_script("predict.py", *words, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "masks/report.json").read_text())
    assert report["counts"] == {"predicted": 1}
    assert (tmp_path / "masks" / image.name).is_file()


def test_validating_by_script_fails_below_the_bar_and_passes_above(
    trained: Path, tiny_msd: Path, tmp_path: Path
) -> None:
    words = [f"model={trained}", f"cohort.root={tiny_msd}", "--run", "runs/v"]
    low = "accept=[{metric: dice, at_least: 0.0}]"
    high = "accept=[{metric: dice, at_least: 0.999}]"
    passed = run_script("validate.py", *words, low, folder=tmp_path)
    failed = run_script("validate.py", *words, high, folder=tmp_path)
    assert (passed.returncode, failed.returncode) == (0, 1), passed.stderr + failed.stderr
    assert "PASS" in passed.stdout
    assert "FAIL" in failed.stdout
    assert json.loads((tmp_path / "runs/v/acceptance.json").read_text())["passed"] is False


def test_the_classifier_script_trains_and_scores(tiny_classes: Path, tmp_path: Path) -> None:
    recipe = PROJECT / "configs" / "classification" / "volumes_3d.yaml"
    words = [recipe, f"cohort.root={tiny_classes}", "training.epochs=1", "training.steps_per_epoch=2"]
    done = run_script("train_classifier.py", *words, "--run", "runs/c", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "runs/c/summary.json").read_text())
    assert summary["cases"] > 0
