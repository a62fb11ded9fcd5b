"""Stage ``try_thresholds``: a case and models that have not seen it -> Dice at each threshold tried."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medseg.core.errors import CaseError
from medseg.core.files import read_json, write_json
from medseg.core.stage import Artifact, stage
from medseg.data.ingested import read_ingested
from medseg.data.plan import MASK
from medseg.evaluation.choice_thresholds import NOTHING, Threshold
from medseg.imaging.image import read_mask
from medseg.imaging.labels import values_of
from medseg.learning.settings import Prediction


@stage(version=1, ignore=("device",), in_process=True)
def try_thresholds(
    item: tuple[Artifact, ...],
    *,
    options: Sequence[Threshold],
    prediction: Prediction,
    ignore: int | None = None,
    device: str = "auto",
    out: Path,
) -> None:
    """Write ``tries.json``: a row for each option, and one for none of them.

    Parameters
    ----------
    item : tuple of Artifact
        The ingested case with its ``reference.nii.gz``, then models that have not seen it.
    ignore : int, optional
        Value of the reference at which nothing is counted.

    Raises
    ------
    CaseError
        The case has no reference.
    """
    from medseg.learning.opened import opened
    from medseg.learning.thresholds import dice_of, overlaps

    ingested, *folders = item
    source = read_json(ingested / "source.json")
    if not (ingested / "reference.nii.gz").is_file():
        raise CaseError("the case has no reference to be judged by", case=source["case"])
    models = opened(folders, device)
    case = read_ingested(ingested.path, with_mask=models.plan.region == MASK)
    tried = {NOTHING: {}, **{option.said: {option.label: option.threshold} for option in options}}
    parts, truth = models.parts(case.image, prediction), read_mask(ingested / "reference.nii.gz")
    found = overlaps(parts, truth, models.labels, tried, ignore)
    by_value = {label.value: label.name for label in models.labels}
    names = [by_value[value] for value in values_of(models.labels)]
    who = {"case": source["case"], "patient": source["patient"]}
    rows = [
        {**who, "option": said, "dice": dict(zip(names, dice_of(counts), strict=True))}
        for said, counts in found.items()
    ]
    write_json(out / "tries.json", rows)


def read_tries(tried: Artifact) -> list[dict[str, Any]]:
    """What `try_thresholds` wrote."""
    return read_json(tried / "tries.json")
