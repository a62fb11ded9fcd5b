"""Regions, the ignored value, and predictions on another grid."""

from __future__ import annotations

import numpy as np
import pytest

from medseg.core.errors import CaseError, MedsegError
from medseg.evaluation.conventions import conventions
from medseg.evaluation.evaluate import evaluate_folders
from medseg.evaluation.pairs import score_pair
from medseg.evaluation.policy import MEASURED, Scoring
from medseg.evaluation.structures import parse_structures, placed
from medseg.imaging.grid import Grid
from medseg.imaging.image import Image, write_image
from medseg.imaging.labels import labels

GRID = Grid.from_spacing((24, 20, 12), (1, 1, 2))
LABELS = labels(oedema=1, core=2)


def image(*boxes, grid=GRID) -> Image:
    array = np.zeros((1, *grid.shape), np.uint8)
    for value, start, stop in boxes:
        array[(0, *(slice(a, b) for a, b in zip(start, stop, strict=True)))] = value
    return Image(array, grid)


RING = (1, (2, 2, 2), (12, 12, 10))
CORE = (2, (5, 5, 4), (9, 9, 8))


def table(rows):
    return {(row["label"], row["metric"]): row["value"] for row in rows}


def test_a_region_is_the_union_of_its_values():
    swapped = image((2, *RING[1:]), (1, *CORE[1:]))
    scoring = Scoring(regions={"whole": (1, 2)})
    found = table(score_pair(swapped, image(RING, CORE), LABELS, scoring, "c"))
    assert found["whole", "dice"] == 1
    assert found["whole", "hd95"] == 0
    assert found["oedema", "dice"] == found["core", "dice"] == 0  # a label swap
    assert found["whole", "volume_ref"] == pytest.approx(10 * 10 * 8 * 2 / 1000)
    assert [label for label, metric in found if metric == "dice"] == ["oedema", "core", "whole"]


def test_a_region_that_is_absent_is_missed_like_a_label():
    rows = score_pair(image(), image(CORE), (), Scoring(regions={"both": (1, 2)}), "c")
    assert {(r["label"], r["status"]) for r in rows} == {("both", "missed")}


@pytest.mark.parametrize("regions", [{"core": (1, 2)}, {"x": ()}, {"x": (0, 1)}, {"x": (1, 9)}])
def test_regions_that_mean_nothing_are_refused(regions):
    with pytest.raises(MedsegError, match="cannot be scored"):
        score_pair(image(), image(), LABELS, Scoring(regions=regions, ignore=9), "c")


def test_voxels_of_the_ignored_value_count_on_neither_side():
    reference = image(RING, (9, (7, 2, 2), (12, 12, 10)))
    predicted = image((1, (2, 2, 2), (9, 12, 10)))  # the left half, and a strip of what is ignored
    found = table(score_pair(predicted, reference, LABELS, Scoring(ignore=9), "c"))
    assert found["oedema", "dice"] == 1
    assert found["oedema", "volume_pred"] == found["oedema", "volume_ref"] == pytest.approx(0.8)
    assert table(score_pair(predicted, reference, LABELS, Scoring(), "c"))["oedema", "dice"] < 0.9
    assert predicted.array.sum() == 7 * 10 * 8  # nothing is written into the caller's mask


def test_the_ignored_value_is_no_label_even_when_it_is_listed():
    rows = score_pair(image(RING), image(RING), labels(a=1, void=9), Scoring(ignore=9), "c")
    assert {row["label"] for row in rows} == {"a"}


def test_a_prediction_hidden_by_the_ignored_value_is_no_false_positive():
    reference = image((9, (0, 0, 0), (24, 20, 12)))
    rows = score_pair(image(CORE), reference, LABELS, Scoring(ignore=9), "c")
    assert {row["status"] for row in rows} == {"both_empty"}


def test_labels_and_regions_are_read_from_text():
    found, regions = parse_structures("oedema=1, core=2,whole=1+2")
    assert [(label.name, label.value) for label in found] == [("oedema", 1), ("core", 2)]
    assert regions == {"whole": (1, 2)}
    for text in ("a=1+", "a=1+x", "a=1+2,a=1+3", "a=1,b=1"):
        with pytest.raises(MedsegError):
            parse_structures(text)


COARSE = GRID.resampled((1, 1, 4))


