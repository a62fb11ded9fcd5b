"""Scores of classification, against scikit-learn and by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest

from medseg.core.errors import MedsegError
from medseg.evaluation.classification import class_rows
from medseg.evaluation.evaluate import evaluate_folders
from medseg.evaluation.scoring import Scores

CLASSES = ("benign", "malignant", "normal")


def some_rows(n=60, seed=0):
    rng = np.random.default_rng(seed)
    rows, truth, probabilities = [], rng.integers(0, 3, n), rng.dirichlet([1, 1, 1], n)
    probabilities[np.arange(n), truth] += 0.5
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    for i in range(n):
        found = dict(zip(CLASSES, probabilities[i].tolist(), strict=True))
        rows += class_rows(f"c{i:02d}", f"p{i:02d}", found, CLASSES[truth[i]], CLASSES)
    return rows, truth, probabilities


def test_summary_agrees_with_scikit_learn():
    from sklearn import metrics as sk

    rows, truth, probabilities = some_rows()
    found, chosen = Scores(rows).summary(), probabilities.argmax(axis=1)
    over = found["mean_over_labels"]
    assert over["accuracy"]["mean"] == pytest.approx(sk.accuracy_score(truth, chosen))
    assert over["auroc"]["mean"] == pytest.approx(sk.roc_auc_score(truth, probabilities, multi_class="ovr"))
    assert over["balanced_accuracy"]["mean"] == pytest.approx(sk.balanced_accuracy_score(truth, chosen))
    assert (
        np.array(found["confusion"]["counts"])[:, :3].tolist() == sk.confusion_matrix(truth, chosen).tolist()
    )
    precision = sk.precision_score(truth, chosen, average=None)
    assert [found["labels"][c]["ppv"]["mean"] for c in CLASSES] == pytest.approx(precision)
    assert all(c["auroc"]["mean_ci"][0] < c["auroc"]["mean"] for c in found["labels"].values())


def test_a_case_without_a_prediction_is_wrong():
    rows = class_rows("a", "a", {"x": 0.9, "y": 0.1}, "x", ("x", "y"))
    rows += class_rows("b", "b", None, "y", ("x", "y"))
    found = Scores(rows).summary()
    assert found["mean_over_labels"]["accuracy"]["mean"] == 0.5
    assert found["confusion"]["counts"] == [[1, 0, 0], [0, 0, 1]]
    assert found["labels"]["y"]["sensitivity"]["status"]["not_predicted"] == 1


def test_an_unknown_class_is_refused():
    with pytest.raises(MedsegError, match="not in the list"):
        class_rows("a", "a", {"z": 1.0}, "x", ("x", "y"))


def test_two_class_tables_are_matched_by_case(tmp_path):
    (tmp_path / "ref.csv").write_text("case,class\na,cat\nb,dog\nc,dog\nd,cat\n")
    (tmp_path / "pred.csv").write_text("case,cat,dog\na,0.9,0.1\nb,0.2,0.8\nc,0.6,0.4\nz,0.5,0.5\n")
    done = evaluate_folders(tmp_path / "pred.csv", tmp_path / "ref.csv", tmp_path / "out")
    assert {f.item for f in done.failures} == {"d", "z"}
    found = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert found["mean_over_labels"]["accuracy"]["mean"] == 0.5
    page = done.report.read_text()
    assert "Confusion matrix" in page
    assert "AUROC" in page


def test_a_table_of_chosen_classes_will_do(tmp_path):
    (tmp_path / "ref.csv").write_text("case,class\na,cat\nb,dog\n")
    (tmp_path / "pred.csv").write_text("case,class\na,cat\nb,cat\n")
    done = evaluate_folders(tmp_path / "pred.csv", tmp_path / "ref.csv", tmp_path / "out")
    assert done.scores.summary()["mean_over_labels"]["accuracy"]["mean"] == 0.5


@pytest.mark.parametrize("text", ["name,class\na,cat\n", "case,class\na,cat\na,dog\n", "case,cat\na,much\n"])
def test_tables_that_cannot_be_read_are_refused(tmp_path, text):
    (tmp_path / "ref.csv").write_text("case,class\na,cat\n")
    (tmp_path / "pred.csv").write_text(text)
    with pytest.raises(MedsegError):
        evaluate_folders(tmp_path / "pred.csv", tmp_path / "ref.csv", tmp_path / "out")
