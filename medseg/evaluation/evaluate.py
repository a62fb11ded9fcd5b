"""From two folders (or two class tables) to scores.csv, summary.json and a report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from medseg.core.errors import MedsegError
from medseg.core.files import write_json, write_text
from medseg.core.run import Failure
from medseg.data.review import EXCLUDED
from medseg.evaluation.beside import (
    Groups,
    marked_out,
    read_groups,
    read_quality,
    reader_files,
    without,
)
from medseg.evaluation.folders import Measured, Task, collect, find_masks, infer_labels, measure_all
from medseg.evaluation.lesion_list import lesions_to_csv
from medseg.evaluation.metrics import metric_of
from medseg.evaluation.pairs import COLUMNS
from medseg.evaluation.policy import Scoring
from medseg.evaluation.report.context import ReportContext
from medseg.evaluation.report.gallery import GALLERY, Overlay, draw_overlays, gallery_cases
from medseg.evaluation.report.page import render_report
from medseg.evaluation.scoring import Scores, read_rows, rows_to_csv
from medseg.evaluation.structures import parse_structures, structures_of
from medseg.imaging.labels import Labels


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate_folders` made: the scores, what could not be measured, and where the report is."""

    scores: Scores
    failures: list[Failure]
    report: Path


def evaluate_folders(
    pred: str | Path,
    ref: str | Path,
    out: str | Path,
    labels: Labels | str | None = None,
    tolerance_mm: float | None = None,
    workers: int | None = None,
    *,
    scoring: Scoring | None = None,
    images: str | Path | None = None,
    patients: Mapping[str, str] | None = None,
    groups: Groups | str | Path | None = None,
    quality: Mapping[str, float] | str | Path | None = None,
    readers: Mapping[str, str | Path] | None = None,
    probabilities: str | Path | None = None,
    marks: Mapping[str, str] | str | Path | None = None,
    gallery: int = GALLERY,
    quiet: bool = False,
) -> Evaluation:
    """Score predictions against references, matched by name.

    Parameters
    ----------
    pred, ref : path
        Folders of ``<case>.nii.gz`` (or ``.nii``) label maps, or of run folders' cases; or two class
        tables (CSV): predictions ``case,<class>,<class>...`` or ``case,class``, references ``case,class``.
    out : path
        Gets ``scores.csv``, ``summary.json`` and ``report/index.html``.
    labels : Labels or str, optional
        As ``kidney=1,tumour=2``, regions as ``both=1+2``; every value found in the references when not given.
    tolerance_mm : float, optional
        Of NSD, 1.0 by default; wins over `scoring`.
    workers : int, optional
        Processes; None measures in this one.
    scoring : Scoring, optional
        All other choices.
    images : path, optional
        Folder of images by the same names, shown under the contours of the report.
    patients : mapping, optional
        Case -> patient, for intervals over patients; every case its own patient when not given.
    groups : mapping or path, optional
        Case -> column -> value, or a CSV with a column ``case``, or a ``cohort.json``: for subgroups.
    quality : mapping or path, optional
        Case -> score, or a CSV ``case,quality``: held against Dice (higher is better).
    readers : mapping, optional
        Name -> folder of masks by further readers: for the agreement between readers. Their numbers are
        written to ``readers.csv``.
    probabilities : path, optional
        Folder of maps of probabilities by the same names (one channel, or background and every label): for
        the FROC curve of lesions.
    marks : mapping or path, optional
        Case -> ``pass``, ``fail`` or ``fix``, or the ``marks.yaml`` of a report: cases marked ``fail``
        are left out and counted as excluded by review.
    gallery : int
        How many cases the report shows: all up to so many; of more the worst, and some typical and best ones.

    Raises
    ------
    MedsegError
        A folder without masks, or no name in common. What is wrong with single cases is in `failures`.
    """
    pred, ref, out = Path(pred), Path(ref), Path(out)
    scoring = scoring or Scoring()
    for name in scoring.metrics:
        metric_of(name)
    if tolerance_mm is not None:
        scoring = scoring.but(tolerance_mm=tolerance_mm)
    if _is_table(ref):
        from medseg.evaluation.class_tables import evaluate_tables

        beside = {"groups": read_groups(groups), "marks": marks}
        return Evaluation(*evaluate_tables(pred, ref, out, scoring, patients, **beside))
    predictions, references = find_masks(pred), find_masks(ref)
    _in_common(predictions, references)
    excluded = marked_out(marks, references)
    predictions, references = (without(files, excluded) for files in (predictions, references))
    shown, scoring = _named(labels, scoring)
    shown = shown or (() if scoring.regions else infer_labels(references, quiet, scoring.ignore))
    if not structures_of(shown, scoring):
        raise MedsegError("the references hold no label: every voxel is 0", file=str(ref))
    who, others = patients or {}, reader_files(readers)
    sure = find_masks(Path(probabilities), ("probabilities",)) if probabilities else {}
    beside = {"groups": read_groups(groups), "quality": read_quality(quality)}
    tasks = [
        Task(
            case,
            who.get(case, case),
            predictions.get(case),
            file,
            shown,
            scoring,
            others.get(case, {}),
            sure.get(case),
        )
        for case, file in references.items()
    ]
    done = measure_all(tasks, workers, quiet)
    scores, failures = collect(done, sorted(set(predictions) - set(references)), scoring)
    scores.facts |= {name: table for name, table in beside.items() if table}
    scores.facts |= {EXCLUDED: excluded} if excluded else {}
    overlays = _overlays(done, scores, find_images(images), shown, gallery)
    return Evaluation(scores, failures, write_results(out, scores, failures, shown, overlays))


