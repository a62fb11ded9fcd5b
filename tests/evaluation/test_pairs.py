"""Statuses and what each of them does to the numbers."""

from __future__ import annotations

import numpy as np
import pytest

from medseg.core.errors import MedsegError
from medseg.evaluation.pairs import COLUMNS, score_pair
from medseg.evaluation.policy import MEASURED, Scoring, tolerance_notes
from medseg.imaging.grid import Grid
from medseg.imaging.image import Image
from medseg.imaging.labels import labels

LABELS = labels(kidney=1, tumour=2)
GRID = Grid.from_spacing((20, 16, 12), (1, 1, 2))


def image(*boxes, grid=GRID) -> Image:
    array = np.zeros((1, *grid.shape), np.uint8)
    for value, start, stop in boxes:
        array[(0, *(slice(a, b) for a, b in zip(start, stop, strict=True)))] = value
    return Image(array, grid)


KIDNEY = (1, (2, 2, 2), (8, 8, 8))
TUMOUR = (2, (10, 10, 2), (12, 12, 4))


def values(rows, label):
    return {row["metric"]: row["value"] for row in rows if row["label"] == label}


def status(rows, label):
    (found,) = {row["status"] for row in rows if row["label"] == label}
    return found


def test_a_perfect_prediction_is_ok_with_every_metric():
    rows = score_pair(image(KIDNEY, TUMOUR), image(KIDNEY, TUMOUR), LABELS, Scoring(), "a", "p")
    assert [row["metric"] for row in rows if row["label"] == "kidney"] == list(MEASURED)
    assert all(tuple(row) == COLUMNS for row in rows)
    kidney = values(rows, "kidney")
    assert (kidney["dice"], kidney["hd95"], kidney["volume_error"]) == (1, 0, 0)
    assert kidney["volume_ref"] == pytest.approx(6 * 6 * 6 * 2 / 1000)


def test_a_missed_structure_has_dice_zero_and_the_diagonal_as_its_distance():
    rows = score_pair(image(KIDNEY), image(KIDNEY, TUMOUR), LABELS, Scoring(), "a")
    tumour = values(rows, "tumour")
    assert status(rows, "tumour") == "missed"
    assert (tumour["dice"], tumour["iou"], tumour["nsd"]) == (0, 0, 0)
    assert tumour["hd95"] == tumour["assd"] == pytest.approx(GRID.diagonal_mm)
    assert (tumour["volume_pred"], tumour["volume_error"]) == (0, -100)


def test_exclude_leaves_distances_of_missed_structures_out():
    rows = score_pair(image(KIDNEY), image(KIDNEY, TUMOUR), LABELS, Scoring(missed="exclude"), "a")
    tumour = values(rows, "tumour")
    assert (tumour["dice"], tumour["hd95"]) == (0, None)
    assert status(rows, "tumour") == "missed"


def test_an_invented_structure_is_a_false_positive_with_dice_zero():
    rows = score_pair(image(KIDNEY, TUMOUR), image(KIDNEY), LABELS, Scoring(), "a")
    tumour = values(rows, "tumour")
    assert status(rows, "tumour") == "false_positive"
    assert (tumour["dice"], tumour["volume_error"]) == (0, None)
    assert tumour["hd95"] == pytest.approx(GRID.diagonal_mm)


def test_absent_on_both_sides_has_no_value_and_is_counted():
    rows = score_pair(image(KIDNEY), image(KIDNEY), LABELS, Scoring(), "a")
    assert status(rows, "tumour") == "both_empty"
    assert set(values(rows, "tumour").values()) == {None}


def test_no_prediction_counts_as_missed():
    rows = score_pair(None, image(KIDNEY), LABELS, Scoring(), "a")
    kidney = values(rows, "kidney")
    assert status(rows, "kidney") == status(rows, "tumour") == "not_predicted"
    assert (kidney["dice"], kidney["hd95"]) == (0, pytest.approx(GRID.diagonal_mm))
    assert set(values(rows, "tumour").values()) == {None}


def test_another_grid_is_invalid_and_has_no_value():
    moved = Grid(GRID.shape, GRID.affine + np.array([[0, 0, 0, 5]] + [[0] * 4] * 3))
    rows = score_pair(image(KIDNEY, grid=moved), image(KIDNEY), LABELS, Scoring(), "a")
    assert {row["status"] for row in rows} == {"invalid"}
    assert {row["value"] for row in rows} == {None}


def test_a_metric_of_the_users_own_is_taken_by_its_dotted_name():
    name = "tests.evaluation.test_pairs:predicted_voxels_ml"
    rows = score_pair(image(KIDNEY), image(KIDNEY), LABELS, Scoring(metrics=("dice", name)), "a")
    assert values(rows, "kidney")[name] == pytest.approx(216 * 2 / 1000)


def predicted_voxels_ml(mask, reference, grid):
    """Volume of the prediction."""
    return mask.sum() * grid.voxel_ml


def test_an_unknown_metric_is_refused_with_the_nearest_name():
    with pytest.raises(MedsegError, match="did you mean 'dice'"):
        score_pair(image(KIDNEY), image(KIDNEY), LABELS, Scoring(metrics=("dise",)), "a")


def test_a_tolerance_under_two_spacings_is_pointed_out():
    scoring = Scoring(tolerance_mm=3, tolerances_mm={"kidney": 8})
    (note,) = tolerance_notes(scoring, LABELS, 2.0)
    assert "tumour 3 mm" in note
    assert "kidney" not in note
    assert tolerance_notes(scoring, LABELS, 1.5) == []
