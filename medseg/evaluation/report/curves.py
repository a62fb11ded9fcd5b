"""Training curves: loss, monitored Dice, rate, waiting and time over epochs, a line a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medseg.evaluation.report.axes import SMALL, Box, bottom_axis, left_axis
from medseg.evaluation.report.context import history_of
from medseg.evaluation.report.svg import INK, SERIES, Drawing, linear, polyline

Series = tuple[str, str, list[tuple[float, float]]]
History = Path | str | Sequence[Mapping[str, Any]]
PANELS = (
    ("Loss", ("loss",)),
    ("Monitor cases (Dice, accuracy)", ("dice", "accuracy", "auroc", "monitor")),
    ("Learning rate", ("rate", "lr")),
    ("Share of time waiting for data", ("wait_share", "wait")),
    ("Seconds an epoch", ("epoch_seconds",)),
    ("GPU memory (GB)", ("memory", "memory_gb", "gpu_gb")),
)
ACROSS = 3


def training_curves(histories: Mapping[str, History]) -> str:
    """Panels of what the histories hold, three in a row; empty without any.

    Parameters
    ----------
    histories : mapping
        Network -> history.csv, its text, or its rows.
    """
    read = {fold: _timed(history_of(source)) for fold, source in histories.items()}
    found = [(title, _series(read, keys)) for title, keys in PANELS]
    found = [(title, series) for title, series in found if series]
    if not found:
        return ""
    columns = min(ACROSS, len(found))
    wide, high, legend = 1040.0 / columns, 230.0, 24.0 if len(read) > 1 else 0.0
    drawing = Drawing(1040, high * -(-len(found) // columns) + legend, "Training curves")
    for i, (title, series) in enumerate(found):
        _lines(drawing, (wide * (i % columns), high * (i // columns), wide, high), title, series)
    for i, fold in enumerate(read if legend else ()):
        x, y = 44.0 + 110 * i, drawing.height - 12
        drawing.line(x, y, x + 18, y, stroke=SERIES[i % len(SERIES)], stroke_width=2)
        drawing.text(x + 24, y + 4, fold, **SMALL)
    return drawing.render()


def _timed(columns: dict[str, list[float | None]]) -> dict[str, list[float | None]]:
    """With the seconds each epoch took, from the clock of the training."""
    clock = columns.get("seconds")
    if not clock or any(s is None for s in clock):
        return columns
    taken: list[float | None] = [float(d) for d in np.diff([0.0, *(s or 0.0 for s in clock)])]
    return columns | {"epoch_seconds": taken}


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
    bottom_axis(drawing, x, top + 34, top + high - 40, "Epoch")
    left_axis(drawing, y, left + 44, left + wide - 18)
    for name, colour, found in series:
        drawing.path(polyline([(x(a), y(b)) for a, b in found]), name, stroke=colour, stroke_width=1.6)
        if "Dice" in title:
            best = max(found, key=lambda p: p[1])
            drawing.dot(x(best[0]), y(best[1]), 4, f"{name}: best {best[1]:.4f} at epoch {best[0]:g}", fill="#fff", stroke=colour, stroke_width=2)  # fmt: skip  # noqa: E501
