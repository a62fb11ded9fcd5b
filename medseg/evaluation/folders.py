"""Two folders of masks, matched by name: `medseg evaluate`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from medseg.core.errors import MedsegError
from medseg.core.files import sha256_of
from medseg.core.progress import progress
from medseg.core.run import Failure
from medseg.core.values import digest
from medseg.evaluation.lesion_list import asks_for_lesions, detections_in, lesion_list
from medseg.evaluation.pairs import Row, invalid_rows, score_pair
from medseg.evaluation.policy import Scoring, tolerance_notes
from medseg.evaluation.readers import reader_rows
from medseg.evaluation.scoring import Scores, sorted_rows
from medseg.evaluation.structures import placed
from medseg.imaging.image import Image, read_image, read_mask
from medseg.imaging.labels import Label, Labels

log = logging.getLogger("medseg")
T = TypeVar("T")
R = TypeVar("R")

MASKS = (".nii.gz", ".nii")
INSIDE = ("mask", "reference")


@dataclass(frozen=True)
class Task:
    """One case to be measured, with everything a worker process needs."""

    case: str
    patient: str
    prediction: Path | None
    reference: Path
    labels: Labels
    scoring: Scoring
    readers: Mapping[str, Path] = field(default_factory=dict)
    probability: Path | None = None


@dataclass
class Measured:
    """What came of a case: rows, facts about it (no paths), notes, what went wrong; rows of its readers."""

    task: Task
    rows: list[Row]
    facts: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    failure: Failure | None = None
    readers: list[Row] = field(default_factory=list)
    lesions: list[Row] = field(default_factory=list)
    detections: dict[str, Any] = field(default_factory=dict)


def find_masks(folder: Path, inside: tuple[str, ...] = INSIDE) -> dict[str, Path]:
    """Mask files of a folder by case name, sorted.

    ``<case>.nii`` and ``<case>.nii.gz``, or ``<case>/mask.nii.gz`` and ``<case>/reference.nii.gz`` as a
    run folder holds them.

    Raises
    ------
    MedsegError
        No such folder, no mask in it, or two files for one case.
    """
    found: dict[str, Path] = {}
    for file in _mask_files(folder, inside):
        name = case_of(file)
        case = file.parent.name if name in inside and file.parent != folder else name
        if case in found:
            raise MedsegError(
                f"two masks for case {case}", file=str(folder), evidence=f"{found[case].name} and {file.name}"
            )
        found[case] = file
    if not found:
        raise MedsegError(
            "the folder holds no masks",
            file=str(folder),
            mend="it must hold <case>.nii.gz or <case>.nii files",
        )
    return found


def case_of(file: Path) -> str:
    """The file's name without its NIfTI ending."""
    ending = next((e for e in MASKS if file.name.lower().endswith(e)), "")
    return file.name[: len(file.name) - len(ending)]


def infer_labels(references: Mapping[str, Path], quiet: bool = False, ignore: int | None = None) -> Labels:
    """Labels ``label_1`` ... of every value of the references but `ignore`; unreadable ones are skipped."""
    values: set[int] = set()
    for file in progress(references.values(), "labels", quiet=quiet):
        try:
            values |= set(np.flatnonzero(np.bincount(read_mask(file).array.ravel())).tolist())
        except MedsegError as error:
            log.debug("%s", error.public())
    return tuple(Label(value=v, name=f"label_{v}") for v in sorted(values - {0, ignore}))


def measure_all(tasks: list[Task], workers: int | None = None, quiet: bool = False) -> list[Measured]:
    """Measure cases, in this process or in several; the order of `tasks` is kept."""
    done = _mapped(measure, tasks, workers)
    return list(progress(done, "scores", total=len(tasks), quiet=quiet))


def measure(task: Task) -> Measured:
    """Read and score one case; what is wrong with it is in `failure`, never raised."""
    try:
        return _measured(task)
    except MedsegError as error:
        error.with_case(task.case)
        failure = Failure("evaluate", task.case, error.public(), str(error))
        return Measured(
            task, invalid_rows(task.labels, task.scoring, task.case, task.patient), {}, [], failure
        )


def _measured(task: Task) -> Measured:
    reference = read_mask(task.reference)
    prediction = None if task.prediction is None else read_mask(task.prediction)
    moved = ""
    if prediction is not None:
        prediction, moved = placed(prediction, reference, resample=task.scoring.resample)
    rows = score_pair(prediction, reference, task.labels, task.scoring, task.case, task.patient)
    spacing = [round(s, 4) for s in reference.grid.spacing_mm]
    facts = {"case": task.case, "shape": list(reference.grid.shape), "spacing_mm": spacing}
    if moved:
        facts["resampled"] = True
    notes = [f"case {task.case}: {moved}"] if moved else []
    notes += _strangers(reference.array, task, "reference")
    if prediction is not None:
        notes += _strangers(prediction.array, task, "prediction")
    failure = None if prediction is not None else _not_predicted(task)
    references, more = _references(task, reference)
    compared = reader_rows(prediction, references, task.labels, task.scoring, task.case, task.patient)
    found = Measured(task, rows, facts, [*notes, *more], failure, compared)
    if asks_for_lesions(task.scoring):
        found.lesions = lesion_list(prediction, reference, task.labels, task.scoring, task.case, task.patient)
    if task.probability is not None:
        _look_for_candidates(found, reference, task.probability)
    return found


