"""Stage ``final``: what a recipe ends in -> one folder with its models and how they are used."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medseg.core.files import write_json
from medseg.core.stage import Artifact, stage
from medseg.imaging.masks import Postprocessing
from medseg.learning.model import FINAL
from medseg.learning.settings import Prediction


@stage(version=2)
def final(
    item: Mapping[str, Artifact],
    *,
    trained: Mapping[str, str],
    postprocessing: Postprocessing,
    prediction: Prediction,
    choice: Mapping[str, Any],
    out: Path,
) -> None:
    """Write ``<name>/`` for each model, and ``final.json``.

    Parameters
    ----------
    item : mapping
        Name -> model folder.
    trained : mapping
        Name -> where the model lies below the run folder.
    postprocessing : Postprocessing
        Mask steps to be carried out on what the models say.
    prediction : Prediction
        How they looked at images when they were judged.
    choice : mapping
        How models and steps were chosen.
    """
    for name, model in item.items():
        for file in model.files:
            _linked(model / file, out / name / file)
    how = {
        "postprocessing": postprocessing.model_dump(mode="json"),
        "prediction": prediction.model_dump(mode="json"),
    }
    write_json(out / FINAL, {"models": dict(trained), **how, "choice": dict(choice)})


def _linked(source: Path, target: Path) -> None:
    """A second name for the same file, or a copy where the file system has none."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
