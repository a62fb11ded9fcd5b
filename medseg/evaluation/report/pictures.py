"""Planes as SVG: grey values once, contours and errors as layers over them."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from medseg.evaluation.report.heat import heat_uri
from medseg.evaluation.report.overlays import ADDED, CONFUSED, MISSED, Plane
from medseg.evaluation.report.svg import n, polyline

ERROR_COLOURS = {MISSED: "#4db3ff", ADDED: "#ffb000", CONFUSED: "#f27ae0"}
"""Blue, orange, pink: told apart with any colour vision, on dark and on bright tissue."""
SIDE = 360
"""Pixels of the longer side of a picture at most: larger ones are averaged down."""
PLAIN = 12_000
"""Pixels up to which a picture is stored without loss; larger ones as JPEG."""


def overlay_svg(drawn: Sequence[Plane], prefix: str = "") -> str:
    """The planes side by side, in true proportion, contours as lines that can be switched off by class.

    With a `prefix`, pictures and contours get ids that `errors_svg` and `thumb_svg` show again.
    """
    total = _total(drawn)
    inside = [
        _named("g", prefix, i, _picture(plane))
        + _named("c", prefix, i, _paths(plane, total))
        + _marks(plane, total)
        for i, plane in enumerate(drawn)
    ]
    said = ", ".join(p.name for p in drawn)
    return _side_by_side(drawn, inside, f"{said}: contours of reference and prediction")


def errors_svg(drawn: Sequence[Plane], prefix: str) -> str:
    """The same planes with what is missed and what is added; empty where there are no errors to show."""
    if not drawn or any(plane.errors is None for plane in drawn):
        return ""
    total = _total(drawn)
    inside = [
        f'<use href="#g{i}-{prefix}"/>{_error_layer(plane)}{_marks(plane, total)}'
        for i, plane in enumerate(drawn)
    ]
    return _side_by_side(drawn, inside, "Error map: what is missed and what is added")


def thumb_svg(drawn: Sequence[Plane], prefix: str) -> str:
    """The first plane with its contours, small."""
    wide, high = drawn[0].size_mm
    return (
        f'<svg class="planes" viewBox="0 0 {n(wide)} {n(high)}" aria-hidden="true">'
        f'<use href="#g0-{prefix}"/><use href="#c0-{prefix}"/></svg>'
    )


def _named(kind: str, prefix: str, i: int, inside: str) -> str:
    return f'<g id="{kind}{i}-{prefix}">{inside}</g>' if prefix else inside


def _total(drawn: Sequence[Plane]) -> float:
    wide = sum(p.size_mm[0] for p in drawn)
    return wide * (1 + 0.03 * (len(drawn) - 1))


def _side_by_side(drawn: Sequence[Plane], inside: Sequence[str], said: str) -> str:
    gap = 0.03 * sum(p.size_mm[0] for p in drawn)
    height = max(p.size_mm[1] for p in drawn)
    parts, x = [], 0.0
    for plane, content in zip(drawn, inside, strict=True):
        parts.append(f'<g transform="translate({n(x)} {n((height - plane.size_mm[1]) / 2)})">{content}</g>')
        x += plane.size_mm[0] + gap
    return (
        f'<svg class="planes" viewBox="0 0 {n(_total(drawn))} {n(height)}" role="img" '
        f'xmlns="http://www.w3.org/2000/svg"><title>{said}</title>{"".join(parts)}</svg>'
    )


def _picture(plane: Plane) -> str:
    wide, high = plane.size_mm
    place = f'width="{n(wide)}" height="{n(high)}" preserveAspectRatio="none"'
    picture = f'<image {place} href="{grey_uri(plane.grey)}"/>'
    if plane.heat is not None:
        picture += f'<image class="heat" {place} href="{heat_uri(plane.heat)}"/>'
    return picture


def _error_layer(plane: Plane) -> str:
    """The wrong voxels in the colour of their kind."""
    assert plane.errors is not None
    wide, high = plane.size_mm
    place = f'width="{n(wide)}" height="{n(high)}" preserveAspectRatio="none"'
    return f'<image class="sharp" {place} href="{errors_uri(plane.errors)}"/>' if plane.errors.any() else ""


def _marks(plane: Plane, total: float) -> str:
    size = total / (28 if plane.size_mm[0] == total else 50)  # a plane by itself is shown half as wide
    return _letters(plane, size) + _scale_bar(plane, total / 420, size)


def _paths(plane: Plane, total: float) -> str:
    """Contours, each with a dark rim so that it is seen on bright and on dark tissue."""
    parts, stroke = [], total / 420
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
    if not plane.letters:
        return ""
    wide, high = plane.size_mm
    left, right, up, down = plane.letters
    places = (
        (left, 0.6 * size, high / 2),
        (right, wide - 0.6 * size, high / 2),
        (up, wide / 2, 1.0 * size),
        (down, wide / 2, high - 0.5 * size),
    )
    style = f'font-size="{n(size)}" fill="#fff" fill-opacity=".75" text-anchor="middle" class="mark"'
    return "".join(f'<text x="{n(x)}" y="{n(y)}" {style}>{letter}</text>' for letter, x, y in places)


def _scale_bar(plane: Plane, stroke: float, size: float) -> str:
    wide, high = plane.size_mm
    length = next(m for m in (100, 50, 20, 10, 5, 2, 1, 0.5) if m <= max(0.4 * wide, 0.5))
    x, y = 0.6 * size, high - 0.6 * size
    return (
        f'<path d="M{n(x)} {n(y)}h{n(length)}" stroke="#fff" stroke-width="{n(1.4 * stroke)}"/>'
        f'<text x="{n(x)}" y="{n(y - 0.35 * size)}" font-size="{n(0.8 * size)}" fill="#fff" class="mark">'
        f"{length:g} {plane.unit}</text>"
    )


def grey_uri(grey: NDArray[np.uint8]) -> str:
    """Grey values (rows, columns) as an address: PNG when small, else JPEG; averaged down above `SIDE`."""
    from PIL import Image as Pil

    picture = Pil.fromarray(np.ascontiguousarray(grey))
    if max(picture.size) > SIDE:
        scale = SIDE / max(picture.size)
        size = tuple(max(1, round(side * scale)) for side in picture.size)
        picture = picture.resize((size[0], size[1]), Pil.Resampling.BOX)
    out, kind = io.BytesIO(), "png" if picture.width * picture.height <= PLAIN else "jpeg"
    picture.save(out, kind.upper(), optimize=True, **({"quality": 88} if kind == "jpeg" else {}))
    return f"data:image/{kind};base64," + base64.b64encode(out.getvalue()).decode()


def errors_uri(errors: NDArray[np.uint8]) -> str:
    """Kinds of error as a PNG of few colours on nothing, as an address."""
    from PIL import Image as Pil

    picture = Pil.fromarray(np.ascontiguousarray(errors)).convert("P")
    colours = ["#000000", *(ERROR_COLOURS[kind] for kind in (MISSED, ADDED, CONFUSED))]
    picture.putpalette([int(c[i : i + 2], 16) for c in colours for i in (1, 3, 5)])
    out = io.BytesIO()
    picture.save(out, "PNG", optimize=True, transparency=bytes([0, 225, 225, 225]), bits=2)
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()
