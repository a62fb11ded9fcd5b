"""Paired comparison of two tables of scores."""

from __future__ import annotations

import json

import numpy as np
import pytest

from medseg.core.errors import MedsegError
from medseg.evaluation.classification import class_rows
from medseg.evaluation.compare import compare
from medseg.evaluation.compare_classes import mcnemar
from medseg.evaluation.policy import Scoring
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


def test_a_margin_set_in_advance_gives_a_verdict(tmp_path):
    rng = np.random.default_rng(1)
    first = {f"c{i}": float(v) for i, v in enumerate(rng.uniform(0.7, 0.9, 40))}
    second = {c: v + (0.008 if i % 2 else -0.01) for i, (c, v) in enumerate(first.items())}
    a, b = write(tmp_path / "a.csv", first), write(tmp_path / "b.csv", second)
    for margin, said in ((0.02, "non-inferior"), (0.0001, "inconclusive")):
        done = compare(a, b, tmp_path / "out", Scoring(margins={"dice": margin}))
        (cell,) = done.summary["differences"]
        assert (cell["margin"], cell["verdict"]) == (margin, said)
        assert said in done.text
        assert said in done.page.read_text()
        assert "margin" in done.summary["conventions"]
    with pytest.raises(MedsegError, match="not compared"):
        compare(a, b, tmp_path / "out", Scoring(margins={"hd95": 1.0}))


def test_the_margin_of_a_distance_is_seen_from_its_good_side(tmp_path):
    first = {f"c{i}": 4.0 + i % 5 for i in range(30)}
    a = write(tmp_path / "a.csv", first, "hd95")
    b = write(
        tmp_path / "b.csv", {c: v + 3 + (i % 3) * 0.1 for i, (c, v) in enumerate(first.items())}, "hd95"
    )
    (cell,) = compare(a, b, tmp_path / "out", Scoring(margins={"hd95": 1.0})).summary["differences"]
    assert cell["verdict"] == "inferior"
    (cell,) = compare(b, a, tmp_path / "out", Scoring(margins={"hd95": 1.0})).summary["differences"]
    assert (cell["verdict"], cell["b_first"]) == ("superior", 1.0)


def test_the_family_is_all_metrics_and_labels(tmp_path):
    rng = np.random.default_rng(2)
    tables = []
    for gain in (0, 0.05):
        rows = [
            {"case": f"c{i}", "patient": f"p{i // 2}", "label": label, "metric": metric, "unit": "",
             "value": 0.7 + 0.01 * i + gain * (label == "a") + float(rng.normal(0, 0.02)), "status": "ok"}
            for i in range(20) for label in "ab" for metric in ("dice", "volume_ref")
        ]  # fmt: skip
        tables.append(tmp_path / f"{gain}.csv")
        Scores(rows).to_csv(tables[-1])
    cells = compare(*tables, tmp_path / "out").summary["differences"]
    assert [(c["label"], c["metric"], c["patients"]) for c in cells] == [("a", "dice", 10), ("b", "dice", 10)]
    assert sorted(c["p_holm"] for c in cells) == pytest.approx(
        sorted([min(1, 2 * min(c["p"] for c in cells)), max(c["p"] for c in cells)])
    )


def classes_of(file, values, truth="ab" * 20):
    rows = []
    for i, (p, name) in enumerate(zip(values, truth, strict=True)):
        rows += class_rows(f"c{i}", f"p{i}", {"a": 1 - p, "b": p}, name, ("a", "b"))
    Scores(rows).to_csv(file)
    return file


def test_classifications_are_compared_by_area_and_accuracy(tmp_path):
    rng = np.random.default_rng(3)
    truth = np.array(list("ab" * 20)) == "b"
    noise = rng.normal(0, 0.25, 40)
    first, second = (np.clip(0.5 + s * (truth - 0.5) + noise, 0, 1) for s in (0.1, 0.6))
    a, b = classes_of(tmp_path / "a.csv", first), classes_of(tmp_path / "b.csv", second)
    done = compare(a, b, tmp_path / "out")
    cells = {(c["label"], c["metric"]): c for c in done.summary["differences"]}
    assert set(cells) == {("a", "auroc"), ("b", "auroc"), ("all classes", "accuracy")}
    area = cells["b", "auroc"]
    assert (area["ci"][0] > 0, area["p"] < 0.05, area["test"]) == (True, True, "DeLong")
    accuracy = cells["all classes", "accuracy"]
    right = [(v >= 0.5) == truth for v in (first, second)]
    assert accuracy["difference"] == pytest.approx(right[1].mean() - right[0].mean())
    assert (accuracy["b_better"], accuracy["a_better"]) == (
        (right[1] & ~right[0]).sum(), (right[0] & ~right[1]).sum()
    )  # fmt: skip
    assert "auroc" in done.text
    assert "accuracy" in done.page.read_text()


def test_tables_of_another_kind_or_truth_are_refused(tmp_path):
    masks = write(tmp_path / "m.csv", {"x": 0.5})
    a = classes_of(tmp_path / "a.csv", np.linspace(0, 1, 40))
    b = classes_of(tmp_path / "b.csv", np.linspace(0, 1, 40), "ba" * 20)
    with pytest.raises(MedsegError, match="of masks"):
        compare(masks, a, tmp_path / "out")
    with pytest.raises(MedsegError, match="disagree on the class"):
        compare(a, b, tmp_path / "out")


def test_mcnemar_is_exact():
    from scipy.stats import binomtest

    for x, y in ((0, 0), (3, 3), (1, 9), (12, 2)):
        wanted = binomtest(x, x + y).pvalue if x + y else 1.0
        assert mcnemar(x, y) == pytest.approx(wanted)
