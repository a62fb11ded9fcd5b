"""Pictures as images of one slice: exact values, upright, of unknown size, and nothing else of the file."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from medseg.core.errors import CaseError
from medseg.imaging.grid import PIXELS
from medseg.imaging.image import read_image, write_image
from medseg.imaging.raster import luminance, read_raster


def rows_of(file: Path, colour: bool = False) -> np.ndarray:
    """The picture as ``[row, column]``, or ``[channel, row, column]``."""
    array = read_raster(file, colour)[0].array[..., 0].transpose(0, 2, 1)
    return array if colour else array[0]


def png(file: Path, depth: int, kind: int, width: int, row: bytes) -> Path:
    """A PNG of one row, of a depth and colour type that Pillow does not write."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, 1, depth, kind, 0, 0, 0)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(b"\0" + row)), chunk(b"IEND", b""))
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    return file


def test_columns_run_along_i_and_rows_along_j(tmp_path: Path) -> None:
    rows = np.arange(12, dtype=np.uint8).reshape(3, 4)
    Pillow.fromarray(rows).save(tmp_path / "x.png", dpi=(72, 72))
    image, notes = read_raster(tmp_path / "x.png")
    assert image.array.shape == (1, 4, 3, 1)
    assert image.array.dtype == np.float32
    assert image.array[0, 3, 1, 0] == rows[1, 3]
    assert image.grid.axis_codes == "LPS"
    assert image.grid.spacing_mm == (1, 1, 1)
    assert not image.grid.spacing_known, "a resolution for printing is no size in a patient"
    assert notes == [PIXELS]


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_grey_values_are_exact(tmp_path: Path, suffix: str, dtype: type) -> None:
    rows = np.array([[0, 1, np.iinfo(dtype).max], [7, 200, np.iinfo(dtype).max - 1]], dtype)
    Pillow.fromarray(rows).save(tmp_path / f"x.{suffix}")
    assert np.array_equal(rows_of(tmp_path / f"x.{suffix}"), rows)


def test_a_tiff_of_fractions_keeps_them(tmp_path: Path) -> None:
    rows = np.array([[0.5, -1.25]], np.float32)
    Pillow.fromarray(rows).save(tmp_path / "x.tif")
    assert np.array_equal(rows_of(tmp_path / "x.tif"), rows)


def test_colour_becomes_luminance_and_is_noted_only_where_there_was_any(tmp_path: Path) -> None:
    grey = np.repeat(np.arange(4, dtype=np.uint8).reshape(2, 2, 1) * 50, 3, axis=2)
    Pillow.fromarray(grey).save(tmp_path / "grey.png")
    image, notes = read_raster(tmp_path / "grey.png")
    assert image.array[0, :, :, 0].T.tolist() == [[0, 50], [100, 150]]
    assert len(notes) == 1
    grey[0, 0] = (255, 0, 0)
    Pillow.fromarray(grey).save(tmp_path / "red.png")
    image, notes = read_raster(tmp_path / "red.png")
    assert image.array[0, 0, 0, 0] == 76  # 0.299 x 255, rounded
    assert notes[1] == "colour given up: 25.0% of the pixels were not grey"


def test_luminance_is_that_of_pillow_and_whole_in_16_bits() -> None:
    colour = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    assert np.array_equal(luminance(colour), np.asarray(Pillow.fromarray(colour).convert("L")))
    assert luminance(np.full((1, 3), 65535, np.uint16)).tolist() == [65535]


def test_colour_is_three_channels_where_it_is_asked_for(tmp_path: Path) -> None:
    colour = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    Pillow.fromarray(colour).save(tmp_path / "x.png")
    image, notes = read_raster(tmp_path / "x.png", colour=True)
    assert image.array.shape == (3, 7, 5, 1)
    assert np.array_equal(np.moveaxis(rows_of(tmp_path / "x.png", colour=True), 0, -1), colour)
    assert notes == [PIXELS]
    Pillow.fromarray(colour[..., 0]).save(tmp_path / "grey.png")
    image, notes = read_raster(tmp_path / "grey.png", colour=True)
    assert np.array_equal(image.array[0], image.array[2])
    assert notes[1] == "colour was asked for, the picture is grey: three equal channels"


def test_a_palette_is_looked_up(tmp_path: Path) -> None:
    picture = Pillow.fromarray(np.array([[0, 1]], np.uint8))
    picture.putpalette([10, 20, 30, 200, 100, 0])
    picture.save(tmp_path / "x.png")
    assert rows_of(tmp_path / "x.png", colour=True)[:, 0].T.tolist() == [[10, 20, 30], [200, 100, 0]]


