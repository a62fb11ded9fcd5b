"""Where the model looked: maps over the image, the check of each as a small plot, its verdict in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from medseg.evaluation.report.overlays import planes
from medseg.evaluation.report.pictures import overlay_svg
from medseg.evaluation.report.svg import INK, LINE, MUTED, Drawing, linear, polyline
from medseg.imaging.image import Image
from medseg.imaging.labels import Labels

METHODS = {"gradcam": "Grad-CAM", "gradcam++": "Grad-CAM++", "occlusion": "Occlusion"}
GOOD, BAD = "better than chance", "not better than random"


@dataclass(frozen=True)
class Looked:
    """A map in the report: its picture, its check as a plot, and what is said about it."""

    case: str
    target: str
    svg: str
    curve: str
    faithful: bool
    words: tuple[str, ...]


def looked_of(
    case: str,
    image: Image,
    found: Image,
    facts: Mapping[str, Any],
    reference: Image | None = None,
    labels: Labels = (),
) -> Looked:
    """One map: planes through its peak, with the contours of the reference where there is one.

    Parameters
    ----------
    found : Image
        The map, 0..1, on the image's grid.
    facts : mapping
        Of this map, from ``explain.json``.
    """
    there = reference if reference is not None and reference.grid.matches(image.grid) else None
    drawn, _ = planes(image, there, None, labels, heat=found)
    check = facts["faithfulness"]
    return Looked(
        case, facts["target"], overlay_svg(drawn), _curve(check), check["faithful"], tuple(_words(facts))
    )


def figures(shown: Sequence[Looked]) -> str:
    """The maps as HTML, text escaped."""
    return f'<div class="gallery">{"".join(_figure(one) for one in shown)}</div>'


def _figure(one: Looked) -> str:
    chip = f'<span class="chip {"pass" if one.faithful else "warn"}">{GOOD if one.faithful else BAD}</span>'
    said = "".join(f"<div>{escape(words)}</div>" for words in one.words)
    return (
        f'<figure><div class="frame">{one.svg}</div>'
        f"<figcaption><b>{escape(one.case)}: {escape(one.target)}</b> "
        f'{chip}<div class="check">{one.curve}<div class="values">{said}</div></div></figcaption></figure>'
    )


def _words(facts: Mapping[str, Any]) -> list[str]:
    check = facts["faithfulness"]
    low, high = check["gain_interval"]
    layer = f", layer {facts['layer'].removeprefix('network.')}" if facts["layer"] else ""
    said = [f"{METHODS[facts['method']]}{layer}; probability {facts['probability']:.3f}"]
    gain = f"Hiding it lowers that by {check['gain']:.3f} more than a random order ({low:.3f} to {high:.3f})"
    return [*said, gain.replace("-", "−"), *(w[0].upper() + w[1:] + "." for w in facts["warnings"])]


def _curve(check: Mapping[str, Any]) -> str:
    """Probability over the share of the image that is hidden: by the map, and by chance."""
    drawing = Drawing(180, 96, "Probability while more and more of the image is hidden")
    x, y = linear((), 26, 174, low=0, high=1), linear((), 78, 8, low=0, high=1)
    shares = check["fractions"]
    low, high = check["random_range"]
    band = [*zip(shares, low, strict=True), *reversed(list(zip(shares, high, strict=True)))]
    drawing.path(polyline([(x(f), y(p)) for f, p in band], closed=True), fill=LINE, fill_opacity=0.7)
    for values, colour, title in (
        (check["random_mean"], MUTED, "hidden at random"),
        (check["most_important_first"], "#d9480f", "hidden in the order of the map"),
    ):
        line = polyline([(x(f), y(p)) for f, p in zip(shares, values, strict=True)])
        drawing.path(line, title, stroke=colour, stroke_width=1.8)
    drawing.line(26, 78, 174, 78, stroke=LINE)
    for value in (0, 1):
        drawing.text(21, y(value) + 3, str(value), font_size=9, fill=MUTED, text_anchor="end")
    drawing.text(100, 91, "share of the image hidden", font_size=9, fill=INK, text_anchor="middle")
    return drawing.render()
