"""Reference and prediction as contours on three planes of an image."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from medseg.evaluation.report.contours import Point, outlines
from medseg.evaluation.report.heat import heat_uri
from medseg.evaluation.report.svg import n, polyline
from medseg.imaging.grid import Grid
from medseg.imaging.image import Image, canonical
from medseg.imaging.labels import Labels

REFERENCE_COLOUR = "#ffffff"
MARGIN_MM, LEAST_MM = 12.0, 40.0
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


@dataclass(frozen=True)
class Overlay:
    """A case in the gallery: its drawing and what is said about it."""

    case: str
    svg: str
    window: str = ""
    values: tuple[tuple[str, str, str], ...] = ()
    """Label name, colour, words (such as ``Dice 0.91, HD95 1.4 mm``)."""
    status: str = ""
    caption: str = ""


def planes(
    image: Image | None,
    reference: Image | None,
    prediction: Image | None,
    labels: Labels,
    heat: Image | None = None,
) -> tuple[list[Plane], str]:
    """Three planes (one for a single slice) through the largest cross-sections of both masks.

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
    """
    shown, truth, guess, marks = (
        None if x is None else canonical(x) for x in (image, reference, prediction, heat)
    )
    some = shown or truth or guess
    if some is None:
        raise ValueError("nothing to show: no image and no mask")
    foreground = _foreground([truth, guess], some.grid.shape, labels)
    marked = None if marks is None else marks.array[0]
    looked_for = foreground if marked is None else np.zeros_like(foreground)
    spacing = some.grid.spacing_mm
    box = _view(looked_for, spacing)
    grey, window = _grey(shown, looked_for, box)
    masks = {"reference": truth, "prediction": guess}
    found = []
    for name, axis, letters in _PLANES:
        if some.grid.shape[axis] > 1 or some.grid.shape.count(1) == 0:
            at = _largest_cut(foreground, axis) if marked is None else _peak(marked, axis)
            drawn = tuple(_drawn(masks, labels, axis, at, box, spacing))
            found.append(_plane(name, grey, axis, at - box[axis].start, spacing, letters, drawn, marked))
    if 1 in some.grid.shape:
        found = _flat(masks, labels, some.grid, box, spacing, grey, marked)
    return found, window


def overlay_svg(drawn: Sequence[Plane], gap_mm: float = 0.0) -> str:
    """The planes side by side, in true proportion, contours as lines that can be switched off by class."""
    parts, x = [], 0.0
    gap = gap_mm or 0.03 * sum(p.size_mm[0] for p in drawn)
    height = max(p.size_mm[1] for p in drawn)
    total = sum(p.size_mm[0] for p in drawn) + gap * (len(drawn) - 1)
    for plane in drawn:
        parts.append(
            f'<g transform="translate({n(x)} {n((height - plane.size_mm[1]) / 2)})">{_svg(plane, total)}</g>'
        )
        x += plane.size_mm[0] + gap
    said = ", ".join(p.name for p in drawn)
    return (
        f'<svg class="planes" viewBox="0 0 {n(total)} {n(height)}" role="img" '
        f'xmlns="http://www.w3.org/2000/svg"><title>{said} planes</title>{"".join(parts)}</svg>'
    )


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
    values = [label.value for label in labels]
    either = np.zeros(tuple(shape), bool)
    for mask in masks:
        if mask is not None:
            either |= np.isin(mask.array[0], values) if values else mask.array[0] > 0
    return either


def _view(foreground: NDArray[np.bool_], spacing: Sequence[float]) -> tuple[slice, slice, slice]:
    """The part of the image worth showing: the structures, a margin, and never less than a few cm."""
    if not foreground.any():
        i, j, k = (slice(0, size) for size in foreground.shape)
        return i, j, k
    box = []
    for axis, step in enumerate(spacing):
        others = tuple(a for a in range(3) if a != axis)
        found = np.flatnonzero(foreground.any(axis=others))
        size = (found[-1] - found[0] + 1) * step
        margin = max(MARGIN_MM, 0.3 * size, (LEAST_MM - size) / 2) / step
        first, last = int(found[0] - margin), int(np.ceil(found[-1] + margin))
        box.append(slice(max(0, first), min(foreground.shape[axis], last + 1)))
    return box[0], box[1], box[2]


def _grey(
    shown: Image | None, foreground: NDArray[np.bool_], box: tuple[slice, slice, slice]
) -> tuple[NDArray[np.uint8], str]:
    """The box as bytes, windowed for the structures: their own range, widened by itself on both sides.

    Never wider than what is in view (its 0.5th to 99.5th percentile).
    """
    if shown is None:
        size = [s.stop - s.start for s in box]
        return np.full(size, 40, np.uint8), "no image given"
    part = shown.array[0][box].astype(np.float32)
    low, high = (float(v) for v in np.percentile(part, [0.5, 99.5]))
    if foreground.any():
        first, last = (float(v) for v in np.percentile(part[foreground[box]], [1, 99]))
        low, high = max(low, 2 * first - last), min(high, 2 * last - first)
    scaled = np.clip((part - low) / max(high - low, 1e-6), 0, 1)
    return np.round(255 * scaled).astype(np.uint8), f"{low:.4g} to {high:.4g}".replace("-", "−")


def _largest_cut(foreground: NDArray[np.bool_], axis: int) -> int:
    others = tuple(a for a in range(3) if a != axis)
    areas = foreground.sum(axis=others)
    return int(np.argmax(areas)) if areas.any() else foreground.shape[axis] // 2


def _peak(marked: NDArray[np.float32], axis: int) -> int:
    """Where the map is strongest; the middle where it says nothing."""
    at = np.unravel_index(int(marked.argmax()), marked.shape)[axis]
    return int(at) if np.ptp(marked) > 0 else marked.shape[axis] // 2


def _plane(
    name: str,
    grey: NDArray[np.uint8],
    axis: int,
    at: int,
    spacing: Sequence[float],
    letters: str,
    drawn: tuple[Outline, ...],
    marked: NDArray[np.float32] | None = None,
) -> Plane:
    across, up = (a for a in range(3) if a != axis)
    seen = _upright(np.take(grey, at, axis))
    size_mm = (seen.shape[1] * spacing[across], seen.shape[0] * spacing[up])
    heat = None if marked is None else _upright(np.take(marked, at, axis))
    return Plane(name, seen, size_mm, letters, drawn, heat)


def _upright(cut: NDArray[Any]) -> NDArray[Any]:
    """A slice (across, up) in RAS order as rows and columns: right (or anterior) at the left, up is up."""
    return cut.T[::-1, ::-1]


def _drawn(
    masks: dict[str, Image | None],
    labels: Labels,
    axis: int,
    at: int,
    box: tuple[slice, slice, slice],
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
                for loop in outlines(cut == label.value)
            )
            if lines:
                colour = REFERENCE_COLOUR if side == "reference" else label.shown_colour()
                yield Outline(side, colour, lines)


def _flat(
    masks: dict[str, Image | None],
    labels: Labels,
    grid: Grid,
    box: tuple[slice, slice, slice],
    spacing: Sequence[float],
    grey: NDArray[np.uint8],
    marked: NDArray[np.float32] | None = None,
) -> list[Plane]:
    axis = grid.shape.index(1)
    shown = grid.nearest_axes()[0][axis]  # a picture keeps its third axis last, whatever plane it shows
    name, _, letters = next(p for p in _PLANES if p[1] == shown)
    drawn = tuple(_drawn(masks, labels, axis, 0, box, spacing))
    return [_plane(name, grey, axis, 0, spacing, letters, drawn, marked)]


def _svg(plane: Plane, total_mm: float) -> str:
    wide, high = plane.size_mm
    place = f'width="{n(wide)}" height="{n(high)}" preserveAspectRatio="none"'
    picture = f'<image {place} href="{_data_uri(plane.grey)}"/>'
    if plane.heat is not None:
        picture += f'<image class="heat" {place} href="{heat_uri(plane.heat)}"/>'
    stroke, size = total_mm / 420, total_mm / 62
    return picture + _paths(plane, stroke) + _letters(plane, size) + _scale_bar(plane, stroke, size)


def _paths(plane: Plane, stroke: float) -> str:
    """Contours, each with a dark rim so that it is seen on bright and on dark tissue."""
    parts = []
    for outline in plane.outlines:
        d = "".join(polyline(line, closed=True) for line in outline.lines)
        thick = stroke * (0.8 if outline.side == "reference" else 1.0)
        dash = f' stroke-dasharray="{n(3 * stroke)} {n(2.2 * stroke)}"' if outline.side == "reference" else ""
        parts.append(
            f'<g class="{outline.side}"><path d="{d}" fill="none" stroke="#000" stroke-opacity=".45" '
            f'stroke-width="{n(1.9 * thick)}"/><path d="{d}" fill="none" stroke="{outline.colour}" '
            f'stroke-width="{n(thick)}"{dash}/></g>'
        )
    return "".join(parts)


def _letters(plane: Plane, size: float) -> str:
    wide, high = plane.size_mm
    left, right, up, down = plane.letters
    places = ((left, 0.6 * size, high / 2), (right, wide - 0.6 * size, high / 2), (up, wide / 2, 1.0 * size), (down, wide / 2, high - 0.5 * size))  # fmt: skip  # noqa: E501
    style = f'font-size="{n(size)}" fill="#fff" fill-opacity=".75" text-anchor="middle" class="mark"'
    return "".join(f'<text x="{n(x)}" y="{n(y)}" {style}>{letter}</text>' for letter, x, y in places)


def _scale_bar(plane: Plane, stroke: float, size: float) -> str:
    wide, high = plane.size_mm
    length = next(m for m in (100, 50, 20, 10, 5, 2, 1, 0.5) if m <= max(0.4 * wide, 0.5))
    x, y = 0.6 * size, high - 0.6 * size
    return (
        f'<path d="M{n(x)} {n(y)}h{n(length)}" stroke="#fff" stroke-width="{n(1.4 * stroke)}"/>'
        f'<text x="{n(x)}" y="{n(y - 0.35 * size)}" font-size="{n(0.8 * size)}" fill="#fff" class="mark">'
        f"{length:g} mm</text>"
    )


def _data_uri(grey: NDArray[np.uint8]) -> str:
    from PIL import Image as Pil

    out = io.BytesIO()
    Pil.fromarray(np.ascontiguousarray(grey)).save(out, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()


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
