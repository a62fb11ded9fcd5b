"""Rules that say which series of a study are wanted: what they may ask for, and whether a series fits."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import BeforeValidator, Field, model_validator

from medseg.core.values import Value
from medseg.imaging.dicom_facts import Facts
from medseg.imaging.dicom_series import Series
from medseg.imaging.grid import Grid

Orientation = Literal["axial", "coronal", "sagittal", "oblique"]
Preference = Literal["most_slices", "thinnest", "largest_field", "first", "last"]

OBLIQUE_COSINE = 0.8
"""A plane whose normal is more than 37 degrees from every axis of the body is oblique."""


def _several(given: Any) -> Any:
    return (given,) if isinstance(given, str) else given


def _range(given: Any) -> Any:
    """A number alone means just that; the ends of a pair may be left open with null."""
    if isinstance(given, int | float) and not isinstance(given, bool):
        return given, given
    if isinstance(given, list | tuple) and len(given) == 2 and None not in given and given[0] > given[1]:
        raise ValueError("the first number of a range must not be above the second")
    return given


def _patterns(given: Any) -> Any:
    """Refuse a regular expression that is none."""
    words = _several(given)
    for word in words if isinstance(words, list | tuple) else ():
        try:
            pattern_of(str(word))
        except re.error as error:
            raise ValueError(f"'{word}' is no regular expression: {error}") from error
    return words


Words = Annotated[tuple[str, ...], BeforeValidator(_several)]
Patterns = Annotated[tuple[str, ...], BeforeValidator(_patterns)]
Range = Annotated[tuple[float | None, float | None] | None, BeforeValidator(_range)]
ChannelName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9-]*$")]


class Rule(Value):
    """What a series must be like. Everything that is asked for must hold; nothing asked takes every series.

    Texts are compared without regard to case: ``portal`` anywhere in the text, ``*t1*gd`` over the whole
    of it, ``/t1.*(gd|km)/`` as a regular expression; of several, one must fit. Ranges are ``[low, high]``,
    both included, ``null`` for an open end.
    """

    modality: Words = ()
    description: Patterns = ()
    """Looked for in SeriesDescription and ProtocolName, which are used in memory and never stored."""
    not_description: Patterns = ()
    orientation: Annotated[tuple[Orientation, ...], BeforeValidator(_several)] = ()
    """Of the image plane, from the geometry: ``axial``, ``coronal``, ``sagittal`` or ``oblique``."""
    in_plane_mm: Range = None
    """Pixel spacing; both directions must lie in the range."""
    slice_mm: Range = None
    """Distance of neighbouring slices, from their positions."""
    slices: Range = None
    contrast: bool | None = None
    """A contrast agent is named in the header (true), or none is (false)."""
    echo_ms: Range = None
    b_value: Range = None
    volume: Range = None
    """Which volume of its series, from 1, where one series holds several (echoes, b-values, times)."""
    image_type: Words = ()
    """Words that must all stand in ImageType, for example ``ORIGINAL``."""
    not_image_type: Words = ()
    body_part: Patterns = ()
    manufacturer: Patterns = ()
    prefer: Preference | None = None
    """Which one to take when several series of a study fit."""


class Selection(Rule):
    """Rules for the series of a study: one, or one for each channel.

    Without `channels` each series that fits is a case (``take: all``), or one of a study is
    (``take: one``, the default where `prefer` says which). With `channels` a study becomes one case
    with a series for each of them; what stands beside `channels` must hold for all.
    """

    channels: dict[ChannelName, Rule] = {}
    take: Literal["one", "all"] | None = None
    per: Literal["study", "patient"] = "study"
    """Whose series are chosen among."""

    @model_validator(mode="after")
    def _one_a_channel(self) -> Self:
        if self.channels and self.take == "all":
            raise ValueError("take: all does not go with channels: a case has one series for each")
        return self

    def rules(self) -> dict[str, tuple[Rule, ...]]:
        """Name of each rule and the conditions that must hold; the name of a single rule is empty."""
        if not self.channels:
            return {"": (self,)}
        return {name: (self, rule) for name, rule in self.channels.items()}

    def preference(self, channel: str) -> Preference | None:
        """Which one of several to take for a channel."""
        own = self.channels[channel].prefer if channel else None
        return own or self.prefer

    def takes_one(self) -> bool:
        """Whether at most one series is taken for a rule."""
        return bool(self.channels) or self.take == "one" or (self.take is None and self.prefer is not None)


def why_not(rule: Rule, series: Series, facts: Facts) -> str | None:
    """The first reason why a series does not fit a rule, or None when it does.

    The reason holds numbers and words of the rule, never a text of the file.
    """
    return next((reason for check in _CHECKS for reason in check(rule, series, facts)), None)


def orientation_of(series: Series) -> Orientation | None:
    """Of the planes of a series, from its geometry; None for a picture that does not say how it lies."""
    return None if series.picture else orientation_of_grid(series.grid)


def orientation_of_grid(grid: Grid) -> Orientation:
    """Of the planes of a grid ``[column, row, slice]``: by their normal, whatever the slices' own shift."""
    normal = np.abs(np.cross(grid.affine[:3, 0], grid.affine[:3, 1]))
    normal /= np.linalg.norm(normal)
    if normal.max() < OBLIQUE_COSINE:
        return "oblique"
    names: tuple[Orientation, ...] = ("sagittal", "coronal", "axial")
    return names[int(np.argmax(normal))]


