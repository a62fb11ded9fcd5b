"""Judging: bars at the interval's bad end, folders of masks, exit codes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from medseg.cli import main
from medseg.core.errors import MedsegError
from medseg.workflows.acceptance import Criterion, verdicts
from medseg.workflows.judging import compare, evaluate

SUMMARY = {
    "labels": {
        "liver": {
            "dice": {"mean": 0.9, "mean_ci": [0.85, 0.95]},
            "hd95": {"mean": 4.0, "mean_ci": [3.0, 6.0]},
        }
    },
    "mean_over_labels": {
        "dice": {"mean": 0.9, "mean_ci": None},
        "hd95": {"mean": 4.0, "mean_ci": [3.0, 6.0]},
    },
}


@pytest.mark.parametrize(
    ("criterion", "value", "passed"),
    [
        (Criterion(label="liver", metric="dice", at_least=0.84), 0.85, True),
        (Criterion(label="liver", metric="dice", at_least=0.88), 0.85, False),
        (Criterion(label="liver", metric="dice", at_least=0.88, judged_at="mean"), 0.9, True),
        (Criterion(label="liver", metric="hd95", at_most=5.0), 6.0, False),
        (Criterion(label="mean", metric="hd95", at_most=5.0, judged_at="mean"), 4.0, True),
        (Criterion(label="mean", metric="dice", at_least=0.9), 0.9, True),
    ],
)
def test_a_bar_is_judged_at_the_bad_end(criterion: Criterion, value: float, passed: bool) -> None:
    (verdict,) = verdicts(SUMMARY, [criterion])
    assert (verdict["value"], verdict["passed"]) == (value, passed)


def test_a_bar_for_what_was_not_measured_is_an_error() -> None:
    with pytest.raises(MedsegError, match="was not measured"):
        verdicts(SUMMARY, [Criterion(label="spleen", metric="dice", at_least=0.5)])


@pytest.fixture
def folders(tiny_msd: Path, tmp_path: Path) -> tuple[Path, Path]:
    """The references, and a copy of them as predictions."""
    return Path(shutil.copytree(tiny_msd / "labelsTr", tmp_path / "pred")), tiny_msd / "labelsTr"


def test_equal_folders_score_one_and_exit_zero(folders: tuple[Path, Path], tmp_path: Path) -> None:
    done = evaluate(*folders, tmp_path / "out", quiet=True)
    assert done.exit_code == 0
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert summary["mean_over_labels"]["dice"]["mean"] == 1
    assert (tmp_path / "out/report/index.html").is_file()


def test_a_missing_prediction_counts_and_is_named(folders: tuple[Path, Path], tmp_path: Path) -> None:
    gone = sorted(folders[0].glob("*.nii.gz"))[0]
    gone.unlink()
    done = evaluate(*folders, tmp_path / "out", quiet=True)
    assert done.exit_code == 3
    assert gone.name.removesuffix(".nii.gz") in done.text
    cell = json.loads((tmp_path / "out/summary.json").read_text())["labels"]
    assert all(label["dice"]["status"]["not_predicted"] == 1 for label in cell.values())
    assert all(label["dice"]["min"] == 0 for label in cell.values())


def test_two_score_tables_are_compared_case_by_case(folders: tuple[Path, Path], tmp_path: Path) -> None:
    evaluate(*folders, tmp_path / "a", quiet=True)
    done = compare(tmp_path / "a", tmp_path / "a" / "scores.csv", tmp_path / "c")
    assert done.exit_code == 0
    assert (tmp_path / "c" / "compare.json").is_file()


def test_choices_of_the_measurement_come_from_the_command_line(tmp_path):
    """A region, an ignored value, lesions and a second reader, all at the verb."""
    from medseg.cli import main
    from medseg.imaging.grid import Grid
    from medseg.imaging.image import Image, write_image

    grid = Grid.from_spacing((12, 12, 12))
    for folder, shift in (("ref", 0), ("pred", 1), ("second", 0)):
        (tmp_path / folder).mkdir()
        for n in range(4):
            array = np.zeros((1, 12, 12, 12), np.uint8)
            array[0, 2 + shift : 6 + shift, 2:6, 2:6] = 1
            array[0, 2 + shift : 6 + shift, 7:9, 2:6] = 2
            array[0, :, :, 10] = 9
            write_image(Image(array, grid), tmp_path / folder / f"case{n}.nii.gz")
    words = ["--labels", "a=1,b=2,both=1+2", "ignore=9", "metrics=[dice,lesion_f1]", "lesions.iou=0.4"]
    readers = ["--reader", f"second={tmp_path / 'second'}", "--quiet"]
    folders = [str(tmp_path / name) for name in ("pred", "ref", "out")]
    assert main(["evaluate", *folders, *words, *readers]) == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["labels"]["both"]["dice"]["mean"] == pytest.approx(0.75)
    assert summary["labels"]["a"]["lesion_f1"]["mean"] == 1
    assert "readers" in summary
    assert main(["evaluate", *folders, "--reader", "second"]) == 2
    assert (
        main(
            [
                "compare",
                str(tmp_path / "out"),
                str(tmp_path / "out"),
                str(tmp_path / "c"),
                "margins.dice=0.02",
            ]
        )
        == 0
    )


def test_cases_that_a_reader_marked_fail_are_not_measured(tiny_msd, tmp_path, capsys):
    cases = sorted(file.name.removesuffix(".nii.gz") for file in (tiny_msd / "labelsTr").glob("*.nii.gz"))
    marks = tmp_path / "marks.yaml"
    marks.write_text(f"format: medseg-marks\nversion: 1\nmarks:\n  - {{case: {cases[0]}, mark: fail}}\n")
    folder = str(tiny_msd / "labelsTr")
    words = ["evaluate", folder, folder, str(tmp_path / "out"), "metrics=[dice]", "repeats=100", "--quiet"]
    assert main([*words, f"marks={marks}"]) == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["cases"] == len(cases) - 1
    assert summary["facts"]["excluded by review"] == [cases[0]]
    assert "excluded by review" in (tmp_path / "out" / "report" / "index.html").read_text()
    marks.write_text("format: medseg-marks\nversion: 1\nmarks:\n  - {case: nobody, mark: fail}\n")
    assert main([*words, f"marks={marks}"]) == 2
    assert "name none of these cases" in capsys.readouterr().err


def test_marks_count_for_class_tables_too(tmp_path):
    truth = "case,class\na,x\nb,y\nc,x\nd,y\n"
    (tmp_path / "ref.csv").write_text(truth)
    (tmp_path / "pred.csv").write_text(truth.replace("c,x", "c,y"))
    (tmp_path / "marks.yaml").write_text(
        "format: medseg-marks\nversion: 1\nmarks:\n  - {case: c, mark: fail}\n"
    )
    words = ["evaluate", str(tmp_path / "pred.csv"), str(tmp_path / "ref.csv"), str(tmp_path / "out")]
    assert main([*words, f"marks={tmp_path / 'marks.yaml'}", "repeats=100", "--quiet"]) == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (summary["cases"], summary["mean_over_labels"]["accuracy"]["mean"]) == (3, 1.0)
