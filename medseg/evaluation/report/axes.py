"""Axes of plots: ticks, faint lines, titles."""

from __future__ import annotations

from medseg.evaluation.report.svg import FAINT, INK, LINE, MUTED, Axis, Drawing

SMALL: dict[str, object] = {"font_size": 11, "fill": MUTED}
Box = tuple[float, float, float, float]
"""Left, top, width, height."""


def bottom_axis(drawing: Drawing, axis: Axis, top: float, bottom: float, title: str) -> None:
    """Vertical lines at the ticks between `top` and `bottom`, numbers and title below."""
    for tick in axis.ticks:
        x = axis(tick)
        drawing.line(x, top, x, bottom, stroke=FAINT)
        drawing.text(x, bottom + 15, axis.label(tick), text_anchor="middle", **SMALL)
    drawing.line(axis.start, bottom, axis.end, bottom, stroke=LINE)
    drawing.text((axis.start + axis.end) / 2, bottom + 33, title, text_anchor="middle", **SMALL)


def left_axis(drawing: Drawing, axis: Axis, left: float, right: float) -> None:
    """Horizontal lines at the ticks between `left` and `right`, numbers at the left."""
    for tick in axis.ticks:
        drawing.line(left, axis(tick), right, axis(tick), stroke=FAINT)
        drawing.text(left - 8, axis(tick) + 4, axis.label(tick), text_anchor="end", **SMALL)


def framed(drawing: Drawing, box: Box, title: str, x: Axis, y: Axis, words: tuple[str, str]) -> None:
    """Both axes of a panel, its title above and the title of the vertical axis under that."""
    left, top, _, _ = box
    drawing.text(left, top + 14, title, font_size=12.5, fill=INK, font_weight=600)
    drawing.text(left, top + 29, words[1], **SMALL)
    bottom_axis(drawing, x, y.end, y.start, words[0])
    left_axis(drawing, y, x.start, x.end)
