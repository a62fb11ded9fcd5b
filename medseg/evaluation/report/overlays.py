"""Reference and prediction on three planes of an image, through the place where they differ most."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from medseg.evaluation.report.contours import Point, outlines
from medseg.evaluation.report.tags import Tag
from medseg.imaging.grid import Grid
from medseg.imaging.image import Image, canonical
from medseg.imaging.labels import Labels, values_of
from medseg.imaging.masks import Box

REFERENCE_COLOUR = "#ffffff"
MARGIN_MM, LEAST_MM = 12.0, 40.0
MISSED, ADDED, CONFUSED = 1, 2, 3
"""Kinds of error: in the reference alone, in the prediction alone, in both with different labels."""
NEAR_MM = 4.0
"""Errors are weighed with their neighbours about this far away (sd of a Gaussian)."""
_PLANES = (("axial", 2, "RLAP"), ("coronal", 1, "RLSI"), ("sagittal", 0, "APSI"))
"""Name, axis cut, letters at the left, right, upper and lower side (the patient's right at the left)."""


@dataclass(frozen=True)
class Outline:
    """Closed lines of one label on one plane, in mm from the plane's upper left corner."""

    side: Literal["reference", "prediction"]
    colour: str
    lines: tuple[tuple[Point, ...], ...]


@dataclass(frozen=True, eq=False)
class Plane:
    """A slice as shown: grey values (rows, columns) uint8, its size in mm, letters, contours."""

    name: str
    grey: NDArray[np.uint8]
    size_mm: tuple[float, float]
    letters: str
    outlines: tuple[Outline, ...]
    heat: NDArray[np.float32] | None = None
    """Values 0..1 of a map to lay over the grey ones."""
    errors: NDArray[np.uint8] | None = None
    """Where both masks differ: `MISSED`, `ADDED` or `CONFUSED`, 0 elsewhere (rows, columns)."""
    unit: str = "mm"
    """``px`` where the size of a pixel is not known."""


@dataclass(frozen=True)
class Overlay:
    """A case as the report shows it: its drawings and what is said about it.

    `svg` holds the planes with contours, `errors` the same planes with the error map (empty where there is
    no reference or prediction), `thumb` the first plane: both show the pictures of `svg` by reference.
    """

    case: str
    svg: str
    window: str = ""
    values: tuple[tuple[str, str, str], ...] = ()
    """Label name, colour, words (such as ``Dice 0.91, HD95 1.4 mm``)."""
    status: str = ""
    caption: str = ""
    errors: str = ""
    thumb: str = ""
    tags: tuple[Tag, ...] = ()
    at: str = ""
    """Which place the planes go through, in words."""


def planes(
    image: Image | None,
    reference: Image | None,
    prediction: Image | None,
    labels: Labels,
    heat: Image | None = None,
) -> tuple[list[Plane], str]:
    """Three planes (one for a single slice) through the largest error, or the largest cross-sections.

    Parameters
    ----------
    image, reference, prediction : Image or None
        On one grid; the first channel is shown. At least one is given.
    heat : Image, optional
        A map 0..1 on the same grid: laid over the whole image, planes through its peak.

    Returns
    -------
    planes, window
        The window is the range of grey values shown, in words.

    Notes
    -----
    The largest error is the voxel that differs and has most that differs around it (a Gaussian of 4 mm).
    Where nothing differs, or one mask is not given, each plane goes through its largest cross-section.
    """
    shown, truth, guess, marks = (
        None if x is None else canonical(x) for x in (image, reference, prediction, heat)
    )
    some = shown or truth or guess
    if some is None:
        raise ValueError("nothing to show: no image and no mask")
    foreground = _foreground([truth, guess], some.grid.shape, labels)
    marked = None if marks is None else marks.array[0]
    box = _view(foreground if marked is None else None, some.grid)
    grey, window = _grey(shown, foreground if marked is None else None, box)
    wrong = None if marked is not None else _errors(truth, guess, labels, box)
    spot = _worst_spot(wrong, some.grid.spacing_mm)
    view = _View(box, grey, marked, wrong, some.grid)
    masks = {"reference": truth, "prediction": guess}
    found = []
    for name, axis, letters in _cuts(some.grid):
        if spot is not None:
            at = box[axis].start + spot[axis]
        else:
            at = _largest_cut(foreground, axis) if marked is None else _peak(marked, axis)
        found.append(_plane(view, name, axis, at, letters, masks, labels))
    return found, window


@dataclass(frozen=True, eq=False)
class _View:
    """The part of a case that is shown: its box in the image, grey values and errors inside that box."""

    box: Box
    grey: NDArray[np.uint8]
    marked: NDArray[np.float32] | None
    wrong: NDArray[np.uint8] | None
    grid: Grid


def _cuts(grid: Grid) -> list[tuple[str, int, str]]:
    """Name, axis and letters of the planes that can be cut; a picture shows the one plane it is."""
    if 1 not in grid.shape:
        return list(_PLANES)
    axis = grid.shape.index(1)
    shown = grid.nearest_axes()[0][axis]  # a picture keeps its third axis last, whatever plane it shows
    name, _, letters = next(p for p in _PLANES if p[1] == shown)
    return [(name, axis, letters)]


def _errors(truth: Image | None, guess: Image | None, labels: Labels, box: Box) -> NDArray[np.uint8] | None:
    """Kinds of error inside the box, of the labels shown; None unless there are two masks."""
    if truth is None or guess is None:
        return None
    values = values_of(labels)
    a, b = (np.where(np.isin(m, values), m, 0) if values else m for m in (truth.array[0][box], guess.array[0][box]))  # fmt: skip  # noqa: E501
    kinds = np.zeros(a.shape, np.uint8)
    kinds[(a > 0) & (b == 0)] = MISSED
    kinds[(a == 0) & (b > 0)] = ADDED
    kinds[(a > 0) & (b > 0) & (a != b)] = CONFUSED
    return kinds


def _worst_spot(wrong: NDArray[np.uint8] | None, spacing: Sequence[float]) -> tuple[int, ...] | None:
    """The wrong voxel with most that is wrong around it; None where nothing is."""
    from scipy.ndimage import gaussian_filter

    if wrong is None or not wrong.any():
        return None
    sd = [NEAR_MM / step if n > 1 else 0.0 for step, n in zip(spacing, wrong.shape, strict=True)]
    weight = gaussian_filter((wrong > 0).astype(np.float32), sd, mode="constant", truncate=2.0)
    at = np.unravel_index(int(np.argmax(np.where(wrong > 0, weight, -1))), wrong.shape)
    return tuple(int(i) for i in at)


def overlay_png(
    image: Image | None,
    reference: Image | None,
    prediction: Image | None,
    labels: Labels,
    *,
    width: int = 1200,
) -> bytes:
    """The same as a PNG `width` pixels wide, for notebooks, README and MLflow."""
    from PIL import Image as Pil

    drawn, _ = planes(image, reference, prediction, labels)
    gap = 0.03 * sum(p.size_mm[0] for p in drawn)
    scale = 2 * width / (sum(p.size_mm[0] for p in drawn) + gap * (len(drawn) - 1))
    height = max(p.size_mm[1] for p in drawn)
    sheet = Pil.new("RGB", (2 * width, max(2, round(height * scale))), "black")
    x = 0.0
    for plane in drawn:
        tile = _tile(plane, scale)
        sheet.paste(tile, (round(x * scale), (sheet.height - tile.height) // 2))
        x += plane.size_mm[0] + gap
    out = io.BytesIO()
    sheet.resize((width, sheet.height // 2), Pil.Resampling.LANCZOS).save(out, "PNG", optimize=True)
    return out.getvalue()


def _foreground(masks: Sequence[Image | None], shape: Sequence[int], labels: Labels) -> NDArray[np.bool_]:
    values = values_of(labels)
    either = np.zeros(tuple(shape), bool)
    for mask in masks:
        if mask is not None:
            either |= np.isin(mask.array[0], values) if values else mask.array[0] > 0
    return either


def _view(foreground: NDArray[np.bool_] | None, grid: Grid) -> Box:
    """The part of the image worth showing: the structures, a margin, and never less than a few cm."""
    if foreground is None or not foreground.any():
        i, j, k = (slice(0, size) for size in grid.shape)
        return i, j, k
    box = []
    for axis, step in enumerate(grid.spacing_mm):
        others = tuple(a for a in range(3) if a != axis)
        found = np.flatnonzero(foreground.any(axis=others))
        size = (found[-1] - found[0] + 1) * step
        margin = max(MARGIN_MM, 0.3 * size, (LEAST_MM - size) / 2) / step
        first, last = int(found[0] - margin), int(np.ceil(found[-1] + margin))
        box.append(slice(max(0, first), min(foreground.shape[axis], last + 1)))
    return box[0], box[1], box[2]


def _grey(
    shown: Image | None, foreground: NDArray[np.bool_] | None, box: Box
) -> tuple[NDArray[np.uint8], str]:
    """The box as bytes, windowed for the structures: their own range, widened by itself on both sides.

    Never wider than what is in view (its 0.5th to 99.5th percentile).
    """
    if shown is None:
        size = [s.stop - s.start for s in box]
        return np.full(size, 40, np.uint8), "no image given"
    part = shown.array[0][box].astype(np.float32)
    low, high = (float(v) for v in np.percentile(part[_thinned(part)], [0.5, 99.5]))
    if foreground is not None and foreground[box].any():
        first, last = (float(v) for v in np.percentile(part[foreground[box]], [1, 99]))
        low, high = max(low, 2 * first - last), min(high, 2 * last - first)
    scaled = np.clip((part - low) / max(high - low, 1e-6), 0, 1)
    return np.round(255 * scaled).astype(np.uint8), f"{low:.4g} to {high:.4g}".replace("-", "−")


def _thinned(part: NDArray[Any]) -> tuple[slice, ...]:
    """Every n-th voxel of a large box: enough for percentiles."""
    step = max(1, int(np.cbrt(part.size / 500_000)))
    return tuple(slice(None, None, step) for _ in part.shape)


def _largest_cut(foreground: NDArray[np.bool_], axis: int) -> int:
    others = tuple(a for a in range(3) if a != axis)
    areas = foreground.sum(axis=others)
    return int(np.argmax(areas)) if areas.any() else foreground.shape[axis] // 2


def _peak(marked: NDArray[np.float32], axis: int) -> int:
    """Where the map is strongest; the middle where it says nothing."""
    at = np.unravel_index(int(marked.argmax()), marked.shape)[axis]
    return int(at) if np.ptp(marked) > 0 else marked.shape[axis] // 2


def _plane(
    view: _View,
    name: str,
    axis: int,
    at: int,
    letters: str,
    masks: dict[str, Image | None],
    labels: Labels,
) -> Plane:
    """One cut at index `at` of the image."""
    inside, spacing = at - view.box[axis].start, view.grid.spacing_mm
    across, up = (a for a in range(3) if a != axis)
    seen = _upright(np.take(view.grey, inside, axis))
    size_mm = (seen.shape[1] * spacing[across], seen.shape[0] * spacing[up])
    heat = None if view.marked is None else _upright(np.take(view.marked, at, axis))
    errors = None if view.wrong is None else _upright(np.take(view.wrong, inside, axis))
    drawn = tuple(_drawn(masks, labels, axis, at, view.box, spacing))
    unit = "mm" if view.grid.spacing_known else "px"
    return Plane(name, seen, size_mm, letters, drawn, heat, errors, unit)


def _upright(cut: NDArray[Any]) -> NDArray[Any]:
    """A slice (across, up) in RAS order as rows and columns: right (or anterior) at the left, up is up."""
    return cut.T[::-1, ::-1]


def _drawn(
    masks: dict[str, Image | None],
    labels: Labels,
    axis: int,
    at: int,
    box: Box,
    spacing: Sequence[float],
) -> Iterator[Outline]:
    across, up = (a for a in range(3) if a != axis)
    for side in ("prediction", "reference"):
        mask = masks[side]
        if mask is None:
            continue
        cut = _upright(np.take(mask.array[0], at, axis)[box[across], box[up]])
        for label in labels:
            lines = tuple(
                tuple(((c + 0.5) * spacing[across], (r + 0.5) * spacing[up]) for r, c in loop)
                for loop in outlines(label.within(cut))
            )
            if lines:
                colour = REFERENCE_COLOUR if side == "reference" else label.shown_colour()
                yield Outline(side, colour, lines)


def _tile(plane: Plane, scale: float) -> Any:
    """A plane drawn with Pillow at `scale` pixels per mm."""
    from PIL import Image as Pil
    from PIL import ImageDraw

    size = (max(1, round(plane.size_mm[0] * scale)), max(1, round(plane.size_mm[1] * scale)))
    tile = Pil.fromarray(np.ascontiguousarray(plane.grey)).resize(size, Pil.Resampling.BICUBIC).convert("RGB")
    pen = ImageDraw.Draw(tile)
    for outline in plane.outlines:
        for line in outline.lines:
            points = [(x * scale, y * scale) for x, y in (*line, line[0])]
            pen.line(points, fill="#202020", width=7, joint="curve")
            pen.line(points, fill=outline.colour, width=4, joint="curve")
    return tile
