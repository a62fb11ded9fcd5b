"""The comparison of two tables for people: a line a row for the console, and a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from medseg.evaluation.metrics import described
from medseg.evaluation.pairs import Row
from medseg.evaluation.report.compare_plots import case_differences, differences, scatter
from medseg.evaluation.report.guide import GUIDE
from medseg.evaluation.report.tables import number

HEADS = ("Label", "Metric", "n", "A", "B", "B − A", "CI", "B better / ties / worse", "B first", "p (Holm)")
SHOWN, MANY = 10, 200
"""Cases listed at each end of the differences; of those in one table alone, on the page."""
Cells = Sequence[Mapping[str, Any]]


def line(cell: Mapping[str, Any]) -> str:
    """One row in a line."""
    ci = f" [{cell['ci'][0]:+.3f}, {cell['ci'][1]:+.3f}]" if cell["ci"] else ""
    unit = f" {cell['unit']}" if cell["unit"] else ""
    counts = f"better/ties/worse {_counts(cell)}, " if "ties" in cell else ""
    verdict = f", {cell['verdict']} (margin {cell['margin']:g})" if "verdict" in cell else ""
    return (
        f"  {cell['label']:<18} {cell['metric']:<6} {cell['difference']:+.3f}{ci}{unit}  n = {cell['n']}, "
        f"{counts}p (Holm) = {cell['p_holm']:.3g}{verdict}"
    )


def unpaired_lines(summary: Mapping[str, Any], shown: int = SHOWN) -> list[str]:
    """A sentence for what only one table has: it is left out of the comparison, and must not go unseen."""
    found = []
    for key, what in (("only_in_one", "case"), ("labels_only_in_one", "label")):
        for side, names in summary.get(key, {}).items():
            if names:
                more = " ..." if len(names) > shown else ""
                said = f"{len(names)} {what}{'' if len(names) == 1 else 's'} only in {side.upper()}, left out"
                found.append(f"{said}: {', '.join(names[:shown])}{more}")
    return found


def compare_page(
    cells: Cells, summary: Mapping[str, Any], rows: tuple[Sequence[Row], Sequence[Row]] = ((), ())
) -> str:
    """The page as HTML text.

    Parameters
    ----------
    cells : sequence of dict
        A row a label and metric.
    summary : mapping
        With ``conventions`` and ``only_in_one``.
    rows : (rows of A, rows of B), optional
        For the plots of single cases and the list of those that changed most.
    """
    from medseg.evaluation.report.page import bare_page

    metric = _headline(cells)
    cases = case_differences(*rows, metric)
    parts = [
        f'<p class="verdict">{escape(verdict(cells))}</p>',
        _section("Differences", GUIDE["compare"], differences(cells) + _table(cells)),
        _section("Case by case", GUIDE["compare_cases"], scatter(cases, metric) + _changed(cases, metric))
        if cases
        else "",
        "".join(f'<p class="note">{escape(said)}</p>' for said in unpaired_lines(summary, MANY)),
        _section("Conventions", "", f'<dl class="definitions">{_conventions(summary)}</dl>'),
        "<footer>Research use, not for diagnosis.</footer>",
    ]
    return bare_page("Paired comparison of A and B", "".join(parts))


def verdict(cells: Cells) -> str:
    """What came out, in a sentence: how many rows B wins or loses beyond chance, and the first of them."""
    clear = [c for c in cells if c["p_holm"] < 0.05 and c["difference"]]
    better = sum(_good(c) for c in clear)
    first = next((c for c in cells if c["metric"] == _headline(cells)), cells[0])
    ci = f" ({number(first['ci'][0], 3)} to {number(first['ci'][1], 3)})" if first["ci"] else ""
    title = described(first["metric"]).title
    found = (
        f"{title} of {first['label']}: B − A is {number(first['difference'], 3)}{ci} on {first['n']} cases."
    )
    many = f"{len(cells)} comparison" + ("" if len(cells) == 1 else "s")
    if not clear:
        return f"No difference beyond chance in {many} (Holm). {found}"
    return (
        f"Of {many}, B is better in {better} and worse in {len(clear) - better} beyond chance (Holm). {found}"
    )


def _good(cell: Mapping[str, Any]) -> bool:
    """Whether the difference is in favour of B."""
    return (cell["difference"] < 0) == (described(cell["metric"]).better == "low")


def _headline(cells: Cells) -> str:
    names = [cell["metric"] for cell in cells]
    return next(
        (name for name in ("dice", "auroc", "accuracy") if name in names), names[0] if names else "dice"
    )


def _section(title: str, guide: str, body: str) -> str:
    said = escape(guide).replace("Good:", "<b>Good:</b>").replace("Bad:", "<b>Bad:</b>")
    beside = f'<p class="guide">{said}</p>' if said else ""
    return f'<section><div class="lead"><h2>{escape(title)}</h2>{beside}</div>{body}</section>'


def _table(cells: Cells) -> str:
    judged = any("verdict" in cell for cell in cells)
    heads = (*HEADS, "Margin", "B is") if judged else HEADS
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(c)}</td>" for c in _cells(x, judged)) + "</tr>" for x in cells
    )
    head = "".join(f"<th>{h}</th>" for h in heads)
    return f'<div class="wrap"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _changed(cases: Sequence[Mapping[str, Any]], metric: str) -> str:
    """The cases that got worst, and those that gained most."""
    sign = -1.0 if described(metric).better == "low" else 1.0
    order = sorted(cases, key=lambda c: (sign * (c["b"] - c["a"]), c["case"], c["label"]))
    picked = order if len(order) <= 2 * SHOWN else [*order[:SHOWN], *order[-SHOWN:]]
    lines = "".join(
        f"<tr><td>{escape(c['case'])}</td><td>{escape(c['label'])}</td><td>{number(c['a'], 3)}</td>"
        f"<td>{number(c['b'], 3)}</td><td>{number(c['b'] - c['a'], 3)}</td></tr>"
        for c in picked
    )
    heads = "".join(f"<th>{h}</th>" for h in ("Case", "Label", "A", "B", "B − A"))
    said = (
        "All cases"
        if len(picked) == len(order)
        else f"The {SHOWN} that lost most and the {SHOWN} that gained most"
    )
    table = f'<table class="dense"><thead><tr>{heads}</tr></thead><tbody>{lines}</tbody></table>'
    return f'<h3 class="over">{said}</h3>{table}'


def _conventions(summary: Mapping[str, Any]) -> str:
    return "".join(
        f"<dt>{escape(k.replace('_', ' '))}</dt><dd>{escape(v)}</dd>"
        for k, v in summary["conventions"].items()
    )


def _cells(cell: Mapping[str, Any], judged: bool) -> list[str]:
    ci = f"{number(cell['ci'][0], 3)} to {number(cell['ci'][1], 3)}" if cell["ci"] else "–"
    unit = f" ({cell['unit']})" if cell["unit"] else ""
    numbers = [number(cell[k], 3) for k in ("mean_a", "mean_b", "difference")]
    margin = [f"{cell['margin']:g}", cell["verdict"]] if "verdict" in cell else ["–", "–"]
    return [
        cell["label"],
        described(cell["metric"]).title + unit,
        str(cell["n"]),
        *numbers,
        ci,
        _counts(cell) if "ties" in cell else "–",
        f"{100 * cell['b_first']:.0f} %" if "b_first" in cell else "–",
        f"{cell['p_holm']:.3g}",
        *(margin if judged else []),
    ]


def _counts(cell: Mapping[str, Any]) -> str:
    return f"{cell['b_better']} / {cell['ties']} / {cell['a_better']}"
