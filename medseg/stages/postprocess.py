"""Stages ``postprocess`` and ``try_steps``: a mask -> the mask after mask steps; what each step would do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medseg.core.errors import CaseError
from medseg.core.files import read_json, write_json
from medseg.core.stage import Artifact, stage
from medseg.evaluation.choice_steps import Option, try_options
from medseg.evaluation.policy import Scoring
from medseg.imaging.image import read_mask, write_image
from medseg.imaging.labels import Labels
from medseg.imaging.masks import Postprocessing, apply_steps


@stage(version=1)
def postprocess(
    predicted: Artifact, *, postprocessing: Postprocessing, labels: Labels = (), out: Path
) -> None:
    """Write ``mask.nii.gz``: the predicted mask after `postprocessing.steps`, on the same grid.

    Parameters
    ----------
    labels : sequence of Label, optional
        What the values mean, where they are regions.
    """
    mask = read_mask(predicted / "mask.nii.gz")
    write_image(apply_steps(mask, postprocessing.steps, labels), out / "mask.nii.gz")


@stage(version=1)
def try_steps(
    item: tuple[Artifact, Artifact],
    *,
    labels: Labels,
    options: Sequence[Option],
    scoring: Scoring,
    out: Path,
) -> None:
    """Write ``tries.json``: Dice of one case after each option.

    Parameters
    ----------
    item : (predicted, ingested)
        ``mask.nii.gz`` of a model that has not seen the case, and its ``reference.nii.gz``.

    Raises
    ------
    CaseError
        The case has no reference.
    """
    predicted, ingested = item
    source = read_json(ingested / "source.json")
    if not (ingested / "reference.nii.gz").is_file():
        raise CaseError("the case has no reference to be judged by", case=source["case"])
    mask, reference = read_mask(predicted / "mask.nii.gz"), read_mask(ingested / "reference.nii.gz")
    who = source["case"], source["patient"]
    write_json(out / "tries.json", try_options(mask, reference, labels, options, scoring, *who))


def read_tries(tried: Artifact) -> list[dict[str, Any]]:
    """What `try_steps` wrote."""
    return read_json(tried / "tries.json")
