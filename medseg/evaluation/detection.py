"""Detection: lists of candidates against the lesions of the reference, and the FROC curve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medseg.core.errors import MedsegError
from medseg.evaluation.lesions import components
from medseg.evaluation.policy import LesionRule
from medseg.imaging.image import Image

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

RATES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""False positives a scan at which sensitivities are averaged (as the lung nodule challenges do)."""


@dataclass(frozen=True, eq=False)
class Detections:
    """The candidates of one scan, judged.

    Parameters
    ----------
    scores : array (n,)
        Higher means more sure.
    hits : int array (n,)
        The lesion a candidate lies in, from 0; -1 for none: a false positive.
    lesions : int
        Lesions of the reference.
    patient : str
        For intervals over patients.
    """

    scores: Floats
    hits: Ints
    lesions: int
    patient: str = ""


@dataclass(frozen=True, eq=False)
class Froc:
    """Sensitivity over lesions against false positives a scan, one point for each distinct score.

    ``thresholds`` fall, the others rise; all are arrays (n,).
    """

    thresholds: Floats
    false_positives: Floats
    sensitivity: Floats

    def at(self, rates: ArrayLike = RATES) -> Floats:
        """The largest sensitivity with no more than so many false positives a scan; 0 where there is none."""
        reached = np.searchsorted(self.false_positives, np.asarray(rates, float) + 1e-12, side="right")
        return np.concatenate([[0.0], self.sensitivity])[reached]


def judged(
    points_mm: ArrayLike,
    scores: ArrayLike,
    reference: Image,
    *,
    value: int = 1,
    rule: LesionRule | None = None,
    within_mm: float = 0.0,
    patient: str = "",
) -> Detections:
    """Hold the candidates of one scan against the lesions of its reference.

    Parameters
    ----------
    points_mm : array (n, 3)
        Positions of the candidates, RAS mm.
    scores : array (n,)
    reference : Image
        Label map; lesions are the components of `value` by `rule` (connectivity, smallest volume).
    within_mm : float
        A candidate hits the nearest lesion no further than this from the voxel it lies in; 0: it must lie
        inside.
    patient : str

    Raises
    ------
    MedsegError
        Not as many scores as points, or one that is not a number.
    """
    points, sure = np.asarray(points_mm, float).reshape(-1, 3), np.asarray(scores, float).ravel()
    if len(points) != sure.size or not (np.isfinite(points).all() and np.isfinite(sure).all()):
        raise MedsegError(
            "candidates need a position and a score each, all numbers",
            evidence=f"{len(points)} positions, {sure.size} scores",
        )
    parts, sizes = components(reference.array[0] == value, reference.grid, rule)
    index = np.rint(reference.grid.to_index(points)).astype(int)
    hits = _nearest_part(parts, index, reference, within_mm) if sizes.size else np.full(sure.size, -1)
    return Detections(sure, hits, int(sizes.size), patient)


def froc(scans: Sequence[Detections]) -> Froc:
    """The FROC curve of a set of scans.

    A lesion is found at the highest score of the candidates in it; more candidates in a lesion that is
    found already are neither found nor false. Sensitivity is over all lesions of all scans.

    Raises
    ------
    MedsegError
        No scan, or no lesion in any of them: there is no sensitivity.
    """
    found, false, lesions = pooled(scans)
    if not scans or not lesions:
        raise MedsegError("a FROC curve needs scans with lesions", evidence=f"{len(scans)} scans, 0 lesions")
    thresholds = np.unique(np.concatenate([found, false]))[::-1]
    above = [x.size - np.searchsorted(np.sort(x), thresholds) for x in (found, false)]
    return Froc(thresholds, above[1] / len(scans), above[0] / lesions)


def pooled(scans: Sequence[Detections]) -> tuple[Floats, Floats, int]:
    """Best score of each lesion that is hit, scores of the false candidates, number of lesions."""
    found, false = [np.zeros(0)], [np.zeros(0)]
    for scan in scans:
        best = np.full(scan.lesions, -np.inf)
        inside = scan.hits >= 0
        np.maximum.at(best, scan.hits[inside], scan.scores[inside])
        found.append(best[np.isfinite(best)])
        false.append(scan.scores[~inside])
    return np.concatenate(found), np.concatenate(false), sum(scan.lesions for scan in scans)


def froc_interval(
    scans: Sequence[Detections],
    rates: Sequence[float] = RATES,
    *,
    confidence: float = 0.95,
    repeats: int = 1000,
    seed: int = 0,
) -> tuple[float, float | None, float | None]:
    """Mean sensitivity at `rates`, with its percentile bootstrap interval over patients.

    Scans without a patient's name are their own patients. No interval (None) for fewer than two patients.
    """
    mean = float(froc(scans).at(rates).mean())
    groups: dict[str, list[Detections]] = {}
    for i, scan in enumerate(scans):
        groups.setdefault(scan.patient or f"\0{i}", []).append(scan)
    if len(groups) < 2:
        return mean, None, None
    rng, patients, draws = np.random.default_rng([seed, len(groups)]), list(groups.values()), []
    for _ in range(repeats):
        drawn = [s for i in rng.integers(0, len(patients), len(patients)) for s in patients[i]]
        if any(scan.lesions for scan in drawn):
            draws.append(froc(drawn).at(rates).mean())
    low, high = np.quantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2])
    return mean, float(low), float(high)


def _nearest_part(parts: NDArray, index: Ints, reference: Image, within_mm: float) -> Ints:
    from scipy.spatial import KDTree

    inside = ((index >= 0) & (index < np.array(parts.shape))).all(axis=1)
    hits = np.full(len(index), -1)
    hits[inside] = parts[tuple(index[inside].T)].astype(int) - 1
    loose = np.flatnonzero(hits < 0)
    if within_mm > 0 and loose.size:
        voxels = np.argwhere(parts)
        tree = KDTree(reference.grid.to_mm(voxels))
        query: Any = tree.query(reference.grid.to_mm(index[loose]), distance_upper_bound=within_mm + 1e-5)
        away, nearest = query
        near = np.isfinite(away)
        hits[loose[near]] = parts[tuple(voxels[nearest[near]].T)].astype(int) - 1
    return hits
