"""Two classifiers on the same cases: what one area under the ROC curve is above the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from medseg.evaluation.areas import auroc_difference, auroc_influence
from medseg.evaluation.classification import ClassTable
from medseg.evaluation.pairs import Row
from medseg.evaluation.policy import Scoring
from medseg.evaluation.statistics import patient_numbers, standard_error, z_of


def compare_areas(first: Sequence[Row], second: Sequence[Row], scoring: Scoring) -> dict[str, Any]:
    """AUROC of the second classifier less that of the first, for each class and as the mean over classes.

    Parameters
    ----------
    first, second : rows of `class_rows`
        Only cases that both predict are compared.

    Returns
    -------
    dict
        ``n``; ``classes``: class -> ``difference``, ``ci``, ``p`` (DeLong, paired, over patients);
        ``mean``: the same for the mean over classes (normal, from the variance between patients).
    """
    a, b = (ClassTable.of(rows, scoring.classes) for rows in (first, second))
    places = {case: n for n, case in enumerate(b.cases)}
    both = [(i, places[c]) for i, c in enumerate(a.cases) if c in places and a.predicted[i]]
    both = [(i, j) for i, j in both if b.predicted[j]]
    if not both:
        return {"n": 0, "classes": {}, "mean": None}
    at, of = (np.array(side) for side in zip(*both, strict=True))
    patients = [a.patients[i] for i in at]
    cells, influences = {}, []
    for n, name in enumerate(a.classes):
        truth, p = a.truth[at, n], a.probabilities[at, n]
        q = b.probabilities[of, b.classes.index(name)]
        value, limits, chance = auroc_difference(truth, p, q, scoring.confidence, patients)
        cells[name] = {"difference": value, "ci": limits.limits, "p": chance}
        one, other = auroc_influence(truth, p), auroc_influence(truth, q)
        if one is not None and other is not None:
            influences.append(other - one)
    return {"n": len(both), "classes": cells, "mean": _mean(cells, influences, patients, scoring)}


def _mean(cells: Any, influences: Sequence[Any], patients: Sequence[str], scoring: Scoring) -> Any:
    values = [cell["difference"] for cell in cells.values() if cell["difference"] is not None]
    if not values or len(set(patients)) < 2:
        return None
    each = np.bincount(patient_numbers(patients), np.mean(influences, axis=0)).astype(float)
    middle, half = float(np.mean(values)), z_of((1 + scoring.confidence) / 2) * standard_error(each)
    return {"difference": middle, "ci": [middle - half, middle + half]}
