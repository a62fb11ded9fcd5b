"""The training curve as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from medseg.core.files import written_whole


def draw_history(history: Sequence[Mapping[str, float]], file: Path) -> Path:
    """Loss (left) and monitor scores (right) over the minutes trained, as PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.5), layout="constrained")
    FigureCanvasAgg(figure)
    left = figure.add_subplot()
    minutes = [row["seconds"] / 60 for row in history]
    left.plot(minutes, [row["loss"] for row in history], color="#888888", label="loss")
    left.set_xlabel("minutes of training")
    left.set_ylabel("loss")
    names = list(dict.fromkeys(n for row in history for n in row if n.startswith("monitor_")))
    if names:
        right = left.twinx()
        for name in names:
            points = [(m, row[name]) for m, row in zip(minutes, history, strict=True) if name in row]
            right.plot(*zip(*points, strict=True), marker="o", label=name.removeprefix("monitor_"))
        right.set_ylabel("monitor score")
        right.set_ylim(0, 1)
        right.legend(loc="center right", frameon=False)
    with written_whole(file) as beside:
        figure.savefig(beside, dpi=120, metadata={"Software": None})
    return file
