"""What every test may ask for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"

QUICK = (
    "training.budget_minutes=null",
    "training.epochs=1",
    "training.steps_per_epoch=2",
    "plan.network_arguments.widths=[4,8]",
    "plan.network_arguments.strides=[[1,1,1],[2,2,2]]",
    "scoring.repeats=100",
)
"""Overrides that make any recipe run in seconds: the road is tested, not the result."""


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real images beside the checkout; skips where it is absent."""
    if not SHARED.is_dir():
        pytest.skip("the real images of ../shared/data are not beside this checkout")
    return SHARED


@pytest.fixture(scope="session", autouse=True)
def _own_key() -> Iterator[None]:
    """Identifiers are hashed with a key of the tests: nothing is written to the home folder."""
    before = os.environ.get("MEDSEG_KEY")
    os.environ["MEDSEG_KEY"] = "key-of-the-tests"
    yield
    if before is None:
        del os.environ["MEDSEG_KEY"]
    else:
        os.environ["MEDSEG_KEY"] = before


@pytest.fixture(scope="session")
def tiny_msd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight tiny phantom patients in MSD layout. Read-only: copy before changing anything."""
    from medseg.data.phantom import write_phantoms

    folder = tmp_path_factory.mktemp("msd")
    write_phantoms(folder, 8, seed=3, format="msd", size="tiny")
    return folder


@pytest.fixture(scope="session")
def tiny_dicom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six tiny phantom patients as DICOM CT with DICOM SEG. Read-only."""
    from medseg.data.phantom import write_phantoms

    folder = tmp_path_factory.mktemp("dicom")
    write_phantoms(folder, 6, seed=4, format="dicom", size="tiny")
    return folder


@pytest.fixture(scope="session")
def tiny_classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of twelve tiny volumes in two classes. Read-only."""
    from medseg.data.phantom import write_class_phantoms

    folder = tmp_path_factory.mktemp("classes")
    write_class_phantoms(folder, 12, classes=2, seed=5, format="nifti", size="tiny")
    return folder / "manifest.csv"


@pytest.fixture(scope="session")
def tiny_pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of eighteen small pictures in three classes. Read-only."""
    from medseg.data.phantom import write_class_phantoms

    folder = tmp_path_factory.mktemp("pictures")
    write_class_phantoms(folder, 18, classes=3, seed=6, format="png", size="tiny")
    return folder / "manifest.csv"


@pytest.fixture(scope="session")
def tiny_run(tiny_dicom: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on tiny DICOM phantoms: ingest to report and DICOM SEG. Read-only."""
    from medseg.core.config import load_config
    from medseg.core.run import Run
    from medseg.workflows.settings import TrainSettings
    from medseg.workflows.training import train

    words = [f"cohort.root={tiny_dicom}", "split.folds=1", "split.test=0.34", "name=tiny"]
    words.append("export=[rtstruct,sr]")
    settings = load_config(TrainSettings, None, [*words, *QUICK, "tracking.enabled=false"])
    run = Run(tmp_path_factory.mktemp("run"), quiet=True)
    assert train(settings, run, "cpu").exit_code == 0
    run.close()
    return run.root
