"""How often the 95 % intervals hold the truth: coverage by simulation, on skewed and on clustered data.

    python -m benchmarks.interval_coverage [--repeats 1000]

Data are Dice-like (beta, skewed to the left), volumes, and scores of two classes; once with a case a patient
and once with one to four cases of each, which share their patient's level. n counts patients. Every interval
is made by the function that makes it in a report, 2,000 bootstrap repeats where it is one. A coverage has a
standard error of 0.7 points with 1,000 repeats, 1.5 with 200: read single cells accordingly. Prints a table
for RESULTS.md.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable
from functools import cache
from importlib.metadata import version
from typing import Any

import numpy as np

from medseg.evaluation.agreement import bland_altman, icc
from medseg.evaluation.areas import auprc_interval, auroc_difference, auroc_interval
from medseg.evaluation.medians import median_interval
from medseg.evaluation.paired import paired_difference
from medseg.evaluation.proportions import proportion
from medseg.evaluation.statistics import Interval, Sample, mean_interval
from medseg.evaluation.subgroups import difference_of_groups

SIZES = (20, 50, 200)
GOAL = (0.92, 0.97)
MANY = 400_000
Rng = np.random.Generator
Drawn = tuple[Interval, float]
"""An interval, and the true value."""


def patients_of(rng: Rng, n: int, clustered: bool) -> tuple[np.ndarray, list[str]]:
    """The patient of each case: one case of each, or one to four."""
    who = np.repeat(np.arange(n), rng.integers(1, 5, n) if clustered else 1)
    return who, [f"p{i:06d}" for i in who]


def dice_like(rng: Rng, who: np.ndarray, clustered: bool) -> np.ndarray:
    """Beta values with mean 8/9.5; clustered: around a level of the patient with that mean."""
    if not clustered:
        return rng.beta(8, 1.5, who.size)
    level = rng.beta(8, 1.5, who.max() + 1)[who]
    return rng.beta(20 * level + 0.01, 20 * (1 - level) + 0.01)


def mean(rng: Rng, n: int, clustered: bool) -> Drawn:
    """Mean Dice."""
    who, names = patients_of(rng, n, clustered)
    return mean_interval(Sample.of([(dice_like(rng, who, clustered), names)]), bounds=(0, 1)), 8 / 9.5


def mean_with_failures(rng: Rng, n: int, clustered: bool) -> Drawn:
    """Mean Dice where 5 % of the cases are missed (Dice 0)."""
    who, names = patients_of(rng, n, clustered)
    values = dice_like(rng, who, clustered) * (rng.random(who.size) > 0.05)
    return mean_interval(Sample.of([(values, names)]), bounds=(0, 1)), 0.95 * 8 / 9.5


def median(rng: Rng, n: int, clustered: bool) -> Drawn:
    """Median Dice."""
    who, names = patients_of(rng, n, clustered)
    return median_interval(dice_like(rng, who, clustered), names), _true_median(clustered)


def difference(rng: Rng, n: int, clustered: bool) -> Drawn:
    """Mean difference of two models on the same cases."""
    who, names = patients_of(rng, n, clustered)
    first = dice_like(rng, who, clustered)
    gain = rng.beta(2, 8, who.size) - rng.beta(2, 12, who.max() + 1)[who]
    return paired_difference(first, first + gain, names).interval, 0.2 - 2 / 14


def subgroup(rng: Rng, n: int, clustered: bool) -> Drawn:
    """Difference of a group (a quarter of the patients) to the rest."""
    who, names = patients_of(rng, n, clustered)
    inside = who % 4 == 0
    values = dice_like(rng, who, clustered) - 0.05 * inside
    return difference_of_groups(values, names, inside, ~inside)[1], -0.05


def _scores(rng: Rng, who: np.ndarray, clustered: bool, shift: float) -> tuple[np.ndarray, np.ndarray]:
    """Truth (40 % ill) and scores that are `shift` standard deviations apart."""
    truth = rng.random(who.size) < 0.4
    shared = rng.normal(size=who.max() + 1)[who] if clustered else 0.0
    own = rng.normal(size=who.size)
    return truth, truth * shift + (np.sqrt(0.4) * shared + np.sqrt(0.6) * own if clustered else own)


def auroc(rng: Rng, n: int, clustered: bool) -> Drawn:
    """Area under the ROC curve, 0.86."""
    who, names = patients_of(rng, n, clustered)
    truth, score = _scores(rng, who, clustered, 1.53)
    return auroc_interval(truth, score, patients=names)[1], _true_area(1.53)


def auroc_of_two(rng: Rng, n: int, clustered: bool) -> Drawn:
    """Difference of the areas of two scores of the same cases."""
    who, names = patients_of(rng, n, clustered)
    truth, first = _scores(rng, who, clustered, 1.0)
    second = first + 0.3 * truth + rng.normal(0, 0.5, who.size)
    true = _true_area(1.3 / np.sqrt(1.25)) - _true_area(1.0)
    return auroc_difference(truth, first, second, patients=names)[1], true


def auprc(rng: Rng, n: int, clustered: bool) -> Drawn:
    """Average precision."""
    who, names = patients_of(rng, n, clustered)
    truth, score = _scores(rng, who, clustered, 1.53)
    return auprc_interval(truth, score, names)[1], _true_precision()


def share(rng: Rng, n: int, clustered: bool) -> Drawn:
    """A proportion of 0.85, such as an accuracy."""
    who, names = patients_of(rng, n, clustered)
    level = rng.beta(4.25, 0.75, who.max() + 1)[who] if clustered else 0.85
    return proportion(rng.random(who.size) < level, names), 0.85


def _volumes(rng: Rng, n: int, clustered: bool) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Predicted and reference volumes; the differences have mean 1 and sd 3."""
    who, names = patients_of(rng, n, clustered)
    truth = rng.gamma(4, 10, who.size)
    apart = rng.normal(0, 3, who.size)
    if clustered:
        apart = np.sqrt(0.5) * (rng.normal(0, 3, who.max() + 1)[who] + apart)
    return truth + 1 + apart, truth, names


