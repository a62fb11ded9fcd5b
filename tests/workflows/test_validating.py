"""Validation: three kinds of model on a cohort, who left and why, what was trained on, and the verdict."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest

from medseg.cli import main
from medseg.core.errors import MedsegError
from medseg.core.files import read_json, write_json
from medseg.data.cohort import Cohort
from medseg.data.seen import seen_record, voxel_digests
from medseg.imaging.image import read_image
from medseg.workflows.acceptance import Criterion, check_criteria, verdicts
from medseg.workflows.subjects import open_subject
from medseg.workflows.validating import validate  # noqa: F401  (the verb's twin)


@pytest.fixture(scope="module")
def masks(tiny_msd: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The references of the tiny set as somebody's predictions: one missing, one cut off, one too many."""
    folder = tmp_path_factory.mktemp("masks") / "pred"
    shutil.copytree(tiny_msd / "labelsTr", folder)
    files = sorted(folder.glob("*.nii.gz"))
    files[0].unlink()
    files[1].write_bytes(files[1].read_bytes()[:200])
    shutil.copy(files[2], folder / "another.nii.gz")
    return folder


@pytest.fixture(scope="module")
def done(tiny_msd: Path, masks: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[int, Path]:
    """A validation of those masks, from the command line."""
    run = tmp_path_factory.mktemp("validated")
    accept = run / "accept.yaml"
    accept.write_text("accept:\n  - {label: every, metric: dice, at_least: 0.99}\n")
    words = [str(masks), str(tiny_msd), "--run", str(run / "run"), "--accept", str(accept), "--quiet"]
    return main(["validate", *words]), run / "run"


def table(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_masks_of_any_tool_are_judged_and_fail_at_the_bad_end(done: tuple[int, Path]) -> None:
    code, run = done
    assert code == 1
    judged = read_json(run / "acceptance.json")
    assert judged["passed"] is False
    assert {v["judged_at"] for v in judged["criteria"]} == {"bad_end"}
    assert len(judged["criteria"]) == len(read_json(run / "summary.json")["labels"])


def test_the_flow_says_who_left_and_why(done: tuple[int, Path]) -> None:
    flow = read_json(done[1] / "summary.json")["validation"]["flow"]
    assert [s["cases"] for s in flow["steps"]] == [8, 8, 8, 6, 6]
    assert {one["why"] for one in flow["left"]} == {"failed in given", "without a prediction"}
    assert all("counted as missed" in one["reason"] for one in flow["left"])
    rows = table(done[1] / "flow.csv")
    assert [r["cases"] for r in rows if not r["why"]] == ["8", "8", "8", "6", "6"]


def test_a_lost_mask_counts_as_missed_and_is_not_dropped(done: tuple[int, Path]) -> None:
    summary = read_json(done[1] / "summary.json")
    for cells in summary["labels"].values():
        assert cells["dice"]["status"]["not_predicted"] == 2
        assert cells["dice"]["cases"] == 8


def test_what_cannot_be_checked_is_said(done: tuple[int, Path]) -> None:
    leakage = read_json(done[1] / "summary.json")["validation"]["leakage"]
    assert leakage["status"] == "unchecked"
    assert "cannot be checked" in leakage["said"]


def test_methods_and_checklists_are_filled_where_the_run_knows(done: tuple[int, Path]) -> None:
    rows = table(done[1] / "checklists.csv")
    assert {r["checklist"] for r in rows} == {"CLAIM 2024", "STARD-AI", "TRIPOD+AI"}
    assert all(bool(r["answer"]) == (r["by"] == "run") for r in rows)
    flow = next(r for r in rows if r["checklist"] == "CLAIM 2024" and r["topic"] == "Flow")
    assert flow["answer"].startswith("8 received")
    funding = [r for r in rows if r["topic"] == "Funding"]
    assert funding
    assert {r["by"] for r in funding} == {"author"}
    text = (done[1] / "methods.md").read_text()
    assert "Of 8 cases received, 6 were evaluated" in text
    assert (done[1] / "report" / "index.html").is_file()


def test_a_second_run_gives_the_same_bytes(done: tuple[int, Path], tiny_msd: Path, masks: Path) -> None:
    run = done[1]
    names = ("scores.csv", "summary.json", "flow.csv", "checklists.csv", "report/index.html")
    before = {name: (run / name).read_bytes() for name in names}
    main(
        [
            "validate",
            str(masks),
            str(tiny_msd),
            "--run",
            str(run),
            "--quiet",
            "--accept",
            str(run.parent / "accept.yaml"),
        ]
    )
    assert {name: (run / name).read_bytes() for name in names} == before


def run_of(tiny_msd: Path, folder: Path, cases: int) -> Path:
    """What is left of a training run that knows the first images: cohort, prepared cases, digests."""
    cohort = Cohort.open(tiny_msd, quiet=True)
    write_json(folder / "cohort.json", cohort.public())
    for case in cohort.cases[:cases]:
        image = read_image(next(iter(case.images.values())).files[0])
        facts = {"patient": case.patient, "voxels_sha256": voxel_digests(image)}
        write_json(folder / "prepare" / case.id / "prepared.json", facts)
    return folder


def test_images_that_were_trained_on_are_found_left_out_or_fatal(
    tiny_msd: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = run_of(tiny_msd, tmp_path / "training", 3)
    words = ["validate", str(tiny_msd / "labelsTr"), str(tiny_msd), f"training={trained}", "--quiet"]
    assert main([*words, "--run", str(tmp_path / "flag")]) == 0
    assert "NOT AN INDEPENDENT TEST: 3 of 8" in capsys.readouterr().out
    assert main([*words, "--run", str(tmp_path / "gone"), "leakage=exclude"]) == 0
    summary = read_json(tmp_path / "gone" / "summary.json")
    assert summary["cases"] == 5
    assert [s["cases"] for s in summary["validation"]["flow"]["steps"]] == [8, 8, 5, 5, 5]
    assert main([*words, "--run", str(tmp_path / "fatal"), "leakage=fail"]) == 1


def test_digests_are_blind_to_header_and_compression_and_tell_one_voxel(tiny_msd: Path) -> None:
    image = read_image(next((tiny_msd / "imagesTr").glob("*.nii.gz")))
    turned = image.but(image.array.astype("float64"))
    other = image.array.copy()
    other[0, 0, 0, 0] += 1
    assert voxel_digests(turned) == voxel_digests(image) != voxel_digests(image.but(other))
    record = seen_record([{"patient": "p", "voxels_sha256": voxel_digests(image)}], "salt")
    assert voxel_digests(image)[0][:32] not in json.dumps(record)
    assert seen_record([{"patient": "p"}], "salt") == {}


def test_masks_on_another_grid_are_invalid_and_counted(tiny_msd: Path, tmp_path: Path) -> None:
    from medseg.imaging.grid import Grid
    from medseg.imaging.image import read_mask, write_image

    folder = Path(shutil.copytree(tiny_msd / "labelsTr", tmp_path / "pred"))
    file = sorted(folder.glob("*.nii.gz"))[0]
    mask = read_mask(file)
    affine = mask.grid.affine.copy()
    affine[0, 3] += 5
    write_image(type(mask)(mask.array, Grid(mask.grid.shape, affine)), file)
    assert main(["validate", str(folder), str(tiny_msd), "--run", str(tmp_path / "run"), "--quiet"]) == 3
    summary = read_json(tmp_path / "run" / "summary.json")
    assert all(cells["dice"]["status"]["invalid"] == 1 for cells in summary["labels"].values())
    left = summary["validation"]["flow"]["left"]
    assert left[0]["why"] == "failed in score"
    assert "grid" in left[0]["reason"]


def test_dicom_gives_seg_objects_and_a_refused_series_is_told(tiny_dicom: Path, tmp_path: Path) -> None:
    assert main(["ingest", str(tiny_dicom), "--run", str(tmp_path / "raw"), "--quiet"]) == 0
    for folder in (tmp_path / "raw" / "ingest").iterdir():
        (tmp_path / "pred").mkdir(exist_ok=True)
        shutil.copy(folder / "reference.nii.gz", tmp_path / "pred" / f"{folder.name}.nii.gz")
    cohort = shutil.copytree(tiny_dicom, tmp_path / "cohort")
    sorted(cohort.glob("patient001/ct/*.dcm"))[5].unlink()
    words = ["--run", str(tmp_path / "run"), "--quiet", "scoring.repeats=100"]
    assert main(["validate", str(tmp_path / "pred"), str(cohort), *words]) == 3
    assert len(list((tmp_path / "run" / "export").glob("*/*.seg.dcm"))) == 5
    flow = read_json(tmp_path / "run" / "summary.json")["validation"]["flow"]
    assert [s["cases"] for s in flow["steps"]] == [6, 5, 5, 5, 5]
    (left,) = flow["left"]
    assert left["why"] == "refused"
    assert "missing in the stack" in left["reason"]


def test_a_class_table_is_a_model_too(tiny_classes: Path, tmp_path: Path) -> None:
    cohort = Cohort.open(tiny_classes, quiet=True)
    names = cohort.classes
    lines = ["case," + ",".join(names)]
    lines += [
        f"{c.id}," + ",".join("0.8" if n == c.label_class else "0.1" for n in names) for c in cohort.cases
    ]
    (tmp_path / "answers.csv").write_text("\n".join(lines) + "\n")
    words = [
        "validate",
        str(tmp_path / "answers.csv"),
        str(tiny_classes),
        "--run",
        str(tmp_path / "run"),
        "--quiet",
    ]
    assert main(words) == 0
    assert read_json(tmp_path / "run" / "summary.json")["mean_over_labels"]["accuracy"]["mean"] == 1


def test_a_folder_with_nothing_to_test_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MedsegError, match="nothing here"):
        open_subject(tmp_path)


SUMMARY = {
    "labels": {
        "a": {"dice": {"mean": 0.9, "mean_ci": [0.8, 0.95], "median": 0.92, "median_ci": [0.9, 0.94],
                       "status": {"missed": 2}}},
        "b": {"dice": {"mean": 0.7, "mean_ci": [0.6, 0.8], "median": 0.7, "median_ci": None,
                       "status": {"missed": 1}}},
    },
    "mean_over_labels": {"dice": {"mean": 0.8, "mean_ci": [0.7, 0.9]}},
    "subgroups": {"rows": [
        {"grouping": "sex", "group": g, "label": "a", "metric": "dice", "mean": m,
         "mean_ci": [m - 0.1, m + 0.1]}
        for g, m in (("F", 0.95), ("M", 0.85))
    ]},
}  # fmt: skip


@pytest.mark.parametrize(
    ("criterion", "passed"),
    [
        (Criterion(label="every", metric="dice", at_least=0.65), [True, False]),
        (Criterion(label="a", metric="dice", at_least=0.85, statistic="median"), [True]),
        (Criterion(label="mean", metric="missed", at_most=3), [True]),
        (Criterion(label="a", metric="missed", at_most=1), [False]),
        (Criterion(label="a", metric="dice", at_least=0.8, group="sex"), [True, False]),
        (Criterion(label="a", metric="dice", at_least=0.8, group="sex=F"), [True]),
    ],
)
def test_counts_medians_and_groups_are_judged(criterion: Criterion, passed: list[bool]) -> None:
    assert [v["passed"] for v in verdicts(SUMMARY, [criterion])] == passed


def test_a_bar_without_an_interval_says_so() -> None:
    (verdict,) = verdicts(SUMMARY, [Criterion(label="b", metric="dice", at_least=0.6, statistic="median")])
    assert (verdict["passed"], "no interval" in verdict["note"]) == (True, True)


def test_criteria_are_checked_before_anything_is_predicted(tiny_msd: Path) -> None:
    from medseg.evaluation.policy import Scoring

    cohort = Cohort.open(tiny_msd, quiet=True)
    more = check_criteria([Criterion(metric="hd", at_most=9)], cohort, Scoring())
    assert more.metrics[-1] == "hd"
    for wrong in (Criterion(label="spleeen", at_least=0.5), Criterion(metric="dise", at_least=0.5)):
        with pytest.raises(MedsegError, match="was not measured"):
            check_criteria([wrong], cohort, Scoring())
    with pytest.raises(MedsegError, match="which the cohort does not have"):
        verdicts(SUMMARY, [Criterion(label="a", group="site", at_least=0.5)])


def test_cases_that_a_reader_marked_fail_leave_the_flow_and_the_checklists(
    tiny_msd: Path, tmp_path: Path
) -> None:
    (first, second, *_) = sorted(case.id for case in Cohort.open(tiny_msd, quiet=True).cases)
    lines = f"  - {{case: {first}, mark: fail}}\n  - {{case: {second}, mark: pass}}\n"
    (tmp_path / "marks.yaml").write_text(f"format: medseg-marks\nversion: 1\nmarks:\n{lines}")
    words = [str(tiny_msd / "labelsTr"), str(tiny_msd), f"marks={tmp_path / 'marks.yaml'}"]
    words += ["scoring.repeats=100", "scoring.metrics=[dice]", "--quiet"]
    assert main(["validate", *words, "--run", str(tmp_path / "run")]) == 0
    summary = read_json(tmp_path / "run" / "summary.json")
    steps = summary["validation"]["flow"]["steps"]
    assert [(s["cases"], s["patients"]) for s in steps] == [(8, 8), (7, 7), (7, 7), (7, 7), (7, 7)]
    (left,) = summary["validation"]["flow"]["left"]
    assert (left["cases"], left["reason"]) == ([first], "excluded by review")
    assert first not in (tmp_path / "run" / "scores.csv").read_text()
    assert not (tmp_path / "run" / "ingest" / first).exists()
    subsets = next(r for r in table(tmp_path / "run" / "checklists.csv") if r["topic"] == "Subsets")
    assert subsets["answer"] == "all that could be read but 1 (excluded by review)"
