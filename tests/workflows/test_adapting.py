"""From a run on one site to models of another, and probes of frozen encoders."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from medseg.core.config import load_config
from medseg.core.errors import MedsegError
from medseg.core.files import read_json
from medseg.core.run import Run
from medseg.data.cohort import Cohort
from medseg.imaging.image import read_image, write_image
from medseg.learning.settings import Adaptation
from medseg.workflows.adapting import adapt, model_artifacts, without_labels
from medseg.workflows.probing import probe

QUICK = ("training.epochs=1", "training.steps_per_epoch=2", "windows=4", "confidence=0.5")


@pytest.fixture(scope="module")
def site(tiny_msd: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another site: phantoms with another law of grey values."""
    folder = tmp_path_factory.mktemp("site")
    for number, file in enumerate(sorted((tiny_msd / "imagesTr").glob("*.nii.gz"))[:6]):
        image = read_image(file)
        bent = 4000 * np.exp(image.array / 800) - 500
        write_image(image.but(bent.astype(np.float32)), folder / f"other{number}.nii.gz")
    return folder


def _settings(method: str) -> Adaptation:
    return load_config(Adaptation, None, [f"method={method}", *QUICK])


def _target(site: Path) -> Cohort:
    return Cohort.open(site, quiet=True, need_reference=False, images_alone=True)


def test_the_shift_is_reported_and_nothing_else_is_done(tiny_run, site, tmp_path):
    run = Run(tmp_path / "out", quiet=True)
    done = adapt(tiny_run, _target(site), run, device="cpu")
    told = read_json(tmp_path / "out" / "shift.json")
    assert done.exit_code == 0
    assert not (tmp_path / "out" / "adapt").exists()
    seen = told["seen_by_the_model"]
    assert seen["target_cases"] == 6
    assert seen["source_cases"] == len(_trained_cases(tiny_run))
    rows = {row["quantity"]: row for row in told["images"]}
    assert any(name.startswith("size_") for name in rows)
    assert {a["method"] for a in told["advice"]} >= {"histogram", "adabn"}
    assert all(a["worth"] in ("yes", "maybe", "no") and a["why"] for a in told["advice"])
    assert "histogram" in done.text


def test_methods_follow_one_another_and_a_second_call_does_nothing(tiny_run, site, tmp_path):
    run = Run(tmp_path / "out", quiet=True)
    settings = _settings("histogram+adabn")
    adapt(tiny_run, _target(site), run, adaptation=settings, device="cpu")
    (model,) = (tmp_path / "out" / "adapt").glob("*-2/model")
    card = read_json(model / "card.json")
    assert [done["method"] for done in card["adaptations"]] == ["histogram", "adabn"]
    before = (model / "card.json").stat().st_mtime_ns
    adapt(tiny_run, _target(site), Run(tmp_path / "out", quiet=True), adaptation=settings, device="cpu")
    assert (model / "card.json").stat().st_mtime_ns == before


def test_a_method_that_trains_uses_the_models_own_training_cases(tiny_run, site, tmp_path):
    done = adapt(tiny_run, _target(site), Run(tmp_path / "out", quiet=True), adaptation=_settings("fourier"))
    (folder,) = done.summary["models"].values()
    (last,) = read_json(Path(folder) / "card.json")["adaptations"]
    assert last["source_cases"] == len(_trained_cases(tiny_run))


def test_a_model_away_from_its_run_has_no_source(tiny_run, site, tmp_path):
    import shutil

    away = tmp_path / "away"
    shutil.copytree(next(iter(model_artifacts(tiny_run).values())).path, away)
    with pytest.raises(MedsegError, match="needs the cases"):
        adapt(away, _target(site), Run(tmp_path / "a", quiet=True), adaptation=_settings("fourier"))
    done = adapt(away, _target(site), Run(tmp_path / "b", quiet=True), adaptation=_settings("histogram"))
    assert Path(next(iter(done.summary["models"].values()))).is_dir()
    shown = adapt(away, _target(site), Run(tmp_path / "c", quiet=True), source=tiny_run, device="cpu")
    cases = len(_trained_cases(tiny_run))
    assert shown.summary["shift"]["seen_by_the_model"]["source_cases"] == cases, (
        "those it was trained on, no more"
    )


def test_references_of_the_target_are_dropped_at_the_door(tiny_msd, tmp_path):
    cohort = without_labels(Cohort.open(tiny_msd, quiet=True))
    assert all(case.reference is None and case.label_class is None for case in cohort.cases)