def write_results(
    out: Path, scores: Scores, failures: list[Failure], labels: Labels, overlays: list[Overlay]
) -> Path:
    """Write scores.csv, summary.json and the report into `out`; gives the report's path."""
    scores.to_csv(out / "scores.csv")
    scores.rows = read_rows(out / "scores.csv")  # what follows is made from the table, digit by digit
    summary = scores.summary()
    if "readers" in scores.facts:
        columns = ("first", "second", *COLUMNS)
        write_text(out / "readers.csv", rows_to_csv(scores.facts["readers"], columns))
    if "lesion list" in scores.facts:
        write_text(out / "lesions.csv", lesions_to_csv(scores.facts["lesion list"]))
    write_json(out / "summary.json", summary)
    groups, images = scores.facts.get("groups") or {}, summary["facts"].get("images", ())
    context = ReportContext(
        title="Evaluation",
        rows=scores.rows,
        summary=summary,
        labels=labels,
        cohort=tuple({**image, "groups": groups.get(image["case"], {})} for image in images),
        refusals=tuple(
            {"series": case, "case": case, "status": "excluded", "reason": EXCLUDED}
            for case in scores.facts.get(EXCLUDED, ())
        ),
        failures=tuple({"case": f.item, "stage": f.stage, "message": f.public} for f in failures),
        overlays=tuple(overlays),
    )
    return render_report(context, out / "report")


def find_images(folder: str | Path | None) -> dict[str, Path]:
    """Image files by case name; nnU-Net's ``_0000`` is taken off. Empty for None."""
    if folder is None:
        return {}
    return {case.removesuffix("_0000"): file for case, file in find_masks(Path(folder), ("image",)).items()}


def _overlays(
    done: list[Measured], scores: Scores, images: Mapping[str, Path], labels: Labels, n: int
) -> list[Overlay]:
    files = {m.task.case: m.task for m in done if m.facts}
    shown = [case for case in gallery_cases(scores.rows, n) if case in files]
    return draw_overlays(
        {c: (images.get(c), files[c].reference, files[c].prediction) for c in shown},
        scores.rows,
        labels,
        scores.scoring.ignore,
    )


def _named(labels: Labels | str | None, scoring: Scoring) -> tuple[Labels, Scoring]:
    """Labels, and the scoring with the regions that their text names."""
    if not isinstance(labels, str):
        return labels or (), scoring
    found, regions = parse_structures(labels)
    return found, scoring.but(regions={**scoring.regions, **regions})


def _is_table(path: Path) -> bool:
    return path.is_file() and path.suffix.lower() == ".csv"


def _in_common(predictions: Mapping[str, Path], references: Mapping[str, Path]) -> None:
    if set(predictions) & set(references):
        return
    raise MedsegError(
        "no prediction has the name of a reference",
        evidence=f"predictions: {_few(predictions)}; references: {_few(references)}",
        mend="name both <case>.nii.gz with the same case",
    )


def _few(names: Mapping[str, Path]) -> str:
    return ", ".join(list(names)[:3]) + (f" ... ({len(names)})" if len(names) > 3 else "")
