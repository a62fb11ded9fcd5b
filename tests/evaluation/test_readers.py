"""Several references of a case: the ceiling, and where the model stands."""

from __future__ import annotations

import numpy as np
import pytest

from medseg.evaluation.policy import Scoring
from medseg.evaluation.readers import MODEL, ceiling, reader_rows
from medseg.imaging.grid import Grid
from medseg.imaging.image import Image
from medseg.imaging.labels import labels

GRID = Grid.from_spacing((20, 12, 12))
LABELS = labels(organ=1)


def strip(n) -> Image:
    """The first n of 20 planes."""
    array = np.zeros((1, *GRID.shape), np.uint8)
    array[0, :n] = 1
    return Image(array, GRID)


def dice(a, b):
    return 2 * min(a, b) / (a + b)


def test_every_pair_of_readers_and_the_model_against_each():
    rows = reader_rows(strip(10), {"r2": strip(8), "r1": strip(12), "r3": strip(10)}, LABELS, Scoring(), "c")
    found = {(r["first"], r["second"]): r["value"] for r in rows if r["metric"] == "dice"}
    assert found == pytest.approx({
        ("r1", "r2"): dice(12, 8), ("r1", "r3"): dice(12, 10), ("r2", "r3"): dice(8, 10),
        (MODEL, "r1"): dice(10, 12), (MODEL, "r2"): dice(10, 8), (MODEL, "r3"): 1.0,
    })  # fmt: skip
    assert "volume_error" not in {r["metric"] for r in rows}  # it asks who is the reference


def test_the_ceiling_stands_beside_the_model():
    rows = []
    for i in range(6):
        readers = {"r1": strip(10), "r2": strip(8)}
        rows += reader_rows(strip(9 if i else 2), readers, LABELS, Scoring(metrics=("dice", "hd95")), f"c{i}")
    cell = ceiling(rows, Scoring())["organ"]["dice"]
    assert cell["n"] == 6
    assert cell["between_readers"]["mean"] == pytest.approx(dice(10, 8))
    good, bad = (np.mean([dice(10, n), dice(8, n)]) for n in (9, 2))
    assert cell["model_with_readers"]["mean"] == pytest.approx((5 * good + bad) / 6)
    assert cell["difference"]["mean"] == pytest.approx((5 * good + bad) / 6 - dice(10, 8))
    assert cell["within"]["share"] == pytest.approx(5 / 6)
    far = ceiling(rows, Scoring())["organ"]["hd95"]
    assert far["within"]["share"] == pytest.approx(5 / 6)


def test_within_means_as_good_as_the_worst_pair():
    readers = {"r1": strip(10), "r2": strip(8), "r3": strip(10)}  # pairs: 1, and twice 8/9
    rows = reader_rows(strip(10), readers, LABELS, Scoring(metrics=("dice", "hd95")), "a")
    cell = ceiling(rows, Scoring())["organ"]["dice"]
    assert cell["model_with_readers"]["mean"] == pytest.approx((2 + dice(10, 8)) / 3)
    assert cell["within"]["share"] == 1  # better than the worst pair, not as good as the best
    assert ceiling(rows, Scoring())["organ"]["hd95"]["within"]["share"] == 1


def test_one_reader_makes_no_ceiling():
    rows = reader_rows(strip(9), {"r1": strip(10)}, LABELS, Scoring(), "c")
    assert {r["first"] for r in rows} == {MODEL}
    assert ceiling(rows, Scoring()) == {}
    assert ceiling([], Scoring()) == {}


def test_no_prediction_counts_against_the_model():
    rows = reader_rows(None, {"r1": strip(10), "r2": strip(8)}, LABELS, Scoring(metrics=("dice",)), "c")
    cell = ceiling(rows, Scoring())["organ"]["dice"]
    assert (cell["model_with_readers"]["mean"], cell["within"]["share"]) == (0, 0)
