"""What a validation found: scores, flow, populations, and whether any of it was trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medseg.core.errors import MedsegError
from medseg.core.files import read_json
from medseg.core.run import Run
from medseg.core.stage import Artifact
from medseg.data.pairing import NO_IMAGE
from medseg.data.review import EXCLUDED
from medseg.evaluation.flow import Left, cohort_flow
from medseg.evaluation.pairs import invalid_rows
from medseg.evaluation.populations import numbers_of, out_of_range, populations, ranges_of
from medseg.workflows.journey import Ingested
from medseg.workflows.subjects import Subject

if TYPE_CHECKING:
    from medseg.workflows.validating import ValidateSettings


@dataclass(frozen=True)
class Tested:
    """Everything a validation found, before it is written down."""

    subject: Subject
    raw: Ingested
    cases: tuple[str, ...]
    seen: Mapping[str, Sequence[str]] | None
    masks: Mapping[str, Artifact]
    settings: ValidateSettings
    marked: Mapping[str, str] = field(default_factory=dict)
    """Cases that a reader left out before they were read, with their patients."""


def measured(run: Run, tested: Tested) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """Scores, their summary, and the parts of the validation that do not depend on criteria."""
    from medseg.evaluation.scoring import read_rows
    from medseg.workflows.training import score_all

    raw, settings = tested.raw, tested.settings
    scores = score_all(run, raw, tested.masks, tested.cases, settings.scoring)
    if not scores.rows:
        raise MedsegError("no case was scored", mend="see the errors above: every case failed")
    scores.rows += _invalid(tested, {row["case"] for row in scores.rows})
    scores.to_csv(run.root / "scores.csv")
    scores.rows = read_rows(run.root / "scores.csv")  # what follows is made from the table, digit by digit
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
    refused = [r for r in cohort.refused if r.status == "refused" and NO_IMAGE not in r.reason]
    aside = [r for r in cohort.refused if r.status == "skipped" and r.case in tested.marked]
    left = [Left("received", "refused", r.reason.splitlines()[0], r.case or r.series) for r in refused]
    left += [Left("received", "excluded", EXCLUDED, case) for case in tested.marked]
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
    patients = {case.id: case.patient for case in cohort.cases} | dict(tested.marked)
    received = [*patients, *(r.case or r.series for r in refused)]
    skipped = len(cohort.refused) - len(refused) - len(aside)
    return cohort_flow(list(dict.fromkeys(received)), left, patients, skipped)


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
