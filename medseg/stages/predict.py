"""Stage ``predict``: an ingested case and models -> ``mask.nii.gz`` or (and) ``probabilities.json``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medseg.core.files import write_json
from medseg.core.stage import Artifact, stage
from medseg.core.values import digest
from medseg.data.ingested import read_ingested
from medseg.data.plan import MASK
from medseg.imaging.image import write_image
from medseg.learning.settings import Prediction

_open: dict[str, Any] = {}
"""The models last used, by the digest of their folders: one entry, so that a run loads them once."""


@stage(version=1, ignore=("device",), in_process=True)
def predict(item: tuple[Artifact, ...], *, prediction: Prediction, device: str = "auto", out: Path) -> None:
    """Predict one case with the mean probabilities of the models given.

    Parameters
    ----------
    item : tuple of Artifact
        The ingested case, then one or more model folders.
    """
    ingested, *folders = item
    models = _models(folders, device)
    of_mask = models.plan.region == MASK
    case = read_ingested(ingested.path, with_mask=of_mask)
    if models.classifies:
        write_json(out / "probabilities.json", models.classify(case.image, prediction, case.mask))
    if models.task == "segmentation":
        write_image(models.segment(case.image, prediction), out / "mask.nii.gz")


def _models(folders: list[Artifact], device: str) -> Any:
    from medseg.learning.model import open_models

    key = digest([device, *(folder.digest for folder in folders)])
    if key not in _open:
        _open.clear()
        _open[key] = open_models([folder.path for folder in folders], device)
    return _open[key]
