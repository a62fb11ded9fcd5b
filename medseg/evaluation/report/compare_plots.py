"""Plots of a paired comparison: differences with intervals, wins and losses, every case A against B."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from medseg.evaluation.metrics import described
from medseg.evaluation.pairs import Row
from medseg.evaluation.report.axes import SMALL, framed
from medseg.evaluation.report.gallery import ranked
from medseg.evaluation.report.svg import INK, LINE, MUTED, SERIES, Drawing, linear

WIN, TIE, LOSS = "#1f6f9f", "#d0d5dd", "#d9822b"
PANELS = 6
Cells = Sequence[Mapping[str, Any]]


def differences(cells: Cells) -> str:
    """A line a row: the difference, scaled by its own interval so that units do not matter, and who wins.

    Right of the middle line is better for B, whatever the metric. The bar counts the cases in which B is
    better (blue), equal (grey), worse (orange).
    """
    step, high = 30.0, 30.0 * len(cells) + 34
    drawing = Drawing(1040, high, "Differences B − A by label and metric, with intervals")
    drawing.text(420, 12, "A better", text_anchor="end", **SMALL)
    drawing.text(440, 12, "B better", **SMALL)
    drawing.line(430, 18, 430, high - 8, stroke=INK)
    drawing.text(700, 12, "cases: B better, equal, worse", **SMALL)
    for i, cell in enumerate(cells):
        y = 34 + step * i
        title = described(cell["metric"]).title
        drawing.text(0, y + 4, f"{cell['label']}: {title}"[:36], font_size=12.5, fill=INK)
        _difference(drawing, y, cell)
        if "ties" in cell:
            _share(drawing, y, cell)
    return f'<div class="wide">{drawing.render()}</div>'


def _difference(drawing: Drawing, y: float, cell: Mapping[str, Any]) -> None:
    sign = -1.0 if described(cell["metric"]).better == "low" else 1.0
    ends = [sign * v for v in cell["ci"]] if cell["ci"] else []
    middle = sign * cell["difference"]
    widest = max([abs(middle), *(abs(e) for e in ends)]) or 1.0
    x = linear((), 250, 610, low=-1.1 * widest, high=1.1 * widest)
    if ends:
        drawing.line(x(min(ends)), y, x(max(ends)), y, stroke=INK, stroke_width=1.6)
    said = f"{cell['difference']:+.4g}" + (
        f" ({cell['ci'][0]:+.4g} to {cell['ci'][1]:+.4g})" if cell["ci"] else ""
    )
    clear = cell["p_holm"] < 0.05
    drawing.dot(x(middle), y, 5, said, fill=INK if clear else "#fff", stroke=INK, stroke_width=1.6)
    drawing.text(622, y + 4, f"{cell['difference']:+.3g}".replace("-", "−"), **SMALL)


def _share(drawing: Drawing, y: float, cell: Mapping[str, Any]) -> None:
    counts = [cell["b_better"], cell["ties"], cell["a_better"]]
    at, wide = 700.0, 300.0 / max(1, sum(counts))
    for n, colour in zip(counts, (WIN, TIE, LOSS), strict=True):
        drawing.rect(at, y - 7, wide * n, 14, fill=colour)
        if wide * n > 18:
            drawing.text(at + wide * n / 2, y + 4, str(n), text_anchor="middle", font_size=11, fill="#fff" if colour != TIE else INK)  # fmt: skip  # noqa: E501
        at += wide * n


def case_differences(a: Sequence[Row], b: Sequence[Row], metric: str) -> list[dict[str, Any]]:
    """Case, label and both values of a metric; of classes the probability given to the case's own class."""
    if metric in ("auroc", "accuracy"):
        first, second = ranked(a), ranked(b)
        return [
            {"case": c, "label": "own class", "a": first[c], "b": second[c]}
            for c in sorted(first)
            if c in second
        ]
    sides = [
        {
            (r["case"], r["label"]): r["value"]
            for r in rows
            if r["metric"] == metric and r["value"] is not None
        }
        for rows in (a, b)
    ]
    return [
        {"case": k[0], "label": k[1], "a": v, "b": sides[1][k]} for k, v in sides[0].items() if k in sides[1]
    ]


def scatter(cases: Sequence[Mapping[str, Any]], metric: str) -> str:
    """A panel a label: every case at its value in A (across) and in B (up), with the line of equality."""
    labels = list(dict.fromkeys(c["label"] for c in cases))[:PANELS]
    if not labels:
        return ""
    columns = min(3, len(labels))
    side = 346.0
    drawing = Drawing(side * columns, side * -(-len(labels) // columns), "Every case: A against B")
    title = "Probability of its own class" if metric in ("auroc", "accuracy") else described(metric).title
    for i, label in enumerate(labels):
        mine = [c for c in cases if c["label"] == label]
        left, top = side * (i % columns), side * (i // columns)
        both = [c[k] for c in mine for k in ("a", "b")]
        x = linear(both, left + 52, left + side - 20, ticks=4)
        y = linear(both, top + side - 50, top + 42, ticks=4)
        framed(drawing, (left + 52, top, side, side), label, x, y, (f"{title}, A", f"{title}, B"))
        drawing.line(x(x.low), y(x.low), x(x.high), y(x.high), stroke=MUTED, stroke_dasharray="4 3")
        for case in mine:
            said = f"{case['case']}: A {case['a']:.4g}, B {case['b']:.4g}"
            drawing.dot(x(case["a"]), y(case["b"]), 3.2, said, fill=SERIES[i % len(SERIES)], fill_opacity=0.7)
        drawing.line(x.start, y.start, x.end, y.start, stroke=LINE)
    return drawing.render()
