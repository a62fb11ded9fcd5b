"""Stage ``postprocess``."""

from __future__ import annotations

import numpy as np

from medseg.core.stage import artifact_of
from medseg.imaging.grid import Grid
from medseg.imaging.image import Image, read_mask, write_image
from medseg.imaging.labels import named_labels
from medseg.imaging.masks import Postprocessing, Step
from medseg.stages.postprocess import postprocess


def test_the_mask_is_written_after_its_steps_on_the_same_grid(tmp_path):
    array = np.zeros((1, 8, 8, 4), np.uint8)
    array[0, 1:4, 1:4, 1:3] = array[0, 6, 6, 0] = 1
    grid = Grid.from_spacing((8, 8, 4), (1, 1, 3))
    write_image(Image(array, grid), tmp_path / "in" / "mask.nii.gz")
    (tmp_path / "out").mkdir()
    settings = Postprocessing(steps=(Step(step="keep_largest"),))
    postprocess(artifact_of(tmp_path / "in"), postprocessing=settings, out=tmp_path / "out")
    done = read_mask(tmp_path / "out" / "mask.nii.gz")
    assert done.array.sum() == 18
    assert done.grid.matches(grid)


def test_a_step_of_a_region_knows_its_values(tmp_path):
    array = np.zeros((1, 8, 8, 4), np.uint8)
    array[0, 1:4, 1:4, 1:3], array[0, 2, 2, 1], array[0, 6, 6, 0] = 1, 2, 2
    write_image(Image(array, Grid.from_spacing((8, 8, 4), (1, 1, 3))), tmp_path / "in" / "mask.nii.gz")
    (tmp_path / "out").mkdir()
    how = {
        "postprocessing": Postprocessing(steps=(Step(step="keep_largest", labels=(1,)),)),
        "labels": named_labels({"tumour": [1, 2], "core": [2]}),
    }
    postprocess(artifact_of(tmp_path / "in"), **how, out=tmp_path / "out")
    array[0, 6, 6, 0] = 0
    np.testing.assert_array_equal(read_mask(tmp_path / "out" / "mask.nii.gz").array, array)
