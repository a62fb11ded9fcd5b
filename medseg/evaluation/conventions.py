"""Every choice behind the numbers of masks, in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from medseg.evaluation.metrics import metric_of
from medseg.evaluation.policy import STATUS_WORDS, Scoring
from medseg.imaging.candidates import ABOVE


def conventions(scoring: Scoring, names: Sequence[str]) -> dict[str, Any]:
    """Every choice behind the numbers, in words."""
    level = f"{100 * scoring.confidence:g} %"
    distance = "the diagonal of the image" if scoring.missed == "worst" else "left out of the mean, counted"
    return {
        "metrics": {name: metric_of(name).definition for name in names},
        "units": {name: metric_of(name).unit or "1" for name in names},
        "nsd_tolerance_mm": {"all": scoring.tolerance_mm, **scoring.tolerances_mm},
        "geometry": _geometry(scoring),
        **_lesion_words(scoring, names),
        **_region_words(scoring),
        "statuses": STATUS_WORDS,
        "missed_or_false_positive": f"overlap metrics 0; distances {distance}",
        "mean": "mean over cases for each label; the mean over labels is the mean of these means",
        "mean_interval": f"{level} BCa bootstrap over patients, {scoring.repeats} repeats, levels widened "
        "for few patients (t sqrt(n / (n - 1)) for the normal quantile); t interval below 15 patients, above "
        "5000 too; a point where all values agree",
        "median_interval": f"{level} by order statistics (ranks widened when patients have several cases)",
        **FINDING_WORDS,
        "iqr": "25th and 75th percentile, linear between ranks",
        "sd": "over cases, n - 1",
    }


FINDING_WORDS = {
    "agreement": "Bland-Altman of predicted - reference volume: bias with t interval, limits bias -+ 1.96 sd "
    "(for 95 %) with exact intervals (noncentral t); slope of the difference on the mean; with several cases "
    "of a patient the sd is that of a case of a new patient; ICC by Shrout and Fleiss",
    "subgroups": "difference of means to all other cases, Welch t over patients; p adjusted by Holm over all "
    "groups and labels of a metric",
    "sample_size": "patients x (half-width reached / wanted)^2",
}


def _geometry(scoring: Scoring) -> str:
    resampled = (
        "predictions on another grid are resampled onto the reference's: each voxel goes to the label with "
        "the largest share of it, what lies outside the prediction is background"
        if scoring.resample
        else "nothing resampled, another grid is refused"
    )
    return (
        f"prediction and reference on the same grid (affine within 1e-3), {resampled}; "
        "a single slice is measured in its plane"
    )


def _lesion_words(scoring: Scoring, names: Sequence[str]) -> dict[str, str]:
    if not any(n in ("pq", "sq") or n.startswith("lesion") for n in names):
        return {}
    rule = scoring.lesions
    flat = {6: 4, 18: 8, 26: 8}[rule.connectivity]
    least = f"of at least {rule.minimum_ml:g} ml, on both sides" if rule.minimum_ml else "of any size"
    return {
        "lesions": f"{rule.connectivity}-connected components ({flat}-connected in a single slice) {least}; "
        f"matched one-to-one where their IoU is above {rule.iou:g}: the most pairs, then the largest IoU",
        "froc": "a candidate is a 26-connected part of the map of probabilities above "
        f"{ABOVE:g}, its score the peak; it hits the lesion its peak lies in; more in one lesion count once",
    }


def _region_words(scoring: Scoring) -> dict[str, Any]:
    ignored = f"voxels where the reference is {scoring.ignore} are left out of both sides"
    regions = {name: "+".join(map(str, values)) for name, values in scoring.regions.items()}
    return ({"regions": regions} if regions else {}) | ({"ignored": ignored} if scoring.ignore else {})
