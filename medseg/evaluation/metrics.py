"""The metrics by name: how each is measured, its unit, and its definition in words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

from medseg.core.registry import look_up
from medseg.evaluation import overlap, surface
from medseg.evaluation.lesions import Matching, matched
from medseg.evaluation.policy import Choices
from medseg.evaluation.surface import Pair

Measure = Callable[[Pair, Choices], float]
Better = Literal["high", "low", "zero", "none"]


@dataclass(frozen=True)
class Metric:
    """A metric: how it is measured, and what it says when one side is empty.

    ``measure`` takes the pair of masks and the choices of its label. ``one_sided``: ``zero`` (overlaps),
    ``diagonal`` (distances, see `Scoring.missed`) or ``measure`` (volumes, lesions: measured all the same;
    NaN is undefined).
    ``bounds`` is the possible range.
    """

    title: str
    unit: str
    measure: Measure
    one_sided: Literal["zero", "diagonal", "measure"]
    better: Better
    bounds: tuple[float | None, float | None]
    definition: str


def _overlap(title: str, function: Callable[..., float], definition: str) -> Metric:
    def measure(pair: Pair, _: Choices) -> float:
        return function(pair.mask, pair.reference)

    return Metric(title, "", measure, "zero", "high", (0, 1), definition)


def _distance(title: str, function: Callable[[Pair], float], definition: str) -> Metric:
    def measure(pair: Pair, _: Choices) -> float:
        return function(pair)

    return Metric(title, "mm", measure, "diagonal", "low", (0, None), definition)


def _volume(title: str, side: Literal["mask", "reference"]) -> Metric:
    def measure(pair: Pair, _: Choices) -> float:
        return overlap.volume_ml(getattr(pair, side), pair.grid)

    return Metric(title, "ml", measure, "measure", "none", (0, None), "voxel count x |det affine|")


def _volume_error(pair: Pair, _: Choices) -> float:
    return overlap.volume_error(pair.mask, pair.reference)


def _volume_difference(pair: Pair, _: Choices) -> float:
    return overlap.volume_ml(pair.mask, pair.grid) - overlap.volume_ml(pair.reference, pair.grid)


def _nsd(pair: Pair, choices: Choices) -> float:
    return surface.nsd(pair, choices.tolerance_mm)


def _of_lesions(title: str, function: Callable[[Matching], float], definition: str) -> Metric:
    def measure(pair: Pair, choices: Choices) -> float:
        return float(function(matched(pair, choices.lesions)))

    return Metric(title, "", measure, "measure", "high", (0, 1), definition)


def _lesion_count(title: str, function: Callable[[Matching], float], better: Better) -> Metric:
    return replace(_of_lesions(title, function, title), better=better, bounds=(0, None))


_NSD = (
    "normalised surface Dice: the part of both surfaces' area that lies within (<=) the tolerance of the "
    "other; area-weighted surface elements"
)
_HD95 = (
    "the larger of the two directed 95th percentiles of the distances between border voxels (voxels with a "
    "face neighbour outside; voxels at the image edge count as border)"
)
_DIFFERENCE = "prediction - reference, signed"
_ERROR = "100 (prediction - reference) / reference, signed"

METRICS: dict[str, Metric] = {
    "dice": _overlap("Dice", overlap.dice, "2 |A and B| / (|A| + |B|), voxel counts"),
    "iou": _overlap("IoU", overlap.iou, "|A and B| / |A or B|, voxel counts"),
    "nsd": Metric("NSD", "", _nsd, "zero", "high", (0, 1), _NSD),
    "hd95": _distance("HD95", surface.hd95, _HD95),
    "hd": _distance("HD", surface.hd, "the largest distance between border voxels, both ways"),
    "assd": _distance("ASSD", surface.assd, "mean distance between border voxels, both sets pooled"),
    "masd": _distance("MASD", surface.masd, "mean of the two directed mean distances of border voxels"),
    "volume_pred": _volume("Volume, prediction", "mask"),
    "volume_ref": _volume("Volume, reference", "reference"),
    "volume_error": Metric("Volume error", "%", _volume_error, "measure", "zero", (-100, None), _ERROR),
    "volume_difference": Metric(
        "Volume difference", "ml", _volume_difference, "measure", "zero", (None, None), _DIFFERENCE
    ),
    "lesion_sensitivity": _of_lesions(
        "Lesion sensitivity", Matching.sensitivity, "of the reference's lesions, the share that is matched"
    ),
    "lesion_precision": _of_lesions(
        "Lesion precision", Matching.precision, "of the predicted lesions, the share that is matched"
    ),
    "lesion_f1": _of_lesions(
        "Lesion F1", Matching.f1, "2 matched / (reference's + predicted lesions); recognition quality (RQ)"
    ),
    "pq": _of_lesions(
        "Panoptic quality", Matching.pq, "sum of the IoU of matched lesions / (matched + half of the others)"
    ),
    "sq": _of_lesions(
        "Segmentation quality", Matching.sq, "mean IoU of matched lesions; undefined without a match"
    ),
    "lesions_ref": _lesion_count("Lesions, reference", lambda m: m.reference, "none"),
    "lesions_pred": _lesion_count("Lesions, prediction", lambda m: m.predicted, "none"),
    "lesions_found": _lesion_count("Lesions found", lambda m: m.found, "none"),
    "lesions_missed": _lesion_count("Lesions missed", lambda m: m.missed, "low"),
    "lesions_invented": _lesion_count("Lesions invented", lambda m: m.invented, "low"),
}
"""Metric name -> Metric. Outside this table a dotted name with ``(mask, reference, grid) -> float`` does;
it is given the box around both masks, and is taken to be a score from 0 (missed) upwards."""


def metric_of(name: str) -> Metric:
    """The metric called `name`: one of `METRICS`, or the user's ``package.module:function``."""
    if name in METRICS:
        return METRICS[name]
    function = look_up(dict.fromkeys(METRICS, _unused), name, "metric")

    def measure(pair: Pair, _: Choices) -> float:
        return float(function(pair.mask, pair.reference, pair.box_grid))

    title = name.partition(":")[2]
    said = (function.__doc__ or title).strip().split("\n")[0]
    return Metric(title, "", measure, "zero", "high", (None, None), said)


