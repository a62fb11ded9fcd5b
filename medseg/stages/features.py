"""Stage ``features``: a prepared case, a model -> ``features/<case>/embedding.npy``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.core.files import written_whole
from medseg.core.stage import Artifact, stage

NAME = "embedding.npy"

_open: dict[str, Any] = {}
"""The model last used, by the digest of its folder."""


@stage(version=1, ignore=("device",), in_process=True)
def features(item: tuple[Artifact, Artifact], *, device: str = "auto", out: Path) -> None:
    """Write what a frozen encoder sees of one case: float32 ``[F]``.

    Parameters
    ----------
    item : tuple of Artifact
        The prepared case, then the model folder.
    """
    from medseg.learning.features import embedding
    from medseg.learning.sampling import PreparedCase

    prepared, folder = item
    model = _model(folder, device)
    image = np.asarray(PreparedCase(out.name, prepared.path).image, np.float32)
    found = embedding(model.network, model.plan, image, model.device)
    with written_whole(out / NAME) as beside:
        np.save(beside, found, allow_pickle=False)


def read_embedding(artifact: Artifact) -> NDArray[np.float32]:
    """What the stage has written."""
    return np.load(artifact / NAME, allow_pickle=False)


def _model(folder: Artifact, device: str) -> Any:
    from medseg.learning.model import Model

    key = f"{device} {folder.digest}"
    if key not in _open:
        _open.clear()
        _open[key] = Model.load(folder.path, device)
    return _open[key]
