"""The notebooks run from top to bottom on small phantoms, and are stored without output."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

pytestmark = pytest.mark.filterwarnings("ignore")  # of the kernel's libraries, in another process

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
SMALL = {
    "01_look_at_a_cohort.ipynb": 'PATIENTS, SIZE = 6, "tiny"',
    "02_from_images_to_cross_validation.ipynb": (
        'PATIENTS, SIZE, FOLDS, MINUTES = 6, "tiny", 2, 1\n'
        'TRAINING = {"epochs": 1, "steps_per_epoch": 2}\n'
        'SMALL = {"widths": [4, 8], "strides": [[1, 1, 1], [2, 2, 2]], "kernels": [[3, 3, 3], [3, 3, 3]]}\n'
        'CHANGES = {"batch": 2, "network_arguments": SMALL}'
    ),
}
NOTEBOOKS = sorted(file.name for file in FOLDER.glob("*.ipynb"))


def _read(name: str) -> Any:
    return nbformat.read(FOLDER / name, as_version=4)  # type: ignore[no-untyped-call]


def _printed(notebook: Any) -> str:
    outputs = [out for cell in notebook.cells if cell.cell_type == "code" for out in cell.outputs]
    return "".join(out.get("text", "") for out in outputs)


@pytest.fixture
def executed(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The notebook named by the parameter, run on small phantoms in an empty folder."""
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    monkeypatch.setenv("MEDSEG_KEY", "notebook tests")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    notebook = _read(request.param)
    for cell in notebook.cells:
        if "parameters" in cell.metadata.get("tags", []):
            cell.source = SMALL[request.param]
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    return notebook


def test_every_notebook_is_run_by_a_test() -> None:
    assert sorted(SMALL) == NOTEBOOKS


@pytest.mark.parametrize("executed", ["01_look_at_a_cohort.ipynb"], indirect=True)
def test_a_cohort_is_looked_at(executed: Any) -> None:
    said = _printed(executed)
    assert "6 of 6 cases came through" in said
    assert "patients in both: 0" in said
    assert _pictures(executed) == 2
    assert os.sep + "phantoms_dicom" not in said


@pytest.mark.parametrize("executed", ["02_from_images_to_cross_validation.ipynb"], indirect=True)
def test_images_become_a_cross_validation(executed: Any) -> None:
    said = _printed(executed)
    assert "did you mean 'patch'?" in said
    assert "liver      Dice" in said
    assert "same scores: True" in said
    assert _pictures(executed) == 2


def _pictures(notebook: Any) -> int:
    outputs = [out for cell in notebook.cells if cell.cell_type == "code" for out in cell.outputs]
    return sum("image/png" in out.get("data", {}) for out in outputs)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_is_stored_without_output_and_with_small_cells(name: str) -> None:
    for cell in _read(name).cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None
            assert len(cell.source.splitlines()) <= 30
