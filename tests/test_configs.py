"""Every recipe that is shipped is read, and run on phantoms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medseg.cli import main
from medseg.core.config import load_config
from medseg.data.phantom import draw_patient
from medseg.data.selection_rules import Selection
from medseg.imaging.image import write_image
from medseg.workflows.acceptance import Acceptance
from medseg.workflows.pacs_settings import PacsSettings
from medseg.workflows.settings import TrainSettings
from tests.conftest import QUICK

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
FILES = sorted(CONFIGS.rglob("*.yaml"))
ALL = 12
MODELS = {"validation": Acceptance, "selection": Selection, "pacs": PacsSettings}
RECIPES = [file for file in FILES if file.parent.name not in MODELS]


def test_the_search_finds_every_recipe() -> None:
    assert len(FILES) == ALL, "a recipe came or went: change ALL, and see that it is run below"


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_every_recipe_is_valid(file: Path) -> None:
    assert load_config(MODELS.get(file.parent.name, TrainSettings), file).model_dump()


@pytest.fixture(scope="module")
def tiny_tumours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six tiny phantoms in two channels, their labels numbered as tumours are: a folder a case."""
    folder = tmp_path_factory.mktemp("tumours")
    for n in range(6):
        made = draw_patient(3, n, size="tiny")
        values = np.array([0, 2, 1, 4], np.uint8)[made.mask.array]
        case = folder / f"case{n}"
        write_image(made.image, case / "flair.nii.gz")
        write_image(made.image.but(-made.image.array), case / "t1c.nii.gz")
        write_image(made.mask.but(values), case / "label.nii.gz")
    return folder


@pytest.mark.parametrize("file", RECIPES, ids=lambda f: f.stem)
def test_every_recipe_runs_on_phantoms(
    file: Path,
    tiny_msd: Path,
    tiny_dicom: Path,
    tiny_classes: Path,
    tiny_pictures: Path,
    tiny_tumours: Path,
    tmp_path: Path,
) -> None:
    settings = load_config(TrainSettings, file)
    table = tiny_pictures if file.stem.endswith("_2d") else tiny_classes
    roots = {"msd": tiny_msd, "dicom": tiny_dicom, "csv": table, "nifti": tiny_tumours}
    quick = [word for word in QUICK if settings.task == "segmentation" or not word.startswith("plan.")]
    quick += ["split.folds=2"] if settings.split.folds > 1 else []
    quick += ["cohort.group_alike=0.9999"] if settings.cohort.group_alike else []  # phantoms are all alike
    words = [f"cohort.root={roots[settings.cohort.format]}", *quick, "tracking.enabled=false"]
    run = tmp_path / "runs" / settings.name
    assert main(["train", str(file), *words, "--run", str(run), "--quiet"]) == 0
    assert (run / "summary.json").is_file()
    assert (run / "report/index.html").is_file()
    assert bool(list(run.glob("export/*/*.seg.dcm"))) == ("seg" in settings.export)
