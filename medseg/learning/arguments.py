"""Arguments given by name in a recipe, checked against the function they are for."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from typing import Any

from medseg.core.errors import MedsegError
from medseg.core.values import nearest


def check_arguments(what: str, function: Callable[..., Any], given: Collection[str], own: int) -> None:
    """Refuse an argument that the function cannot take.

    Parameters
    ----------
    what : str
        For the message: ``network 'unet'``.
    own : int
        Arguments at the front that are not the recipe's to give.

    Raises
    ------
    MedsegError
        One that is not known (the nearest is proposed).
    """
    known = inspect.signature(function).parameters
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in known.values()):
        return
    names = list(known)[own:]
    for name in given:
        if name not in names:
            guess = nearest(name, names)
            raise MedsegError(
                f"{what} has no argument '{name}'",
                evidence=f"arguments: {', '.join(names) or 'none'}",
                mend=f"did you mean '{guess}'?" if guess else None,
            )
