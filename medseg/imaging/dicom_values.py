"""Elements of a dataset as plain values, whatever stands in them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydicom import Dataset

Vector = tuple[float, ...]


def numbers_of(dataset: Dataset, keyword: str) -> Vector | None:
    """The numbers of an element; None when absent or empty, NaN where they cannot be read as numbers."""
    try:
        value = dataset.get(keyword)
        if value is None or value == "":
            return None
        several = value if isinstance(value, list | tuple) or hasattr(value, "__iter__") else [value]
        return tuple(float(v) for v in several) or None
    except (ValueError, TypeError, OverflowError):
        return (math.nan,)


def text_of(dataset: Dataset, keyword: str) -> str:
    """The element as stripped text; empty when absent or unreadable."""
    try:
        value = dataset.get(keyword)
    except (ValueError, TypeError, LookupError, AttributeError):
        return ""
    return "" if value is None else str(value).strip().strip("\0")


def words_of(dataset: Dataset, keyword: str) -> tuple[str, ...]:
    """The words of an element of several values; empty when absent or unreadable."""
    try:
        value: Any = dataset.get(keyword)
    except (ValueError, TypeError):
        return ()
    return (value.strip(),) if isinstance(value, str) else tuple(str(v).strip() for v in value or ())