def test_the_command_and_the_recipe_adapt(tiny_run, tiny_dicom, site, tmp_path):
    from medseg.cli import main
    from tests.conftest import QUICK as RECIPE

    words = ["adapt", str(tiny_run), str(site), str(tmp_path / "out"), "--method", "adabn", "windows=2"]
    assert main([*words, "--device", "cpu", "--quiet"]) == 0
    assert list((tmp_path / "out" / "adapt").glob("*/model/weights.safetensors"))
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        json.dumps(
            {
                "name": "two",
                "cohort": {"root": str(tiny_dicom)},
                "split": {"folds": 1, "test": 0.34},
                "adaptation": {"method": "adabn", "windows": 2, "target": {"root": str(site)}},
                "tracking": {"enabled": False},
            }
        )
    )
    run = tmp_path / "run"
    assert main(["train", str(recipe), *RECIPE, "--run", str(run), "--device", "cpu", "--quiet"]) == 0
    assert list((run / "adapted" / "adapt").glob("fold0/model/weights.safetensors"))


def test_a_model_that_looks_at_masks_is_adapted_where_masks_are_given(tiny_classes, tmp_path):
    """The mask says where to look; classes that stand beside it in the target are not read."""
    from medseg.workflows.adapting import looks_at_masks
    from medseg.workflows.settings import TrainSettings
    from medseg.workflows.training import train

    masked = _with_masks(tiny_classes, tmp_path)
    words = [f"cohort.root={masked}", "cohort.format=csv", "task=classification", "plan.region=mask"]
    words += ["split.folds=1", "split.test=0.34", "tracking.enabled=false", "training.baseline=false"]
    words += ["training.epochs=1", "training.steps_per_epoch=2", "plan.network_arguments.widen_factor=0.125"]
    run = Run(tmp_path / "run", quiet=True)
    assert train(load_config(TrainSettings, None, words), run, "cpu").exit_code == 0
    run.close()
    assert looks_at_masks(run.root)
    target = Cohort.open(masked, format="csv", quiet=True)
    done = adapt(
        run.root, target, Run(tmp_path / "out", quiet=True), adaptation=_settings("adabn"), device="cpu"
    )
    assert done.exit_code == 0
    assert read_json(next((tmp_path / "out" / "ingest").glob("*/source.json")))["label_class"] is None
    blind = target.but(cases=tuple(case.but(reference=None) for case in target.cases))
    with pytest.raises(MedsegError, match=r"no image of the target(.|\n)*foreground of a mask"):
        adapt(
            run.root, blind, Run(tmp_path / "blind", quiet=True), adaptation=_settings("adabn"), device="cpu"
        )


def _with_masks(manifest: Path, folder: Path) -> Path:
    """The manifest with a mask for each image: what is brighter than its mean."""
    import csv

    rows = list(csv.DictReader(manifest.read_text().splitlines()))
    for row in rows:
        image = read_image(manifest.parent / row["image"])
        row["image"] = str(manifest.parent / row["image"])
        row["reference"] = str(folder / f"mask_{row['patient']}.nii.gz")
        write_image(image.but((image.array > image.array.mean()).astype(np.uint8)), Path(row["reference"]))
    out = folder / "masked.csv"
    with out.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return out


@pytest.mark.parametrize("kind", ["linear", "knn"])
def test_a_probe_judges_every_case_once_and_keeps_the_embeddings(kind, tiny_run, tiny_classes, tmp_path):
    cohort = Cohort.open(tiny_classes, format="csv", quiet=True)
    model = next(iter(model_artifacts(tiny_run).values())).path
    channels = tuple(read_json(model / "plan.json")["channels"])
    cohort = cohort.but(
        channels=channels,
        cases=[c.but(images=dict(zip(channels, c.images.values(), strict=True))) for c in cohort.cases],
    )
    run = Run(tmp_path / "run", quiet=True)
    scores = probe(run, cohort, model, kind=kind, folds=3, device="cpu")
    rows = [row for row in scores.rows if row["metric"] == "probability"]
    assert sorted({row["case"] for row in rows}) == sorted(case.id for case in cohort.cases)
    assert all(row["status"] == "ok" for row in rows)
    assert "auroc" in json.dumps(scores.summary())
    file = next((tmp_path / "run" / "features").glob("*/embedding.npy"))
    before = file.stat().st_mtime_ns
    again = probe(Run(tmp_path / "run", quiet=True), cohort, model, kind=kind, folds=3, device="cpu")
    assert file.stat().st_mtime_ns == before
    assert again.rows == scores.rows


def _trained_cases(run: Path) -> list[str]:
    record = read_json(next((run / "train").glob("*/record.json")))
    ids = {case["id"] for case in read_json(run / "cohort.json")["cases"]}
    return [n for n in record["inputs"] if n.removeprefix("item.") in ids]