@cache
def pattern_of(text: str) -> re.Pattern[str]:
    """``/.../`` as a regular expression, ``*`` and ``?`` as a glob over the whole, else text to be found."""
    if len(text) > 2 and text.startswith("/") and text.endswith("/"):
        return re.compile(text[1:-1], re.IGNORECASE)
    glob = re.escape(text).replace(r"\*", ".*").replace(r"\?", ".")
    return re.compile(rf"\A{glob}\Z" if glob != re.escape(text) else glob, re.IGNORECASE | re.DOTALL)


def _fits(patterns: Sequence[str], texts: Sequence[str]) -> bool:
    return any(pattern_of(p).search(text) for p in patterns for text in texts)


def _modality(rule: Rule, series: Series, _: Facts) -> Iterator[str]:
    if rule.modality and series.modality not in {word.upper() for word in rule.modality}:
        yield f"modality is {series.modality}, not {' or '.join(rule.modality)}"


def _texts(rule: Rule, _: Series, facts: Facts) -> Iterator[str]:
    if rule.description and not _fits(rule.description, facts.texts or ("",)):
        yield "description does not match"
    if rule.not_description and _fits(rule.not_description, facts.texts):
        yield "description matches what is not wanted"
    if rule.body_part and not _fits(rule.body_part, (facts.body_part,)):
        yield "body part does not match"
    if rule.manufacturer and not _fits(rule.manufacturer, (facts.manufacturer,)):
        yield "manufacturer does not match"


def _geometry(rule: Rule, series: Series, _: Facts) -> Iterator[str]:
    seen = orientation_of(series)
    if rule.orientation and seen not in rule.orientation:
        yield f"orientation is {seen or 'unknown'}, not {' or '.join(rule.orientation)}"
    column, row, between = series.spacing_mm if series.grid.spacing_known else (np.nan,) * 3
    between = np.nan if series.picture else between
    yield from _outside("in-plane spacing", column, rule.in_plane_mm, " mm")
    yield from _outside("in-plane spacing", row, rule.in_plane_mm, " mm")
    yield from _outside("slice spacing", between, rule.slice_mm, " mm")
    yield from _outside("number of slices", series.shape[2], rule.slices)


def _contrast(rule: Rule, _: Series, facts: Facts) -> Iterator[str]:
    if rule.contrast is not None and rule.contrast != facts.contrast:
        yield "a contrast agent is named" if facts.contrast else "no contrast agent is named"


def _physics(rule: Rule, series: Series, _: Facts) -> Iterator[str]:
    first = series.planes[0]
    b_value = first.mark("b_value")
    yield from _outside("number of the volume in its series", series.number, rule.volume)
    yield from _outside("echo time", first.echo[0], rule.echo_ms, " ms")
    yield from _outside("b-value", b_value if isinstance(b_value, float | int) else None, rule.b_value)


def _image_type(rule: Rule, series: Series, _: Facts) -> Iterator[str]:
    there = {word.upper() for plane in series.planes for word in plane.image_type}
    missing = [word for word in rule.image_type if word.upper() not in there]
    unwanted = [word for word in rule.not_image_type if word.upper() in there]
    if missing:
        yield f"image type lacks {missing[0]}"
    if unwanted:
        yield f"image type has {unwanted[0]}"


def _outside(what: str, value: float | None, wanted: Range, unit: str = "") -> Iterator[str]:
    """A remark when the value is not in the range; a spacing of 0.99999 mm is 1 mm."""
    if wanted is None:
        return
    low, high = (-np.inf if wanted[0] is None else wanted[0]), (np.inf if wanted[1] is None else wanted[1])
    if value is None or not np.isfinite(value):
        yield f"{what} is not stated"
    elif not low - 1e-3 <= value <= high + 1e-3:
        ends = " to ".join("..." if end is None else f"{end:g}" for end in wanted)
        yield f"{what} is {value:.4g}{unit}, outside {ends}"


_CHECKS: tuple[Callable[[Rule, Series, Facts], Iterator[str]], ...] = (
    _modality,
    _texts,
    _geometry,
    _contrast,
    _physics,
    _image_type,
)
