"""How the learning rate goes over a training, and the table of its epochs."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence

from medseg.learning.settings import Training


def rate_at(progress: float, training: Training) -> float:
    """Learning rate at a share of the training: a linear rise, then what the schedule says."""
    rise = min(1.0, max(progress, 1e-3) / training.warm_up) if training.warm_up else 1.0
    return training.rate * rise * SCHEDULES[training.schedule](min(1.0, progress))


SCHEDULES: Mapping[str, Callable[[float], float]] = {
    "cosine": lambda progress: 0.5 * (1 + math.cos(math.pi * progress)),
    "poly": lambda progress: (1 - progress) ** 0.9,
    "constant": lambda progress: 1.0,
}
"""Share of the rate that is left at a share of the training."""


def history_csv(rows: Sequence[Mapping[str, float]]) -> str:
    """The history as CSV; epochs without a look at the monitor leave its columns empty."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
