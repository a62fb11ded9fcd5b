"""A picture in the report carries the letters of the plane it shows."""

from __future__ import annotations

import numpy as np
import pytest

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