def test_another_grid_is_refused_unless_resampling_is_asked_for():
    with pytest.raises(CaseError, match="same grid") as caught:
        placed(image(RING, grid=COARSE), image(RING), resample=False)
    assert "resample=true" in str(caught.value.mend)
    assert {r["status"] for r in score_pair(image(grid=COARSE), image(RING), LABELS, Scoring(), "c")} == {
        "invalid"
    }


def test_resampling_puts_a_mask_where_it_lies_in_the_patient():
    fine = image(RING)
    coarse = image((1, (2, 2, 1), (12, 12, 5)), grid=COARSE)
    moved, said = placed(coarse, fine, resample=True)
    assert np.array_equal(moved.array, fine.array)
    assert "resampled" in said
    flipped = Image(fine.array[:, ::-1], Grid(GRID.shape, GRID.affine @ _flip(GRID.shape[0])))
    assert np.array_equal(placed(flipped, fine, resample=True)[0].array, fine.array)
    rows = score_pair(coarse, fine, LABELS, Scoring(resample=True), "c")
    assert table(rows)["oedema", "dice"] == 1


def _flip(n):
    turn = np.eye(4)
    turn[0, 0], turn[0, 3] = -1, n - 1
    return turn


def test_outside_a_smaller_prediction_there_is_background():
    cut = GRID.cropped((0, 0, 0), (8, 20, 12))
    predicted = Image(np.ones((1, *cut.shape), np.uint8), cut)
    moved, said = placed(predicted, image(), resample=True)
    assert moved.array[0, :8].all()
    assert not moved.array[0, 8:].any()
    assert "66.7% of it lies outside" in said


def test_evaluate_resamples_when_asked_and_says_so(tmp_path):
    write_image(image(RING), tmp_path / "ref" / "a.nii.gz")
    write_image(image((1, (2, 2, 1), (12, 12, 5)), grid=COARSE), tmp_path / "pred" / "a.nii.gz")
    run = [tmp_path / "pred", tmp_path / "ref", tmp_path / "out", "ring=1,all=1+2"]
    assert [f.item for f in evaluate_folders(*run, quiet=True).failures] == ["a"]
    done = evaluate_folders(*run, scoring=Scoring(resample=True), quiet=True)
    summary = done.scores.summary()
    assert done.failures == []
    assert summary["labels"]["ring"]["dice"]["mean"] == summary["labels"]["all"]["dice"]["mean"] == 1
    assert any("resampled" in note for note in summary["notes"])
    assert summary["facts"]["images"][0]["resampled"] is True
    assert "resampled" in summary["conventions"]["geometry"]
    assert summary["conventions"]["regions"] == {"all": "1+2"}


def test_an_unknown_metric_stops_before_any_case_is_read(tmp_path):
    with pytest.raises(MedsegError, match="unknown metric"):
        evaluate_folders(tmp_path, tmp_path, tmp_path / "out", scoring=Scoring(metrics=("dicee",)))


def test_the_ignored_value_is_not_taken_for_a_label_nor_for_a_stranger(tmp_path):
    write_image(image(RING, (9, (20, 2, 2), (22, 4, 4))), tmp_path / "ref" / "a.nii.gz")
    write_image(image(RING), tmp_path / "pred" / "a.nii.gz")
    done = evaluate_folders(
        tmp_path / "pred", tmp_path / "ref", tmp_path / "out", scoring=Scoring(ignore=9), quiet=True
    )
    assert {row["label"] for row in done.scores.rows} == {"label_1"}
    assert not any("no label" in note for note in done.scores.summary()["notes"])


def test_every_choice_of_lesions_stands_in_the_conventions():
    said = conventions(Scoring(ignore=7, lesions={"iou": 0.1, "minimum_ml": 0.5}), ("dice", "pq"))
    assert all(word in said["lesions"] for word in ("26-connected", "8-connected", "0.1", "0.5 ml"))
    assert "7" in said["ignored"]
    assert "lesions" not in conventions(Scoring(), MEASURED)


def test_what_only_changes_the_summary_leaves_the_identity_of_a_scoring():
    from medseg.core.values import digest

    assert digest(Scoring()) == digest(Scoring(repeats=500, margins={"dice": 0.02}, classes={"bins": 5}))
    assert digest(Scoring()) != digest(Scoring(lesions={"iou": 0.1}))
