"""Volume agreement: predicted less reference volume against their mean, with limits and their intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from medseg.evaluation.pairs import Row
from medseg.evaluation.report.axes import SMALL, Box, bottom_axis, left_axis
from medseg.evaluation.report.charts import Dot, look, said
from medseg.evaluation.report.svg import INK, MUTED, Axis, Drawing, linear
from medseg.imaging.labels import Labels

INTERVALS = ("bias_ci", "lower_ci", "upper_ci")
ENOUGH = 8
"""Cases from which the intervals of the limits are drawn: below they dwarf the plot (the table has them)."""


def volume_agreement(
    rows: Sequence[Row], agreement: Mapping[str, Any], labels: Labels, links: Mapping[str, str]
) -> str:
    """Bland-Altman panels of predicted against reference volume, one a label.

    Parameters
    ----------
    agreement : mapping
        Of the summary: bias, limits and their intervals by label. Labels that are not there are not drawn.
    """
    panels = [(label, _volumes(rows, label.name, links)) for label in labels if label.name in agreement]
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
        _bland_altman(drawing, box, (label.name, label.shown_colour()), found, agreement[label.name])
    return drawing.render()


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


def _bland_altman(
    drawing: Drawing,
    box: Box,
    label: tuple[str, str],
    found: list[tuple[float, Dot]],
    cell: Mapping[str, Any],
) -> None:
    left, top, wide, high = box
    bias, (low, upper) = cell["bias"], cell["limits"]
    shown = [cell[key] for key in INTERVALS if cell.get(key) and cell["n"] >= ENOUGH]
    x = linear([m for m, _ in found], left + 52, left + wide - 92, ticks=5 if wide > 400 else 3)
    y = linear(
        [0, low, upper, *(v for ci in shown for v in ci), *(d.value for _, d in found)],
        top + high - 44,
        top + 30,
    )
    drawing.text(left + 52, top + 16, label[0], font_size=12.5, fill=INK, font_weight=600)
    bottom_axis(drawing, x, top + 30, top + high - 44, "Mean of prediction and reference (ml)")
    left_axis(drawing, y, left + 52, left + wide - 92)
    ends = (left + 52, left + wide - 92)
    for limits in shown:
        _band(drawing, y, ends, limits)
    _level(drawing, y(bias), ends, f"bias {_signed(bias)}", y(bias))
    if upper > low:
        apart = max(13.0, y(bias) - y(upper))
        _level(drawing, y(upper), ends, f"+1.96 sd {_signed(upper)}", y(bias) - apart, "4 3")
        _level(drawing, y(low), ends, f"−1.96 sd {_signed(low)}", y(bias) + apart, "4 3")
    for mean, dot in found:
        drawing.dot(x(mean), y(dot.value), 3.4, said(dot) + " ml", dot.link, **look(dot, label[1]))


def _band(drawing: Drawing, y: Axis, ends: tuple[float, float], limits: Sequence[float]) -> None:
    """The interval of a level, as a faint band."""
    top = y(limits[1])
    drawing.rect(ends[0], top, ends[1] - ends[0], y(limits[0]) - top, fill=MUTED, fill_opacity=0.13)


def _level(
    drawing: Drawing, y: float, ends: tuple[float, float], said: str, words_y: float, dash: str = ""
) -> None:
    """A horizontal line and, beside its right end, what it is (moved when lines are close)."""
    style: dict[str, object] = {"stroke_dasharray": dash} if dash else {}
    drawing.line(ends[0], y, ends[1], y, stroke=INK, stroke_width=1.1, **style)
    drawing.text(ends[1] + 6, words_y + 4, said, **SMALL)


def _signed(value: float) -> str:
    return f"{value:+.3g}".replace("-", "−")
