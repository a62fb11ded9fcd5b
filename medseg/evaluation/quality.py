"""Quality control without reference: does a score tell which masks to look at? Risk, coverage, AURC."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from medseg.core.errors import MedsegError
from medseg.evaluation.pairs import Row
from medseg.evaluation.policy import Scoring
from medseg.evaluation.statistics import FEW, Floats, Interval, Statistic, bca, patient_numbers

REVIEWED = (0.05, 0.1, 0.2, 0.3)
"""Shares of cases handed to a person, for which it is said how many failures they hold."""
_REVIEW = ("share", "caught", "failures", "reviewed")


@dataclass(frozen=True, eq=False)
class RiskCoverage:
    """How the mean error falls when the cases of lowest quality score are handed to a person.

    Parameters
    ----------
    coverage, risk : arrays (steps,)
        Share of cases that are kept, and the mean of 1 - Dice over them, for each distinct score.
    aurc : float
        Area under that curve: the mean over cases of the risk at which they are kept.
    interval : Interval
        Of the AURC, over patients.
    ideal, random : float
        What a score that knows the Dice, and one that knows nothing, would reach.
    gain_interval : Interval
        Of ``random - aurc``, over patients: above 0 the score is better than chance.
    spearman : float or None
        Rank correlation of score and Dice; None where one of them is constant.
    failures : int
        Cases below the Dice that counts as a failure.
    """

    coverage: Floats
    risk: Floats
    aurc: float
    interval: Interval
    ideal: float
    random: float
    gain_interval: Interval
    spearman: float | None
    failures: int


def risk_coverage(
    quality: Floats,
    dice: Floats,
    patients: Sequence[str],
    *,
    failure_below: float = 0.7,
    confidence: float = 0.95,
    repeats: int = 2000,
    seed: int = 0,
) -> RiskCoverage:
    """Hold a quality score against the Dice of the same cases.

    Parameters
    ----------
    quality : array (n,)
        Higher means better; any scale. Cases of equal score are kept or handed over together.
    dice : array (n,)
    patients : sequence of str (n,)

    Raises
    ------
    MedsegError
        No case, or a score that is not a number.

    Notes
    -----
    Selective risk (Geifman and El-Yaniv 2017), as recommended for failure detection in segmentation by
    Zenk et al. 2025.
    """
    if not quality.size or not np.isfinite(quality).all():
        raise MedsegError("a quality score must be a number for every case", evidence=f"{quality.size} cases")
    risk = 1 - np.asarray(dice, float)
    one = np.ones((1, quality.size))
    coverage, kept = _curve(quality, risk, one)
    aurc = float(_aurc(quality, risk, one)[0])
    who = patient_numbers(patients)

    def statistic(weights: Floats) -> Floats:
        return _aurc(quality, risk, weights[:, who])

    def gained(weights: Floats) -> Floats:
        kept = weights[:, who]
        return kept @ risk / kept.sum(axis=1) - statistic(weights)

    how = (int(who.max()) + 1, float(np.ptp(risk)), confidence, repeats, seed)
    interval, gain = _interval(statistic, aurc, *how), _interval(gained, float(risk.mean()) - aurc, *how)
    return RiskCoverage(
        coverage[0],
        kept[0],
        aurc,
        interval,
        float(_aurc(-risk, risk, one)[0]),
        float(risk.mean()),
        gain,
        _spearman(quality, dice),
        int(np.sum(dice < failure_below)),
    )


def caught(quality: Floats, failed: np.ndarray, review: float) -> tuple[int, int, int]:
    """Of the failures, how many are among the share of cases with the lowest scores.

    Parameters
    ----------
    quality : array (n,)
    failed : bool array (n,)
    review : float
        Share of cases that a person looks at; at least one case. Of equal scores the good cases come first,
        so that a tie is never counted in the score's favour.

    Returns
    -------
    caught, failures, reviewed : int
    """
    n = min(quality.size, max(1, int(np.ceil(review * quality.size - 1e-9)))) if quality.size else 0
    looked = np.lexsort((failed, quality))[:n]
    return int(failed[looked].sum()), int(failed.sum()), n


def quality_control(rows: Sequence[Row], scoring: Scoring, quality: Mapping[str, float]) -> dict[str, Any]:
    """A quality score held against the mean Dice over labels of each case; empty without common cases."""
    dice: dict[str, list[float]] = {}
    patients: dict[str, str] = {}
    for row in rows:
        if row["metric"] == "dice" and row["value"] is not None and row["status"] != "not_predicted":
            dice.setdefault(row["case"], []).append(row["value"])
            patients[row["case"]] = row["patient"]
    cases = [case for case in dice if quality.get(case) is not None]
    if not cases:
        return {}
    means = np.array([float(np.mean(dice[case])) for case in cases])
    score = np.array([float(quality[case]) for case in cases])
    how = {"confidence": scoring.confidence, "repeats": scoring.repeats, "seed": scoring.seed}
    who = [patients[case] for case in cases]
    curve = risk_coverage(score, means, who, failure_below=scoring.failure_below, **how)
    failed = means < scoring.failure_below
    reviews = [dict(zip(_REVIEW, (s, *caught(score, failed, s)), strict=True)) for s in REVIEWED]
    kept = np.unique(np.linspace(0, curve.coverage.size - 1, 200).round().astype(int))
    return {
        "n": len(cases),
        "without_score": len(dice) - len(cases),
        "aurc": curve.aurc,
        "aurc_ci": curve.interval.limits,
        "aurc_ideal": curve.ideal,
        "aurc_random": curve.random,
        "gain": curve.random - curve.aurc,
        "gain_ci": curve.gain_interval.limits,
        "spearman": curve.spearman,
        "failure_below": scoring.failure_below,
        "failures": curve.failures,
        "reviews": reviews,
        "curve": {"coverage": curve.coverage[kept].tolist(), "risk": curve.risk[kept].tolist()},
    }


def _curve(quality: Floats, risk: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Coverage and risk at each distinct score, for each row of case weights (rows, n)."""
    order = np.argsort(-quality, kind="stable")
    last = np.append(np.flatnonzero(np.diff(quality[order])), quality.size - 1)
    kept = np.cumsum(weights[:, order], axis=1)[:, last]
    lost = np.cumsum(weights[:, order] * risk[order], axis=1)[:, last]
    with np.errstate(invalid="ignore", divide="ignore"):
        return kept / kept[:, -1:], np.where(kept > 0, lost / kept, 0)


def _aurc(quality: Floats, risk: Floats, weights: Floats) -> Floats:
    coverage, kept = _curve(quality, risk, weights)
    return np.sum(np.diff(coverage, axis=1, prepend=0.0) * kept, axis=1)


def _interval(
    statistic: Statistic,
    value: float,
    patients: int,
    spread: float,
    confidence: float,
    repeats: int,
    seed: int,
) -> Interval:
    if patients < FEW:
        return Interval(None, None, "none", f"{patients} patients are too few for an interval")
    if spread < 1e-12:
        return Interval(value, value, "point", "all cases have the same Dice: the interval is a point")
    low, high = bca(statistic, patients, confidence=confidence, repeats=repeats, seed=seed)
    return Interval(low, high, "BCa bootstrap over patients")


def _spearman(a: Floats, b: Floats) -> float | None:
    from scipy.stats import rankdata

    if a.size < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    return float(np.corrcoef(rankdata(a), rankdata(b))[0, 1])
