"""A model on new images: weights loaded once, each case whole or not at all, a report of all."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medseg.core.errors import CaseError, MedsegError, unexpected
from medseg.core.files import read_json, sha256_of, write_json
from medseg.core.lock import lock_folder, release_folder
from medseg.core.progress import progress
from medseg.core.values import digest
from medseg.data.cohort import Case, Cohort, Source
from medseg.data.selection_rules import Selection
from medseg.imaging.dicom_out import OBJECTS, DicomOutput
from medseg.imaging.dicom_policy import DEFAULT, DicomPolicy
from medseg.imaging.image import Image, write_image
from medseg.imaging.masks import Postprocessing
from medseg.learning.settings import Prediction
from medseg.workflows.outcome import Outcome

if TYPE_CHECKING:
    from medseg.learning.model import Models

log = logging.getLogger("medseg")

FORMATS = ("nifti", *OBJECTS)


def predict(
    model: str | Path | Models,
    src: str | Path,
    out: str | Path,
    *,
    formats: Collection[str] = ("nifti",),
    device: str = "auto",
    prediction: Prediction | None = None,
    postprocessing: Postprocessing | None = None,
    dicom: DicomPolicy = DEFAULT,
    output: DicomOutput | None = None,
    select: Selection | None = None,
    align: bool = False,
    quiet: bool = False,
) -> Outcome:
    """Predict every case of `src`: ``OUT/<case>.nii.gz``, ``OUT/<case>.seg.dcm``, ..., ``OUT/report.json``.

    Masks lie on the source's own grid, in its own axis order. A case that was predicted before from
    the same bytes by the same weights in the same formats is kept; one that fails is named and the others
    go on. A case of which one format cannot be written counts as failed; its other files are there.

    Parameters
    ----------
    model : path
        Model folder, fold folder, or run folder (all its folds: mean of their probabilities); or open models.
    src : path
        A NIfTI file, a folder of cases, or a DICOM study.
    out : path
        Folder to write to; held by this process while it works.
    formats : collection of str
        ``nifti``, and for DICOM sources ``seg`` (DICOM SEG), ``rtstruct`` (RT Structure Set) and ``sr``
        (TID 1500 report of volumes and intensities; the SEG it refers to is written with it).
    prediction : Prediction, optional
        What is set in it takes the place of what the models were judged with.
    postprocessing : Postprocessing, optional
        Mask steps; by default those that were chosen with the models.
    dicom : DicomPolicy
        What reading DICOM may mend, take or refuse.
    output : DicomOutput, optional
        How DICOM objects are written.
    select : Selection, optional
        Which series of a DICOM study are predicted, or serve as the channels of the model.
    align : bool
        Resample channels in one frame of reference onto the grid of the first.

    Raises
    ------
    MedsegError
        No model, no images, an unknown format, or a folder that cannot be written.
    """
    from medseg.learning.model import open_models

    _check_formats(formats)
    out = Path(out)
    cohort = _open(src, dicom, select, quiet)
    lock_folder(out)
    try:
        models = open_models(model, device)
        steps = models.postprocessing if postprocessing is None else postprocessing
        chosen = tuple(name for name in FORMATS if name in formats)
        how = models.prediction.changed(prediction)
        job = _Job(models, out, chosen, how, steps, output or DicomOutput(), align)
        rows = [_refused_row(r) for r in cohort.refused if r.status == "refused"]
        for case in progress(cohort.cases, "predict", quiet=quiet):
            rows.append(_one(job, case))
        write_json(out / "report.json", _report(models, rows))
    finally:
        release_folder(out)
    return _outcome(rows, out)


@dataclass(frozen=True)
class _Job:
    """What is the same for every case: the models, where results go, and how."""

    models: Models
    out: Path
    formats: tuple[str, ...]
    prediction: Prediction
    postprocessing: Postprocessing
    output: DicomOutput
    align: bool

    def key(self, case: Case) -> str:
        """What decides the result of a case: its images, the weights and the settings."""
        return digest(
            {
                "case": case.but(groups={}),
                "weights": self.models.digest,
                "formats": list(self.formats),
                "prediction": self.prediction,
                "steps": self.postprocessing,
                "output": self.output,
            }
        )


def _one(job: _Job, case: Case) -> dict[str, Any]:
    """Predict one case, or say why not; the row for ``report.json`` (no path in it)."""
    key = job.key(case)
    done = _kept(job.out, case.id, key)
    if done is not None:
        return done
    start = time.perf_counter()
    try:
        facts = _written(job, case)
    except CaseError as error:
        error.with_case(case.id)
        log.error("%s", error)
        return {"case": case.id, "status": "failed", "reason": error.public()}
    except Exception as error:  # one bad case must not end the others
        log.error("case %s: unexpected %s", case.id, unexpected(error))
        return {"case": case.id, "status": "failed", "reason": f"unexpected {type(error).__name__}"}
    seconds = round(time.perf_counter() - start, 2)
    row = {"case": case.id, "status": "predicted", "key": key, "seconds": seconds, **facts}
    if "reason" in facts:
        log.error("case %s: %s", case.id, facts["reason"])
        return {**row, "status": "failed"}
    write_json(_marker(job.out, case.id), row)
    return row


def _written(job: _Job, case: Case) -> dict[str, Any]:
    from medseg.data.reading import read_case_image
    from medseg.imaging.masks import apply_steps, volumes_ml

    models = job.models
    image = read_case_image(case, models.channels, job.align)
    if models.task == "classification":
        return {"probabilities": models.classify(image, job.prediction), "files": {}}
    mask = models.segment(image, job.prediction, job.postprocessing.thresholds)
    mask = apply_steps(mask, job.postprocessing.steps, models.labels)
    written, failed, remark = _outputs(job, case, mask, image)
    volumes = volumes_ml(mask, models.labels)
    facts: dict[str, Any] = {
        "volumes_ml": {name: round(ml, 4) for name, ml in volumes.items()},
        "files": {file.name: sha256_of(file) for file in written},
    }
    if models.classifies:
        facts["probabilities"] = models.classify(image, job.prediction)
    if remark:
        facts["remark"] = remark
    return facts | ({"reason": failed} if failed else {})


def _outputs(job: _Job, case: Case, mask: Image, image: Image) -> tuple[list[Path], str, str]:
    """Write every format that can be: the files, why others are not there, what was done to the mask."""
    files, stem = [], job.out / case.id
    if "nifti" in job.formats:
        files.append(job.out / f"{case.id}.nii.gz")
        write_image(mask, files[0])
    kinds = [kind for kind in job.formats if kind in OBJECTS]
    if not kinds:
        return files, "", ""
    from medseg.imaging.dicom_in import series_of_files
    from medseg.imaging.dicom_out import write_objects

    try:
        source = _dicom_source(case, job.models.channels, kinds)
        series = series_of_files(source.files, source.part, source.policy)
    except CaseError as error:
        return files, error.public(), ""
    done = write_objects(mask, job.models.labels, series, kinds, stem, image=lambda: image, output=job.output)
    return [*files, *done.files.values()], _reasons(done.failed), done.remark


def _reasons(failed: dict[str, CaseError]) -> str:
    """Each reason once, with the formats it holds for; without file names."""
    by_reason: dict[str, list[str]] = {}
    for kind, error in failed.items():
        by_reason.setdefault(error.public(), []).append(kind)
    return "\n".join(f"no {', '.join(kinds)}: {reason}" for reason, kinds in by_reason.items())


def _dicom_source(case: Case, channels: Sequence[str], kinds: Sequence[str]) -> Source:
    """The series of the model's first channel: the one that results refer to."""
    source = case.images.get(channels[0]) or next(iter(case.images.values()))
    if source.kind != "dicom":
        raise CaseError(
            f"{', '.join(kinds)} needs the DICOM series the image came from",
            evidence=f"the source is {source.kind}",
            mend="give the DICOM series, or --format nifti",
        )
    return source


