"""Stage ``shift``: a model, prepared cases of source and target -> ``shift/<model>/view.json``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medseg.core.files import read_json, write_json
from medseg.core.stage import Artifact, stage

NAME = "view.json"


@stage(version=1, ignore=("device",), in_process=True, essential=True)
def shift(item: Mapping[str, Artifact], *, confidence: float, device: str = "auto", out: Path) -> None:
    """Write what a model sees of the difference between two sites.

    Parameters
    ----------
    item : mapping
        ``{"model": Artifact, "source <case>": ..., "target <case>": ...}``, as `adapt` takes it.
    """
    from medseg.learning.model import Model
    from medseg.learning.sampling import PreparedCase
    from medseg.learning.shift import view

    source, target = (
        [PreparedCase(n, item[n].path) for n in sorted(item) if n.startswith(kind)]
        for kind in ("source ", "target ")
    )
    found = view(Model.load(item["model"].path, device), source, target, confidence)
    write_json(out / NAME, found)


def read_view(artifact: Artifact) -> dict[str, Any]:
    """What the stage has written."""
    return read_json(artifact / NAME)
