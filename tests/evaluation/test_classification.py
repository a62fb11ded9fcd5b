"""Scores of classification, against scikit-learn and by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest

from medseg.core.errors import MedsegError
from medseg.evaluation.classification import class_rows
from medseg.evaluation.evaluate import evaluate_folders
from medseg.evaluation.policy import ClassRule, Scoring
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


def binary(n=80, seed=1):
    rng = np.random.default_rng(seed)
    truth = rng.random(n) < 0.3
    p = 1 / (1 + np.exp(-rng.normal(truth * 2 - 1.5, 1)))
    rows = []
    for i in range(n):
        found = {"ill": float(p[i]), "well": float(1 - p[i])}
        rows += class_rows(f"c{i:02d}", f"p{i:02d}", found, "ill" if truth[i] else "well", ("ill", "well"))
    return rows, truth, p


def summary_of(rows, **rule):
    return Scores(rows, Scoring(classes=ClassRule(**rule), repeats=200)).summary()


def test_a_threshold_set_in_advance_decides_between_two_classes():
    from sklearn.metrics import confusion_matrix

    rows, truth, p = binary()
    found = summary_of(rows, thresholds={"ill": 0.25}, threshold_source="Youden on the training part")
    tn, fp, fn, tp = confusion_matrix(truth, p >= 0.25).ravel()
    ill = found["labels"]["ill"]
    assert ill["sensitivity"]["mean"] == pytest.approx(tp / (tp + fn))
    assert ill["specificity"]["mean"] == pytest.approx(tn / (tn + fp))
    assert ill["ppv"]["mean"] == pytest.approx(tp / (tp + fp))
    assert ill["npv"]["mean"] == pytest.approx(tn / (tn + fn))
    assert (ill["sensitivity"]["threshold"], ill["ppv"]["prevalence"]) == (0.25, pytest.approx(truth.mean()))
    assert found["labels"]["well"]["sensitivity"]["mean"] == ill["specificity"]["mean"]
    assert found["confusion"]["counts"] == [[tp, fn, 0], [fp, tn, 0]]
    assert found["mean_over_labels"]["accuracy"]["mean"] == pytest.approx((tp + tn) / 80)
    assert "ill 0.25 (Youden on the training part)" in found["conventions"]["threshold"]


def test_one_threshold_for_two_classes_is_that_of_the_last():
    rows, _, p = binary()
    found = summary_of(rows, threshold=0.7)
    called_well = sum(row[1] for row in found["confusion"]["counts"])
    assert called_well == np.sum(1 - p >= 0.7)


def test_a_case_without_a_prediction_is_called_nothing_at_a_threshold():
    rows, truth, p = binary()
    rows += class_rows("lost", "lost", None, "well", ("ill", "well"))
    found = summary_of(rows, thresholds={"ill": 0.25})
    assert found["confusion"]["counts"][1][2] == 1
    assert found["labels"]["well"]["sensitivity"]["n"] == (~truth).sum() + 1
    assert found["labels"]["well"]["sensitivity"]["mean"] == pytest.approx(
        np.sum((p < 0.25) & ~truth) / ((~truth).sum() + 1)
    )


def test_areas_and_calibration_stand_beside_the_rates():
    from sklearn.metrics import average_precision_score, brier_score_loss

    rows, truth, p = binary()
    found = summary_of(rows)
    ill = found["labels"]["ill"]
    assert ill["auprc"]["mean"] == pytest.approx(average_precision_score(truth, p))
    assert ill["auprc"]["prevalence"] == pytest.approx(truth.mean())
    assert ill["brier"]["mean"] == pytest.approx(brier_score_loss(truth, p))
    assert (ill["ece"]["bins"], ill["ece"]["mean_ci"]) == (10, None)
    assert ill["calibration_slope"]["mean_ci"][0] < ill["calibration_slope"]["mean"]
    assert found["labels"]["well"]["calibration_slope"]["mean"] == pytest.approx(
        ill["calibration_slope"]["mean"]
    )
    over = found["mean_over_labels"]
    assert over["auroc"]["mean_ci"][0] < over["auroc"]["mean"] < over["auroc"]["mean_ci"][1]
    assert over["balanced_accuracy"]["mean_ci"][0] < over["balanced_accuracy"]["mean"]


def test_curves_are_stored_by_kind_and_class():
    found = summary_of(binary()[0], bins=5, decisions=(0.1, 0.5))["curves"]
    assert set(found) == {"roc", "pr", "reliability", "decision"}
    assert (found["roc"]["ill"]["tpr"][-1], found["pr"]["ill"]["recall"][-1]) == (1, 1)
    assert sum(found["reliability"]["ill"]["n"]) == 80
    assert len(found["reliability"]["ill"]["low"]) <= 5
    assert (found["decision"]["ill"]["threshold"][0], found["decision"]["ill"]["threshold"][-1]) == (0.1, 0.5)
    json.dumps(found, allow_nan=False)


def test_chosen_classes_have_no_calibration():
    rows = [
        r for i in range(20) for r in class_rows(f"c{i}", f"p{i}", {"a": 1.0}, "a" if i % 3 else "b", "ab")
    ]
    found = summary_of(rows)
    assert found["labels"]["a"]["brier"]["mean"] is None
    assert found["curves"]["decision"] == {}
    assert "no probabilities" in found["labels"]["a"]["ece"]["mean_ci_note"]


FINDINGS = ("effusion", "nodule", "oedema")


def multilabel(n=50, seed=2):
    rng = np.random.default_rng(seed)
    truth = rng.random((n, 3)) < [0.3, 0.5, 0.1]
    p = np.clip(truth * 0.4 + rng.random((n, 3)) * 0.6, 0, 1)
    return truth, p


def test_a_case_may_have_several_classes_or_none(tmp_path):
    from sklearn import metrics as sk

    truth, p = multilabel()
    lines = {"ref": truth.astype(int), "pred": np.round(p, 4)}
    for name, values in lines.items():
        table = [
            "case," + ",".join(FINDINGS),
            *(f"c{i}," + ",".join(map(str, row)) for i, row in enumerate(values)),
        ]
        (tmp_path / f"{name}.csv").write_text("\n".join(table) + "\n")
    scoring = Scoring(classes=ClassRule(thresholds={"nodule": 0.45}), repeats=200)
    done = evaluate_folders(tmp_path / "pred.csv", tmp_path / "ref.csv", tmp_path / "out", scoring=scoring)
    found = json.loads((tmp_path / "out" / "summary.json").read_text())
    called = np.round(p, 4) >= [0.5, 0.45, 0.5]
    tables = sk.multilabel_confusion_matrix(truth, called)
    for (tn, fp, fn, tp), counts in zip(tables.reshape(-1, 4), found["confusion"]["counts"], strict=True):
        assert counts == [tp, fn, fp, tn, 0]
    assert found["mean_over_labels"]["accuracy"]["mean"] == pytest.approx(
        (called == truth).all(axis=1).mean()
    )
    assert found["mean_over_labels"]["auroc"]["mean"] == pytest.approx(
        sk.roc_auc_score(truth, np.round(p, 4))
    )
    assert found["conventions"]["classes"] == "a case may have several"
    assert done.report.is_file()
    again = Scores.from_csv(tmp_path / "out" / "scores.csv", done.scores.scoring).summary()
    assert again["labels"] == found["labels"]


def test_references_by_column_hold_zeros_and_ones(tmp_path):
    (tmp_path / "ref.csv").write_text("case,a,b\nx,1,2\n")
    (tmp_path / "pred.csv").write_text("case,a,b\nx,1,0\n")
    with pytest.raises(MedsegError, match="0 and 1"):
        evaluate_folders(tmp_path / "pred.csv", tmp_path / "ref.csv", tmp_path / "out")


def test_copies_of_cases_leave_every_interval_as_it_is():
    rows, _, _ = binary()
    double = [r | {"case": r["case"] + s} for r in rows for s in "xy"]
    one, two = summary_of(rows)["labels"]["ill"], summary_of(double)["labels"]["ill"]
    for name in ("auroc", "auprc", "sensitivity", "npv", "brier", "calibration_slope"):
        assert two[name]["mean"] == pytest.approx(one[name]["mean"])
        assert two[name]["mean_ci"] == pytest.approx(one[name]["mean_ci"], abs=0.012), name


def test_the_patients_of_a_table_are_used(tmp_path):
    (tmp_path / "ref.csv").write_text("case,patient,class\na,p,cat\nb,p,dog\nc,q,dog\n")
    (tmp_path / "pred.csv").write_text("case,cat,dog\na,0.9,0.1\nb,0.2,0.8\nc,0.6,0.4\n")
    done = evaluate_folders(tmp_path / "pred.csv", tmp_path / "ref.csv", tmp_path / "out")
    assert {row["patient"] for row in done.scores.rows} == {"p", "q"}
