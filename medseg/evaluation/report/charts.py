"""The plots: every case is a dot, every dot says which case it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from medseg.evaluation.metrics import Metric, described
from medseg.evaluation.pairs import Row
from medseg.evaluation.report.svg import (
    FAINT,
    INK,
    LINE,
    MUTED,
    SERIES,
    Axis,
    Drawing,
    linear,
    polyline,
    stretched,
)
from medseg.imaging.labels import Labels

Box = tuple[float, float, float, float]
SMALL: dict[str, object] = {"font_size": 11, "fill": MUTED}


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
    axis = _axis_for(metric, values, left, width - 16)
    drawing = Drawing(width, height, f"{metric.title}: every case as a dot, by label")
    _bottom_axis(drawing, axis, top, height - 40, _axis_title(metric, axis))
    for i, label in enumerate(labels):
        middle = top + high * (i + 0.5)
        drawing.text(left - 14, middle + 4, label.name, font_size=12.5, fill=INK, text_anchor="end")
        cell = summary["labels"].get(label.name, {}).get(name, {})
        if bands[label.name]:
            _band(drawing, axis, middle, high, bands[label.name], label.shown_colour(), cell)
    return drawing.render()


def own_class(rows: Sequence[Row]) -> list[Row]:
    """Of the rows of a classification, the probability each case gives to its own class."""
    true = {(row["case"], row["label"]) for row in rows if row["metric"] == "truth" and row["value"] == 1}
    return [row for row in rows if row["metric"] == "probability" and (row["case"], row["label"]) in true]


def volume_agreement(rows: Sequence[Row], labels: Labels, links: Mapping[str, str]) -> str:
    """Bland-Altman panels of predicted against reference volume, one a label."""
    panels = [(label, _volumes(rows, label.name, links)) for label in labels]
    panels = [(label, found) for label, found in panels if len(found) >= 2]
    if not panels:
        return ""
    columns = len(panels) if len(panels) < 3 else 2 if len(panels) == 4 else 3
    wide, high = {1: (720.0, 320.0), 2: (520.0, 290.0), 3: (346.0, 230.0)}[columns]
    drawing = Drawing(
        wide * columns,
        high * -(-len(panels) // columns),
        "Volume agreement: difference against mean, by label",
    )
    for i, (label, found) in enumerate(panels):
        box = (wide * (i % columns), high * (i // columns), wide, high)
        _bland_altman(drawing, box, label.name, label.shown_colour(), found)
    return drawing.render()


def training_curves(histories: Mapping[str, Mapping[str, Sequence[float | None]]]) -> str:
    """Loss, monitored Dice and learning rate over epochs, a line a fold."""
    panels = [("Loss", ("loss",)), ("Dice on monitor cases", ("dice",)), ("Learning rate", ("rate", "lr"))]
    found = [(title, _series(histories, keys)) for title, keys in panels]
    found = [(title, series) for title, series in found if any(points for _, _, points in series)]
    if not found:
        return ""
    wide, high, legend = 1040.0 / len(found), 250.0, 24.0 if len(histories) > 1 else 0.0
    drawing = Drawing(1040, high + legend, "Training curves")
    for i, (title, series) in enumerate(found):
        _lines(drawing, (wide * i, 0, wide, high), title, series)
    for i, fold in enumerate(histories if legend else ()):
        x = 44.0 + 110 * i
        drawing.line(x, high + 12, x + 18, high + 12, stroke=SERIES[i % len(SERIES)], stroke_width=2)
        drawing.text(x + 24, high + 16, fold, **SMALL)
    return drawing.render()


def limits_of_agreement(differences: Sequence[float]) -> tuple[float, float, float]:
    """Bias and the limits bias -+ 1.96 sd (n - 1)."""
    array = np.asarray(differences, float)
    bias, spread = float(array.mean()), 1.96 * float(array.std(ddof=1))
    return bias, bias - spread, bias + spread


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


def _bottom_axis(drawing: Drawing, axis: Axis, top: float, bottom: float, title: str) -> None:
    for tick in axis.ticks:
        x = axis(tick)
        drawing.line(x, top, x, bottom, stroke=FAINT)
        drawing.text(x, bottom + 15, axis.label(tick), text_anchor="middle", **SMALL)
    drawing.line(axis.start, bottom, axis.end, bottom, stroke=LINE)
    drawing.text((axis.start + axis.end) / 2, bottom + 33, title, text_anchor="middle", **SMALL)


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
        drawing.dot(x, min(y, top + room), radius, _said(dot), dot.link, **_look(dot, colour))


def _said(dot: Dot) -> str:
    status = "" if dot.status == "ok" else f" ({dot.status.replace('_', ' ')})"
    return f"{dot.case}: {dot.value:.4g}{status}"


def _look(dot: Dot, colour: str) -> dict[str, object]:
    if dot.status == "ok":
        return {"fill": colour, "fill_opacity": 0.75}
    return {"fill": "#fff", "stroke": INK, "stroke_width": 1.6}


def _volumes(rows: Sequence[Row], label: str, links: Mapping[str, str]) -> list[tuple[float, Dot]]:
    """Mean of both volumes, and their difference as a dot, for cases that have both."""
    by_case: dict[str, dict[str, Row]] = {}
    for row in rows:
        if row["label"] == label and row["metric"].startswith("volume_") and row["value"] is not None:
            by_case.setdefault(row["case"], {})[row["metric"]] = row
    found = []
    for case, pair in by_case.items():
        if (
            "volume_pred" not in pair
            or "volume_ref" not in pair
            or pair["volume_ref"]["status"] == "not_predicted"
        ):
            continue
        a, b = pair["volume_pred"]["value"], pair["volume_ref"]["value"]
        found.append(((a + b) / 2, Dot(a - b, case, pair["volume_ref"]["status"], links.get(case, ""))))
    return found


def _bland_altman(drawing: Drawing, box: Box, name: str, colour: str, found: list[tuple[float, Dot]]) -> None:
    left, top, wide, high = box
    bias, low, high_limit = limits_of_agreement([dot.value for _, dot in found])
    ticks = 5 if wide > 400 else 3
    x = linear([m for m, _ in found], left + 52, left + wide - 92, ticks=ticks)
    y = linear([0, low, high_limit, *(d.value for _, d in found)], top + high - 44, top + 30)
    drawing.text(left + 52, top + 16, name, font_size=12.5, fill=INK, font_weight=600)
    _bottom_axis(drawing, x, top + 30, top + high - 44, "Mean of prediction and reference (ml)")
    _left_axis(drawing, y, left + 52, left + wide - 92)
    ends = (left + 52, left + wide - 92)
    _level(drawing, y(bias), ends, f"bias {_signed(bias)}", y(bias))
    if high_limit > low:
        apart = max(13.0, y(bias) - y(high_limit))
        _level(drawing, y(high_limit), ends, f"+1.96 sd {_signed(high_limit)}", y(bias) - apart, "4 3")
        _level(drawing, y(low), ends, f"−1.96 sd {_signed(low)}", y(bias) + apart, "4 3")
    for mean, dot in found:
        drawing.dot(x(mean), y(dot.value), 3.4, _said(dot) + " ml", dot.link, **_look(dot, colour))


def _level(
    drawing: Drawing, y: float, ends: tuple[float, float], said: str, words_y: float, dash: str = ""
) -> None:
    """A horizontal line and, beside its right end, what it is (moved when lines are close)."""
    style: dict[str, object] = {"stroke_dasharray": dash} if dash else {}
    drawing.line(ends[0], y, ends[1], y, stroke=INK, stroke_width=1.1, **style)
    drawing.text(ends[1] + 6, words_y + 4, said, **SMALL)


def _left_axis(drawing: Drawing, axis: Axis, left: float, right: float) -> None:
    for tick in axis.ticks:
        drawing.line(left, axis(tick), right, axis(tick), stroke=FAINT)
        drawing.text(left - 8, axis(tick) + 4, axis.label(tick), text_anchor="end", **SMALL)


def _signed(value: float) -> str:
    return f"{value:+.3g}".replace("-", "−")


Series = tuple[str, str, list[tuple[float, float]]]


def _series(
    histories: Mapping[str, Mapping[str, Sequence[float | None]]], keys: tuple[str, ...]
) -> list[Series]:
    """Name, colour and points of the columns whose name holds one of `keys`, over epochs."""
    found: list[Series] = []
    for i, (fold, columns) in enumerate(histories.items()):
        names = [c for c in columns if any(k in c.lower().split("_") or k == c.lower() for k in keys)]
        epochs = columns.get("epoch") or []
        for name in names:
            points = [
                (float(e if e is not None else k), float(v))
                for k, (e, v) in enumerate(
                    zip(epochs or [None] * len(columns[name]), columns[name], strict=True)
                )
                if v is not None and np.isfinite(v)
            ]
            said = f"{fold}: {name}" if len(histories) > 1 else name
            found.append((said, SERIES[(i if len(histories) > 1 else len(found)) % len(SERIES)], points))
    return [s for s in found if s[2]]


def _lines(drawing: Drawing, box: Box, title: str, series: list[Series]) -> None:
    left, top, wide, high = box
    points = [p for _, _, found in series for p in found]
    x = linear([p[0] for p in points], left + 44, left + wide - 18)
    fixed = {"high": 1.0} if "Dice" in title else {"low": 0.0} if "rate" in title else {}
    y = linear([p[1] for p in points], top + high - 40, top + 34, ticks=4, **fixed)
    drawing.text(left + 44, top + 16, title, font_size=12.5, fill=INK, font_weight=600)
    _bottom_axis(drawing, x, top + 34, top + high - 40, "Epoch")
    _left_axis(drawing, y, left + 44, left + wide - 18)
    for name, colour, found in series:
        drawing.path(polyline([(x(a), y(b)) for a, b in found]), name, stroke=colour, stroke_width=1.6)
        if "Dice" in title:
            best = max(found, key=lambda p: p[1])
            drawing.dot(x(best[0]), y(best[1]), 4, f"{name}: best {best[1]:.4f} at epoch {best[0]:g}", fill="#fff", stroke=colour, stroke_width=2)  # fmt: skip  # noqa: E501
