"""Pictures as images of one slice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from medseg.core.errors import CaseError
from medseg.imaging.raster import read_raster


def test_columns_run_along_i_and_rows_along_j(tmp_path: Path) -> None:
    rows = np.arange(12, dtype=np.uint8).reshape(3, 4)
    Pillow.fromarray(rows).save(tmp_path / "x.png")
    image, notes = read_raster(tmp_path / "x.png")
    assert image.array.shape == (1, 4, 3, 1)
    assert image.array.dtype == np.float32
    assert image.array[0, 3, 1, 0] == rows[1, 3]
    assert image.grid.axis_codes == "LPS"
    assert notes == ["no pixel size in the file: 1 mm assumed"]


def test_16_bits_are_kept(tmp_path: Path) -> None:
    Pillow.fromarray(np.array([[0, 40000], [1, 65535]], np.uint16)).save(tmp_path / "x.png")
    assert read_raster(tmp_path / "x.png")[0].array.max() == 65535


def test_colour_becomes_luminance_and_is_noted_only_where_there_was_any(tmp_path: Path) -> None:
    grey = np.repeat(np.arange(4, dtype=np.uint8).reshape(2, 2, 1) * 50, 3, axis=2)
    Pillow.fromarray(grey).save(tmp_path / "grey.png")
    image, notes = read_raster(tmp_path / "grey.png")
    assert image.array[0, :, :, 0].T.tolist() == [[0, 50], [100, 150]]
    assert len(notes) == 1
    grey[0, 0] = (255, 0, 0)
    Pillow.fromarray(grey).save(tmp_path / "red.png")
    assert read_raster(tmp_path / "red.png")[1][1] == "colour given up: 25.0% of the pixels were not grey"


def test_missing_and_truncated_pictures_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CaseError, match="not there"):
        read_raster(tmp_path / "x.png")
    noise = np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)
    Pillow.fromarray(noise).save(tmp_path / "x.png")
    data = (tmp_path / "x.png").read_bytes()
    (tmp_path / "x.png").write_bytes(data[: len(data) // 2])
    with pytest.raises(CaseError, match="cannot be read to its end"):
        read_raster(tmp_path / "x.png")
