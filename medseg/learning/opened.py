"""Models that are kept open while one case after the other is given to them."""

from __future__ import annotations

from collections.abc import Sequence

from medseg.core.stage import Artifact
from medseg.core.values import digest
from medseg.learning.model import Models, open_models

_open: dict[str, Models] = {}
"""The models last used, by the digest of their folders: one entry, so that a run loads them once."""


def opened(folders: Sequence[Artifact], device: str) -> Models:
    """The models of these folders as one; loaded again only when others are asked for."""
    key = digest([device, *(folder.digest for folder in folders)])
    if key not in _open:
        _open.clear()
        _open[key] = open_models([folder.path for folder in folders], device)
    return _open[key]
