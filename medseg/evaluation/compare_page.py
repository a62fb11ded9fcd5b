"""The comparison of two tables for people: a line a row for the console, and a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from medseg.evaluation.report.tables import number

HEADS = ("Label", "Metric", "n", "A", "B", "B − A", "CI", "B better / ties / worse", "B first", "p (Holm)")


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


def compare_page(cells: Sequence[Mapping[str, Any]], summary: Mapping[str, Any]) -> str:
    """The page as HTML text."""
    from medseg.evaluation.report.page import bare_page

    judged = any("verdict" in cell for cell in cells)
    heads = (*HEADS, "Margin", "B is") if judged else HEADS
    rows = "".join(
        "<tr>" + "".join(f"<td>{escape(c)}</td>" for c in _cells(cell, judged)) + "</tr>" for cell in cells
    )
    said = "".join(
        f"<dt>{escape(k.replace('_', ' '))}</dt><dd>{escape(v)}</dd>"
        for k, v in summary["conventions"].items()
    )
    only = "".join(
        f"<p>Only in {side.upper()}: {escape(', '.join(cases))}</p>"
        for side, cases in summary["only_in_one"].items()
        if cases
    )
    head = "".join(f"<th>{h}</th>" for h in heads)
    body = (
        f'<div class="wrap"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
        f'{only}<section><dl class="definitions">{said}</dl></section>'
    )
    return bare_page("Paired comparison", body)


def _cells(cell: Mapping[str, Any], judged: bool) -> list[str]:
    ci = f"{number(cell['ci'][0], 3)} to {number(cell['ci'][1], 3)}" if cell["ci"] else "–"
    unit = f" ({cell['unit']})" if cell["unit"] else ""
    numbers = [number(cell[k], 3) for k in ("mean_a", "mean_b", "difference")]
    verdict = [f"{cell['margin']:g}", cell["verdict"]] if "verdict" in cell else ["–", "–"]
    return [
        cell["label"],
        cell["metric"] + unit,
        str(cell["n"]),
        *numbers,
        ci,
        _counts(cell) if "ties" in cell else "–",
        f"{100 * cell['b_first']:.0f} %" if "b_first" in cell else "–",
        f"{cell['p_holm']:.3g}",
        *(verdict if judged else []),
    ]


def _counts(cell: Mapping[str, Any]) -> str:
    return f"{cell['b_better']} / {cell['ties']} / {cell['a_better']}"
