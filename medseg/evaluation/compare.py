"""Two tables of scores on the same cases: paired differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from medseg.core.errors import MedsegError
from medseg.core.files import write_json, write_text
from medseg.evaluation.metrics import METRICS, metric_of
from medseg.evaluation.paired import holm, signed_rank
from medseg.evaluation.pairs import Row
from medseg.evaluation.policy import Scoring
from medseg.evaluation.report.tables import number
from medseg.evaluation.scoring import Scores
from medseg.evaluation.statistics import Sample, mean_interval

COMPARED = ("dice", "iou", "nsd", "hd95", "assd")
Values = dict[tuple[str, str], dict[str, Row]]


@dataclass(frozen=True)
class Comparison:
    """What `compare` found: compare.json's content, a few lines for the console, and the page."""

    summary: dict[str, Any]
    text: str
    page: Path


def compare(a: str | Path, b: str | Path, out: str | Path, scoring: Scoring | None = None) -> Comparison:
    """Paired comparison of two scores.csv; writes ``compare.json`` and ``index.html`` into `out`.

    Parameters
    ----------
    a, b : path
        scores.csv files of the same cases. Differences are B - A.
    scoring : Scoring, optional
        Confidence, repeats and seed.

    Raises
    ------
    MedsegError
        The tables have no case, label and metric in common.
    """
    scoring = scoring or Scoring()
    first, second = (_values(Scores.from_csv(file).rows) for file in (a, b))
    cells = [_difference(first[key], second[key], key, scoring) for key in first if key in second]
    cells = [cell for cell in cells if cell["n"]]
    if not cells:
        raise MedsegError(
            "the two tables have no case, label and metric in common",
            mend="compare tables of the same cases with the same label names",
        )
    for cell, adjusted in zip(cells, holm([c["p"] for c in cells]), strict=True):
        cell["p_holm"] = adjusted
    summary = {
        "differences": cells,
        "conventions": _conventions(scoring),
        "only_in_one": _unpaired(first, second),
    }
    write_json(Path(out) / "compare.json", summary)
    write_text(Path(out) / "index.html", _page(cells, summary))
    return Comparison(summary, "\n".join(_line(c) for c in cells), Path(out) / "index.html")


def _values(rows: Sequence[Row]) -> Values:
    """Rows with a value by (label, metric) and case, of the metrics that have a good direction."""
    found: Values = {}
    for row in rows:
        if row["value"] is not None and (row["metric"] in COMPARED or row["metric"] not in METRICS):
            found.setdefault((row["label"], row["metric"]), {})[row["case"]] = row
    return found


def _difference(
    a: Mapping[str, Row], b: Mapping[str, Row], key: tuple[str, str], scoring: Scoring
) -> dict[str, Any]:
    cases = [case for case in a if case in b]
    head = {"label": key[0], "metric": key[1], "n": len(cases)}
    if not cases:
        return head
    pairs = np.array([[a[c]["value"], b[c]["value"]] for c in cases])
    differences = pairs[:, 1] - pairs[:, 0]
    sample = Sample.of([(differences, [a[c]["patient"] for c in cases])])
    limits = mean_interval(sample, confidence=scoring.confidence, repeats=scoring.repeats, seed=scoring.seed)
    better = -differences if _low_is_good(key[1]) else differences
    p, how = signed_rank(differences)
    return head | {
        "unit": METRICS[key[1]].unit if key[1] in METRICS else "",
        "mean_a": float(pairs[:, 0].mean()),
        "mean_b": float(pairs[:, 1].mean()),
        "difference": sample.mean(),
        "ci": None if limits.low is None else [limits.low, limits.high],
        "ci_method": limits.method,
        "note": limits.note,
        "p": p,
        "test": how,
        "b_better": int((better > 0).sum()),
        "ties": int((better == 0).sum()),
        "a_better": int((better < 0).sum()),
    }


def _low_is_good(metric: str) -> bool:
    return metric in METRICS and metric_of(metric).better == "low"


def _unpaired(a: Values, b: Values) -> dict[str, list[str]]:
    cases_a, cases_b = ({case for rows in v.values() for case in rows} for v in (a, b))
    return {"a": sorted(cases_a - cases_b), "b": sorted(cases_b - cases_a)}


def _conventions(scoring: Scoring) -> dict[str, str]:
    return {
        "difference": "B - A on the cases that have a value in both",
        "interval": f"{100 * scoring.confidence:g} % BCa bootstrap of the mean difference over patients, "
        f"{scoring.repeats} repeats, seed {scoring.seed}; t interval below 15 patients",
        "test": "Wilcoxon signed-rank, exact up to 25 cases that differ, adjusted by Holm over all rows",
    }


def _line(cell: Mapping[str, Any]) -> str:
    ci = f" [{cell['ci'][0]:+.3f}, {cell['ci'][1]:+.3f}]" if cell["ci"] else ""
    unit = f" {cell['unit']}" if cell["unit"] else ""
    return (
        f"  {cell['label']:<18} {cell['metric']:<6} {cell['difference']:+.3f}{ci}{unit}  n = {cell['n']}, "
        f"B better in {cell['b_better']}, worse in {cell['a_better']}, Holm p = {cell['p_holm']:.3g}"
    )


def _page(cells: Sequence[Mapping[str, Any]], summary: Mapping[str, Any]) -> str:
    from medseg.evaluation.report.page import bare_page

    heads = ("Label", "Metric", "n", "A", "B", "B − A", "CI", "B better / ties / worse", "p (Holm)")
    rows = "".join(
        "<tr>" + "".join(f"<td>{escape(c)}</td>" for c in _cells(cell)) + "</tr>" for cell in cells
    )
    said = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in summary["conventions"].items())
    only = "".join(
        f"<p>Only in {side.upper()}: {escape(', '.join(cases))}</p>"
        for side, cases in summary["only_in_one"].items()
        if cases
    )
    head = "".join(f"<th>{h}</th>" for h in heads)
    body = (
        f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
        f'{only}<section><dl class="definitions">{said}</dl></section>'
    )
    return bare_page("Paired comparison", body)


def _cells(cell: Mapping[str, Any]) -> list[str]:
    ci = f"{number(cell['ci'][0], 3)} to {number(cell['ci'][1], 3)}" if cell["ci"] else "–"
    unit = f" ({cell['unit']})" if cell["unit"] else ""
    counts = f"{cell['b_better']} / {cell['ties']} / {cell['a_better']}"
    numbers = [number(cell[k], 3) for k in ("mean_a", "mean_b", "difference")]
    return [
        cell["label"],
        cell["metric"] + unit,
        str(cell["n"]),
        *numbers,
        ci,
        counts,
        f"{cell['p_holm']:.3g}",
    ]
