"""The plots: every case is a dot, every dot says which case it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from medseg.evaluation.metrics import Metric, described
from medseg.evaluation.pairs import Row
from medseg.evaluation.report.axes import bottom_axis
from medseg.evaluation.report.svg import (
    INK,
    Axis,
    Drawing,
    linear,
    polyline,
    stretched,
)
from medseg.imaging.labels import Labels


@dataclass(frozen=True)
class Dot:
    """One case in a plot."""

    value: float
    case: str
    status: str
    link: str


def distribution(
    rows: Sequence[Row], summary: Mapping[str, Any], labels: Labels, name: str, links: Mapping[str, str]
) -> str:
    """Raincloud of one metric, a band for each label: density, quartiles, every case, mean with interval."""
    metric = described(name)
    bands = {label.name: _dots(rows, label.name, name, links) for label in labels}
    values = [dot.value for dots in bands.values() for dot in dots]
    if not values:
        return ""
    high = 92.0 if len(labels) <= 8 else 46.0
    left = 30.0 + 6.6 * max(len(label.name) for label in labels)
    width, top = 520.0, 8.0
    height = top + high * len(labels) + 40
    cells = {label.name: summary["labels"].get(label.name, {}).get(name, {}) for label in labels}
    limits = [limit for label, cell in cells.items() if bands[label] for limit in cell.get("mean_ci") or ()]
    axis = _axis_for(metric, [*values, *limits], left, width - 16)
    drawing = Drawing(width, height, f"{metric.title}: every case as a dot, by label")
    bottom_axis(drawing, axis, top, height - 40, _axis_title(metric, axis))
    for i, label in enumerate(labels):
        middle = top + high * (i + 0.5)
        drawing.text(left - 14, middle + 4, label.name, font_size=12.5, fill=INK, text_anchor="end")
        if bands[label.name]:
            _band(drawing, axis, middle, high, bands[label.name], label.shown_colour(), cells[label.name])
    return drawing.render()


def own_class(rows: Sequence[Row]) -> list[Row]:
    """Of the rows of a classification, the probability each case gives to its own class."""
    true = {(row["case"], row["label"]) for row in rows if row["metric"] == "truth" and row["value"] == 1}
    return [row for row in rows if row["metric"] == "probability" and (row["case"], row["label"]) in true]


def _dots(rows: Sequence[Row], label: str, name: str, links: Mapping[str, str]) -> list[Dot]:
    return [
        Dot(row["value"], row["case"], row["status"], links.get(row["case"], ""))
        for row in rows
        if row["label"] == label and row["metric"] == name and row["value"] is not None
    ]


def _axis_for(metric: Metric, values: Sequence[float], start: float, end: float) -> Axis:
    if metric.better == "low":
        spread_out = max(values) > 10 * max(float(np.median(values)), 1e-9) and max(values) > 5
        return stretched(values, start, end) if spread_out else linear(values, start, end, low=0.0)
    if metric.bounds == (0, 1):
        return linear(values, start, end, high=1.0)
    return linear([*values, 0.0], start, end)


def _axis_title(metric: Metric, axis: Axis) -> str:
    unit = f" ({metric.unit})" if metric.unit else ""
    good = {"high": "higher is better", "low": "lower is better", "zero": "0 is best", "none": ""}
    logarithmic = ", logarithmic" if axis.bend is not float else ""
    return f"{metric.title}{unit}{logarithmic}: {good[metric.better]}"


def _band(
    drawing: Drawing,
    axis: Axis,
    middle: float,
    high: float,
    dots: list[Dot],
    colour: str,
    cell: Mapping[str, Any],
) -> None:
    """Cloud above, rain below, quartiles and mean in between."""
    room = high * 0.36
    if len(dots) >= 5 and high > 60:
        _cloud(drawing, axis, middle - 7, room, np.array([d.value for d in dots]), colour)
    if cell.get("iqr"):
        low, top = cell["iqr"]
        drawing.line(axis(low), middle, axis(top), middle, stroke=colour, stroke_width=5, stroke_opacity=0.35)
        x = axis(cell["median"])
        drawing.line(x, middle - 5, x, middle + 5, stroke=colour, stroke_width=2.5)
    _mean(drawing, axis, middle, cell)
    _rain(drawing, axis, middle + 9, room, dots, colour)


def _mean(drawing: Drawing, axis: Axis, y: float, cell: Mapping[str, Any]) -> None:
    if cell.get("mean") is None:
        return
    x = axis(cell["mean"])
    limits = cell.get("mean_ci")
    said = f"mean {cell['mean']:.3f}"
    if limits:
        said += f", interval {limits[0]:.3f} to {limits[1]:.3f}"
        drawing.line(axis(limits[0]), y, axis(limits[1]), y, stroke=INK, stroke_width=1.4)
    drawing.path(f"M{x:.2f} {y - 4.5:.2f}l4.5 4.5l-4.5 4.5l-4.5 -4.5Z", said, fill="#fff", stroke=INK, stroke_width=1.4)  # fmt: skip  # noqa: E501


def _cloud(drawing: Drawing, axis: Axis, base: float, room: float, values: np.ndarray, colour: str) -> None:
    """Density of the values along the (possibly stretched) axis."""
    x = np.array([axis(v) for v in values])
    spread = min(x.std(), float(np.subtract(*np.percentile(x, [75, 25]))) / 1.34) or x.std() or 1.0
    width = max(4.0, 0.9 * spread * len(x) ** -0.2)
    at = np.linspace(max(axis.start, x.min() - 3 * width), min(axis.end, x.max() + 3 * width), 120)
    density = np.exp(-0.5 * ((at[:, None] - x) / width) ** 2).sum(axis=1)
    heights = room * density / density.max()
    points = [(float(a), base - float(h)) for a, h in zip(at, heights, strict=True)]
    outline = [(float(at[0]), base), *points, (float(at[-1]), base)]
    drawing.path(polyline(outline, closed=True), fill=colour, fill_opacity=0.18)


def _rain(drawing: Drawing, axis: Axis, top: float, room: float, dots: list[Dot], colour: str) -> None:
    """Every case, moved down until it touches no other."""
    radius = 3.4 if len(dots) <= 80 else 2.6 if len(dots) <= 250 else 1.8
    levels: list[float] = []
    for dot in sorted(dots, key=lambda d: (d.value, d.case)):
        x = axis(dot.value)
        level = next((i for i, last in enumerate(levels) if x - last >= 2 * radius), len(levels))
        levels[level:] = [x, *levels[level + 1 :]]
        y = top + radius + level * 2 * radius * min(1.0, room / (2 * radius * 5))
        drawing.dot(x, min(y, top + room), radius, said(dot), dot.link, **look(dot, colour))


def said(dot: Dot) -> str:
    """Case, value and what is wrong with it, for the hover."""
    status = "" if dot.status == "ok" else f" ({dot.status.replace('_', ' ')})"
    return f"{dot.case}: {dot.value:.4g}{status}"


def look(dot: Dot, colour: str) -> dict[str, object]:
    """Full in the label's colour; hollow where the structure was missed, invented or not predicted."""
    if dot.status == "ok":
        return {"fill": colour, "fill_opacity": 0.75}
    return {"fill": "#fff", "stroke": INK, "stroke_width": 1.6}
