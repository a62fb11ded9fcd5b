"""Progress bars with the time left: shown on a terminal, silent everywhere else."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

T = TypeVar("T")


def progress(
    items: Iterable[T], what: str, *, total: int | None = None, unit: str = "case", quiet: bool = False
) -> Iterator[T]:
    """Iterate over `items` with a bar that appears after two seconds."""
    bar = meter(what, total=total if total is not None else _length(items), unit=unit, quiet=quiet)
    with bar:
        for item in items:
            yield item
            bar.update()


def meter(what: str, *, total: int | None, unit: str = "case", quiet: bool = False) -> Any:
    """A tqdm bar to be moved by hand: ``bar.update(n)``, ``bar.set_postfix_str(...)``."""
    from tqdm import tqdm

    off = quiet or not sys.stderr.isatty()
    return tqdm(total=total, desc=what, unit=unit, delay=2, disable=off, dynamic_ncols=True)


def _length(items: Iterable[object]) -> int | None:
    return len(items) if hasattr(items, "__len__") else None  # type: ignore[arg-type]
