"""Odd files, odd labels and odd geometry in one folder, at the command line."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medseg.cli import main

SHAPE = (16, 16, 16)


def two_boxes() -> np.ndarray:
    array = np.zeros(SHAPE, np.uint8)
    array[2:6, 2:8, 2:8], array[9:13, 2:8, 2:8] = 1, 2
    return array


def save(file: Path, array: np.ndarray, affine: np.ndarray | None = None) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, np.eye(4) if affine is None else affine), file)


def flipped() -> np.ndarray:
    affine = np.diag([-1.0, 1, 1, 1])
    affine[0, 3] = 15
    return affine


def moved(by: float) -> np.ndarray:
    affine = np.eye(4)
    affine[0, 3] = by
    return affine


A = two_boxes()
WRAPPED = A.astype(np.int16)
WRAPPED[0, 0, 0] = 256 + 1
NAN = A.astype(np.float32)
NAN[0, 0, 0] = np.nan
MIXED = A.astype(np.float32)
MIXED[0] = 0.4
CASES = {
    "same": (A, None, (1.0, "ok")),
    "swapped": (np.choose(A, [0, 2, 1]).astype(np.uint8), None, (0.0, "ok")),
    "float": ((A * 0.99999994).astype(np.float32), None, (1.0, "ok")),
    "wrapped": (WRAPPED, None, (1.0, "ok")),
    "fourth_axis": (A[..., None], None, (1.0, "ok")),
    "empty": (np.zeros(SHAPE, np.uint8), None, (0.0, "missed")),
    "nan": (NAN, None, (None, "invalid")),
    "interpolated": (MIXED, None, (None, "invalid")),
    "negative": (np.where(A == 0, np.int16(-1), A.astype(np.int16)), None, (None, "invalid")),
    "origin": (A, moved(5.0), (None, "invalid")),
    "origin_float32": (A, moved(1e-5), (1.0, "ok")),
    "flip": (A, flipped(), (None, "invalid")),
    "shape": (A[:-1], None, (None, "invalid")),
    "permuted": (A, np.eye(4)[[1, 0, 2, 3]], (None, "invalid")),
}


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("audit")
    for name, (prediction, affine, _) in CASES.items():
        save(folder / "pred" / f"{name}.nii.gz", prediction, affine)
        save(folder / "ref" / f"{name}.nii.gz", A)
    words = [str(folder / name) for name in ("pred", "ref", "out")]
    assert main(["evaluate", *words, "--labels", "left=1,right=2,absent=5", "--quiet"]) == 3
    return folder / "out"


def test_every_case_has_the_value_and_status_that_is_right(out: Path) -> None:
    with (out / "scores.csv").open(newline="") as stream:
        rows = [r for r in csv.DictReader(stream) if (r["label"], r["metric"]) == ("left", "dice")]
    found = {r["case"]: (float(r["value"]) if r["value"] else None, r["status"]) for r in rows}
    assert found == {name: wanted for name, (_, _, wanted) in CASES.items()}


def test_nothing_is_dropped_and_an_absent_label_is_undefined(out: Path) -> None:
    labels = json.loads((out / "summary.json").read_text())["labels"]
    for cells in labels.values():
        assert sum(cells["dice"]["status"].values()) == len(CASES)
    assert labels["absent"]["dice"]["mean"] is None
    assert labels["left"]["dice"]["status"]["invalid"] == 7


def test_a_value_of_no_label_is_named_and_not_wrapped(out: Path) -> None:
    notes = json.loads((out / "summary.json").read_text())["notes"]
    assert any("wrapped" in note and "257 (1 voxels)" in note for note in notes)


def test_classes_given_as_several_in_one_cell_are_several(tmp_path: Path) -> None:
    (tmp_path / "ref.csv").write_text("case,class\na,x;y\nb,x\nc,;\nd,y\n")
    (tmp_path / "pred.csv").write_text("case,x,y\na,.9,.8\nb,.7,.2\nc,.1,.3\nd,.2,.9\n")
    words = [str(tmp_path / name) for name in ("pred.csv", "ref.csv", "out")]
    assert main(["evaluate", *words, "--quiet"]) == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert sorted(summary["labels"]) == ["x", "y"]
    assert summary["mean_over_labels"]["accuracy"]["mean"] == 1


def test_scores_that_are_no_probabilities_are_pointed_out(tmp_path: Path) -> None:
    (tmp_path / "ref.csv").write_text("case,class\n" + "".join(f"c{i},{'xy'[i % 2]}\n" for i in range(8)))
    rows = "".join(f"c{i},{-(i % 2)},{2.5 * (i % 2)}\n" for i in range(8))
    (tmp_path / "pred.csv").write_text("case,x,y\n" + rows)
    groups = "".join(f"c{i},{'FM'[i > 3]}\n" for i in range(8))
    (tmp_path / "groups.csv").write_text("case,sex\n" + groups)
    words = [str(tmp_path / name) for name in ("pred.csv", "ref.csv", "out")]
    assert main(["evaluate", *words, "--groups", str(tmp_path / "groups.csv"), "--quiet"]) == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert "outside 0 to 1" in summary["notes"][0]
    assert summary["labels"]["y"]["brier"]["mean"] is None
    areas = [r for r in summary["subgroups"]["rows"] if r["metric"] == "auroc"]
    assert [(r["group"], r["n"], r["mean"]) for r in areas] == [("F", 4, 1.0), ("M", 4, 1.0)]
    assert summary["mean_over_labels"]["auroc"]["mean_ci"] == summary["labels"]["y"]["auroc"]["mean_ci"]


def test_comparing_twice_gives_the_same_bytes(out: Path, tmp_path: Path) -> None:
    for folder in ("one", "two"):
        assert main(["compare", str(out), str(out / "scores.csv"), str(tmp_path / folder), "--quiet"]) == 0
    for name in ("compare.json", "index.html"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
