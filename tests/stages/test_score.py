"""Stage ``score``."""

from __future__ import annotations

import numpy as np
import pytest

from medseg.core.errors import CaseError
from medseg.core.files import write_json
from medseg.core.run import Run
from medseg.core.stage import artifact_of
from medseg.evaluation.policy import Scoring
from medseg.imaging.grid import Grid
from medseg.imaging.image import Image, write_image
from medseg.imaging.labels import labels
from medseg.stages.score import read_rows, score

LABELS = labels(organ=1)


def mask(spacing=1.0) -> Image:
    array = np.zeros((1, 10, 10, 10), np.uint8)
    array[0, 2:6, 2:6, 2:6] = 1
    return Image(array, Grid.from_spacing((10, 10, 10), (spacing, 1, 1)))


@pytest.fixture
def ingested(tmp_path):
    write_image(mask(), tmp_path / "raw" / "reference.nii.gz")
    write_json(tmp_path / "raw" / "source.json", {"case": "a", "patient": "p", "label_class": None})
    return artifact_of(tmp_path / "raw")


def predicted(tmp_path, image):
    write_image(image, tmp_path / "mask" / "mask.nii.gz")
    return artifact_of(tmp_path / "mask")


def test_rows_carry_case_and_patient_and_come_back(tmp_path, ingested):
    run = Run(tmp_path / "run")
    item = (predicted(tmp_path, mask()), ingested)
    done = run.map(score, {"a": item}, labels=LABELS, scoring=Scoring())
    rows = read_rows(done["a"])
    assert {(r["case"], r["patient"], r["status"]) for r in rows} == {("a", "p", "ok")}
    assert next(r["value"] for r in rows if r["metric"] == "dice") == 1.0
    assert run.map(score, {"a": item}, labels=LABELS, scoring=Scoring()).kept == ["a"]


def test_a_case_without_prediction_counts_as_missed(tmp_path, ingested):
    score((None, ingested), labels=LABELS, scoring=Scoring(), out=tmp_path)
    assert {r["status"] for r in read_rows(artifact_of(tmp_path))} == {"not_predicted"}


def test_another_grid_is_an_error_of_the_case(tmp_path, ingested):
    with pytest.raises(CaseError, match="same grid"):
        score((predicted(tmp_path, mask(2.0)), ingested), labels=LABELS, scoring=Scoring(), out=tmp_path)


def test_classes_are_scored_by_their_probabilities(tmp_path, ingested):
    write_json(ingested.path / "source.json", {"case": "a", "patient": "p", "label_class": "cat"})
    write_json(tmp_path / "p" / "probabilities.json", {"cat": 0.75, "dog": 0.25})
    item = (artifact_of(tmp_path / "p"), ingested)
    score(item, labels=(), scoring=Scoring(), classes=("cat", "dog"), out=tmp_path)
    rows = read_rows(artifact_of(tmp_path))
    assert {(r["label"], r["metric"]): r["value"] for r in rows} == {
        ("cat", "probability"): 0.75,
        ("cat", "truth"): 1.0,
        ("dog", "probability"): 0.25,
        ("dog", "truth"): 0.0,
    }
