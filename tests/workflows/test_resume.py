"""Nothing is done twice: killed trainings go on, finished runs are kept, one changed case costs one case."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from medseg.core.files import sha256_of
from medseg.imaging.image import read_image, write_image

PROJECT = Path(__file__).resolve().parents[2]
RECIPE = PROJECT / "configs" / "segmentation" / "hippocampus_3d.yaml"
LONG = (
    "training.budget_minutes=null",
    "training.epochs=20",
    "training.steps_per_epoch=4",
    "training.monitor_every=0.08",
    "training.checkpoint_seconds=0",
    "plan.network_arguments.widths=[4,8]",
    "plan.network_arguments.strides=[[1,1,1],[2,2,2]]",
    "scoring.repeats=100",
    "tracking.enabled=false",
)


def command(data: Path, run: Path) -> list[str]:
    """The command a user types, with a training that takes a few seconds."""
    words = ["train", str(RECIPE), f"cohort.root={data}", *LONG, "--run", str(run)]
    return [sys.executable, "-m", "medseg.cli", *words]


def carry_out(data: Path, run: Path) -> str:
    """Run the command to its end; gives what it said."""
    done = subprocess.run(command(data, run), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stderr


def kill_after_first_checkpoint(data: Path, run: Path) -> None:
    """``kill -9`` as soon as a checkpoint is there."""
    process = subprocess.Popen(command(data, run), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(run.glob("train/.fold0.partial/checkpoint/*")):
        assert process.poll() is None, "the training ended before it could be killed"
        assert time.monotonic() < deadline, "no checkpoint within two minutes"
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


@pytest.fixture
def data(tiny_msd: Path, tmp_path: Path) -> Path:
    """A copy of the phantoms that may be changed."""
    return Path(shutil.copytree(tiny_msd, tmp_path / "data"))


def brighten(data: Path, case: str) -> None:
    """Change the image of one case a little."""
    file = data / "imagesTr" / f"{case}.nii.gz"
    image = read_image(file)
    write_image(image.but(image.array + 1), file)


def test_a_killed_training_goes_on_and_ends_with_the_same_weights(data: Path, tmp_path: Path) -> None:
    kill_after_first_checkpoint(data, tmp_path / "killed")
    said = carry_out(data, tmp_path / "killed")
    assert "resumed" in said
    carry_out(data, tmp_path / "whole")
    weights = "train/fold0/model/weights.safetensors"
    assert sha256_of(tmp_path / "killed" / weights) == sha256_of(tmp_path / "whole" / weights)


def test_a_finished_run_run_again_makes_nothing(data: Path, tmp_path: Path) -> None:
    carry_out(data, tmp_path / "run")
    before = {f: f.stat().st_mtime_ns for f in (tmp_path / "run").rglob("*") if f.is_file()}
    said = carry_out(data, tmp_path / "run")
    made = [line for line in said.splitlines() if " made, " in line and " 0 made, " not in line]
    assert made == []
    after = {f: f.stat().st_mtime_ns for f in (tmp_path / "run").rglob("*") if f.is_file()}
    untouched = {f for f in before if before[f] == after.get(f)}
    assert {f.relative_to(tmp_path / "run").parts[0] for f in set(before) - untouched} <= {
        "scores.csv", "summary.json", "plan.yaml", "ingest.csv",
    }  # fmt: skip


def test_one_changed_test_case_is_redone_alone_and_the_reason_is_said(data: Path, tmp_path: Path) -> None:
    carry_out(data, tmp_path / "run")
    cohort = json.loads((tmp_path / "run/summary.json").read_text())
    judged = cohort["labels"]["liver"]["dice"]["worst"]["case"]
    brighten(data, judged)
    said = carry_out(data, tmp_path / "run")
    assert f"again: {judged} (changed: item)" in said
    for stage, made in (("ingest", 1), ("fingerprint", 0), ("prepare", 0), ("train", 0), ("predict", 1)):
        assert any(line.split()[:2] == [stage, str(made)] for line in said.splitlines()), said


def test_one_changed_training_case_trains_again_and_says_which(data: Path, tmp_path: Path) -> None:
    carry_out(data, tmp_path / "run")
    trained = sorted(p.name for p in (tmp_path / "run/prepare").iterdir() if not p.name.startswith("."))
    brighten(data, trained[0])
    said = carry_out(data, tmp_path / "run")
    for stage, made in (("ingest", 1), ("prepare", 1), ("train", 1)):
        assert any(line.split()[:2] == [stage, str(made)] for line in said.splitlines()), said
    assert trained[0] in said
