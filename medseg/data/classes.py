"""Classes of a case as text: one name, or several where a case may have several (``a;b``)."""

from __future__ import annotations

from collections.abc import Iterable

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
