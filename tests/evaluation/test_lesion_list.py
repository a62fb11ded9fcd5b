"""Lesions one by one: sizes, sensitivity by size, the FROC curve of candidates in maps."""

from __future__ import annotations

import json

import numpy as np
import pytest

from medseg.core.errors import MedsegError
from medseg.evaluation.evaluate import evaluate_folders
from medseg.evaluation.lesion_list import by_size, detections_in, froc_parts, lesion_list
from medseg.evaluation.policy import LesionRule, Scoring
from medseg.imaging.candidates import candidates
from medseg.imaging.grid import Grid
from medseg.imaging.image import Image, write_image
from medseg.imaging.labels import labels

GRID = Grid.from_spacing((20, 20, 8), (1, 1, 2))
LESIONS = labels(lesion=1)
COUNTED = Scoring(metrics=("lesion_f1",))


def scan(*boxes):
    array = np.zeros((1, 20, 20, 8), np.float32)
    for i, j, size, value in boxes:
        array[0, i : i + size, j : j + size, 2:4] = value
    return array


def mask(*boxes):
    return Image(scan(*boxes).astype(np.uint8), GRID)


def test_every_lesion_of_either_side_is_a_row():
    rows = lesion_list(
        mask((1, 1, 2, 1), (15, 15, 2, 1)), mask((1, 1, 2, 1), (8, 8, 3, 1)), LESIONS, COUNTED, "c"
    )
    assert [(r["side"], r["ml"], r["matched"]) for r in rows] == [
        ("reference", pytest.approx(0.016), True),
        ("reference", pytest.approx(0.036), False),
        ("prediction", pytest.approx(0.016), True),
        ("prediction", pytest.approx(0.016), False),
    ]
    assert [r["iou"] for r in rows] == [1, None, 1, None]


def test_sensitivity_is_told_by_size_where_it_is_cut():
    rows = [
        {"side": "reference", "ml": ml, "matched": hit, "patient": f"p{i}"}
        for i, (ml, hit) in enumerate([(0.1, False), (0.4, True), (0.5, True), (2, True), (3, True)])
    ]
    found = by_size(rows, Scoring(lesions=LesionRule(sizes_ml=(0.5, 2))))
    assert [(r["size"], r["lesions"], r["found"]) for r in found] == [
        ("below 0.5 ml", 2, 1), ("0.5 to below 2 ml", 1, 1), ("2 ml and more", 2, 2),
    ]  # fmt: skip
    assert found[0]["ci"][0] < 0.5 < found[0]["ci"][1]
    assert by_size(rows, Scoring()) == []  # too few to be cut unasked


def test_candidates_are_parts_with_their_peaks():
    probability = scan((1, 1, 2, 0.4), (10, 10, 3, 0.2))[0]
    probability[11, 11, 3] = 0.9
    found = candidates(probability, GRID)
    assert [row["score"] for row in found] == pytest.approx([0.9, 0.4])
    assert found[0]["point_mm"] == pytest.approx(list(GRID.to_mm(np.array([[11.0, 11, 3]]))[0]))
    assert found[1]["ml"] == pytest.approx(8 * 2 / 1000)
    assert candidates(np.zeros((3, 3, 3)), GRID) == []


def test_the_curve_of_a_map_counts_peaks_in_and_outside_lesions():
    reference = mask((1, 1, 2, 1), (8, 8, 2, 1))
    sure = Image(scan((1, 1, 2, 0.9), (15, 15, 2, 0.6), (8, 8, 2, 0.3)), GRID)
    found = detections_in(sure, reference, LESIONS, COUNTED, "p")["lesion"]
    part = froc_parts({"lesion": [found]}, COUNTED, rates=(0.5, 1.0))["lesion"]
    assert part["false_positives"] == [0, 1, 1]
    assert part["sensitivity"] == [0.5, 0.5, 1]
    assert part["at_rates"] == [0.5, 1.0]
    assert part["mean"] == pytest.approx(0.75)
    assert froc_parts({"lesion": [found | {"lesions": 0, "hits": [-1] * 3}]}, COUNTED) == {}


def test_a_map_with_other_channels_is_refused():
    with pytest.raises(MedsegError, match="channels"):
        detections_in(Image(np.zeros((3, 20, 20, 8), np.float32), GRID), mask(), LESIONS, COUNTED, "p")


def test_folders_with_maps_give_the_table_and_the_curve(tmp_path):
    for n in range(3):
        write_image(mask((1, 1, 2, 1)), tmp_path / "pred" / f"c{n}.nii.gz")
        write_image(mask((1, 1, 2, 1), (8, 8, 2, 1)), tmp_path / "ref" / f"c{n}.nii.gz")
        write_image(Image(scan((1, 1, 2, 0.9)), GRID), tmp_path / "maps" / f"c{n}.nii.gz")
    evaluate_folders(
        tmp_path / "pred", tmp_path / "ref", tmp_path / "out", "lesion=1", scoring=COUNTED,
        probabilities=tmp_path / "maps", quiet=True,
    )  # fmt: skip
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["froc"]["lesion"]["sensitivity"] == [0.5]
    assert len((tmp_path / "out" / "lesions.csv").read_text().splitlines()) == 1 + 3 * 3
    assert "lesion list" not in summary["facts"]


def test_a_map_that_cannot_be_used_leaves_the_numbers_of_the_mask(tmp_path):
    for n in range(3):
        write_image(mask((1, 1, 2, 1)), tmp_path / "pred" / f"c{n}.nii.gz")
        write_image(mask((1, 1, 2, 1)), tmp_path / "ref" / f"c{n}.nii.gz")
    write_image(Image(scan((1, 1, 2, 0.9)), GRID), tmp_path / "maps" / "c0.nii.gz")
    write_image(Image(np.zeros((4, 20, 20, 8), np.float32), GRID), tmp_path / "maps" / "c1.nii.gz")
    done = evaluate_folders(
        tmp_path / "pred", tmp_path / "ref", tmp_path / "out", "lesion=1", scoring=COUNTED,
        probabilities=tmp_path / "maps", quiet=True,
    )  # fmt: skip
    assert [f.item for f in done.failures] == ["c1"]
    assert {row["status"] for row in done.scores.rows} == {"ok"}
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["froc"]["lesion"]["scans"] == 1
    assert "2 of 3 cases have a map of probabilities" in summary["notes"]
    assert "Mean sensitivity at 0.125, 0.25" in done.report.read_text()
