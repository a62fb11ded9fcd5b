"""What is measured, how, and what happens when there is nothing to measure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from pydantic import Field

from medseg.core.values import Value
from medseg.imaging.labels import Labels

Status = Literal["ok", "both_empty", "missed", "false_positive", "not_predicted", "invalid"]
STATUSES: tuple[Status, ...] = ("ok", "both_empty", "missed", "false_positive", "not_predicted", "invalid")

STATUS_WORDS: dict[str, str] = {
    "ok": "both the reference and the prediction contain the label",
    "both_empty": "neither contains the label: undefined, left out of the means, counted",
    "missed": "the reference contains the label, the prediction does not",
    "false_positive": "the prediction contains the label, the reference does not",
    "not_predicted": "there is no prediction for the case; counted as missed",
    "invalid": "prediction and reference do not lie on the same grid, or one cannot be read",
}

MEASURED = ("dice", "iou", "hd95", "nsd", "assd", "volume_pred", "volume_ref", "volume_error")


class LesionRule(Value):
    """What a lesion is, and when a predicted one is a reference one.

    Parameters
    ----------
    iou
        Two lesions may be matched when their IoU is larger than this (at 0, when they share a voxel).
        Matching is one-to-one: the most pairs, and among those the largest sum of IoU.
    connectivity
        Neighbours that join voxels to a lesion: 6, 18 or 26; in a single slice 4, 8 or 8.
    minimum_ml
        Smaller lesions are left out, on both sides, before matching.
    sizes_ml
        Where the reference's lesions are cut into sizes, for the table of sensitivity by size; thirds when
        empty.
    """

    iou: float = Field(default=0.5, ge=0, lt=1)
    connectivity: Literal[6, 18, 26] = 26
    minimum_ml: float = Field(default=0.0, ge=0)
    sizes_ml: tuple[float, ...] = ()

    outside_identity: ClassVar[frozenset[str]] = frozenset({"sizes_ml"})


class ClassRule(Value):
    """How probabilities of classes are judged.

    Parameters
    ----------
    threshold, thresholds
        A class is called when its probability reaches this: for all classes, and by class name where it
        differs. Without one the most probable class is called (0.5 when a case may have several classes).
    threshold_source
        Where the threshold comes from, in words; it must have been set before these cases were seen.
    several
        Whether a case may have several classes at once; None: it may when a case of the table has not
        exactly one.
    bins
        Bins of equal width, for the reliability curve and ECE.
    decisions
        Range of threshold probabilities of the decision curve.
    """

    threshold: float | None = Field(default=None, ge=0, le=1)
    thresholds: dict[str, float] = {}
    threshold_source: str = "set in advance"
    several: bool | None = None
    bins: int = Field(default=10, ge=2, le=100)
    decisions: tuple[float, float] = (0.01, 0.99)

    def threshold_of(self, name: str) -> float | None:
        """The threshold of a class; None when the most probable class is called."""
        return self.thresholds.get(name, self.threshold)


@dataclass(frozen=True)
class Choices:
    """What a metric may depend on besides the masks, for one label."""

    tolerance_mm: float = 1.0
    lesions: LesionRule = field(default_factory=LesionRule)


class Scoring(Value):
    """Which metrics, and every choice that changes a number.

    Parameters
    ----------
    metrics
        Names in `medseg.evaluation.metrics.METRICS`, or ``package.module:function`` with
        ``(mask, reference, grid) -> float``.
    tolerance_mm, tolerances_mm
        For NSD: for all labels, and by label name where it differs.
    missed
        ``worst``: a missed or invented structure has Dice 0 and the image's diagonal as its distances.
        ``exclude``: Dice 0, distances left out of the mean and counted.
    regions
        Unions of label values that are scored beside the labels: ``{"whole": (1, 2, 3)}``.
    ignore
        Value of the reference whose voxels are left out of both sides.
    resample
        Predictions on another grid are resampled onto the reference's; False: they are refused.
    lesions
        Of the metrics that count lesions.
    classes
        Of classification.
    confidence, repeats, seed
        Of the intervals: level, bootstrap repeats, seed.
    margins
        Metric -> non-inferiority margin, in its unit, for `medseg compare`.
    half_widths
        Metric -> half-width of the interval that is wanted, for the statement of sample size.
    subgroup_minimum
        Groups of fewer patients are marked as small; they are shown all the same.
    failure_below
        A case whose mean Dice over labels is below this is a failure, where a quality score is judged.
    """

    metrics: tuple[str, ...] = MEASURED
    tolerance_mm: float = Field(default=1.0, gt=0)
    tolerances_mm: dict[str, float] = {}
    missed: Literal["worst", "exclude"] = "worst"
    regions: dict[str, tuple[int, ...]] = {}
    ignore: int | None = Field(default=None, ge=1, le=65535)
    resample: bool = False
    lesions: LesionRule = LesionRule()
    classes: ClassRule = ClassRule()
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    repeats: int = Field(default=2000, ge=100)
    seed: int = 0
    margins: dict[str, float] = {}
    half_widths: dict[str, float] = {}
    subgroup_minimum: int = Field(default=10, ge=1)
    failure_below: float = Field(default=0.7, ge=0, le=1)

    outside_identity: ClassVar[frozenset[str]] = frozenset(
        {"classes", "confidence", "repeats", "seed", "margins", "half_widths"}
        | {"subgroup_minimum", "failure_below"}
    )
    """They change what is made of the rows, never the rows of a case: scoring need not be done again."""

    def tolerance_of(self, label: str) -> float:
        """The NSD tolerance of a label, in mm."""
        return self.tolerances_mm.get(label, self.tolerance_mm)

    def choices_of(self, label: str) -> Choices:
        """What the metrics of a label depend on."""
        return Choices(self.tolerance_of(label), self.lesions)


def status_of(in_mask: bool, in_reference: bool) -> Status:
    """The status of a label, from whether each side contains it."""
    if in_mask and in_reference:
        return "ok"
    if in_reference:
        return "missed"
    return "false_positive" if in_mask else "both_empty"


def tolerance_notes(scoring: Scoring, labels: Labels, largest_spacing_mm: float) -> list[str]:
    """A sentence for each tolerance under twice the largest voxel spacing: NSD then depends on the tool."""
    if "nsd" not in scoring.metrics:
        return []
    names = [*(label.name for label in labels), *scoring.regions]
    small = [name for name in names if scoring.tolerance_of(name) < 2 * largest_spacing_mm]
    if not small:
        return []
    tolerance = ", ".join(f"{name} {scoring.tolerance_of(name):g} mm" for name in small)
    return [
        f"NSD tolerance ({tolerance}) is below twice the largest voxel spacing "
        f"({largest_spacing_mm:.3g} mm): "
        "at this resolution NSD depends on how a tool draws the surface; compare it only with numbers "
        "of the same convention (area-weighted surface elements)."
    ]
