"""Classes of a case as text: one name, or several where a case may have several (``a;b``)."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from medseg.core.errors import MedsegError

log = logging.getLogger("medseg")

SEVERAL = ";"
"""Between the classes of one case in a table; alone it says that the case has none of them."""


def classes_of(text: str | None) -> tuple[str, ...]:
    """The classes that a cell names, sorted, each once.

    >>> classes_of("effusion; atelectasis"), classes_of(";"), classes_of("benign"), classes_of(None)
    (('atelectasis', 'effusion'), (), ('benign',), ())
    """
    return tuple(sorted({part.strip() for part in (text or "").split(SEVERAL)} - {""}))


def class_text(text: str | None) -> str | None:
    """A cell as it is kept: None when nothing is known, `SEVERAL` when the case has none of the classes."""
    if text is None or not text.strip():
        return None
    return (SEVERAL.join(classes_of(text)) or SEVERAL) if SEVERAL in text else text


def several_classes(texts: Iterable[str | None]) -> bool:
    """Whether any case has several classes, or is said to have none."""
    return any(SEVERAL in (text or "") for text in texts)


class Classed(Protocol):
    """What is asked of a cohort (`Cohort` has it)."""

    @property
    def classes(self) -> tuple[str, ...]: ...
    @property
    def multilabel(self) -> bool: ...
    @property
    def cases(self) -> Sequence[Any]: ...


def check_classes(cohort: Classed) -> None:
    """See to it that there is something to tell apart; warn of classes that cannot be learnt and judged.

    Raises
    ------
    MedsegError
        No case has a class, or all have the same.
    """
    patients = {name: set() for name in cohort.classes}
    known = [case for case in cohort.cases if case.label_class is not None]
    for case in known:
        for name in classes_of(case.label_class):
            patients[name].add(case.patient)
    if not known:
        raise MedsegError(
            "no case of this data set has a class",
            mend="give a table with a column class (or label_name), or say which one it is: "
            "cohort.roles.COLUMN=class",
        )
    if len(patients) < (1 if cohort.multilabel else 2):
        raise MedsegError(
            "there is only one class, and nothing to tell it from",
            evidence=f"{len(known)} cases of class {', '.join(patients) or SEVERAL}",
            mend="give cases of another class, or for a finding that is there or not: the finding's name, "
            f"and {SEVERAL} where it is not",
        )
    if rare := [name for name, who in patients.items() if len(who) == 1]:
        log.warning(
            "classes of a single patient: %s; such a class is learnt or judged, never both",
            ", ".join(sorted(rare)),
        )
