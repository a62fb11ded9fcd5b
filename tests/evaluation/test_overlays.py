"""A picture in the report carries the letters of the plane it shows."""

from __future__ import annotations

import numpy as np
import pytest

from medseg.evaluation.report.gallery import overlay_of
from medseg.evaluation.report.overlays import planes
from medseg.imaging.grid import Grid
from medseg.imaging.image import Image
from medseg.imaging.labels import labels

LEFT, POSTERIOR, FEET, ANTERIOR = (-1, 0, 0), (0, -1, 0), (0, 0, -1), (0, 1, 0)


@pytest.mark.parametrize(
    ("along", "down", "name", "letters"),
    [
        (LEFT, POSTERIOR, "axial", "RLAP"),
        (LEFT, FEET, "coronal", "RLSI"),
        (ANTERIOR, FEET, "sagittal", "APSI"),
    ],
)
def test_one_slice_is_shown_upright_with_the_letters_of_its_plane(along, down, name, letters):
    affine = np.eye(4)
    affine[:3, :3] = np.stack([along, down, np.cross(along, down)], axis=1)
    rows = np.repeat(np.arange(40, 0, -1, dtype=np.float32)[:, None], 60, axis=1)  # bright at its upper side
    grid = Grid((60, 40, 1), affine)
    image = Image(np.ascontiguousarray(rows.T)[None, :, :, None], grid)
    mask = image.but((image.array > 0).astype(np.uint8))
    (shown,), _ = planes(image, mask, None, labels(bright=1))
    assert (shown.name, shown.letters) == (name, letters)
    assert shown.grey[:5].mean() > shown.grey[-5:].mean()


def test_voxels_that_nobody_knows_are_neither_missed_nor_added_nor_tagged():
    grid = Grid.from_spacing((20, 20, 6), (1, 1, 1))
    reference = np.zeros((1, *grid.shape), np.uint8)
    reference[0, 4:10, 4:10, 1:5] = 1
    prediction = reference.copy()
    reference[0, 12:18, 4:10, 1:5] = 255
    prediction[0, 12:18, 12:18, 1:5] = prediction[0, 13:17, 5:9, 2:4] = 1
    both = Image(reference, grid), Image(prediction, grid)
    told = overlay_of("a", None, *both, (), labels(organ=1), 255)
    assert told.tags == overlay_of("a", None, both[0], _without(prediction, grid), (), labels(organ=1)).tags
    assert [tag.said for tag in told.tags] == ["1, 100 % of the reference's volume"]
    assert [t.said for t in overlay_of("a", None, *both, (), labels(organ=1)).tags] != [told.tags[0].said]
    clean = Image(np.where(reference == 255, 0, reference), grid)
    unknown = np.where(reference == 255, 1, clean.array)
    assert overlay_of("a", None, both[0], Image(unknown, grid), (), labels(organ=1), 255).errors == (
        overlay_of("a", None, clean, clean, (), labels(organ=1)).errors
    )


def _without(prediction, grid):
    """The prediction with background where the reference is not known."""
    known = prediction.copy()
    known[0, 12:18, 4:10, 1:5] = 0
    return Image(known, grid)
