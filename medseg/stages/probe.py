"""Stage ``probe``: embeddings of one fold -> probabilities of the cases it is judged on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medseg.core.files import write_json
from medseg.core.registry import look_up
from medseg.core.stage import Artifact, stage
from medseg.data.classes import classes_of


@stage(version=1)
def probe(
    item: Mapping[str, Any], *, kind: str, classes: Sequence[str], several: bool, seed: int = 0, out: Path
) -> None:
    """Write ``<case>/probabilities.json`` for each judged case of a fold.

    Parameters
    ----------
    item : mapping
        ``{"known": {case: {"class": ..., "patient": ...}}, "judged": [case, ...], "<case>": Artifact}``:
        classes and patients of the training cases alone, embeddings of both parts.
    kind : str
        ``linear`` or ``knn``.
    several : bool
        Whether a case may have several classes.
    """
    from medseg.learning.probe import PROBES

    known, judged = item["known"], item["judged"]
    truth = np.array([[name in classes_of(known[case]["class"]) for name in classes] for case in known])
    patients = [known[case]["patient"] for case in known]
    fit = look_up(PROBES, kind, "probe")
    predict = fit(np.stack([_read(item[c]) for c in known]), truth, patients, several, seed)
    found = predict(np.stack([_read(item[c]) for c in judged]))
    for case, row in zip(judged, found, strict=True):
        named = {name: float(p) for name, p in zip(classes, row, strict=True)}
        write_json(out / case / "probabilities.json", named)


def _read(embedding: Artifact) -> Any:
    return np.load(embedding / "embedding.npy", allow_pickle=False)
