"""What a sweep may try: ``key=a,b`` (each of these), ``key=low..high[:log][:int]`` (anything between)."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medseg.core.errors import MedsegError

MAY_VARY = ("plan", "training", "transfer", "prediction", "postprocessing", "pretext")
"""Sections whose settings may be tried: the others say who is judged and how, which must stay the same."""
_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_RANGE = re.compile(rf"({_NUMBER})\.\.({_NUMBER})((?::(?:log|int))*)")

Point = dict[str, str]
"""Setting -> value, as they are written in overrides."""


@dataclass(frozen=True)
class Axis:
    """One setting that is tried: either the values, or the range they are drawn from."""

    key: str
    values: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    whole: bool = False


def parse(words: Sequence[str]) -> tuple[list[Axis], list[str]]:
    """Overrides -> what is tried, and what is the same for all trials.

    >>> axes, same = parse(["training.rate=1e-3,3e-4", "plan.network=unet", "training.clip=1..4"])
    >>> [axis.values for axis in axes], same
    ([('1e-3', '3e-4'), ()], ['plan.network=unet'])

    Raises
    ------
    MedsegError
        A range that is none, a setting that may not vary, or one given twice.
    """
    axes, same = [], []
    for word in words:
        key, _, text = word.partition("=")
        axis = _axis(key.strip(), text.strip())
        if axis is None:
            same.append(word)
        else:
            axes.append(axis)
    for axis in axes:
        _check(axis, axes)
    return axes, same


def grid(axes: Sequence[Axis]) -> Iterator[Point]:
    """Every combination, the last setting varying fastest.

    Raises
    ------
    MedsegError
        One of them is a range: there is no end to its values.
    """
    endless = [axis.key for axis in axes if not axis.values]
    if endless:
        raise MedsegError(f"{endless[0]} is a range: say how many are to be tried", mend="add --trials 20")
    for values in itertools.product(*(axis.values for axis in axes)):
        yield dict(zip((axis.key for axis in axes), values, strict=True))


def study(axes: Sequence[Axis], seed: int, low_is_good: bool) -> tuple[Any, Mapping[str, Any]]:
    """An Optuna study (TPE, seeded: the same answers give the same questions) and its distributions.

    Raises
    ------
    MedsegError
        Optuna is not installed.
    """
    try:
        import optuna
    except ImportError as error:
        raise MedsegError(
            "--trials needs Optuna, which is not installed", mend="pip install 'medseg[sweep]'"
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    made = optuna.create_study(
        direction="minimize" if low_is_good else "maximize",
        sampler=optuna.samplers.TPESampler(seed=seed),
    )
    return made, {axis.key: _distribution(axis, optuna.distributions) for axis in axes}


def point_of(params: Mapping[str, Any]) -> Point:
    """What a study asks for, as overrides; numbers to four digits."""
    return {key: f"{v:.4g}" if isinstance(v, float) else str(v) for key, v in params.items()}


def words_of(point: Mapping[str, str]) -> list[str]:
    """``key=value`` of each."""
    return [f"{key}={value}" for key, value in point.items()]


def _axis(key: str, text: str) -> Axis | None:
    if found := _RANGE.fullmatch(text):
        low, high, how = float(found[1]), float(found[2]), found[3]
        return Axis(key, low=low, high=high, log=":log" in how, whole=":int" in how)
    if ".." in text:
        raise MedsegError(f"'{text}' is no range", mend="write it as 1e-4..1e-2:log or 2..8:int")
    values = _values(text)
    return Axis(key, values) if len(values) > 1 else None


def _values(text: str) -> tuple[str, ...]:
    """Parts between commas, those within brackets left alone."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "[{(") - (letter in "]})")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return tuple(dict.fromkeys(part.strip() for part in parts if part.strip()))


def _check(axis: Axis, axes: Sequence[Axis]) -> None:
    if axis.key.partition(".")[0] not in MAY_VARY:
        raise MedsegError(
            f"a sweep cannot try values of {axis.key}",
            evidence=f"it may vary: {', '.join(MAY_VARY)}",
            mend="trials are judged on the same cases in the same way; give one value",
        )
    if sum(other.key == axis.key for other in axes) > 1:
        raise MedsegError(f"{axis.key} is given twice", mend="join its values by commas")
    if not axis.values and not axis.low < axis.high:
        raise MedsegError(f"the range of {axis.key} is empty", evidence=f"{axis.low:g}..{axis.high:g}")
    if axis.log and axis.low <= 0:
        raise MedsegError(f"the range of {axis.key} is logarithmic and must begin above 0")


def _distribution(axis: Axis, kinds: Any) -> Any:
    if axis.values:
        return kinds.CategoricalDistribution(axis.values)
    if axis.whole:
        return kinds.IntDistribution(int(axis.low), int(axis.high), log=axis.log)
    return kinds.FloatDistribution(axis.low, axis.high, log=axis.log)
