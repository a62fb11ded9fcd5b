"""Classification beyond one class a case: several classes, regions, joint models, and the baseline beside."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from medseg.core.config import load_config
from medseg.core.files import read_json
from medseg.core.run import Run
from medseg.imaging.grid import Grid
from medseg.imaging.image import Image, write_image
from medseg.workflows.opening import open_cohort
from medseg.workflows.settings import CohortSettings, TrainSettings
from medseg.workflows.training import train

SHAPE = (24, 24, 12)
FAST = (
    "training.epochs=1",
    "training.steps_per_epoch=2",
    "scoring.repeats=100",
    "tracking.enabled=false",
    "split.test=0.34",
    "split.folds=1",
)


@pytest.fixture(scope="module")
def bodies(tmp_path_factory) -> Path:
    """Eighteen volumes with a ball that is bright or dark, large or small; its mask beside it.

    The manifest says both classes, one of them (``size.csv``), or none (``;``).
    """
    root = tmp_path_factory.mktemp("bodies")
    at = np.stack(np.meshgrid(*(np.arange(n) for n in SHAPE), indexing="ij"), -1)
    rows, sizes = ["image,reference,class"], ["image,reference,class"]
    for n in range(18):
        rng = np.random.default_rng(n)
        bright, large = n % 2 == 0, n % 3 == 0
        inside = np.linalg.norm(at - rng.uniform(8, 15, 3) * (1, 1, 0.5), axis=-1) < (4.5 if large else 3)
        grid = Grid.from_spacing(SHAPE)
        array = rng.normal(0, 10, SHAPE) + inside * (100 if bright else 40)
        write_image(Image(array[None].astype(np.float32), grid), root / f"c{n}.nii.gz")
        write_image(Image(inside[None].astype(np.uint8), grid), root / f"m{n}.nii.gz")
        names = ";".join(["bright"] * bright + ["large"] * large) or ";"
        rows.append(f"c{n}.nii.gz,m{n}.nii.gz,{names}")
        sizes.append(f"c{n}.nii.gz,m{n}.nii.gz,{'large' if large else 'small'}")
    (root / "both.csv").write_text("\n".join(rows) + "\n")
    (root / "size.csv").write_text("\n".join(sizes) + "\n")
    return root


def _trained(tmp_path: Path, root: Path, *words: str):
    small = ["plan.network_arguments.widen_factor=0.125"] if "task=classification" in words else []
    given = [f"cohort.root={root}", "cohort.format=csv", *FAST, *small, *words]
    settings = load_config(TrainSettings, None, given)
    run = Run(tmp_path / "run", quiet=True)
    outcome = train(settings, run, "cpu")
    run.close()
    assert outcome.exit_code == 0
    return outcome, run.root


def _rows(file: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(file.read_text().splitlines()))


def test_a_case_may_have_several_classes(bodies, tmp_path):
    outcome, root = _trained(tmp_path, bodies / "both.csv", "task=classification")
    rows = _rows(root / "scores.csv")
    truth: dict[str, float] = {}
    for row in rows:
        if row["metric"] == "truth":
            truth[row["case"]] = truth.get(row["case"], 0) + float(row["value"])
    assert {0.0, 1.0, 2.0} & set(truth.values()) >= {0.0, 1.0}
    chances = [r for r in rows if r["metric"] == "probability"]
    sums = {c: sum(float(r["value"]) for r in chances if r["case"] == c) for c in truth}
    assert any(abs(s - 1) > 1e-3 for s in sums.values())  # each class by itself
    summary = read_json(root / "summary.json")
    assert summary["conventions"]["classes"] == "a case may have several"
    assert summary["confusion"]["rows"] == "class"
    plan = (root / "plan.yaml").read_text()
    assert "multilabel: true" in plan
    assert outcome.summary["baseline"]["baseline"]["auroc"]["mean"] is not None


def test_the_baseline_stands_beside_the_network_on_the_same_cases(bodies, tmp_path):
    words = ("task=classification", "plan.region=mask", "plan.region_margin_mm=1")
    outcome, root = _trained(tmp_path, bodies / "size.csv", *words)
    own, rival = (_rows(root / name) for name in ("scores.csv", "baseline_scores.csv"))
    assert {r["case"] for r in own} == {r["case"] for r in rival}
    found = read_json(root / "baseline.json")
    assert found["baseline"]["auroc"]["mean"] == 1.0  # the size of the mask says it all
    gap = found["network_less_baseline"]
    assert [row["metric"] for row in gap["rows"]] == ["auroc", "auroc", "accuracy"]
    assert {row["n"] for row in gap["rows"]} == {len({r["case"] for r in own})}
    assert gap["mean"]["difference"] <= 0
    assert "network less baseline: AUROC" in outcome.text
    page = (root / "report/index.html").read_text()
    assert "a plain baseline" in page
    model = read_json(root / "baseline/fold0/model.json")
    strongest = np.abs(np.array(model["weights"])).sum(0).argmax()
    assert model["features"][int(strongest)].startswith("shape_")


def test_the_baseline_is_fitted_on_the_training_part_alone(bodies, tmp_path):
    _, root = _trained(tmp_path, bodies / "size.csv", "task=classification")
    judged = {r["case"] for r in _rows(root / "scores.csv")}
    model = read_json(root / "baseline/fold0/model.json")
    assert model["cases"] == 18 - len(judged)
    assert set(read_json(root / "baseline/fold0/probabilities.json")) == judged


def test_it_can_be_left_out(bodies, tmp_path):
    outcome, root = _trained(tmp_path, bodies / "size.csv", "task=classification", "training.baseline=false")
    assert not (root / "baseline.json").exists()
    assert "baseline" not in outcome.summary


def test_a_joint_model_is_judged_by_its_masks_and_its_classes(bodies, tmp_path):
    words = (
        "plan.network=joint_unet", "plan.network_arguments.widths=[4,8]",
        "plan.network_arguments.strides=[[1,1,1],[2,2,2]]", "cohort.labels.ball=1",
    )  # fmt: skip
    outcome, root = _trained(tmp_path, bodies / "size.csv", *words)
    assert any(r["metric"] == "dice" for r in _rows(root / "scores.csv"))
    classes = _rows(root / "class_scores.csv")
    assert {r["label"] for r in classes} == {"large", "small"}
    assert {r["case"] for r in classes} == {r["case"] for r in _rows(root / "scores.csv")}
    assert read_json(root / "class_summary.json")["mean_over_labels"]["auroc"]["mean"] is not None
    assert "classes: auroc" in outcome.text


def test_a_recipe_says_roles_and_keeps_what_is_alike_together(bodies, tmp_path):
    text = (bodies / "size.csv").read_text().replace("image,reference,class", "scan,drawn,kind")
    text += "".join(line.replace("c0.", "copy.") + "\n" for line in text.splitlines()[1:2])
    (bodies / "copy.nii.gz").write_bytes((bodies / "c1.nii.gz").read_bytes())
    (bodies / "roles.csv").write_text(text)
    roles = {"scan": "image", "drawn": "reference", "kind": "class"}
    settings = CohortSettings(root=str(bodies / "roles.csv"), format="csv", roles=roles, ids="names")
    cohort = open_cohort(settings.but(group_alike=0.97), "classification", quiet=True)
    assert cohort.task == "classification" and cohort.classes == ("large", "small")
    assert cohort["copy"].patient == cohort["c1"].patient
    assert len({case.patient for case in cohort.cases}) == 18
    assert open_cohort(settings, "segmentation", quiet=True).task == "segmentation"
