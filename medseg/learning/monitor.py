"""Monitor cases: a few patients of the training part, kept aside to choose the checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import nn

from medseg.data.cohort import Task
from medseg.data.plan import Plan
from medseg.data.prepare import IGNORED
from medseg.learning.inference import class_indices, classify, probabilities
from medseg.learning.sampling import PreparedCase
from medseg.learning.settings import Prediction

MOST: Mapping[Task, int] = {"segmentation": 8, "classification": 64}
"""At most this many monitor patients: a case has thousands of voxels, but one class ..."""
LEAST_PATIENTS = 5
"""... and none at all below this many patients."""
LEAST: Mapping[Task, int] = {"segmentation": 1, "classification": 20}
"""With fewer monitor patients there are none: which weights seem best on a dozen classes is chance."""
PATCHES = 64
"""Volume of all monitor cases together, in patches: what a look may cost."""
OVERLAP = 0.25
"""Of the windows of a look."""
_DEPTH = 32

Scores = dict[str, float]


def set_aside(
    cases: Sequence[PreparedCase], share: float, plan: Plan, seed: int
) -> tuple[list[PreparedCase], list[PreparedCase]]:
    """Training cases and monitor cases: whole patients, drawn by `seed`, few and not too large.

    No monitor when `share` is 0 or there are too few patients for one (`LEAST_PATIENTS`, `LEAST`). A
    classification has no use for cases whose class is not known: they are in neither.
    """
    if plan.task == "classification":
        cases = [case for case in cases if case.info["class_indices"] is not None]
    patients = sorted({case.patient for case in cases})
    if share == 0 or len(patients) < LEAST_PATIENTS:
        return list(cases), []
    wanted = int(np.clip(round(share * len(patients)), 1, MOST[plan.task]))
    if wanted < LEAST[plan.task]:
        return list(cases), []
    order = np.random.default_rng([seed, 2]).permutation(len(patients))
    chosen: list[PreparedCase] = []
    taken: set[str] = set()
    for n in order[:wanted]:
        more = [case for case in cases if case.patient == patients[n]]
        if taken and _patches([*chosen, *more], plan) > PATCHES:
            break
        chosen, taken = [*chosen, *more], taken | {patients[n]}
    return [case for case in cases if case.patient not in taken], chosen


def look(network: nn.Module, plan: Plan, cases: Sequence[PreparedCase], device: torch.device) -> Scores:
    """Scores of the network on the monitor cases; ``score`` is the one that chooses (larger is better)."""
    was_training = network.training
    try:
        return _LOOKS[plan.task](network.eval(), plan, cases, device)
    finally:
        network.train(was_training)


def dice_of(network: nn.Module, plan: Plan, cases: Sequence[PreparedCase], device: torch.device) -> Scores:
    """Mean Dice of each label over the cases that have it, and the mean of these."""
    rows = [_case_dice(network, plan, case, device) for case in cases]
    with np.errstate(invalid="ignore"):
        table = np.array(rows)
    seen = ~np.isnan(table)
    means = [float(table[seen[:, n], n].mean()) if seen[:, n].any() else 0.0 for n in range(table.shape[1])]
    named = {f"dice_{label.name}": value for label, value in zip(plan.labels, means, strict=True)}
    return {"score": float(np.mean(means)), "dice": float(np.mean(means)), **named}


def accuracy_of(
    network: nn.Module, plan: Plan, cases: Sequence[PreparedCase], device: torch.device
) -> Scores:
    """Share of right answers, and the mean probability of the right class, which chooses."""
    right, sure = [], []
    for case in cases:
        found = classify(network, plan, np.asarray(case.image, np.float32), Prediction(), device)
        target = case.class_target(plan)
        if plan.multilabel:
            right.append(float(np.mean((found >= 0.5) == (target == 1))))
            sure.append(float(np.mean(np.where(target == 1, found, 1 - found))))
        else:
            right.append(float(found.argmax() == target))
            sure.append(float(found[target]))
    return {
        "score": float(np.mean(sure)),
        "accuracy": float(np.mean(right)),
        "confidence": float(np.mean(sure)),
    }


_LOOKS: Mapping[Task, Callable[..., Scores]] = {"segmentation": dice_of, "classification": accuracy_of}


def _case_dice(network: nn.Module, plan: Plan, case: PreparedCase, device: torch.device) -> list[float]:
    array = np.asarray(case.image, np.float32)
    settings = Prediction(overlap=OVERLAP, precision="auto")
    known = case.reference != IGNORED
    found = class_indices(probabilities(network, plan, array, settings, device), plan.labels)[known]
    there, members = case.reference[known], plan.membership()
    out = []
    for label in range(len(plan.labels)):
        a, b = members[found, label], members[there, label]
        size = int(a.sum()) + int(b.sum())
        out.append(2 * int((a & b).sum()) / size if size else float("nan"))
    return out


def _patches(cases: Sequence[PreparedCase], plan: Plan) -> float:
    return patches_of(sum(int(np.prod(case.image.shape[1:])) for case in cases), plan)


def patches_of(voxels: int, plan: Plan) -> float:
    """A volume in patches; slices count as what they are of a deep one."""
    depth = 1 if plan.dimensions == 3 else _DEPTH
    return voxels / (float(np.prod(plan.patch)) * depth)