def _look_for_candidates(found: Measured, reference: Image, probability: Path) -> None:
    """The candidates of a map of probabilities; one that cannot be used leaves what the mask says alone."""
    task = found.task
    try:
        sure = read_image(probability)
        found.detections = detections_in(sure, reference, task.labels, task.scoring, task.patient)
    except MedsegError as error:
        said = f"case {task.case}: its map of probabilities is left out of the FROC curve: {error.what}"
        found.notes.append(said)
        found.failure = found.failure or Failure(
            "evaluate", task.case, said, f"{said}\n  seen: {error.evidence}\n  mend: {error.mend}"
        )


def _references(task: Task, reference: Image) -> tuple[dict[str, Image], list[str]]:
    """The masks of all readers of a case on the reference's grid, and what cannot be used; none for one."""
    found, notes = {"reference": reference}, []
    for name, file in task.readers.items():
        try:
            found[name], _ = placed(read_mask(file), reference, resample=task.scoring.resample)
        except MedsegError as error:
            notes.append(f"case {task.case}: the mask of reader {name} is left out: {error.what}")
    return (found if task.readers else {}), notes


def _not_predicted(task: Task) -> Failure:
    said = f"case {task.case}: there is no prediction; it counts as missed"
    return Failure("evaluate", task.case, said, f"{said}\n  mend: predict it, and run the same command again")


def _strangers(array: NDArray[Any], task: Task, side: str) -> Iterator[str]:
    """A sentence about values that no label has."""
    counts = np.bincount(array.ravel())
    regions = (value for values in task.scoring.regions.values() for value in values)
    known = {0, task.scoring.ignore, *(label.value for label in task.labels), *regions}
    strange = {int(v): int(counts[v]) for v in np.flatnonzero(counts) if int(v) not in known}
    if strange:
        seen = ", ".join(f"{value} ({n} voxels)" for value, n in strange.items())
        yield f"case {task.case}: the {side} holds values of no label, taken as background: {seen}"


def collect(done: list[Measured], extra: list[str], scoring: Scoring) -> tuple[Scores, list[Failure]]:
    """Scores and failures of measured cases; `extra` names the predictions without a reference."""
    labels = done[0].task.labels
    facts = [m.facts for m in done if m.facts]
    largest = max((max(f["spacing_mm"]) for f in facts), default=0.0)
    notes = [*tolerance_notes(scoring, labels, largest), *(note for m in done for note in m.notes)]
    if extra:
        notes.append(f"{len(extra)} prediction(s) without a reference, not measured: {', '.join(extra)}")
    failures = [m.failure for m in done if m.failure]
    failures += [_without_reference(case) for case in extra]
    digests = {"predictions": _digest_of(done, "prediction"), "references": _digest_of(done, "reference")}
    kept = {"notes": notes, "digests": digests, "images": facts}
    if compared := sorted_rows(row for m in done for row in m.readers):
        kept["readers"] = compared
    if lesions := sorted_rows(row for m in done for row in m.lesions):
        kept["lesion list"] = lesions
    if without := [m.task.case for m in done if not m.task.probability]:
        given = len(done) - len(without)
        notes += [f"{given} of {len(done)} cases have a map of probabilities"] if given else []
    if any(m.detections for m in done):
        kept["detections"] = {x.name: [m.detections[x.name] for m in done if m.detections] for x in labels}
    return Scores(sorted_rows(row for m in done for row in m.rows), scoring, facts=kept), failures


def _without_reference(case: str) -> Failure:
    said = f"case {case}: a prediction without a reference; it is not measured"
    return Failure("evaluate", case, said, f"{said}\n  mend: add the reference, or take the prediction away")


def _digest_of(done: list[Measured], side: str) -> str:
    files = {m.task.case: getattr(m.task, side) for m in done}
    return digest({case: sha256_of(f) if f and f.is_file() else None for case, f in files.items()})


def _mask_files(folder: Path, inside: tuple[str, ...]) -> list[Path]:
    if not folder.is_dir():
        raise MedsegError("there is no such folder", file=str(folder), mend="give a folder of masks")
    here = [f for f in folder.iterdir() if f.name.lower().endswith(MASKS) and not f.name.startswith(".")]
    return sorted(here) or sorted(f for name in inside for f in folder.glob(f"*/{name}.nii.gz"))


def _mapped(function: Callable[[T], R], items: Sequence[T], workers: int | None) -> Iterator[R]:
    if not workers or workers < 2 or len(items) < 2:
        yield from map(function, items)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield from pool.map(function, items, chunksize=max(1, len(items) // (4 * workers)))
