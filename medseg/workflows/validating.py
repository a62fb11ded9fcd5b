"""A model (ours, a bundle, or results of any tool) on a cohort it has never seen: `medseg validate`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from medseg.core.config import load_config
from medseg.core.errors import MedsegError
from medseg.core.run import Run
from medseg.core.stage import Artifact
from medseg.core.values import Value
from medseg.data.cohort import Cohort, Ingesting
from medseg.data.naming import Ids
from medseg.data.review import reviewed
from medseg.data.seen import already_seen
from medseg.evaluation.policy import Scoring
from medseg.imaging.dicom_policy import DicomPolicy
from medseg.imaging.masks import Postprocessing
from medseg.learning.settings import Prediction
from medseg.workflows.acceptance import Acceptance, Criterion, check_criteria, verdicts
from medseg.workflows.journey import Ingested, ingest_all
from medseg.workflows.judging import summary_lines
from medseg.workflows.outcome import Outcome, named_failures
from medseg.workflows.settings import Marked, Rules
from medseg.workflows.subjects import Subject, Using, open_subject
from medseg.workflows.tested import Tested, measured


class ValidateSettings(Value):
    """What ``medseg validate`` may be told as ``key=value``."""

    leakage: Literal["flag", "exclude", "fail"] = "flag"
    """Cases the model was trained on: named and counted all the same; left out; or the verdict is FAIL."""
    training: str = ""
    """Run folder the model was trained in, where that cannot be told from the model."""
    trust: bool = False
    """Run the code in a bundle's configuration (``$`` expressions, ``scripts``, TorchScript)."""
    seg: bool = True
    """DICOM SEG of each case whose images are DICOM: ``export/<case>/``."""
    marks: Marked = {}
    """What a reader marked in a report, or the path of its ``marks.yaml``: ``fail`` leaves a case out."""
    ingest: Ingesting = Ingesting(require_reference=True)
    dicom: DicomPolicy = DicomPolicy()
    ids: Ids = "auto"
    select: Rules = None
    prediction: Prediction = Prediction()
    postprocessing: Postprocessing | None = None
    """Thresholds and mask steps; by default those that were chosen with the model."""
    scoring: Scoring = Scoring()

    def cohort_options(self) -> dict[str, Any]:
        """The part of it that opening a cohort needs."""
        policy = {} if self.dicom == DicomPolicy() else {"policy": self.dicom}
        return {"ids": self.ids, "select": self.select, **policy}


def validate(
    model: str | Path,
    cohort: Cohort,
    run: Run,
    *,
    accept: str | Path | Sequence[Criterion] | None = None,
    device: str = "auto",
    settings: ValidateSettings | None = None,
    **changes: Any,
) -> Outcome:
    """Predict and score a cohort the model has never seen, and hold it against acceptance criteria.

    Writes ``scores.csv``, ``summary.json`` (with the part ``validation``: see
    `medseg.workflows.validation_report`), ``acceptance.json``, ``flow.csv``, ``out_of_range.csv``,
    ``checklists.csv``, ``methods.md`` and ``report/index.html``; for DICOM also ``export/<case>/*.seg.dcm``.

    Parameters
    ----------
    model : path
        Model or run folder of ours, folder of a MONAI bundle, folder of masks, or a class table.
    cohort : Cohort
        Cases with references.
    accept : path or sequence of Criterion, optional
        Bars set in advance; all must hold at the unfavourable end of their intervals.
    settings : ValidateSettings, optional
    **changes
        Settings by name (``scoring=...``, ``postprocessing=...``).

    Returns
    -------
    Outcome
        Exit code 0 PASS, 1 FAIL, 3 PASS or no criteria but some cases were quarantined.

    Raises
    ------
    MedsegError
        Nothing that can be tested, another task or other classes than the cohort's, a criterion for what is
        not measured, or a cohort of which no case is left.
    """
    from medseg.workflows.validation_report import write_validation

    settings = (settings or ValidateSettings()).but(**{k: v for k, v in changes.items() if v is not None})
    criteria = _criteria(accept)
    subject = open_subject(model, settings.training or None)
    cohort = _fitting(cohort, subject)
    settings = settings.but(scoring=check_criteria(criteria, cohort, settings.scoring))
    cohort, marked = _reviewed(cohort, settings.marks)
    raw = ingest_all(run, cohort, settings.ingest)
    seen = _seen(run, raw, subject)
    cases = tuple(case for case in raw if not (settings.leakage == "exclude" and case in _images(seen)))
    if not cases:
        raise MedsegError(
            "every case of the cohort was trained on: nothing is left to test", mend="leakage=flag"
        )
    tested = Tested(
        subject, raw, cases, seen, _masks(run, raw.only(cases), subject, settings, device), settings, marked
    )
    scores, summary, parts = measured(run, tested)
    judged = verdicts(summary, criteria)
    if settings.leakage == "fail":
        judged.append(_independence(parts["leakage"]))
    page = write_validation(run, tested, scores, summary, parts | {"acceptance": judged})
    refused = sum(1 for r in raw.cohort.refused if r.status == "refused")
    return _verdict(run, summary, parts, judged, page, refused)


def _criteria(accept: str | Path | Sequence[Criterion] | None) -> tuple[Criterion, ...]:
    if accept is None:
        return ()
    if isinstance(accept, str | Path):
        return load_config(Acceptance, accept).accept
    return tuple(accept)


