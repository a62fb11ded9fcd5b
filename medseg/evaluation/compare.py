"""Two tables of scores on the same cases: paired differences, who wins, what a margin says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from medseg.core.errors import MedsegError
from medseg.core.files import read_json, write_json, write_text
from medseg.core.values import validated
from medseg.evaluation.classification import is_classification
from medseg.evaluation.comparable import patients_of, same_choices
from medseg.evaluation.compare_classes import class_differences
from medseg.evaluation.compare_page import compare_page, line, unpaired_lines
from medseg.evaluation.metrics import METRICS, metric_of
from medseg.evaluation.paired import holm, paired_difference, rank_stability, verdict_of
from medseg.evaluation.pairs import Row
from medseg.evaluation.policy import Scoring
from medseg.evaluation.scoring import Scores, rows_to_csv

Values = dict[tuple[str, str], dict[str, Row]]
COMPARED, SIDES = "compare.json", ("compared_a.csv", "compared_b.csv")
"""What is found, and both tables as they were compared: the comparison can be made again from them."""


@dataclass(frozen=True)
class Comparison:
    """What `compare` found: compare.json's content, a few lines for the console, and the page."""

    summary: dict[str, Any]
    text: str
    page: Path


def compare(a: str | Path, b: str | Path, out: str | Path, scoring: Scoring | None = None) -> Comparison:
    """Paired comparison of two scores.csv; writes ``compare.json``, the page and both tables into `out`.

    Parameters
    ----------
    a, b : path
        scores.csv files of the same cases, of masks or of classes. Differences are B - A. Where a
        ``summary.json`` of the table lies beside it, its choices of measurement must be those of the other.
    scoring : Scoring, optional
        Confidence, repeats, seed, and ``margins``: metric -> non-inferiority margin, in its unit.

    Raises
    ------
    MedsegError
        The tables have no case, label and metric in common, one is of masks and the other of classes, they
        were measured differently, they disagree on the classes of a case, or a margin is for a metric that
        is not compared.
    """
    first, second = (Scores.from_csv(file).rows for file in (a, b))
    same_choices(Path(a), Path(b), first, second)
    return _compared(first, second, Path(out), scoring or Scoring())


def compare_again(folder: Path) -> Comparison:
    """The comparison that lies in `folder`, made again from both its tables and the choices it names.

    Raises
    ------
    MedsegError
        A comparison without its tables, as earlier versions wrote them.
    """
    told = read_json(folder / COMPARED)
    if "scoring" not in told or not all((folder / name).is_file() for name in SIDES):
        raise MedsegError(
            "the comparison does not hold its tables", file=str(folder), mend="compare them once more"
        )
    first, second = (Scores.from_csv(folder / name).rows for name in SIDES)
    return _compared(first, second, folder, validated(Scoring, told["scoring"]))


def _compared(first: list[Row], second: list[Row], out: Path, scoring: Scoring) -> Comparison:
    of_classes = is_classification(first)
    if of_classes != is_classification(second):
        raise MedsegError("one table is of masks, the other of classes: they cannot be compared")
    differences = class_differences if of_classes else _mask_differences
    cells = differences(first, second, scoring)
    if not cells:
        raise MedsegError(
            "the two tables have no case, label and metric in common",
            evidence=" / ".join(f"{side}: {_some(rows)}" for side, rows in (("A", first), ("B", second))),
            mend="compare tables of the same cases with the same label names",
        )
    for cell, adjusted in zip(cells, holm([c["p"] for c in cells]), strict=True):
        cell["p_holm"] = adjusted
    _judge(cells, scoring)
    summary = {
        "differences": cells,
        "conventions": {**_told(first, second), **_conventions(scoring, of_classes)},
        "only_in_one": _unpaired(first, second, "case"),
        "labels_only_in_one": _unpaired(first, second, "label"),
        "scoring": scoring.model_dump(mode="json"),
    }
    for name, rows in zip(SIDES, (first, second), strict=True):
        write_text(out / name, rows_to_csv(rows))
    write_json(out / COMPARED, summary)
    write_text(out / "index.html", compare_page(cells, summary, (first, second)))
    return Comparison(summary, "\n".join([*map(line, cells), *unpaired_lines(summary)]), out / "index.html")


def _mask_differences(a: Sequence[Row], b: Sequence[Row], scoring: Scoring) -> list[dict[str, Any]]:
    first, second = _values(a), _values(b)
    who = patients_of(a, b)
    cells = [_difference(first[key], second[key], key, scoring, who) for key in first if key in second]
    return [cell for cell in cells if cell["n"]]


