"""What is measured, how, and what happens when there is nothing to measure."""

from __future__ import annotations

from typing import Literal

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


class Scoring(Value):
    """Which metrics, and every choice that changes a number.

    Parameters
    ----------
    metrics
        Names in `medseg.evaluation.scoring.METRICS`, or ``package.module:function`` with
        ``(mask, reference, grid) -> float``.
    tolerance_mm, tolerances_mm
        For NSD: for all labels, and by label name where it differs.
    missed
        ``worst``: a missed or invented structure has Dice 0 and the image's diagonal as its distances.
        ``exclude``: Dice 0, distances left out of the mean and counted.
    confidence, repeats, seed
        Of the intervals: level, bootstrap repeats, seed.
    """

    metrics: tuple[str, ...] = MEASURED
    tolerance_mm: float = Field(default=1.0, gt=0)
    tolerances_mm: dict[str, float] = {}
    missed: Literal["worst", "exclude"] = "worst"
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    repeats: int = Field(default=2000, ge=100)
    seed: int = 0

    def tolerance_of(self, label: str) -> float:
        """The NSD tolerance of a label, in mm."""
        return self.tolerances_mm.get(label, self.tolerance_mm)


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
    small = [label.name for label in labels if scoring.tolerance_of(label.name) < 2 * largest_spacing_mm]
    if not small:
        return []
    tolerance = ", ".join(f"{name} {scoring.tolerance_of(name):g} mm" for name in small)
    return [
        f"NSD tolerance ({tolerance}) is below twice the largest voxel spacing "
        f"({largest_spacing_mm:.3g} mm): "
        "at this resolution NSD depends on how a tool draws the surface; compare it only with numbers "
        "of the same convention (area-weighted surface elements)."
    ]