def described(name: str) -> Metric:
    """As `metric_of`, and the numbers of classification too: for titles, units and definitions."""
    return CLASS_METRICS[name] if name in CLASS_METRICS else metric_of(name)


def _unused(*_: Any) -> float:
    raise NotImplementedError


def _of_classes(title: str, definition: str) -> Metric:
    return Metric(title, "", _unused, "zero", "high", (0, 1), definition)


def _low(title: str, definition: str) -> Metric:
    return replace(_of_classes(title, definition), better="low")


def _fitted(title: str, definition: str) -> Metric:
    return replace(_of_classes(title, definition), better="none", bounds=(None, None))


CLASS_METRICS: dict[str, Metric] = {
    "accuracy": _of_classes(
        "Accuracy", "share of cases whose most probable class is the reference's; unpredicted cases are wrong"
    ),
    "balanced_accuracy": _of_classes("Balanced accuracy", "mean of the sensitivities of the classes"),
    "auroc": _of_classes(
        "AUROC", "area under the ROC curve, the class against the rest; over classes the mean (macro)"
    ),
    "sensitivity": _of_classes("Sensitivity", "of the cases of the class, the share given this class"),
    "specificity": _of_classes("Specificity", "of the other cases, the share not given this class"),
    "ppv": _of_classes(
        "PPV", "of the cases given this class, the share that is, at this cohort's prevalence"
    ),
    "npv": _of_classes("NPV", "of the cases not given this class, the share that is not, at this prevalence"),
    "auprc": _of_classes(
        "AUPRC",
        "average precision: sum over thresholds of precision x gain in recall; by chance the prevalence",
    ),
    "brier": _low("Brier score", "mean squared error of the probability of the class; 0 is best"),
    "ece": _low("ECE", "expected calibration error: mean over cases of |observed - predicted| of their bin"),
    "calibration_slope": _fitted(
        "Calibration slope", "of logit P(class) on logit p; 1 is best, below 1 is overconfident"
    ),
    "calibration_intercept": _fitted("Calibration intercept", "of the same regression; 0 is best"),
    "calibration_in_the_large": _fitted(
        "Calibration in the large", "intercept with the slope held at 1; above 0: probabilities are too low"
    ),
    "probability": _of_classes("Probability", "probability the model gives to the case's own class"),
}
"""What `medseg.evaluation.classification` computes over cases, described in the same words."""
