"""The account of a load: how many parameters of each part were carried, how, and why others were not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from medseg.core.errors import MedsegError
from medseg.core.values import Value

ENCODING = ("stem", "encoder")
"""The parts over which the floor is counted."""

_SHOWN = 6
"""Reasons of a kind that a table names; the account has them all."""


class Tally(Value):
    """Parameters (numbers, not tensors) of one part of the network."""

    exact: int = 0
    adapted: int = 0
    left: int = 0

    @property
    def total(self) -> int:
        return self.exact + self.adapted + self.left

    @property
    def share(self) -> float:
        """Carried share, 0 to 1; 0 for a part without parameters."""
        return (self.exact + self.adapted) / self.total if self.total else 0.0


class Remark(Value):
    """What happened to parameters of one part for one reason."""

    part: str
    said: str
    parameters: int
    tensors: int
    example: str
    """Name of the first tensor."""


class Account(Value):
    """What was loaded, reshaped, left and unused, and where it came from."""

    format: str
    sha256: str
    origin: str = ""
    licence: str = ""
    floor: float
    asked: tuple[str, ...]
    """Parts that were to be carried."""
    parts: dict[str, Tally]
    adapted: tuple[Remark, ...] = ()
    left: tuple[Remark, ...] = ()
    """Parameters of the network that keep their fresh values."""
    unused: tuple[Remark, ...] = ()
    """Parameters of the file that have no place in the network."""

    @property
    def counted(self) -> list[str]:
        """What the floor is counted over: stem and encoder where they were asked for, else all that was."""
        asked = [part for part in self.parts if part in self.asked]
        return [part for part in asked if part in ENCODING] or asked

    @property
    def share(self) -> float:
        """Carried share of what is counted, 0 to 1."""
        tallies = [self.parts[part] for part in self.counted]
        total = sum(tally.total for tally in tallies)
        return sum(tally.exact + tally.adapted for tally in tallies) / total if total else 0.0

    def table(self) -> str:
        """The parts, a line each, then the reasons."""
        lines = [f"{'part':<8} {'parameters':>12} {'exact':>12} {'adapted':>12} {'left':>12}"]
        for part, tally in self.parts.items():
            row = (tally.total, tally.exact, tally.adapted, tally.left)
            lines.append(f"{part:<8} " + " ".join(f"{n:>12,}" for n in row))
        for title in ("adapted", "left", "unused"):
            told = sorted(getattr(self, title), key=lambda remark: -remark.parameters)
            lines += [_line(title, remark) for remark in told[:_SHOWN]]
            lines += (
                [f"{title:<8} ... and for {len(told) - _SHOWN} more reasons"] if len(told) > _SHOWN else []
            )
        return "\n".join(lines)

    def facts(self) -> dict[str, Any]:
        """For the model card and the report: plain data, no path."""
        return {**self.model_dump(mode="json"), "share": round(self.share, 4)}

    def words(self) -> dict[str, str]:
        """For people: one line a fact."""
        parts = {
            part: f"{100 * tally.share:.1f} % of {tally.total:,} parameters carried "
            f"({tally.exact:,} exact, {tally.adapted:,} adapted, {tally.left:,} left)"
            for part, tally in self.parts.items()
            if tally.total
        }
        texts = {"origin": self.origin, "licence": self.licence, "format": self.format, "sha256": self.sha256}
        said = {
            f"{title} {n}": f"{r.part}: {r.said} ({r.parameters:,} parameters)"
            for title in ("adapted", "left", "unused")
            for n, r in enumerate(getattr(self, title), start=1)
        }
        return {k: v for k, v in texts.items() if v} | parts | said


def remarks(found: Sequence[tuple[str, str, str, int]]) -> tuple[Remark, ...]:
    """(part, what is said, name, parameters) of each tensor, summed up by part and saying."""
    grouped: dict[tuple[str, str], list[tuple[str, int]]] = {}
    for part, said, name, count in found:
        grouped.setdefault((part, said), []).append((name, count))
    return tuple(
        Remark(
            part=part, said=said, parameters=sum(n for _, n in rows), tensors=len(rows), example=rows[0][0]
        )
        for (part, said), rows in grouped.items()
    )


def check_floor(account: Account, hint: str = "") -> None:
    """Stop a training that would begin from nearly nothing without saying so.

    Raises
    ------
    MedsegError
        Less than the floor of stem and encoder was carried, or nothing at all.
    """
    if account.share >= account.floor and account.share > 0:
        return
    counted = " and ".join(account.counted) or "no part"
    raise MedsegError(
        f"the weights do not fit the network: {100 * account.share:.1f} % of the parameters of {counted} "
        "could be carried",
        evidence=f"the floor is {100 * account.floor:g} % (0 % always stops)\n" + _indented(account.table()),
        mend=hint or "take the network the weights were made for; transfer.floor lowers the floor",
    )


def nearest_prefixes(theirs: Mapping[str, int], ours: Mapping[str, int]) -> dict[str, str] | None:
    """The prefix map under which most parameters would find their place, or None when there is none.

    Parameters
    ----------
    theirs, ours : mapping
        Name of each tensor -> its number of parameters.

    >>> nearest_prefixes({"a.b.conv.weight": 9, "a.b.conv.bias": 1}, {"c.conv.weight": 9, "c.conv.bias": 1})
    {'a.b.': 'c.'}
    """
    ends: dict[str, list[str]] = {}
    for name in ours:
        for end in _ends(name):
            ends.setdefault(end, []).append(name)
    votes: Counter[tuple[str, str]] = Counter()
    for name, count in theirs.items():
        for end in _ends(name):
            for place in ends.get(end, ()):
                if ours[place] == count:
                    votes[name.removesuffix(end), place.removesuffix(end)] += count
    if not votes:
        return None
    (old, new), _ = max(votes.items(), key=lambda item: (item[1], -len(item[0][0]), item[0]))
    return {old: new} if old != new else None


def _ends(name: str) -> list[str]:
    """The name and what follows each of its dots, the longest first; not the last word alone."""
    words = name.split(".")
    return [".".join(words[n:]) for n in range(max(1, len(words) - 1))]


def _line(title: str, remark: Remark) -> str:
    count = f"{remark.parameters:,} parameters in {remark.tensors} tensors"
    return f"{title:<8} {remark.part}: {remark.said} ({count}, such as {remark.example})"


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())
