"""A recipe that first learns from images without labels."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from medseg.core.config import load_config
from medseg.core.errors import MedsegError
from medseg.core.run import Run
from medseg.workflows.settings import TrainSettings
from medseg.workflows.training import train
from tests.conftest import QUICK


def _settings(tiny_msd: Path, images: Path, *words: str) -> TrainSettings:
    given = [f"cohort.root={tiny_msd}", "split.folds=1", "split.test=0.3", "tracking.enabled=false"]
    pretext = [f"pretext.images.root={images}", "pretext.steps=2"]
    return load_config(TrainSettings, None, [*given, *pretext, *QUICK, *words])


@pytest.fixture
def images(tiny_msd: Path, tmp_path: Path) -> Path:
    """Two images that the labelled cohort has as well, and two of other patients."""
    from medseg.data.phantom import write_phantoms

    write_phantoms(tmp_path / "other", 2, seed=21, format="msd", size="tiny")
    folder = tmp_path / "images"
    folder.mkdir()
    for number, file in enumerate(sorted((tmp_path / "other" / "imagesTr").glob("*.nii.gz"))):
        shutil.copy(file, folder / f"other{number}.nii.gz")
    for number, file in enumerate(sorted((tiny_msd / "imagesTr").glob("*.nii.gz"))[:2]):
        shutil.copy(file, folder / f"same{number}.nii.gz")
    return folder


def test_the_training_begins_from_what_other_images_taught(tiny_msd: Path, images: Path, tmp_path: Path):
    run = Run(tmp_path / "run", quiet=True)
    assert train(_settings(tiny_msd, images), run, "cpu").exit_code == 0
    assert sorted(p.name for p in (run.root / "unlabelled" / "prepare").iterdir()) == ["other0", "other1"]
    start = json.loads((run.root / "train/fold0/model/card.json").read_text())["start"]
    assert start["format"] == "pretext"
    assert start["share"] == 1
    assert start["parts"]["head"]["exact"] == 0
    about = json.loads((run.root / "unlabelled/pretext/restored/origin.json").read_text())
    assert "restoring 2 images" in about["facts"]["notes"][0]


def test_two_beginnings_and_no_image_left_are_refused(tiny_msd: Path, images: Path, tmp_path: Path):
    from medseg.data.plan import Plan
    from medseg.workflows.journey import ingest_all, make_plan
    from medseg.workflows.opening import open_cohort
    from medseg.workflows.restoring import restored_weights

    settings = _settings(tiny_msd, images)
    run = Run(tmp_path / "run", quiet=True)
    raw = ingest_all(run, open_cohort(settings.cohort, settings.task, True))
    plan: Plan = make_plan(run, raw, **settings.choices("cpu"))
    both = settings.but(transfer={"source": "w.pth"})
    with pytest.raises(MedsegError, match="two beginnings"):
        restored_weights(run, raw, plan, both, "cpu")
    for file in images.glob("other*"):
        file.unlink()
    with pytest.raises(MedsegError, match="2 images, all of them also in the labelled cohort"):
        restored_weights(run, raw, plan, settings, "cpu")


@pytest.mark.parametrize(
    ("word", "said"),
    [("pretext.steps=5", "pretext.images.root"), ("adaptation.method=adabn", "adaptation.target.root")],
)
def test_settings_that_would_do_nothing_are_refused(word: str, said: str):
    with pytest.raises(MedsegError, match=said):
        load_config(TrainSettings, None, [word])
