"""Stages ``given`` and ``told``: a mask, or probabilities of classes, that another tool has made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medseg.core.files import write_json
from medseg.core.stage import stage
from medseg.data.cohort import Source
from medseg.imaging.image import read_mask, write_image


@stage(version=1)
def given(prediction: Source, *, out: Path) -> None:
    """Keep a predicted mask that was made elsewhere.

    Raises
    ------
    CaseError
        It cannot be read, or holds values that are no labels.
    """
    write_image(read_mask(prediction.files[0]), out / "mask.nii.gz")


@stage(version=1)
def told(item: dict[str, Any], *, out: Path) -> None:
    """Keep the probabilities of one case: ``{"probabilities": {class: p}}`` -> ``probabilities.json``."""
    write_json(out / "probabilities.json", item["probabilities"])
