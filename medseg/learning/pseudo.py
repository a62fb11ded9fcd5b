"""Pseudo-labels: what a teacher is sure of becomes the reference of a case that has none."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from medseg.core.files import read_json, write_json, written_whole
from medseg.data.prepare import foreground_voxels
from medseg.imaging.labels import Labels
from medseg.learning.adapt_target import TargetStream
from medseg.learning.batch_statistics import statistics_kept
from medseg.learning.inference import class_indices, classify, probabilities
from medseg.learning.job import Moment
from medseg.learning.losses import IGNORED, Loss
from medseg.learning.model import Model
from medseg.learning.sampling import PreparedCase
from medseg.learning.settings import Prediction


class PseudoLabels:
    """The loss on target patches with pseudo-labels, normalised by themselves."""

    def __init__(self, stream: TargetStream, loss: Loss, weight: float) -> None:
        self.stream, self.loss, self.weight = stream, loss, weight

    def __call__(self, moment: Moment) -> Tensor:
        image, target = self.stream.next_pair(moment.image.device)
        with statistics_kept(moment.network):
            logits = moment.network(image)
        return self.weight * self.loss(logits, target)

    def state_dict(self) -> dict[str, Tensor]:
        """How far the target's patches have been drawn."""
        return {"count": self.stream.count}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from there."""
        self.stream.count.copy_(state["count"])


def pseudo_case(teacher: Model, case: PreparedCase, confidence: float, folder: Path) -> PreparedCase | None:
    """A prepared case whose labels are the teacher's, where it is sure.

    Segmentation: voxels below the confidence are `IGNORED`. Classification: a class below it is none.

    Returns
    -------
    PreparedCase or None
        None when nothing would be learnt from it: no label, or no class, is sure.
    """
    image, plan = np.asarray(case.image, np.float32), teacher.plan
    if plan.task == "classification":
        found = classify(teacher.network, plan, image, Prediction(), teacher.device)
        indices = sure_classes(found, confidence, plan.multilabel)
        return None if indices is None else _written(case, folder, {"class_indices": indices})
    soft = probabilities(teacher.network, plan, image, Prediction(), teacher.device)
    labels = sure_labels(soft, confidence, plan.labels)
    if not ((labels > 0) & (labels != IGNORED)).any():
        return None
    made = _written(case, folder, {"class_indices": None})
    _save(folder / "reference.npy", labels)
    _save(
        folder / "foreground.npy", foreground_voxels(np.where(labels == IGNORED, 0, labels).astype(np.uint8))
    )
    return made


def sure_labels(soft: NDArray[np.float32], confidence: float, labels: Labels = ()) -> NDArray[np.uint8]:
    """Most probable class of each voxel of ``[L, I, J, K]``, `IGNORED` below the confidence.

    Of regions, each must be sure: inside or outside.
    """
    regions = any(label.region for label in labels)
    sure = np.maximum(soft, 1 - soft).min(0) if regions else soft.max(0)
    return np.where(sure >= confidence, class_indices(soft, labels), IGNORED).astype(np.uint8)


def sure_classes(soft: NDArray[np.float32], confidence: float, several: bool) -> list[int] | None:
    """Indices of the classes of a case; None when they are not sure. With several, each must be."""
    if not several:
        return [int(soft.argmax())] if soft.max() >= confidence else None
    sure = np.maximum(soft, 1 - soft) >= confidence
    return np.flatnonzero(soft >= 0.5).tolist() if sure.all() else None


def _written(case: PreparedCase, folder: Path, facts: dict[str, Any]) -> PreparedCase:
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(case.folder / "image.npy", folder / "image.npy")
    write_json(folder / "prepared.json", {**read_json(case.folder / "prepared.json"), **facts})
    return PreparedCase(case.id, folder)


def _save(file: Path, array: NDArray[Any]) -> None:
    with written_whole(file) as beside:
        np.save(beside, array, allow_pickle=False)
