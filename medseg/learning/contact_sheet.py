"""What augmentation does, as a picture: patches as they are drawn, and as they reach the network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from medseg.core.files import written_whole
from medseg.data.plan import Plan
from medseg.data.prepare import IGNORED
from medseg.learning.augment import augment, centre_patch
from medseg.learning.sampling import Drawn, PreparedCase, Sampler
from medseg.learning.settings import Training

_TILE = 1.7
"""Side of a tile, in inches."""
_CHANNELS = 4


def draw_augmentation(
    cases: Sequence[PreparedCase], plan: Plan, training: Training, file: Path, versions: int = 6
) -> Path:
    """One row a case and channel: the patch as it lies in the image, then `versions` of what is trained on.

    Of a deep patch the slice along the third axis that shows most of the labels (of the patch as it is); it
    stands still while the patch turns about it. Labels are outlined in their colours. The grey scale of a
    row is that of its first tile.

    Parameters
    ----------
    cases : sequence of PreparedCase
        One row each (one a channel, four channels at most).
    training : Training
        Its `augment`, `foreground` and `seed`: with the same ones the picture is the same.
    """
    drawn = [_drawn(case, plan, training) for case in cases]
    rows = [row for one in drawn for row in _rows(one, plan, training, versions)]
    names = [f"{case.id}\n{name}" for case in cases for name in plan.channels[:_CHANNELS]]
    titles = ["as it is", *(f"version {n}" for n in range(1, versions + 1))]
    with written_whole(file) as beside:
        _figure(rows, names, titles, plan).savefig(beside, format="png", dpi=110, metadata={"Software": None})
    return file


Tile = tuple[NDArray[np.float32], NDArray[np.int64] | None]


def _drawn(case: PreparedCase, plan: Plan, training: Training) -> Drawn:
    share = plan.sampling.foreground if training.foreground is None else training.foreground
    return Sampler([case], plan, 1, max(share, 1e-6), training.seed).draw(0, 0)


def _rows(drawn: Drawn, plan: Plan, training: Training, versions: int) -> list[list[Tile]]:
    """Tiles of one case, a row a channel."""
    image, target = torch.as_tensor(drawn.image), torch.as_tensor(drawn.target)
    flat = target.ndim > 2
    labels = centre_patch(target[:, None], plan.patch)[0, 0].long() if flat else None
    parts = [(centre_patch(image, plan.patch)[0], labels)]
    seeds = np.random.default_rng([training.seed, 3]).integers(2**62, size=versions)
    for seed in seeds:
        moved, changed = augment(
            image, target, plan.patch, plan.spacing_mm, np.array([seed]), training.augment
        )
        parts.append((moved[0], changed[0] if flat else None))
    at = _best_slice(labels, plan.patch)
    channels = range(min(len(plan.channels), _CHANNELS))
    return [[_tile(part, mask, channel, at) for part, mask in parts] for channel in channels]


def _best_slice(labels: torch.Tensor | None, patch: Sequence[int]) -> int:
    """The slice with most of the labels; the middle one where there are none."""
    if labels is None or not (labels > 0).any():
        return patch[2] // 2
    return int((labels > 0).sum(dim=(0, 1)).argmax())


def _tile(image: torch.Tensor, labels: torch.Tensor | None, channel: int, at: int) -> Tile:
    grey = image[channel, :, :, at].float().numpy().T
    return grey, None if labels is None else labels[:, :, at].numpy().T


def _figure(rows: Sequence[Sequence[Tile]], names: Sequence[str], titles: Sequence[str], plan: Plan) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    size = (_TILE * len(titles), _TILE * len(rows) + 0.4)
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(rows), len(titles), squeeze=False)
    for row, name, line in zip(rows, names, axes, strict=True):
        low, high = np.percentile(row[0][0], [1, 99])
        for tile, title, place in zip(row, titles, line, strict=True):
            _show(place, tile, low, max(high, low + 1e-3), plan)
            if place in axes[0]:
                place.set_title(title, fontsize=8)
        line[0].set_ylabel(name, fontsize=6)
    _legend(figure, plan)
    return figure


def _legend(figure: Any, plan: Plan) -> None:
    """Which colour is which label, below the tiles."""
    from matplotlib.lines import Line2D

    lines = [Line2D([], [], color=label.shown_colour(), label=label.name) for label in plan.labels]
    if lines:
        columns = min(len(lines), 7)
        figure.legend(handles=lines, loc="outside lower center", ncols=columns, fontsize=7, frameon=False)


def _show(place: Any, tile: Tile, low: float, high: float, plan: Plan) -> None:
    grey, labels = tile
    ratio = plan.spacing_mm[1] / plan.spacing_mm[0]
    place.imshow(grey, cmap="gray", vmin=low, vmax=high, origin="lower", aspect=ratio)
    place.set_xticks([])
    place.set_yticks([])
    members = plan.membership()
    known = None if labels is None else np.where(labels == IGNORED, 0, labels).astype(int)
    for number, label in enumerate(plan.labels):
        inside = None if known is None else members[known, number]
        if inside is not None and inside.any() and not inside.all():
            place.contour(inside, levels=[0.5], colors=[label.shown_colour()], linewidths=0.8)