def _check_formats(formats: Collection[str]) -> None:
    unknown = sorted(set(formats) - set(FORMATS))
    if unknown or not formats:
        raise MedsegError(
            f"unknown output format {', '.join(unknown) or '(none)'}", mend=f"known: {', '.join(FORMATS)}"
        )


def _open(src: str | Path, dicom: DicomPolicy, select: Selection | None, quiet: bool) -> Cohort:
    options: dict[str, Any] = {"ids": "names", "select": select}  # the user's own files
    if dicom != DEFAULT:
        options["policy"] = dicom
    cohort = Cohort.open(src, quiet=quiet, need_reference=False, images_alone=True, **options)
    if not cohort.cases:
        reasons = sorted({f"{r.series}: {r.reason}" for r in cohort.refused})
        raise MedsegError(
            "no image in the source can be predicted",
            evidence="; ".join(reasons[:5]) or "nothing found",
            mend="give a NIfTI file, a folder of cases or a DICOM study",
        )
    return cohort


def _kept(out: Path, case_id: str, key: str) -> dict[str, Any] | None:
    """The row of a case done before, when key and files still hold."""
    try:
        row = read_json(_marker(out, case_id))
    except (OSError, ValueError):
        return None
    whole = all((out / name).is_file() and sha256_of(out / name) == sha for name, sha in row["files"].items())
    return {**row, "status": "kept"} if row["key"] == key and whole else None


def _marker(out: Path, case_id: str) -> Path:
    return out / ".done" / f"{case_id}.json"


def _refused_row(refusal: Any) -> dict[str, Any]:
    return {"case": refusal.case or refusal.series, "status": "refused", "reason": refusal.reason}


def _report(models: Models, rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {"model": models.card(), "cases": rows, "counts": _counts(rows)}


def _counts(rows: list[dict[str, Any]]) -> dict[str, int]:
    states = [row["status"] for row in rows]
    return {state: states.count(state) for state in sorted(set(states))}


def _outcome(rows: list[dict[str, Any]], out: Path) -> Outcome:
    bad = [row for row in rows if row["status"] in ("failed", "refused")]
    counts = ", ".join(f"{n} {state}" for state, n in _counts(rows).items())
    named = "".join(f"\n  {row['case']}: {row['reason'].splitlines()[0]}" for row in bad)
    text = f"predict: {counts}; results in {out}{named}"
    return Outcome({"cases": rows, "counts": _counts(rows)}, text, 3 if bad else 0)
