"""Paired comparison of two tables of scores."""

from __future__ import annotations

import json

import numpy as np
import pytest

from medseg.core.errors import MedsegError
from medseg.evaluation.compare import compare
from medseg.evaluation.scoring import Scores


def write(file, values, metric="dice"):
    rows = [
        {"case": c, "patient": c, "label": "organ", "metric": metric, "value": v, "unit": "", "status": "ok"}
        for c, v in values.items()
    ]
    Scores(rows).to_csv(file)
    return file


def test_a_clear_gain_is_found_with_its_interval(tmp_path):
    rng = np.random.default_rng(0)
    first = {f"c{i}": float(v) for i, v in enumerate(rng.uniform(0.7, 0.9, 30))}
    second = {c: v + 0.02 + float(rng.normal(0, 0.01)) for c, v in first.items()}
    a, b = write(tmp_path / "a.csv", first), write(tmp_path / "b.csv", second | {"only": 0.5})
    done = compare(a, b, tmp_path / "out")
    (cell,) = json.loads((tmp_path / "out" / "compare.json").read_text())["differences"]
    assert cell["ci"][0] < 0.02 < cell["ci"][1]
    assert cell["ci"][0] > 0
    assert (cell["n"], cell["b_better"] > 25, cell["p_holm"] < 0.01) == (30, True, True)
    assert done.summary["only_in_one"] == {"a": [], "b": ["only"]}
    assert "organ" in done.page.read_text()


def test_lower_is_better_for_distances(tmp_path):
    a = write(tmp_path / "a.csv", {"x": 4.0, "y": 6.0}, "hd95")
    b = write(tmp_path / "b.csv", {"x": 2.0, "y": 5.0}, "hd95")
    (cell,) = compare(a, b, tmp_path / "out").summary["differences"]
    assert (cell["difference"], cell["b_better"]) == (-1.5, 2)


def test_tables_with_nothing_in_common_are_refused(tmp_path):
    a, b = write(tmp_path / "a.csv", {"x": 0.5}), write(tmp_path / "b.csv", {"y": 0.5})
    with pytest.raises(MedsegError, match="in common"):
        compare(a, b, tmp_path / "out")