def bias(rng: Rng, n: int, clustered: bool) -> Drawn:
    """Bland-Altman bias."""
    found = bland_altman(*_volumes(rng, n, clustered))
    assert found is not None
    return found.bias_interval, 1.0


def limit(rng: Rng, n: int, clustered: bool) -> Drawn:
    """Upper Bland-Altman limit of agreement."""
    found = bland_altman(*_volumes(rng, n, clustered))
    assert found is not None
    return found.upper_interval, 1 + 1.959964 * 3


def _ratings(rng: Rng, n: int) -> np.ndarray:
    """Two raters, drawn anew each time: variance 9 between cases, 0.2 between raters, 0.8 left."""
    level, raters = rng.normal(0, 3, (n, 1)), rng.normal(0, np.sqrt(0.2), (1, 2))
    return level + raters + rng.normal(0, np.sqrt(0.8), (n, 2))


def agreement(rng: Rng, n: int, clustered: bool) -> Drawn:
    """ICC(2,1) of one case a patient."""
    return icc(_ratings(rng, n))[0].interval, 0.9


def consistency(rng: Rng, n: int, clustered: bool) -> Drawn:
    """ICC(3,1) of one case a patient."""
    return icc(_ratings(rng, n))[1].interval, 9 / 9.8


KINDS: dict[str, Callable[[Rng, int, bool], Drawn]] = {
    "mean (t, BCa)": mean,
    "mean, 5 % missed": mean_with_failures,
    "median": median,
    "paired difference": difference,
    "subgroup difference": subgroup,
    "AUROC (DeLong)": auroc,
    "AUROC difference": auroc_of_two,
    "AUPRC (BCa)": auprc,
    "proportion (Wilson)": share,
    "Bland-Altman bias": bias,
    "Bland-Altman limit": limit,
    "ICC(2,1), two raters": agreement,
    "ICC(3,1), two raters": consistency,
}


def covered(draw: Callable[[Rng, int, bool], Drawn], n: int, clustered: bool, repeats: int) -> dict[str, Any]:
    """Share of repeats whose interval holds the truth, of those that gave one; and their mean width."""
    rng = np.random.default_rng([n, int(clustered), 1])
    hits, widths = [], []
    for _ in range(repeats):
        interval, truth = draw(rng, n, clustered)
        if interval.limits is not None:
            low, high = interval.limits
            hits.append(low - 1e-12 <= truth <= high + 1e-12)
            widths.append(high - low)
    return {"coverage": float(np.mean(hits)), "width": float(np.mean(widths)), "none": repeats - len(hits)}


@cache
def _true_median(clustered: bool) -> float:
    rng = np.random.default_rng(5)
    return float(np.median(dice_like(rng, np.arange(MANY), clustered)))


def _true_area(shift: float) -> float:
    from scipy.stats import norm

    return float(norm.cdf(shift / np.sqrt(2)))


@cache
def _true_precision() -> float:
    from medseg.evaluation.areas import average_precision

    rng = np.random.default_rng(6)
    value = average_precision(*_scores(rng, np.arange(MANY), False, 1.53))
    assert value is not None
    return value


def main() -> None:
    """Simulate every kind of interval and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=1000)
    options = parser.parse_args()
    packages = ", ".join(f"{p} {version(p)}" for p in ("medseg", "numpy", "scipy"))
    print(f"Python {platform.python_version()}, {packages}; {options.repeats} repeats, goal 92 to 97 %\n")
    heads = [f"{data}, n = {n}" for data in ("one case", "1-4 cases") for n in SIZES]
    print(f"| coverage in % (mean width) | {' | '.join(heads)} |")
    print("|---" * (len(heads) + 1) + "|")
    start, outside = time.process_time(), []
    for name, draw in KINDS.items():
        cells = []
        for clustered, n in ((c, n) for c in (False, True) for n in SIZES):
            if draw in (agreement, consistency) and clustered:
                cells.append("")
                continue
            found = covered(draw, n, clustered, options.repeats)
            inside = GOAL[0] <= found["coverage"] <= GOAL[1]
            outside += [] if inside or n < 50 else [f"{name}, n = {n}{', clustered' * clustered}"]
            none = f", {found['none']} without" if found["none"] else ""
            mark = "" if inside else " !"
            cells.append(f"{100 * found['coverage']:.1f}{mark} ({found['width']:.3g}{none})")
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
    seconds = time.process_time() - start
    print(f"\n{seconds:.0f} CPU seconds; outside the goal at n >= 50: {', '.join(outside) or 'none'}")


if __name__ == "__main__":
    main()
