"""Small data sets, drawn on the spot."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from medseg.core.files import write_json
from medseg.imaging.grid import Grid
from medseg.imaging.image import Image, write_image

GRID = Grid.from_spacing((8, 9, 10), (1.0, 1.5, 2.0))


def noise(seed: int, grid: Grid = GRID) -> Image:
    """Whole numbers from -100 to 400, another picture for each seed."""
    values = np.random.default_rng(seed).integers(-100, 400, grid.shape)
    return Image(values[None].astype(np.float32), grid)


def box(grid: Grid = GRID, value: float = 1, kind: type = np.uint8) -> Image:
    """A box of one label in the middle."""
    array = np.zeros((1, *grid.shape), kind)
    array[0, 2:6, 2:6, 2:6] = value
    return Image(array, grid)


@pytest.fixture
def msd(tmp_path: Path) -> Callable[..., Path]:
    """Write an MSD data set with these case ids; returns its root."""

    def write(ids: Sequence[str] = ("a_1", "a_2", "a_3"), name: str = "set") -> Path:
        root = tmp_path / name
        pairs = []
        for seed, case in enumerate(ids):
            image, label = f"imagesTr/{case}.nii.gz", f"labelsTr/{case}.nii.gz"
            write_image(noise(seed), root / image)
            write_image(box(), root / label)
            pairs.append({"image": f"./{image}", "label": f"./{label}"})
        said = {"name": "Small", "modality": {"0": "CT"}, "labels": {"0": "background", "1": "organ"}}
        write_json(root / "dataset.json", {**said, "training": pairs, "test": []})
        return root

    return write


@pytest.fixture(autouse=True)
def _own_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDSEG_KEY", "a key for tests")
