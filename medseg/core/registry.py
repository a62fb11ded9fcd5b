"""Names to functions: a table of our own, or a dotted name of the user's."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

from medseg.core.errors import MedsegError
from medseg.core.values import nearest


def look_up(table: Mapping[str, Callable[..., Any]], name: str, kind: str = "name") -> Callable[..., Any]:
    """The function called `name` in `table`, or the one at ``package.module:function``.

    Raises
    ------
    MedsegError
        Unknown name (nearest one proposed), or a dotted name that cannot be imported.
    """
    if name in table:
        return table[name]
    if ":" in name:
        return _imported(name, kind)
    guess = nearest(name, list(table))
    raise MedsegError(
        f"unknown {kind} '{name}'",
        evidence=f"known: {', '.join(sorted(table))}",
        mend=f"did you mean '{guess}'?" if guess else "take a known name, or 'package.module:function'",
    )


def _imported(name: str, kind: str) -> Callable[..., Any]:
    module, _, function = name.partition(":")
    try:
        return getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise MedsegError(
            f"{kind} '{name}' cannot be imported",
            evidence=str(error),
            mend="check the spelling, and that the package is installed in this environment",
        ) from error