def _values(rows: Sequence[Row]) -> Values:
    """Rows with a value by (label, metric) and case, of the metrics that have a good direction."""
    found: Values = {}
    for row in rows:
        directed = row["metric"] not in METRICS or METRICS[row["metric"]].better in ("high", "low")
        if row["value"] is not None and directed:
            found.setdefault((row["label"], row["metric"]), {})[row["case"]] = row
    return found


def _difference(
    a: Mapping[str, Row],
    b: Mapping[str, Row],
    key: tuple[str, str],
    scoring: Scoring,
    who: Mapping[str, str],
) -> dict[str, Any]:
    cases = [case for case in a if case in b]
    head = {"label": key[0], "metric": key[1], "n": len(cases)}
    if not cases:
        return head
    pairs = np.array([[a[c]["value"], b[c]["value"]] for c in cases])
    patients, low = [who[c] for c in cases], low_is_good(key[1])
    how = {"confidence": scoring.confidence, "repeats": scoring.repeats, "seed": scoring.seed}
    found = paired_difference(pairs[:, 0], pairs[:, 1], patients, low_is_good=low, **how)
    ranking = rank_stability(pairs, patients, low_is_good=low, **how)
    return head | {
        "patients": len(set(patients)),
        "unit": METRICS[key[1]].unit if key[1] in METRICS else "",
        "mean_a": float(pairs[:, 0].mean()),
        "mean_b": float(pairs[:, 1].mean()),
        "difference": found.mean,
        "ci": found.interval.limits,
        "ci_method": found.interval.method,
        "note": found.interval.note,
        "p": found.p,
        "test": found.test,
        "b_better": found.wins,
        "ties": found.ties,
        "a_better": found.losses,
        "b_first": float(ranking.first[1]),
    }


def low_is_good(metric: str) -> bool:
    """Whether the lower value of a metric is the better one."""
    return metric in METRICS and metric_of(metric).better == "low"


def _judge(cells: Sequence[dict[str, Any]], scoring: Scoring) -> None:
    """Give the cells of a metric with a margin ``margin`` and ``verdict``."""
    unknown = sorted(set(scoring.margins) - {cell["metric"] for cell in cells})
    if unknown:
        raise MedsegError(
            f"the margin is for {unknown[0]}, which is not compared",
            evidence=f"compared: {', '.join(dict.fromkeys(c['metric'] for c in cells))}",
        )
    for cell in cells:
        if (margin := scoring.margins.get(cell["metric"])) is not None:
            cell["margin"] = margin
            cell["verdict"] = verdict_of(cell["ci"], margin, low_is_good=low_is_good(cell["metric"]))


def _unpaired(a: Sequence[Row], b: Sequence[Row], what: str) -> dict[str, list[str]]:
    """Cases (or labels) with a value on one side alone."""
    mine, theirs = ({row[what] for row in rows if row["value"] is not None} for rows in (a, b))
    return {"a": sorted(mine - theirs), "b": sorted(theirs - mine)}


def _told(a: Sequence[Row], b: Sequence[Row]) -> dict[str, str]:
    """Which tables these are: how many cases, and their sha256 as a summary.json names it."""
    found = {}
    for side, rows in (("A", a), ("B", b)):
        seal = sha256(rows_to_csv(rows).encode()).hexdigest()
        found[side] = f"{len({row['case'] for row in rows})} cases, sha256 {seal[:16]}"
    return found


def _some(rows: Sequence[Row]) -> str:
    """The first cases and labels of a table."""
    cases, labels = (list(dict.fromkeys(row[what] for row in rows)) for what in ("case", "label"))
    return f"cases {', '.join(cases[:3])} ({len(cases)}), labels {', '.join(labels[:5])}"


def _conventions(scoring: Scoring, of_classes: bool) -> dict[str, str]:
    level = f"{100 * scoring.confidence:g} %"
    margins = ", ".join(f"{metric} {margin:g}" for metric, margin in scoring.margins.items())
    masks = {
        "interval": f"{level} BCa bootstrap of the mean difference over patients, "
        f"{scoring.repeats} repeats, seed {scoring.seed}; t interval below 15 patients",
        "test": "Wilcoxon signed-rank over patients' mean differences, exact up to 25 patients that differ, "
        "adjusted by Holm over all rows",
        "b_first": "share of bootstrap draws of patients in which B has the better mean (rank stability)",
    }
    classes = {
        "interval": f"{level} DeLong's paired interval for areas; for accuracy the interval of the mean "
        "difference over patients",
        "test": "DeLong for areas, exact McNemar for accuracy; adjusted by Holm over all rows",
    }
    said = f"superior, non-inferior or inferior by the whole interval; margins: {margins}"
    return {
        "difference": "B - A on the cases that have a value in both",
        **(classes if of_classes else masks),
        **({"margin": said} if margins else {}),
    }
