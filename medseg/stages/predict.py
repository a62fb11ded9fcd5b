"""Stage ``predict``: an ingested case and models -> ``mask.nii.gz`` or (and) ``probabilities.json``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medseg.core.files import write_json
from medseg.core.stage import Artifact, stage
from medseg.data.ingested import read_ingested
from medseg.data.plan import MASK
from medseg.imaging.image import Image, write_image
from medseg.learning.settings import Prediction

QUALITY, CANDIDATES = "quality.json", "candidates.json"


@stage(version=1, ignore=("device",), in_process=True)
def predict(
    item: tuple[Artifact, ...],
    *,
    prediction: Prediction,
    device: str = "auto",
    quality: bool = False,
    thresholds: Mapping[int, float] | None = None,
    out: Path,
) -> None:
    """Predict one case with the mean probabilities of the models given.

    Parameters
    ----------
    item : tuple of Artifact
        The ingested case, then one or more model folders.
    quality : bool
        Of masks, also write what the model thinks of its own: ``quality.json`` and ``candidates.json``.
    thresholds : mapping, optional
        Of masks: label value -> the probability it needs, where that is not 0.5.
    """
    from medseg.learning.opened import opened

    ingested, *folders = item
    models = opened(folders, device)
    of_mask = models.plan.region == MASK
    case = read_ingested(ingested.path, with_mask=of_mask)
    if models.classifies:
        write_json(out / "probabilities.json", models.classify(case.image, prediction, case.mask))
    if models.task == "segmentation" and quality:
        _with_confidence(models, case.image, prediction, thresholds, out)
    elif models.task == "segmentation":
        write_image(models.segment(case.image, prediction, thresholds), out / "mask.nii.gz")


def _with_confidence(
    models: Any, image: Image, prediction: Prediction, thresholds: Mapping[int, float] | None, out: Path
) -> None:
    from medseg.learning.confidence import segment_with_confidence

    mask, quality, candidates = segment_with_confidence(models, image, prediction, thresholds)
    write_image(mask, out / "mask.nii.gz")
    write_json(out / QUALITY, quality)
    write_json(out / CANDIDATES, candidates)
