"""medseg ingest: settings, selection and the dry run that writes nothing."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
import sys
from pathlib import Path

import pytest

from medseg.cli import main
from medseg.core.files import files_below, read_json
from medseg.imaging.image import write_image
from tests.data.conftest import box, noise
from tests.data.test_selection import SAGITTAL, write_series

RULES = """
modality: MR
channels:
  t1: {description: t1}
  flair: {description: "*flair*"}
"""


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """T1, FLAIR on another grid, and a map, each a folder, in a study folder."""
    root = tmp_path / "archive"
    write_series(root, "t1 mprage", SeriesNumber=1)
    write_series(root, "ax FLAIR", SAGITTAL, SeriesNumber=2)
    write_series(root, "map", SeriesNumber=3, ImageType=["DERIVED", "SECONDARY"])
    return root


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    (tmp_path / "rules.yaml").write_text(RULES)
    return tmp_path / "rules.yaml"


def state_of(folder: Path) -> dict[str, str]:
    files = files_below(folder)
    return {str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def table(run: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((run / "ingest.csv").read_text().splitlines()))


def test_a_dry_run_shows_every_series_and_writes_nothing(
    study: Path,
    rules: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    before = state_of(tmp_path)
    assert (
        main(["ingest", str(study), "--select", str(rules), "--dry-run", "--run", str(tmp_path / "run")]) == 0
    )
    said = capsys.readouterr()
    assert state_of(tmp_path) == before and not (tmp_path / "runs").exists()
    lines = said.out.splitlines()
    assert sum("rule t1: taken; rule flair: description does not match" in line for line in lines) == 1
    assert sum("rule flair: taken; rule t1: description does not match" in line for line in lines) == 1
    assert any("12 x 10 x 8" in line and "sagittal" in line for line in lines)
    assert "2 taken, 1 skipped, 0 refused; nothing was written" in lines[-1]
    assert not any(text in said.out + said.err for text in ("mprage", "FLAIR", "Muster"))


@pytest.mark.parametrize("how", ["asked", "terminal", "json"])
def test_descriptions_are_shown_to_a_person_alone(
    study: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    if how != "asked":
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    words = {"asked": ["--show-text"], "terminal": [], "json": ["--json"]}[how]
    assert main(["ingest", str(study), "--dry-run", *words]) == 0
    assert ("t1 mprage" in capsys.readouterr().out) == (how != "json")


def test_a_dry_run_in_json_is_rows(
    study: Path, rules: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ingest", str(study), "--select", str(rules), "--dry-run", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["counts"] == {"taken": 2, "skipped": 1, "refused": 0}
    taken = {row["channel"]: row for row in told["rows"] if row["status"] == "taken"}
    assert set(taken) == {"t1", "flair"}
    assert taken["t1"]["case"] == taken["flair"]["case"] != ""
    assert taken["t1"]["spacing_mm"] == [1, 1, 4] and taken["t1"]["orientation"] == "axial"
    assert taken["flair"]["verdicts"] == {"t1": "description does not match", "flair": "taken"}


def test_a_dry_run_of_other_images_shows_what_cases_are_called(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("case_1", "Muster_Hans"):
        write_image(noise(len(name)), tmp_path / "images" / f"{name}.nii.gz")
        write_image(box(), tmp_path / "labels" / f"{name}.nii.gz")
    (tmp_path / "labels" / "case_9.nii.gz").write_bytes(b"")
    assert main(["ingest", str(tmp_path), "--dry-run"]) == 3
    said = capsys.readouterr().out
    assert "case_1" in said and "case-" in said and "Muster" not in said
    assert "2 taken, 0 skipped, 1 refused" in said
    assert main(["ingest", str(tmp_path), "--dry-run", "--show-text"]) == 3
    assert "Muster_Hans.nii.gz" in capsys.readouterr().out


def test_selected_channels_are_aligned_when_asked(study: Path, rules: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = ["ingest", str(study), "--select", str(rules), "--run", str(run), "--quiet"]
    assert main(words) == 2, "no case came through"
    assert "ingest.align=true" in next(row["reason"] for row in table(run) if row["status"] == "refused")
    assert main([*words, "ingest.align=true"]) == 0
    (folder,) = (run / "ingest").iterdir()
    assert {f.name for f in folder.iterdir()} >= {"image_t1.nii.gz", "image_flair.nii.gz"}
    assert any("resampled onto the grid of t1" in note for note in read_json(folder / "source.json")["notes"])
    states = [(row["status"], row["case"]) for row in table(run)]
    assert states.count(("taken", folder.name)) == 2 and len(states) == 3
    assert "not selected: rule t1: description does not match" in table(run)[-1]["reason"]


def test_rules_may_be_given_as_overrides_alone_or_on_top_of_a_file(study: Path, tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text("modality: MR\ndescription: t1\n")
    common = ["--quiet", "--run"]
    assert main(["ingest", str(study), "select.description=flair", *common, str(tmp_path / "a")]) == 0
    words = ["--select", str(tmp_path / "one.yaml"), "select.description=map"]
    assert main(["ingest", str(study), *words, *common, str(tmp_path / "b")]) == 0
    for run in ("a", "b"):
        states = sorted(row["status"] for row in table(tmp_path / run))
        assert states == ["skipped", "skipped", "taken"]


def test_overrides_reach_reading_and_naming(tmp_path: Path) -> None:
    write_image(noise(1), tmp_path / "images" / "Muster.nii.gz")
    write_image(box(value=0.7, kind=float), tmp_path / "labels" / "Muster.nii.gz")
    words = ["ingest", str(tmp_path), "--labels", "organ=1", "--quiet", "--run"]
    assert main([*words, str(tmp_path / "a")]) == 2
    assert main([*words, str(tmp_path / "b"), "ingest.label_threshold=0.5", "cohort.ids=names"]) == 0
    assert (tmp_path / "b/ingest/Muster/reference.nii.gz").is_file()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["dicom.tlt=shear"], "did you mean 'tilt'"),
        (["ingest.algin=true"], "did you mean 'align'"),
        (["select.modalty=MR"], "did you mean 'modality'"),
        (["--select", "no/such.yaml"], "no such configuration file"),
        (["ids=all"], "ids"),
    ],
    ids=str,
)
def test_settings_that_are_not_known_are_usage_errors(
    study: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ingest", str(study), *words, "--dry-run"]) == 2
    assert said in capsys.readouterr().err


def test_a_run_is_not_named_after_a_person(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("Muster_Hans", "study_7"):
        shutil.copytree(study, tmp_path / name)
        assert main(["ingest", name, "select.description=t1", "--quiet"]) == 0
    assert {f.name for f in (tmp_path / "runs").iterdir()} == {"cohort", "study_7"}


def test_a_prediction_takes_the_series_that_are_selected(
    study: Path, tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["predict", str(tiny_run), str(study), str(tmp_path / "out"), "--device", "cpu", "--json"]
    assert main([*words, "select.description=flair"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["cases"]
    assert main(["ingest", str(study), "--dry-run", "--json", "select.description=flair"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [r["series"] for r in rows if r["status"] == "taken"] == [row["case"]]
