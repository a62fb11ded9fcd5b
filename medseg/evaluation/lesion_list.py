"""Lesions one by one: which were found, how large they are, how sure the candidates were."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from io import StringIO
from typing import Any

import numpy as np

from medseg.core.errors import MedsegError
from medseg.evaluation.detection import RATES, Detections, froc, froc_interval, judged
from medseg.evaluation.lesions import matched
from medseg.evaluation.pairs import pairs_of
from medseg.evaluation.policy import Scoring
from medseg.evaluation.proportions import proportion
from medseg.imaging.candidates import candidates
from medseg.imaging.image import Image
from medseg.imaging.labels import Labels

COLUMNS = ("case", "patient", "label", "side", "ml", "matched", "iou")
LEAST = 15
"""Fewer reference lesions are not cut into sizes of their own accord."""
CURVE = 200
"""Points of a FROC curve that are kept for drawing."""


def asks_for_lesions(scoring: Scoring) -> bool:
    """Whether any metric counts lesions."""
    return any(name.startswith("lesion") or name in ("pq", "sq") for name in scoring.metrics)


def lesion_list(
    prediction: Image | None,
    reference: Image,
    labels: Labels,
    scoring: Scoring,
    case: str,
    patient: str | None = None,
) -> list[dict[str, Any]]:
    """A row for each lesion of either side.

    Returns
    -------
    list of dict
        `COLUMNS`: ``side`` is ``reference`` or ``prediction``; ``matched`` whether it has a partner; ``iou``
        with it (None without).
    """
    rows = []
    for structure, pair, _ in pairs_of(prediction, reference, labels, scoring):
        found = matched(pair, scoring.lesions)
        head = {"case": case, "patient": patient or case, "label": structure.name}
        for column, (side, voxels) in enumerate(
            (("reference", found.reference_voxels), ("prediction", found.predicted_voxels))
        ):
            partner = dict(zip(found.pairs[:, column].tolist(), found.ious.tolist(), strict=True))
            for i, n in enumerate(voxels):
                row = {"side": side, "ml": float(n * pair.grid.voxel_ml), "matched": i in partner}
                rows.append(head | row | {"iou": partner.get(i)})
    return rows


def lesions_to_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """lesions.csv: `COLUMNS`, a row a lesion; ``matched`` is 1 or 0, ``iou`` empty without a partner."""
    from medseg.evaluation.scoring import safe_cell

    out = StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        iou = "" if row["iou"] is None else f"{row['iou']:.9g}"
        words = (safe_cell(str(row[c])) for c in ("case", "patient", "label", "side"))
        writer.writerow([*words, f"{row['ml']:.9g}", int(row["matched"]), iou])
    return out.getvalue()


def by_size(lesions: Sequence[Mapping[str, Any]], scoring: Scoring) -> list[dict[str, Any]]:
    """Sensitivity by the size of the reference's lesions of one label.

    Sizes are cut at `LesionRule.sizes_ml`, or at the thirds where none are given and lesions are enough.

    Returns
    -------
    list of dict
        size, lesions, found, sensitivity, ci (Wilson, effective cases where patients have several lesions).
    """
    ours = [row for row in lesions if row["side"] == "reference"]
    volumes = np.array([row["ml"] for row in ours])
    cuts = list(scoring.lesions.sizes_ml)
    if not cuts and len(ours) >= LEAST and len(set(volumes.tolist())) >= 3:
        cuts = sorted({float(f"{q:.3g}") for q in np.quantile(volumes, [1 / 3, 2 / 3])})
    if not cuts or not ours:
        return []
    at, rows = np.searchsorted(cuts, volumes, side="right"), []
    for i in range(len(cuts) + 1):
        inside = np.flatnonzero(at == i)
        hits = np.array([ours[j]["matched"] for j in inside], bool)
        who = [str(ours[j]["patient"]) for j in inside]
        limits = proportion(hits, who, scoring.confidence).limits if hits.size else None
        row = {"size": _named(cuts, i), "lesions": int(hits.size), "found": int(hits.sum())}
        rows.append(row | {"sensitivity": float(hits.mean()) if hits.size else None, "ci": limits})
    return rows


def detections_of(
    found: Sequence[Mapping[str, Any]], reference: Image, value: int, scoring: Scoring, patient: str
) -> dict[str, Any]:
    """The candidates of one label of one case, held against its lesions: plain data, see `Detections`."""
    points = [row["point_mm"] for row in found]
    scores = [row["score"] for row in found]
    done = judged(points, scores, reference, value=value, rule=scoring.lesions, patient=patient)
    plain = {"scores": done.scores.tolist(), "hits": done.hits.tolist()}
    return plain | {"lesions": done.lesions, "patient": patient}


def detections_in(
    probability: Image, reference: Image, labels: Labels, scoring: Scoring, patient: str
) -> dict[str, dict[str, Any]]:
    """Label -> judged candidates of a map of probabilities.

    Parameters
    ----------
    probability : Image
        One channel for a single label; else a channel a label in their order, after one for the background.

    Raises
    ------
    MedsegError
        Another number of channels.
    """
    n = probability.array.shape[0]
    if n not in ({1, 2} if len(labels) == 1 else {len(labels) + 1}):
        raise MedsegError(
            "the map of probabilities has another number of channels than there are labels",
            evidence=f"{n} channels; labels: {', '.join(x.name for x in labels)}",
            mend="give one channel for a single label, or background and every label in their order",
        )
    first = 0 if n == 1 else 1
    return {
        x.name: detections_of(
            candidates(probability.array[first + i], probability.grid), reference, x.value, scoring, patient
        )
        for i, x in enumerate(labels)
    }


def froc_parts(
    found: Mapping[str, Sequence[Mapping[str, Any]]], scoring: Scoring, rates: Sequence[float] = RATES
) -> dict[str, Any]:
    """The FROC curve of each label: label -> judged candidates of every case.

    Returns
    -------
    dict
        ``[label]``: ``false_positives`` (a scan) and ``sensitivity`` along the curve, ``rates`` and
        ``at_rates``, ``mean`` (sensitivity over the rates), ``ci``, ``scans``, ``lesions``. Labels without a
        lesion are left out.
    """
    parts = {}
    for label, scans in found.items():
        done = [
            Detections(np.array(s["scores"]), np.array(s["hits"], int), s["lesions"], s["patient"])
            for s in scans
        ]
        if not sum(s.lesions for s in done):
            continue
        curve = froc(done)
        how = {"confidence": scoring.confidence, "repeats": min(scoring.repeats, 1000), "seed": scoring.seed}
        mean, low, high = froc_interval(done, rates, **how)
        kept = np.unique(np.linspace(0, curve.thresholds.size - 1, CURVE).round().astype(int))
        parts[label] = {
            "false_positives": curve.false_positives[kept].tolist(),
            "sensitivity": curve.sensitivity[kept].tolist(),
            "rates": list(rates),
            "at_rates": curve.at(rates).tolist(),
            "mean": mean,
            "ci": None if low is None else [low, high],
            "scans": len(done),
            "lesions": sum(s.lesions for s in done),
        }
    return parts


def _named(cuts: Sequence[float], i: int) -> str:
    if i == 0:
        return f"below {cuts[0]:g} ml"
    return f"{cuts[-1]:g} ml and more" if i == len(cuts) else f"{cuts[i - 1]:g} to below {cuts[i]:g} ml"
