"""A model (ours, a bundle, or results of any tool) on a cohort it has never seen: `medseg validate`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from medseg.core.config import load_config
from medseg.core.errors import MedsegError
from medseg.core.files import read_json
from medseg.core.run import Run
from medseg.core.stage import Artifact
from medseg.core.values import Value
from medseg.data.cohort import Cohort, Ingesting
from medseg.data.naming import Ids
from medseg.data.seen import already_seen
from medseg.evaluation.flow import Left, cohort_flow
from medseg.evaluation.pairs import invalid_rows
from medseg.evaluation.policy import Scoring
from medseg.evaluation.populations import numbers_of, out_of_range, populations, ranges_of
from medseg.imaging.dicom_policy import DicomPolicy
from medseg.imaging.masks import Postprocessing
from medseg.learning.settings import Prediction
from medseg.workflows.acceptance import Acceptance, Criterion, check_criteria, verdicts
from medseg.workflows.journey import Ingested, ingest_all
from medseg.workflows.judging import summary_lines
from medseg.workflows.outcome import Outcome, named_failures
from medseg.workflows.settings import Rules
from medseg.workflows.subjects import Subject, Using, open_subject


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
    ingest: Ingesting = Ingesting(require_reference=True)
    dicom: DicomPolicy = DicomPolicy()
    ids: Ids = "auto"
    select: Rules = None
    prediction: Prediction = Prediction()
    postprocessing: Postprocessing | None = None
    """Mask steps; by default those that were chosen with the model."""
    scoring: Scoring = Scoring()

    def cohort_options(self) -> dict[str, Any]:
        """The part of it that opening a cohort needs."""
        policy = {} if self.dicom == DicomPolicy() else {"policy": self.dicom}
        return {"ids": self.ids, "select": self.select, **policy}


@dataclass(frozen=True)
class Tested:
    """Everything a validation found, before it is written down."""

    subject: Subject
    raw: Ingested
    cases: tuple[str, ...]
    seen: Mapping[str, Sequence[str]] | None
    masks: Mapping[str, Artifact]
    settings: ValidateSettings


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
    raw = ingest_all(run, cohort, settings.ingest)
    seen = _seen(run, raw, subject)
    cases = tuple(case for case in raw if not (settings.leakage == "exclude" and case in _images(seen)))
    if not cases:
        raise MedsegError(
            "every case of the cohort was trained on: nothing is left to test", mend="leakage=flag"
        )
    tested = Tested(
        subject, raw, cases, seen, _masks(run, raw.only(cases), subject, settings, device), settings
    )
    scores, summary, parts = _measured(run, tested)
    judged = verdicts(summary, criteria)
    if settings.leakage == "fail":
        judged.append(_independence(parts["leakage"]))
    page = write_validation(run, tested, scores, summary, parts | {"acceptance": judged})
    return _verdict(run, summary, parts, judged, page)


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

    predicted = subject.predict(run, raw, Using(settings.prediction, device, settings.trust))
    if subject.task != "segmentation":
        return predicted
    steps = subject.postprocessing if settings.postprocessing is None else settings.postprocessing
    return postprocess_all(run, raw, predicted, steps) if steps.steps else predicted


def _measured(run: Run, tested: Tested) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """Scores, their summary, and the parts of the validation that do not depend on criteria."""
    from medseg.workflows.training import score_all

    raw, settings = tested.raw, tested.settings
    scores = score_all(run, raw, tested.masks, tested.cases, settings.scoring)
    if not scores.rows:
        raise MedsegError("no case was scored", mend="see the errors above: every case failed")
    scores.rows += _invalid(tested, {row["case"] for row in scores.rows})
    numbers, ranges = _numbers(run, tested)
    outside = out_of_range(ranges, numbers)
    scores.facts = _facts(tested, outside, ranges)
    summary = scores.summary()
    parts = {
        "model": {"kind": tested.subject.kind, **tested.subject.about},
        "flow": _flow(run, tested, summary),
        "populations": populations(ranges, numbers, tested.subject.training.get("cases")),
        "leakage": _leakage(tested),
        "out_of_range": outside,
    }
    return scores, summary, parts


def _invalid(tested: Tested, scored: set[str]) -> list[dict[str, Any]]:
    """Rows without values for masks that could not be held against their reference: counted, not dropped."""
    raw, scoring = tested.raw, tested.settings.scoring
    if raw.cohort.task != "segmentation":
        return []
    lost = [case for case in tested.cases if case not in scored]
    found = [invalid_rows(raw.cohort.labels, scoring, c, raw.source(c)["patient"]) for c in lost]
    return [row for rows in found for row in rows]


def _numbers(run: Run, tested: Tested) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, float]]]:
    """Numbers of each test case, and the ranges of the training cases, by quantity."""
    from medseg.stages.fingerprint import fingerprint, read_fingerprint

    labels = tested.raw.cohort.labels
    values = tuple(label.value for label in labels)
    made = run.map(fingerprint, {case: tested.raw[case] for case in tested.cases}, label_values=values)
    names = {str(label.value): label.name for label in labels}
    numbers = {case: numbers_of(read_fingerprint(a), names) for case, a in made.items()}
    return numbers, ranges_of(tested.subject.training.get("ranges") or {}, names)


def _facts(tested: Tested, outside: Sequence[Mapping[str, Any]], ranges: Mapping[str, Any]) -> dict[str, Any]:
    """What the summary is made from beside the rows: groups of cases, quality scores, digests."""
    from medseg.core.values import digest
    from medseg.stages.predict import QUALITY
    from medseg.workflows.reporting import groups_of_source

    raw, flagged = tested.raw, {row["case"] for row in outside}
    groups = {case: groups_of_source(raw.source(case)) for case in tested.cases}
    if ranges and 0 < len(flagged) < len(tested.cases):
        for case in groups:
            groups[case] |= {"training range": "outside" if case in flagged else "within"}
    quality = {
        case: read_json(predicted / QUALITY)["quality"]
        for case, predicted in _predicted(tested).items()
        if (predicted / QUALITY).is_file()
    }
    lesions = _lesions(tested) if tested.raw.cohort.task == "segmentation" else {}
    digests = {"models": [m.digest for m in tested.subject.models], "cohort": digest(raw.cohort)}
    return {"groups": groups, "digests": digests} | ({"quality": quality} if quality else {}) | lesions


def _lesions(tested: Tested) -> dict[str, Any]:
    """Lesions one by one, and the model's candidates for them, where the metrics ask for lesions."""
    from medseg.core.stage import artifact_of
    from medseg.evaluation.lesion_list import asks_for_lesions, detections_of
    from medseg.imaging.image import read_mask
    from medseg.stages.predict import CANDIDATES
    from medseg.stages.score import read_lesions

    raw, scoring = tested.raw, tested.settings.scoring
    if not asks_for_lesions(scoring):
        return {}
    found: dict[str, list[dict[str, Any]]] = {}
    rows: list[dict[str, Any]] = []
    for case, folder in _predicted(tested).items():
        scored = folder.parent.parent / "score" / case
        rows += read_lesions(artifact_of(scored)) if scored.is_dir() else []
        if (folder / CANDIDATES).is_file():
            reference, patient = read_mask(raw[case] / "reference.nii.gz"), raw.source(case)["patient"]
            for label in raw.cohort.labels:
                told = read_json(folder / CANDIDATES).get(label.name, [])
                one = detections_of(told, reference, label.value, scoring, patient)
                found.setdefault(label.name, []).append(one)
    return {"lesion list": rows} | ({"detections": found} if found else {})


