"""Marks of a report leave cases out of the next run, or name those that wait for a correction."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from medseg.cli import main
from medseg.core.config import load_config
from medseg.core.errors import MedsegError
from medseg.data.cohort import Cohort
from medseg.data.review import EXCLUDED, read_marks, reviewed
from medseg.imaging.grid import Grid
from medseg.imaging.image import Image, write_image
from medseg.workflows.opening import open_cohort
from medseg.workflows.settings import CohortSettings

TEXT = """format: medseg-marks
version: 1
report: "abc"
marks:
  - case: "a1"
    mark: fail
    note: "wrong \\"side\\": ${oops}"
  - case: "a2"
    mark: fix
  - case: "a3"
    mark: pass
  - case: "a4"
    mark: none
    note: "only a note"
"""


@pytest.fixture
def folder(tmp_path):
    grid = Grid.from_spacing((8, 8, 8))
    for name in ("a1", "a2", "a3"):
        image = Image(np.random.default_rng(0).normal(size=(1, 8, 8, 8)).astype(np.float32), grid)
        mask = Image(np.pad(np.ones((1, 4, 4, 4), np.uint8), ((0, 0), (2, 2), (2, 2), (2, 2))), grid)
        for place, what in (("imagesTr", image), ("labelsTr", mask)):
            (tmp_path / "set" / place).mkdir(parents=True, exist_ok=True)
            write_image(what, tmp_path / "set" / place / f"{name}.nii.gz")
    (tmp_path / "marks.yaml").write_text(TEXT)
    return tmp_path


def test_marks_are_read_without_their_notes(tmp_path):
    (tmp_path / "marks.yaml").write_text(TEXT)
    assert read_marks(tmp_path / "marks.yaml") == {"a1": "fail", "a2": "fix", "a3": "pass"}


@pytest.mark.parametrize(
    "text",
    ["", "- 1", "format: other\nversion: 1", "a: [", TEXT.replace("a2", "a1"), TEXT.replace("fail", "gone")],
)
def test_what_is_no_file_of_marks_is_refused(tmp_path, text):
    (tmp_path / "marks.yaml").write_text(text)
    with pytest.raises(MedsegError):
        read_marks(tmp_path / "marks.yaml")


def test_a_failed_case_is_left_out_with_its_reason_and_one_to_fix_is_named(folder, caplog, monkeypatch):
    words = [f"root={folder / 'set'}", "format=nifti", "ids=names", f"marks={folder / 'marks.yaml'}"]
    settings = load_config(CohortSettings, None, words)
    monkeypatch.setattr(logging.getLogger("medseg"), "propagate", True)
    with caplog.at_level(logging.WARNING, "medseg"):
        cohort = open_cohort(settings, quiet=True)
    assert [case.id for case in cohort.cases] == ["a2", "a3"]
    assert [(r.case, r.status, r.reason) for r in cohort.refused] == [("a1", "skipped", EXCLUDED)]
    assert "a2" in caplog.text


def test_the_same_marks_work_from_the_command_line(folder):
    marks = f"cohort.marks={folder / 'marks.yaml'}"
    call = ["ingest", str(folder / "set"), marks, "ids=names", "--run", str(folder / "run"), "--quiet"]
    assert main(call) == 0
    rows = (folder / "run" / "ingest.csv").read_text()
    assert EXCLUDED in rows
    assert not (folder / "run" / "ingest" / "a1").exists()
    assert (folder / "run" / "ingest" / "a2").is_dir()


def test_marks_of_other_cases_are_refused_and_no_marks_change_nothing(folder):
    cohort = Cohort.from_nifti(folder / "set", quiet=True, ids="names")
    assert reviewed(cohort, {}) == cohort
    with pytest.raises(MedsegError, match="no case of this cohort"):
        reviewed(cohort, {"b9": "fail"})