def _fitting(cohort: Cohort, subject: Subject) -> Cohort:
    """The cohort as the subject's task sees it, with the subject's labels where it has none of its own."""
    if cohort.task != subject.task:
        both = cohort.but(task=subject.task)
        able = (
            len(cohort.classes) > 1
            if subject.task == "classification"
            else any(c.reference for c in cohort.cases)
        )
        if not able:
            raise MedsegError(f"the model is for {subject.task}, the cohort for {cohort.task}")
        cohort = both
    if subject.task == "classification":
        strange = sorted(set(subject.classes) ^ set(cohort.classes))
        if strange:
            raise MedsegError(
                "model and cohort do not have the same classes",
                evidence=f"model: {', '.join(subject.classes)}; cohort: {', '.join(cohort.classes)}",
                mend="call the classes of the cohort as the model does",
            )
        return cohort
    ours, theirs = ({x.value: x.name for x in labels} for labels in (cohort.labels, subject.labels))
    moved = {n for v, n in ours.items() if n in theirs.values() and theirs.get(v) != n}
    if moved:
        raise MedsegError(
            "the same label has another value in the model than in the cohort",
            evidence=f"cohort: {_named(ours)}; model: {_named(theirs)}",
            mend="say which stored value is which: ingest.label_map.2=1, or --labels NAME=VALUE",
        )
    return cohort if cohort.labels else cohort.but(labels=subject.labels)


def _reviewed(cohort: Cohort, marks: Mapping[str, str]) -> tuple[Cohort, dict[str, str]]:
    """The cohort without the cases that a reader marked ``fail``, and these: case -> patient."""
    kept = reviewed(cohort, marks)
    there = {case.id for case in kept.cases}
    if not there:
        raise MedsegError("every case of the cohort is marked fail: nothing is left to test")
    return kept, {case.id: case.patient for case in cohort.cases if case.id not in there}


def _named(labels: Mapping[int, str]) -> str:
    return ", ".join(f"{name}={value}" for value, name in labels.items())


def _seen(run: Run, raw: Ingested, subject: Subject) -> dict[str, list[str]] | None:
    """Cases by what of them was trained on; None where that cannot be checked."""
    from medseg.stages.voxels import read_voxels, voxels

    if not (records := subject.training.get("seen")):
        return None
    made = run.map(voxels, dict(raw.artifacts))
    cases = {case: (raw.source(case)["patient"], read_voxels(a)) for case, a in made.items()}
    return already_seen(records, cases)


def _images(seen: Mapping[str, Sequence[str]] | None) -> set[str]:
    return set(seen["image"]) if seen else set()


def _masks(
    run: Run, raw: Ingested, subject: Subject, settings: ValidateSettings, device: str
) -> dict[str, Artifact]:
    from medseg.workflows.training import postprocess_all

    steps = subject.postprocessing if settings.postprocessing is None else settings.postprocessing
    how = subject.prediction.changed(settings.prediction)
    using = Using(how, device, settings.trust, steps.thresholds)
    predicted = subject.predict(run, raw, using)
    if subject.task != "segmentation":
        return predicted
    return postprocess_all(run, raw, predicted, steps) if steps.steps else predicted


def _independence(leakage: Mapping[str, Any]) -> dict[str, Any]:
    passed = leakage["status"] == "none" or (leakage["status"] == "found" and not leakage.get("kept", True))
    return {
        "label": "cohort",
        "metric": "images trained on",
        "title": "Images the model was trained on",
        "criterion": "<= 0",
        "judged_at": "count",
        "value": float(len(leakage["images"])) if leakage["status"] != "unchecked" else None,
        "passed": bool(passed),
    }


def _verdict(
    run: Run,
    summary: Mapping[str, Any],
    parts: Mapping[str, Any],
    judged: Sequence[Mapping[str, Any]],
    page: Path,
    refused: int = 0,
) -> Outcome:
    passed = all(v["passed"] for v in judged)
    head = ("PASS" if passed else "FAIL") if judged else "no acceptance criteria were given"
    if parts["leakage"]["status"] == "found" and parts["leakage"]["kept"]:
        head += f"; NOT AN INDEPENDENT TEST: {parts['leakage']['said']}"
    steps = ", ".join(f"{s['cases']} {s['name']}" for s in parts["flow"]["steps"])
    flagged = len({row["case"] for row in parts["out_of_range"]})
    lines = [
        f"validate: {parts['model']['what']}",
        f"  cases: {steps}",
        *summary_lines(dict(summary)),
        f"  independence: {parts['leakage']['said']}",
        *(
            [f"  {flagged} case(s) outside the ranges of the training, see out_of_range.csv"]
            if flagged
            else []
        ),
        *([f"  {refused} series refused, the reason of each in ingest.csv"] if refused else []),
        *(_criterion_line(v) for v in judged),
        head,
        f"report: {page}",
    ]
    code = 1 if not passed else (3 if run.failures or refused else 0)
    told = {"passed": passed, "criteria": list(judged), "summary": dict(summary), "report": str(page)}
    return Outcome(told, "\n".join(lines) + named_failures(run), code)


def _criterion_line(verdict: Mapping[str, Any]) -> str:
    value = "not measured" if verdict["value"] is None else f"{verdict['value']:.4g}"
    where = str(verdict["judged_at"]).replace("_", " ")
    return (
        f"  {'PASS' if verdict['passed'] else 'FAIL'}  {verdict['metric']} of {verdict['label']} "
        f"{verdict['criterion']}: {value} ({verdict.get('note') or where})"
    )
