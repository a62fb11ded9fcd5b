"""What other libraries say where nobody asked them."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def silenced(logger: str, message: str = "") -> Iterator[None]:
    """Only errors of one logger, and no warning that begins as `message` does (a pattern; any by default)."""
    speaker = logging.getLogger(logger)
    level = speaker.level
    speaker.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=message)
            yield
    finally:
        speaker.setLevel(level)
