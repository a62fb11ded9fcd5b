"""What a fingerprint says of an image drawn on the spot."""

from __future__ import annotations

import numpy as np

from medseg.core.values import digest
from medseg.data.fingerprint import fingerprint
from medseg.imaging.grid import Grid
from medseg.imaging.image import Image, canonical_grid

GRID = Grid(
    (6, 8, 10), np.array([[0, 0, 2.0, 0], [1.0, 0, 0, 0], [0, 1.5, 0, 0], [0, 0, 0, 1]])
)  # axes S, A, R order: I -> A, J -> S, K -> R


def _image() -> tuple[Image, Image]:
    values = np.zeros((1, *GRID.shape), np.float32)
    mask = np.zeros((1, *GRID.shape), np.uint8)
    values[0, 1:3, 2:5, 3:7], mask[0, 1:3, 2:5, 3:7] = 100.0, 2
    return Image(values, GRID), Image(mask, GRID)


def test_shape_and_spacing_are_told_in_ras_order():
    image, mask = _image()
    found = fingerprint(image, mask, channels=("MR",), label_values=(1, 2))
    assert found.shape == canonical_grid(GRID).shape == (10, 6, 8)
    assert found.spacing_mm == (2.0, 1.0, 1.5)
    assert found.box == (4, 2, 3)


def test_voxels_and_volumes_are_counted_and_an_absent_label_counts_zero():
    found = fingerprint(*_image(), channels=("MR",), label_values=(1, 2))
    assert found.voxels == {1: 0, 2: 24}
    assert found.volume_ml == {1: 0.0, 2: 0.072}


def test_intensities_of_the_foreground_are_apart_from_those_of_the_image():
    facts = fingerprint(*_image(), channels=("MR",), label_values=(2,)).channels["MR"]
    assert facts.foreground is not None
    assert facts.foreground["mean"] == 100
    assert facts.foreground["sd"] == 0
    assert facts.mean == np.float32(5.0)
    assert facts.background_share == 0.95


def test_without_a_mask_there_is_no_foreground():
    image, _ = _image()
    found = fingerprint(image, None, channels=("MR",), label_class="benign", modality="MR")
    assert found.box is None
    assert found.voxels == {}
    assert found.channels["MR"].foreground is None
    assert (found.label_class, found.modality) == ("benign", "MR")


def test_an_empty_mask_has_no_box():
    image, mask = _image()
    found = fingerprint(image, mask.but(np.zeros_like(mask.array)), channels=("MR",), label_values=(2,))
    assert found.box is None
    assert found.voxels == {2: 0}


def test_equal_cases_have_equal_digests():
    assert digest(fingerprint(*_image(), channels=("a",))) == digest(fingerprint(*_image(), channels=("a",)))