def _predicted(tested: Tested) -> dict[str, Path]:
    """The folders the model itself wrote, before mask steps."""
    return {case: a.path.parent.parent / "predict" / case for case, a in tested.masks.items()}


def _flow(run: Run, tested: Tested, summary: Mapping[str, Any]) -> dict[str, Any]:
    cohort, raw = tested.raw.cohort, tested.raw
    refused = [r for r in cohort.refused if r.status == "refused"]
    left = [Left("received", "refused", r.reason.splitlines()[0], r.case or r.series) for r in refused]
    for failure in run.failures:
        after = _AFTER.get(failure.stage, "tested")
        why = "refused" if after == "received" else f"failed in {failure.stage}"
        counted = "; counted as missed" if after == "tested" else ""
        left.append(Left(after, why, _reason(failure) + counted, failure.item))
    excluded = [case for case in raw if case not in set(tested.cases)]
    left += [Left("readable", "excluded", "the model was trained on this image", case) for case in excluded]
    named = {one.case for one in left}
    silent = [case for case in tested.cases if case not in tested.masks and case not in named]
    left += [
        Left("tested", "without a prediction", "no answer was handed in; counted as missed", case)
        for case in silent
    ]
    patients = {case.id: case.patient for case in cohort.cases}
    received = [*patients, *(r.case or r.series for r in refused)]
    return cohort_flow(list(dict.fromkeys(received)), left, patients, len(cohort.refused) - len(refused))


_AFTER = {"ingest": "received", "voxels": "readable", "postprocess": "predicted", "score": "predicted"}
"""Stage -> the step of the flow after which a case that failed in it is gone; elsewhere: ``tested``."""


def _reason(failure: Any) -> str:
    text = failure.public.splitlines()[0].removeprefix(f"case {failure.item}: ")
    return text or "no reason was given"


def _leakage(tested: Tested) -> dict[str, Any]:
    """Whether test cases were trained on; ``status``: ``none``, ``found``, ``possible`` or ``unchecked``."""
    seen, n = tested.seen, len(tested.raw)
    if seen is None:
        said = (
            "whether the model was trained on these images cannot be checked: the model keeps no digests of "
            "its training images, and no run of its training was named (training=RUN)"
        )
        return {"status": "unchecked", "images": [], "patients": [], "cases": n, "said": said}
    images = sorted(seen["image"])
    patients = sorted(set(seen["patient"]) - set(images))
    note = str(tested.subject.training.get("note", ""))
    how = f"voxel values compared by sha256, patients by their pseudonyms ({note})"
    if images:
        gone = " and were left out" if tested.settings.leakage == "exclude" else ""
        status, said = "found", f"{len(images)} of {n} images are exact copies of training images{gone}"
    elif patients:
        status = "possible"
        said = (
            f"no image is a copy of a training image, but {len(patients)} cases bear the pseudonym of a "
            "training patient: the same person, or two studies that number alike"
        )
    else:
        status, said = (
            "none",
            f"none of {n} images is a copy of a training image, and no patient is one of them",
        )
    found = {"status": status, "images": images, "patients": patients, "cases": n}
    return found | {"said": said, "how": how, "kept": tested.settings.leakage != "exclude"}


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
        *(_criterion_line(v) for v in judged),
        head,
        f"report: {page}",
    ]
    code = 1 if not passed else (3 if run.failures else 0)
    told = {"passed": passed, "criteria": list(judged), "summary": dict(summary), "report": str(page)}
    return Outcome(told, "\n".join(lines) + named_failures(run), code)


def _criterion_line(verdict: Mapping[str, Any]) -> str:
    value = "not measured" if verdict["value"] is None else f"{verdict['value']:.4g}"
    where = str(verdict["judged_at"]).replace("_", " ")
    return (
        f"  {'PASS' if verdict['passed'] else 'FAIL'}  {verdict['metric']} of {verdict['label']} "
        f"{verdict['criterion']}: {value} ({verdict.get('note') or where})"
    )
