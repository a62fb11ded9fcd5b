"""`medseg evaluate`: two folders in, tables and a report out; a bad case is named, the rest measured."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from medseg.core.errors import MedsegError
from medseg.evaluation.evaluate import evaluate_folders
from medseg.imaging.grid import Grid
from medseg.imaging.image import Image, write_image

GRID = Grid.from_spacing((24, 20, 16), (1, 1, 1.5))


def cube(start, size=6, value=1, grid=GRID) -> Image:
    array = np.zeros((1, *grid.shape), np.uint8)
    i, j, k = start
    array[0, i : i + size, j : j + size, k : k + size] = value
    return Image(array, grid)


@pytest.fixture
def folders(tmp_path):
    for n in range(4):
        write_image(cube((4, 4, 4)), tmp_path / "ref" / f"case{n}.nii.gz")
        write_image(cube((4 + n % 2, 4, 4)), tmp_path / "pred" / f"case{n}.nii.gz")
    return tmp_path


def run(root, **options):
    return evaluate_folders(root / "pred", root / "ref", root / "out", quiet=True, **options)


def table(root):
    with (root / "out" / "scores.csv").open() as stream:
        return list(csv.DictReader(stream))


def test_two_folders_give_tables_and_a_report(folders):
    done = run(folders, labels="organ=1")
    assert done.failures == []
    rows = table(folders)
    assert list(rows[0]) == ["case", "patient", "label", "metric", "value", "unit", "status"]
    assert {r["metric"] for r in rows} >= {
        "dice",
        "iou",
        "hd95",
        "nsd",
        "assd",
        "volume_pred",
        "volume_error",
    }
    assert {r["value"] for r in rows if r["case"] == "case0" and r["metric"] == "dice"} == {"1"}
    summary = json.loads((folders / "out" / "summary.json").read_text())
    assert summary["labels"]["organ"]["dice"]["n"] == 4
    assert done.report == folders / "out" / "report" / "index.html"


def test_labels_are_found_in_the_references_when_not_given(folders):
    assert {r["label"] for r in run(folders).scores.rows} == {"label_1"}


def test_nii_and_nii_gz_match_by_name(folders):
    (folders / "pred" / "case0.nii.gz").unlink()
    write_image(cube((4, 4, 4)), folders / "pred" / "case0.nii")
    assert run(folders).failures == []


def test_a_missing_prediction_counts_as_missed_and_an_extra_one_is_named(folders):
    (folders / "pred" / "case1.nii.gz").rename(folders / "pred" / "stranger.nii.gz")
    done = run(folders)
    assert {f.item for f in done.failures} == {"case1", "stranger"}
    dice = {r["case"]: r for r in table(folders) if r["metric"] == "dice"}
    assert (dice["case1"]["value"], dice["case1"]["status"]) == ("0", "not_predicted")
    assert "stranger" not in dice
    assert any("stranger" in note for note in done.scores.summary()["notes"])


def test_another_position_is_invalid_with_both_affines_shown(folders):
    moved = Grid(GRID.shape, GRID.affine + np.array([[0, 0, 0, 3.0]] + [[0] * 4] * 3))
    write_image(cube((4, 4, 4), grid=moved), folders / "pred" / "case2.nii.gz")
    done = run(folders)
    (failure,) = done.failures
    assert failure.item == "case2"
    assert failure.public.count("affine") == 2
    assert {r["status"] for r in table(folders) if r["case"] == "case2"} == {"invalid"}
    assert done.scores.summary()["labels"]["label_1"]["dice"]["n"] == 3


def test_a_truncated_file_is_quarantined_and_the_others_are_measured(folders):
    file = folders / "pred" / "case3.nii.gz"
    file.write_bytes(file.read_bytes()[:60])
    done = run(folders)
    assert [f.item for f in done.failures] == ["case3"]
    assert str(folders) not in done.failures[0].public
    assert str(folders) not in (folders / "out" / "report" / "index.html").read_text()


def test_values_of_no_label_are_pointed_out(folders):
    write_image(cube((4, 4, 4), value=7), folders / "pred" / "case0.nii.gz")
    notes = run(folders, labels="organ=1").scores.summary()["notes"]
    assert any("case0" in note and "7 (216 voxels)" in note for note in notes)


def test_a_tolerance_below_two_spacings_is_noted(folders):
    assert any("NSD tolerance" in n for n in run(folders, tolerance_mm=1.0).scores.summary()["notes"])
    assert not any("NSD tolerance" in n for n in run(folders, tolerance_mm=3.0).scores.summary()["notes"])


@pytest.mark.parametrize("what", ["empty", "absent", "no match", "no label"])
def test_folders_that_cannot_be_used_are_refused(tmp_path, what):
    write_image(cube((4, 4, 4), value=0 if what == "no label" else 1), tmp_path / "ref" / "a.nii.gz")
    if what != "absent":
        (tmp_path / "pred").mkdir()
    if what in ("no match", "no label"):
        write_image(cube((4, 4, 4)), tmp_path / "pred" / ("b.nii.gz" if what == "no match" else "a.nii.gz"))
    with pytest.raises(MedsegError):
        run(tmp_path)


def test_two_files_of_one_case_are_refused(folders):
    write_image(cube((4, 4, 4)), folders / "pred" / "case0.nii")
    with pytest.raises(MedsegError, match="two masks for case case0"):
        run(folders)


def test_several_processes_give_the_same_tables(folders):
    run(folders)
    one = (folders / "out" / "scores.csv").read_bytes()
    run(folders, workers=2)
    assert (folders / "out" / "scores.csv").read_bytes() == one


def test_a_run_folder_is_read_as_it_lies(tmp_path):
    write_image(cube((4, 4, 4)), tmp_path / "ref" / "p1" / "reference.nii.gz")
    write_image(cube((4, 4, 4)), tmp_path / "ref" / "p1" / "image.nii.gz")
    write_image(cube((4, 4, 4)), tmp_path / "pred" / "p1" / "mask.nii.gz")
    assert {r["case"] for r in run(tmp_path).scores.rows} == {"p1"}


def test_hostile_file_names_do_no_harm(tmp_path):
    name = "=cmd<script>alert(1)<"
    for side in ("pred", "ref"):
        write_image(cube((4, 4, 4)), tmp_path / side / f"{name}.nii.gz")
    page = run(tmp_path).report.read_text()
    assert "<script>alert" not in page
    assert "&lt;script&gt;" in page
    assert (tmp_path / "out" / "scores.csv").read_text().splitlines()[1].startswith("'=cmd")


def test_real_masks_agree_with_monai(shared_data, tmp_path):
    import warnings

    from scipy import ndimage

    from medseg.imaging.image import read_mask

    files = sorted((shared_data / "hippocampus" / "labelsTr").glob("*.nii.gz"))[:3]
    for file in files:
        mask = read_mask(file)
        write_image(mask, tmp_path / "ref" / file.name)
        write_image(mask.but(ndimage.grey_erosion(mask.array[0], 3)), tmp_path / "pred" / file.name)
    run(tmp_path, labels="anterior=1,posterior=2")
    ours = {(r["case"], r["label"], r["metric"]): float(r["value"]) for r in table(tmp_path) if r["value"]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch
        from monai.metrics import compute_dice, compute_hausdorff_distance, compute_surface_dice

        for file in files:
            masks = [read_mask(tmp_path / side / file.name) for side in ("pred", "ref")]
            seen = [
                torch.stack([torch.as_tensor(m.array[0] == v) for v in (0, 1, 2)])[None].float()
                for m in masks
            ]
            spacing = list(masks[1].grid.spacing_mm)
            theirs = {
                "dice": compute_dice(*seen, include_background=False)[0],
                "hd95": compute_hausdorff_distance(*seen, percentile=95, spacing=spacing)[0],
                "nsd": compute_surface_dice(*seen, [1.0, 1.0], spacing=spacing, use_subvoxels=True)[0],
            }
            for metric, found in theirs.items():
                for label, value in zip(("anterior", "posterior"), found.tolist(), strict=True):
                    assert ours[file.name[:-7], label, metric] == pytest.approx(value, abs=1e-5)
