"""A few strokes of SVG: enough for our plots, the same bytes for the same numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape

INK, MUTED, LINE, FAINT = "#1d2939", "#667085", "#d0d5dd", "#eef1f4"
SERIES = ("#1f6f9f", "#d9822b", "#4d9078", "#8e6bbf", "#b0485c", "#5b6b7a", "#a08a2e", "#3a8ea5")
"""Colours of folds: told apart with any colour vision by lightness as well."""


@dataclass
class Drawing:
    """SVG in the making: elements in user units of pixels, drawn in the order they are added."""

    width: float
    height: float
    title: str = ""
    parts: list[str] = field(default_factory=list)

    def line(self, x1: float, y1: float, x2: float, y2: float, **style: object) -> None:
        """A straight line from (x1, y1) to (x2, y2)."""
        self.parts.append(f'<line x1="{n(x1)}" y1="{n(y1)}" x2="{n(x2)}" y2="{n(y2)}"{attributes(style)}/>')

    def path(self, d: str, title: str = "", **style: object) -> None:
        """An open path of SVG commands, with `title` shown on hover."""
        style.setdefault("fill", "none")
        self.parts.append(f'<path d="{d}"{attributes(style)}>{_hover(title)}</path>')

    def rect(self, x: float, y: float, width: float, height: float, **style: object) -> None:
        """A rectangle from its upper left corner."""
        box = f'x="{n(x)}" y="{n(y)}" width="{n(width)}" height="{n(height)}"'
        self.parts.append(f"<rect {box}{attributes(style)}/>")

    def dot(self, x: float, y: float, r: float, title: str, link: str = "", **style: object) -> None:
        """A disc with `title` shown on hover, leading to the element `link` of the page."""
        circle = f'<circle cx="{n(x)}" cy="{n(y)}" r="{n(r)}"{attributes(style)}>{_hover(title)}</circle>'
        self.parts.append(f'<a href="#{escape(link)}">{circle}</a>' if link else circle)

    def text(self, x: float, y: float, words: str, **style: object) -> None:
        """Words at their baseline, escaped."""
        self.parts.append(f'<text x="{n(x)}" y="{n(y)}"{attributes(style)}>{escape(words)}</text>')

    def render(self) -> str:
        """The element, sized by its view box so that it shrinks with the page."""
        head = (
            f'<svg viewBox="0 0 {n(self.width)} {n(self.height)}" role="img" '
            f'style="max-width:{n(self.width)}px" xmlns="http://www.w3.org/2000/svg">'
        )
        return (
            head
            + (f"<title>{escape(self.title)}</title>" if self.title else "")
            + "".join(self.parts)
            + "</svg>"
        )


@dataclass(frozen=True)
class Axis:
    """A scale from values to pixels, with its ticks."""

    low: float
    high: float
    start: float
    end: float
    ticks: tuple[float, ...]
    bend: Callable[[float], float] = float
    decimals: int | None = None

    def __call__(self, value: float) -> float:
        span = self.bend(self.high) - self.bend(self.low)
        part = (self.bend(value) - self.bend(self.low)) / span if span else 0.5
        return self.start + part * (self.end - self.start)

    def label(self, tick: float) -> str:
        """The tick's number, with as many decimals as its neighbours need."""
        if self.decimals is not None:
            return f"{tick:.{self.decimals}f}".replace("-", "−")
        return f"{tick:g}".replace("-", "−")


def linear(values: Sequence[float], start: float, end: float, *, ticks: int = 5, low: float | None = None, high: float | None = None) -> Axis:  # fmt: skip  # noqa: E501
    """A linear axis with round ends that holds all values; `low` and `high` fix an end."""
    smallest = min(values, default=0.0) if low is None else low
    largest = max(values, default=1.0) if high is None else high
    if largest <= smallest:
        smallest = smallest - 0.5 if low is None else smallest
        largest = largest + 0.5 if high is None else largest
    step = nice_step((largest - smallest) / ticks)
    first = smallest if low is not None else math.floor(smallest / step + 1e-9) * step
    last = largest if high is not None else math.ceil(largest / step - 1e-9) * step
    begin = math.ceil(first / step - 1e-9)
    marks = tuple(round(k * step, 10) for k in range(begin, math.floor(last / step + 1e-9) + 1))
    return Axis(first, last, start, end, marks, decimals=max(0, -math.floor(math.log10(step) + 1e-9)))


def stretched(values: Sequence[float], start: float, end: float) -> Axis:
    """An axis from 0 whose small values are spread out (logarithm of 1 + value)."""
    largest = max(values, default=1.0)
    marks = [t * 10**p for p in range(6) for t in (1, 2, 5)]
    above = next((m for m in marks if m >= largest), largest)
    return Axis(0, above, start, end, (0, *(m for m in marks if m <= above)), math.log1p)


def nice_step(raw: float) -> float:
    """The next of 1, 2, 5 times a power of ten."""
    power = 10 ** math.floor(math.log10(raw))
    return next(m * power for m in (1, 2, 5, 10) if m * power >= raw * (1 - 1e-9))


def n(value: float) -> str:
    """A coordinate with two decimals at most."""
    return f"{value:.2f}".rstrip("0").rstrip(".") if value % 1 else f"{value:.0f}"


def polyline(points: Sequence[tuple[float, float]], closed: bool = False) -> str:
    """Path data through points."""
    return "M" + "L".join(f"{n(x)} {n(y)}" for x, y in points) + ("Z" if closed else "")


def attributes(style: dict[str, object]) -> str:
    """``stroke_width=2`` -> `` stroke-width="2"``."""
    return "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(n(v) if isinstance(v, float) else str(v))}"'
        for key, v in style.items()
    )


def _hover(title: str) -> str:
    return f"<title>{escape(title)}</title>" if title else ""
