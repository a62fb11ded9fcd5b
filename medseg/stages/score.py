"""Stage ``score``: a mask (or class probabilities) and its reference -> the rows of one case."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medseg.core.errors import CaseError
from medseg.core.files import read_json, write_json
from medseg.core.stage import Artifact, stage
from medseg.data.classes import classes_of
from medseg.evaluation.classification import class_rows
from medseg.evaluation.lesion_list import asks_for_lesions, lesion_list
from medseg.evaluation.pairs import Row, score_pair
from medseg.evaluation.policy import Scoring
from medseg.evaluation.structures import placed
from medseg.imaging.image import read_mask
from medseg.imaging.labels import Labels

Pair = tuple[Artifact | None, Artifact]
LESIONS = "lesions.json"


@stage(version=1)
def score(item: Pair, *, labels: Labels, scoring: Scoring, out: Path, classes: Sequence[str] = ()) -> None:
    """Write ``scores.json``, the rows of one case.

    Parameters
    ----------
    item : (predicted or None, ingested)
        ``mask.nii.gz`` against ``reference.nii.gz``; with `classes`, ``probabilities.json`` against the
        ``label_class`` of ``source.json``. None: there is no prediction, which is counted.

    Raises
    ------
    CaseError
        The case has no reference, or prediction and reference do not lie on the same grid.
    """
    predicted, ingested = item
    source = read_json(ingested / "source.json")
    if classes:
        rows = _class_rows(predicted, source, classes)
    else:
        rows, lesions = _mask_rows(predicted, ingested, source, labels, scoring)
        if lesions:
            write_json(out / LESIONS, lesions)
    write_json(out / "scores.json", rows)


def read_lesions(scored: Artifact) -> list[dict[str, Any]]:
    """A row a lesion of the case; empty where the metrics do not ask for lesions."""
    return read_json(scored / LESIONS) if (scored / LESIONS).is_file() else []


def read_rows(scored: Artifact) -> list[Row]:
    """The rows of one case."""
    return read_json(scored / "scores.json")


def _mask_rows(
    predicted: Artifact | None, ingested: Artifact, source: dict[str, Any], labels: Labels, scoring: Scoring
) -> tuple[list[Row], list[dict[str, Any]]]:
    file = ingested / "reference.nii.gz"
    if not file.is_file():
        raise CaseError("the case has no reference to be judged by", case=source["case"])
    reference = read_mask(file)
    prediction = None if predicted is None else read_mask(predicted / "mask.nii.gz")
    if prediction is not None:
        prediction, _ = placed(prediction, reference, resample=scoring.resample)
    given = (prediction, reference, labels, scoring, source["case"], source["patient"])
    return score_pair(*given), lesion_list(*given) if asks_for_lesions(scoring) else []


def _class_rows(predicted: Artifact | None, source: dict[str, Any], classes: Sequence[str]) -> list[Row]:
    if source.get("label_class") is None:
        raise CaseError("the case has no class to be judged by", case=source["case"])
    found = None if predicted is None else read_json(predicted / "probabilities.json")
    return class_rows(source["case"], source["patient"], found, classes_of(source["label_class"]), classes)