def test_transparency_is_left_out_and_said_where_there_was_any(tmp_path: Path) -> None:
    layers = np.full((2, 2, 4), 255, np.uint8)
    layers[..., :3] = 90
    Pillow.fromarray(layers).save(tmp_path / "x.png")
    assert read_raster(tmp_path / "x.png")[1] == [PIXELS]
    layers[0, 0, 3] = 0
    Pillow.fromarray(layers).save(tmp_path / "x.png")
    assert read_raster(tmp_path / "x.png")[1] == [PIXELS, "transparency left out"]
    assert (rows_of(tmp_path / "x.png") == 90).all()


def test_colour_of_16_bits_is_read_with_8_and_said(tmp_path: Path) -> None:
    file = png(tmp_path / "x.png", 16, 2, 2, struct.pack(">6H", 65535, 256, 0, 512, 512, 512))
    assert rows_of(file, colour=True)[:, 0].T.tolist() == [[255, 1, 0], [2, 2, 2]]
    assert "stored with 16 bits a colour, read with 8" in read_raster(file)[1]


UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.T,
    6: lambda a: a[::-1].T,
    7: lambda a: a[::-1, ::-1].T,
    8: lambda a: a[:, ::-1].T,
}
"""What each EXIF orientation asks of the stored rows."""


@pytest.mark.parametrize("suffix", ["png", "tif", "jpg"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_a_picture_is_turned_as_its_exif_says(tmp_path: Path, suffix: str, orientation: int) -> None:
    rows = np.kron(np.arange(12, dtype=np.uint8).reshape(3, 4) * 20, np.ones((8, 8), np.uint8))
    exif = Pillow.Exif()
    exif[0x0112] = orientation
    file = tmp_path / f"x.{suffix}"
    Pillow.fromarray(rows).save(file, exif=exif, **({"quality": 100} if suffix == "jpg" else {}))
    expected = UPRIGHT[orientation](rows).astype(float)
    found = rows_of(file)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= (1 if suffix == "jpg" else 0)
    assert ("turned as its EXIF orientation says" in read_raster(file)[1]) == (orientation > 1)


def test_nothing_of_the_metadata_is_kept(tmp_path: Path) -> None:
    exif = Pillow.Exif()
    exif[0x010E] = exif[0x013B] = "Quillfeather Ada"
    exif[0x0112] = 6
    Pillow.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "x.jpg", exif=exif, comment=b"Quillfeather")
    assert b"Quillfeather" in (tmp_path / "x.jpg").read_bytes()
    image, notes = read_raster(tmp_path / "x.jpg")
    write_image(image, tmp_path / "x.nii")
    assert b"Quillfeather" not in (tmp_path / "x.nii").read_bytes()
    assert "Quillfeather" not in " ".join(notes) + str(image)
    assert not read_image(tmp_path / "x.nii").grid.spacing_known


@pytest.mark.parametrize("suffix", ["tif", "png"])
def test_several_pictures_in_one_file_are_refused(tmp_path: Path, suffix: str) -> None:
    pages = [Pillow.fromarray(np.full((4, 4), n, np.uint8)) for n in range(3)]
    pages[0].save(tmp_path / f"x.{suffix}", save_all=True, append_images=pages[1:])
    with pytest.raises(CaseError, match="several pictures") as caught:
        read_raster(tmp_path / f"x.{suffix}")
    assert caught.value.evidence == "3 pictures"


def test_a_picture_that_claims_too_much_is_refused(tmp_path: Path) -> None:
    file = png(tmp_path / "x.png", 8, 0, 1, b"\0")
    raw = file.read_bytes()
    head = raw[12:16] + struct.pack(">II", 2**20, 2**20) + raw[24:29]
    file.write_bytes(raw[:12] + head + struct.pack(">I", zlib.crc32(head)) + raw[33:])
    with pytest.raises(CaseError):
        read_raster(file)


def test_missing_and_truncated_pictures_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CaseError, match="not there"):
        read_raster(tmp_path / "x.png")
    noise = np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)
    for name in ("x.png", "x.tif", "x.jpg", "x.bmp"):
        Pillow.fromarray(noise).save(tmp_path / name)
        data = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(data[: len(data) // 2])
        with pytest.raises(CaseError, match="cannot be read to its end") as caught:
            read_raster(tmp_path / name)
        assert name not in caught.value.public()
