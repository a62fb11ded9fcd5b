"""Stage ``baseline``: features of one fold -> ``baseline/<fold>``: the plain rival's probabilities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medseg.core.files import read_json, write_json
from medseg.core.stage import stage
from medseg.data.classes import classes_of
from medseg.data.cohort import Fold


@stage(version=1)
def baseline(item: Mapping[str, Any], *, classes: Sequence[str], multilabel: bool, out: Path) -> None:
    """Fit on the training cases of a fold, tell the probabilities of its other cases.

    Writes ``probabilities.json`` (case -> class -> probability) and ``model.json``.

    Parameters
    ----------
    item : mapping
        ``{"fold": Fold, "<case id>": radiomics Artifact, ...}``; what is not in the fold's training part
        is judged.
    """
    from medseg.learning.baseline import fit_baseline

    fold: Fold = item["fold"]
    facts = {case: read_json(a / "features.json") for case, a in item.items() if case != "fold"}
    names = list(next(iter(facts.values()))["features"])
    table = {case: np.array([f["features"].get(name, 0.0) for name in names]) for case, f in facts.items()}
    seen = [c for c in sorted(facts) if c in set(fold.train) and facts[c]["label_class"] is not None]
    judged = [c for c in sorted(facts) if c not in set(fold.train)]
    model = fit_baseline(
        np.stack([table[c] for c in seen]),
        [classes_of(facts[c]["label_class"]) for c in seen],
        [facts[c]["patient"] for c in seen],
        classes,
        multilabel,
    )
    found = model.probabilities(np.stack([table[c] for c in judged])) if judged else []
    said = {c: dict(zip(classes, map(float, row), strict=True)) for c, row in zip(judged, found, strict=True)}
    write_json(out / "probabilities.json", said)
    write_json(
        out / "model.json",
        {
            "features": names,
            "mean": model.mean.tolist(),
            "scale": model.scale.tolist(),
            "weights": model.weights.tolist(),
            "offset": model.offset.tolist(),
            "strength": list(model.strength),
            "classes": list(classes),
            "cases": len(seen),
        },
    )
