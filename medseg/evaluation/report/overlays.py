"""Reference and prediction on three planes of an image, through the place where they differ most."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from medseg.evaluation.report.contours import Point, outlines
from medseg.evaluation.report.tags import COARSE_MM, LARGE, Tag, bounds
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
    """A slice as shown: grey values (rows, columns) uint8, its size in mm, letters (or none), contours."""

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
    marked = None if marks is None else marks.array[0]
    masks = {"reference": truth, "prediction": guess}
    box = _view([truth, guess] if marked is None else [], labels, some.grid)
    cut = {
        side: None if mask is None else np.asfortranarray(mask.array[0][box]) for side, mask in masks.items()
    }
    foreground = _foreground(cut.values(), box, labels)
    part = None if shown is None else shown.array[0][box]
    low, high = _window(part, foreground if marked is None else None)
    wrong = None if marked is not None else _errors(cut["reference"], cut["prediction"], labels)
    spot = _worst_spot(wrong, some.grid.spacing_mm)
    view = _View(part, (low, high), foreground.shape, cut, marked, wrong, some.grid)
    found = []
    for name, axis, letters in _cuts(some.grid):
        if marked is not None:
            at = _peak(marked, axis)
        else:
            at = _largest_cut(foreground, axis) if spot is None else spot[axis]
        found.append(_plane(view, name, axis, at, letters, labels))
    window = f"{low:.4g} to {high:.4g}".replace("-", "−")
    return found, "no image given" if part is None else window


@dataclass(frozen=True, eq=False)
class _View:
    """The part of a case that is shown: image, window, masks and errors, all cut to one box."""

    part: NDArray[Any] | None
    window: tuple[float, float]
    shape: tuple[int, ...]
    masks: Mapping[str, NDArray[Any] | None]
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


def _errors(
    truth: NDArray[Any] | None, guess: NDArray[Any] | None, labels: Labels
) -> NDArray[np.uint8] | None:
    """Kinds of error, of the labels shown; None unless there are two masks."""
    if truth is None or guess is None:
        return None
    there, given = _known(truth, labels), _known(guess, labels)
    kinds = np.zeros_like(truth, np.uint8)
    kinds[there & ~given] = MISSED
    kinds[given & ~there] = ADDED
    kinds[there & given & (truth != guess)] = CONFUSED
    return kinds


def _known(mask: NDArray[Any], labels: Labels) -> NDArray[np.bool_]:
    """Which voxels have a value of a label; with no labels, any value."""
    values = values_of(labels)
    if not values:
        return mask > 0
    table = np.zeros(max(int(mask.max(initial=0)), *values) + 1, bool)
    table[list(values)] = True
    return table[mask.ravel("K")].reshape(mask.shape, order="F" if mask.flags.f_contiguous else "C")


def _worst_spot(wrong: NDArray[np.uint8] | None, spacing: Sequence[float]) -> tuple[int, ...] | None:
    """The wrong voxel with most that is wrong around it; None where nothing is.

    In a large box every voxel of about `COARSE_MM` is looked at, unless that misses all that is wrong.
    """
    from scipy.ndimage import gaussian_filter

    if wrong is None or not wrong.any():
        return None
    steps = [max(1, int(COARSE_MM / mm)) if wrong.size > LARGE else 1 for mm in spacing]
    seen = wrong[tuple(slice(None, None, s) for s in steps)] > 0
    if not seen.any():
        steps, seen = [1, 1, 1], wrong > 0
    sides = zip(spacing, steps, seen.shape, strict=True)
    sd = [NEAR_MM / (mm * step) if n > 1 else 0.0 for mm, step, n in sides]
    weight = gaussian_filter(seen.astype(np.float32), sd, mode="constant", truncate=2.0)
    at = np.unravel_index(int(np.argmax(np.where(seen, weight, -1))), seen.shape)
    return tuple(int(i) * step for i, step in zip(at, steps, strict=True))


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


def _foreground(masks: Iterable[NDArray[Any] | None], box: Box, labels: Labels) -> NDArray[np.bool_]:
    either = np.zeros([s.stop - s.start for s in box], bool, order="F")
    for mask in masks:
        if mask is not None:
            either |= _known(mask, labels)
    return either


def _view(masks: Sequence[Image | None], labels: Labels, grid: Grid) -> Box:
    """The part of the image worth showing: the structures, a margin, and never less than a few cm."""
    spans = [span for mask in masks if mask is not None and (span := _span(mask.array[0], labels))]
    if not spans:
        i, j, k = (slice(0, size) for size in grid.shape)
        return i, j, k
    box = []
    for axis, step in enumerate(grid.spacing_mm):
        start, stop = min(s[axis].start for s in spans), max(s[axis].stop for s in spans)
        size = (stop - start) * step
        margin = max(MARGIN_MM, 0.3 * size, (LEAST_MM - size) / 2) / step
        first, last = int(start - margin), int(np.ceil(stop - 1 + margin))
        box.append(slice(max(0, first), min(grid.shape[axis], last + 1)))
    return box[0], box[1], box[2]


def _span(mask: NDArray[Any], labels: Labels) -> Box | None:
    """The smallest box around the labels of a mask: first around every value, then inside that."""
    outer = bounds(mask)
    inner = None if outer is None else bounds(_known(np.asfortranarray(mask[outer]), labels))
    if outer is None or inner is None:
        return None
    i, j, k = (slice(o.start + s.start, o.start + s.stop) for o, s in zip(outer, inner, strict=True))
    return i, j, k


def _window(part: NDArray[Any] | None, foreground: NDArray[np.bool_] | None) -> tuple[float, float]:
    """The grey values shown: the structures' own range, widened by itself on both sides.

    Never wider than what is in view (its 0.5th to 99.5th percentile).
    """
    if part is None:
        return 0.0, 1.0
    step = max(1, int(np.cbrt(part.size / LARGE)))
    thin = tuple(slice(None, None, step) for _ in part.shape)
    seen = part[thin].astype(np.float32)
    low, high = (float(v) for v in np.percentile(seen, [0.5, 99.5]))
    if foreground is not None and foreground.any():
        inside = seen[foreground[thin]]
        inside = inside if inside.size else part[foreground].astype(np.float32)
        first, last = (float(v) for v in np.percentile(inside, [1, 99]))
        low, high = max(low, 2 * first - last), min(high, 2 * last - first)
    return low, high


def _largest_cut(foreground: NDArray[np.bool_], axis: int) -> int:
    others = tuple(a for a in range(3) if a != axis)
    areas = foreground.sum(axis=others)
    return int(np.argmax(areas)) if areas.any() else foreground.shape[axis] // 2


def _peak(marked: NDArray[np.float32], axis: int) -> int:
    """Where the map is strongest; the middle where it says nothing."""
    at = np.unravel_index(int(marked.argmax()), marked.shape)[axis]
    return int(at) if np.ptp(marked) > 0 else marked.shape[axis] // 2


def _plane(view: _View, name: str, axis: int, at: int, letters: str, labels: Labels) -> Plane:
    """One cut at index `at` of the view."""
    spacing = view.grid.spacing_mm
    across, up = (a for a in range(3) if a != axis)
    if view.part is None:
        seen = np.full([n for a, n in enumerate(view.shape) if a != axis], 40, np.uint8)
    else:
        seen = _bytes(_slice(view.part, at, axis), view.window)
    seen = _upright(seen)
    size_mm = (seen.shape[1] * spacing[across], seen.shape[0] * spacing[up])
    heat = None if view.marked is None else _upright(_slice(view.marked, at, axis))
    errors = None if view.wrong is None else _upright(_slice(view.wrong, at, axis))
    drawn = tuple(_drawn(view.masks, labels, axis, at, spacing))
    unit = "mm" if view.grid.spacing_known else "px"
    letters = letters if view.grid.spacing_known else ""  # a bare picture does not say where right is either
    return Plane(name, seen, size_mm, letters, drawn, heat, errors, unit)


def _bytes(cut: NDArray[Any], window: tuple[float, float]) -> NDArray[np.uint8]:
    low, high = window
    scaled = np.clip((cut.astype(np.float32) - low) / max(high - low, 1e-6), 0, 1)
    return np.round(255 * scaled).astype(np.uint8)


def _slice(array: NDArray[Any], at: int, axis: int) -> NDArray[Any]:
    """A view of one slice (`np.take` would copy all of an array that is not contiguous)."""
    return array[(slice(None),) * axis + (at,)]


def _upright(cut: NDArray[Any]) -> NDArray[Any]:
    """A slice (across, up) in RAS order as rows and columns: right (or anterior) at the left, up is up."""
    return cut.T[::-1, ::-1]


def _drawn(
    masks: Mapping[str, NDArray[Any] | None], labels: Labels, axis: int, at: int, spacing: Sequence[float]
) -> Iterator[Outline]:
    across, up = (a for a in range(3) if a != axis)
    for side in ("prediction", "reference"):
        mask = masks[side]
        if mask is None:
            continue
        cut = _upright(_slice(mask, at, axis))
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
