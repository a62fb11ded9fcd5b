"""Stage ``answer``: a prepared case and coarse networks -> the case with their answer behind its channels."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from medseg.core.files import read_json, written_whole
from medseg.core.stage import Artifact, stage
from medseg.data.ingested import read_ingested
from medseg.imaging.grid import Grid
from medseg.learning.cascade import first_answer
from medseg.learning.settings import Prediction


@stage(version=1, ignore=("device",), in_process=True)
def answer(item: tuple[Artifact, ...], *, prediction: Prediction, device: str = "auto", out: Path) -> None:
    """Write what stage ``prepare`` wrote, with one more channel for each label: 1 where it was found.

    Parameters
    ----------
    item : tuple of Artifact
        The prepared case, the ingested one, and one or more model folders that have not seen it.
    """
    from medseg.learning.opened import opened

    prepared, ingested, *folders = item
    models = opened(folders, device)
    [(found, there)] = models.parts(read_ingested(ingested.path).image, prediction)
    told = read_json(prepared / "prepared.json")["grid"]
    here = Grid(tuple(told["shape"]), np.array(told["affine"]))
    hot = first_answer(found, there, here, models.labels)
    image = np.load(prepared / "image.npy", allow_pickle=False)
    with written_whole(out / "image.npy") as beside:
        np.save(beside, np.concatenate([image, hot.astype(image.dtype)]), allow_pickle=False)
    for name in prepared.files:
        if name != "image.npy":
            shutil.copyfile(prepared / name, out / name)
