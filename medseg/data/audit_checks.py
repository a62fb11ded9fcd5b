"""The questions an audit asks of a cohort: each a function from facts to findings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal

import numpy as np

from medseg.core.stage import Artifact
from medseg.core.values import Value
from medseg.core.words import names_nobody, shared_words, words_of
from medseg.data.audit_facts import Facts
from medseg.data.cohort import Cohort
from medseg.data.split import same_images

Severity = Literal["fix", "look"]

OUTLIER = 6.0
"""Distance from the median, in robust standard deviations, that is worth a look."""
FEW = 10
"""Below this number of cases nothing is called an outlier."""

_DECIDE = "mend the case as its message says, or leave it out"


class Finding(Value):
    """One thing found: ``fix`` must be mended before training, ``look`` wants a person's eye.

    `case` is empty when the finding is about the cohort as a whole.
    """

    severity: Severity
    case: str
    what: str
    evidence: str
    mend: str


def left_out(
    cohort: Cohort, ingested: Mapping[str, Artifact], failures: Mapping[str, str]
) -> Iterable[Finding]:
    """Cases that were found and are not among the ingested ones."""
    for row in cohort.refused:
        if row.status == "refused":
            yield _fix(row.case or row.series, "was refused when the data set was read", row.reason, _DECIDE)
    for case in cohort.cases:
        if case.id not in ingested:
            said = failures.get(case.id, "it has no finished folder in ingest/")
            evidence = "; ".join(line.strip() for line in said.splitlines())
            yield _fix(case.id, "was refused at ingest", evidence.removeprefix(f"case {case.id}: "), _DECIDE)


def copies(facts: Sequence[Facts], cohort: Cohort) -> Iterable[Finding]:
    """The same image twice: the same file, or the same voxels in another file."""
    pairs = set(same_images(cohort.cases))
    holders: dict[str, list[str]] = {}
    for fact in facts:
        for digest in set(fact.digests):
            holders.setdefault(digest, []).append(fact.case)
    pairs |= {tuple(ids) for ids in holders.values() if len(ids) > 1}
    patient_of = {case.id: case.patient for case in cohort.cases}
    for ids in sorted(pairs):
        patients = {patient_of[i] for i in ids}
        if len(patients) > 1:
            yield _fix(
                ids[0],
                "the same image stands under different patients",
                " = ".join(ids),
                "leave the copies out, or give them the same patient: a split would leak",
            )
        else:
            yield _look(
                ids[0], "the same image occurs more than once", " = ".join(ids), "leave the copies out"
            )


def _spacing(facts: Sequence[Facts], _: Cohort) -> Iterable[Finding]:
    if not facts:
        return
    bare = sum(not f.spacing_known for f in facts)
    if 0 < bare < len(facts):
        yield _look(
            "",
            "some images say how large their pixels are, others do not",
            f"{bare} of {len(facts)} are in pixels",
            "bring them to one scale, or leave one kind out: a pixel would count as 1 mm",
        )
    middle = np.median([f.spacing_mm for f in facts], axis=0)
    for fact in facts:
        ratio = np.array(fact.spacing_mm) / middle
        if ratio.max() > 3 or ratio.min() < 1 / 3:
            yield _look(
                fact.case,
                "the spacing is far from that of the others",
                f"{_mm(fact.spacing_mm)}, median {_mm(middle)}",
                "check the header; resampling to the plan's spacing will blur or invent detail here",
            )


def _shape(facts: Sequence[Facts], _: Cohort) -> Iterable[Finding]:
    extents = [np.array(f.shape) * np.array(f.spacing_mm) for f in facts]
    for fact, extent, far in zip(
        facts, extents, _outliers([float(np.prod(e)) for e in extents]), strict=True
    ):
        if far:
            yield _look(
                fact.case,
                "the field of view is far larger or smaller than that of the others",
                f"{_mm(extent)}; shape {fact.shape}; median {_mm(np.median(extents, axis=0))}",
                "check that it is the same kind of scan",
            )


def _channels(facts: Sequence[Facts], _: Cohort) -> Iterable[Finding]:
    for fact in facts:
        if len(set(fact.digests)) < len(fact.digests):
            yield _fix(
                fact.case,
                "two channels are the same image",
                f"{len(fact.digests)} channels, {len(set(fact.digests))} different images",
                "check which file belongs to which channel",
            )


def _orientation(facts: Sequence[Facts], _: Cohort) -> Iterable[Finding]:
    axes = Counter(f.axes for f in facts)
    if len(axes) > 1:
        yield _look(
            "",
            "the images are stored in different orientations",
            ", ".join(f"{a}: {n}" for a, n in axes.most_common()),
            "nothing to do: every image is turned to RAS when it is prepared",
        )


def _intensity(facts: Sequence[Facts], cohort: Cohort) -> Iterable[Finding]:
    for channel in cohort.channels:
        ranges = [f.intensity[channel][1] - f.intensity[channel][0] for f in facts if channel in f.intensity]
        decades = Counter(int(np.floor(np.log10(r))) for r in ranges if r > 0)
        if decades and max(decades) - min(decades) >= 2:
            counts = ", ".join(f"about 1e{d}: {n}" for d, n in sorted(decades.items()))
            yield _look(
                "",
                f"intensities of channel {channel} differ by orders of magnitude",
                f"range (1st to 99th percentile) by size: {counts} cases",
                "normalise each image by itself (zscore); a fixed window would fail",
            )


def _hounsfield(facts: Sequence[Facts], cohort: Cohort) -> Iterable[Finding]:
    for fact in facts:
        for channel, (low, high) in fact.intensity.items():
            ct = fact.modality == "CT" or channel.upper() == "CT"
            if ct and (low > 0 or high > 10000):
                yield _look(
                    fact.case,
                    "a CT whose values do not look like Hounsfield units",
                    f"1st to 99th percentile {low:.0f} to {high:.0f}",
                    "check that slope and intercept were applied when it was exported",
                )


def _no_reference(facts: Sequence[Facts], cohort: Cohort) -> Iterable[Finding]:
    lacking = [f for f in facts if f.voxels is None]
    if cohort.task == "segmentation" and len(lacking) < len(facts):
        for fact in lacking:
            yield _fix(fact.case, "has no reference, while others have one", "no reference.nii.gz", _DECIDE)
    for fact in facts:
        if fact.voxels is not None and not fact.voxels:
            yield _look(
                fact.case,
                "the reference is empty",
                "0 labelled voxels",
                "confirm that nothing is to be seen here; training takes it as a negative case",
            )


def _labels(facts: Sequence[Facts], cohort: Cohort) -> Iterable[Finding]:
    with_mask = [f for f in facts if f.voxels]
    for label in cohort.labels:
        without = [f for f in with_mask if not set(label.values) & set(f.voxels or {})]
        if with_mask and len(without) == len(with_mask):
            yield _fix(
                "",
                f"label {label.name} ({label.value}) occurs in no case",
                f"0 of {len(with_mask)} references hold it",
                "correct the label's value, or take it out of the configuration",
            )
        elif len(without) <= 0.1 * len(with_mask):
            for fact in without:
                yield _look(
                    fact.case,
                    f"lacks label {label.name}, which almost every other case has",
                    f"values {sorted(fact.voxels or {})}",
                    "check that it was not forgotten",
                )


def _volumes(facts: Sequence[Facts], cohort: Cohort) -> Iterable[Finding]:
    for label in cohort.labels:
        have = [f for f in facts if f.voxels and set(label.values) & set(f.voxels)]
        ml = [sum((f.voxels or {}).get(v, 0) for v in label.values) * f.voxel_ml for f in have]
        for fact, volume, far in zip(have, ml, _outliers(ml), strict=True):
            if far:
                yield _look(
                    fact.case,
                    f"the volume of {label.name} is far from that of the others",
                    f"{volume:.3g} ml, median {np.median(ml):.3g} ml",
                    "look at the reference",
                )


def _strays(facts: Sequence[Facts], cohort: Cohort) -> Iterable[Finding]:
    names = {label.value: label.name for label in cohort.labels}
    for fact in facts:
        for value, sizes in fact.strays.items():
            yield _look(
                fact.case,
                f"label {names.get(value, value)} has tiny stray components",
                f"components of {', '.join(map(str, sizes[:5]))} voxels beside one of {fact.largest[value]}",
                "remove them if they are slips of the brush (postprocessing: keep_largest, drop_below_ml)",
            )


def _patients(facts: Sequence[Facts], cohort: Cohort) -> Iterable[Finding]:
    several = {p: cases for p, cases in cohort.patients().items() if len(cases) > 1}
    if several:
        most = max(len(cases) for cases in several.values())
        yield _look(
            "",
            "some patients have more than one case",
            f"{len(several)} of {len(cohort.patients())} patients, up to {most} cases each",
            "nothing to do: splits keep a patient's cases together",
        )


def _classes(facts: Sequence[Facts], cohort: Cohort) -> Iterable[Finding]:
    if cohort.task != "classification":
        return
    counts = Counter(case.label_class for case in cohort.cases if case.label_class is not None)
    shown = ", ".join(f"{c}: {n}" for c, n in counts.most_common())
    if len(counts) < 2:
        yield _fix(
            "", "there are not two classes to tell apart", shown or "none", "check the column of the class"
        )
    elif min(counts.values()) < 0.1 * max(counts.values()):
        yield _look("", "the classes are very unequal in number", shown, "weigh the loss, and judge by AUROC")
    for case in cohort.cases:
        if case.label_class is None:
            yield _fix(case.id, "has no class", "the manifest's cell is empty", _DECIDE)


def _remarks(facts: Sequence[Facts], _: Cohort) -> Iterable[Finding]:
    """What ingest noted, once for each remark."""
    cases: dict[str, list[str]] = {}
    for fact in facts:
        for note in fact.notes:
            if not note.startswith("the reference is empty"):
                cases.setdefault(note, []).append(fact.case)
    for note, some in cases.items():
        more = f" and {len(some) - 3} more" if len(some) > 3 else ""
        yield _look("", note, f"{', '.join(some[:3])}{more}", "read the remark and decide")


def _names(_: Sequence[Facts], cohort: Cohort) -> Iterable[Finding]:
    """Case ids that may say who somebody is; words that most of them share are the study's."""
    ids = [case.id for case in cohort.cases]
    known = shared_words(ids) | {word for name in cohort.classes for word in words_of(name)}
    telling = [id for id in ids if not names_nobody(id, known)]
    if telling:
        yield _look(
            "",
            "case ids hold words, dates or long numbers that may say who somebody is",
            f"{len(telling)} of {len(ids)} ids",
            "if they do, hash them (cohort.ids=hashed), or give a table with study numbers",
        )


CHECKS: tuple[Callable[[Sequence[Facts], Cohort], Iterable[Finding]], ...] = (
    _spacing,
    _shape,
    _channels,
    _orientation,
    _intensity,
    _hounsfield,
    _no_reference,
    _labels,
    _volumes,
    _strays,
    _patients,
    _classes,
    _names,
    _remarks,
)


def _outliers(sizes: Sequence[float]) -> list[bool]:
    """Which positive sizes lie far from the median, on a logarithmic scale, by the median deviation."""
    if len(sizes) < FEW:
        return [False] * len(sizes)
    logs = np.log(np.maximum(sizes, 1e-12))
    off = np.abs(logs - np.median(logs))
    spread = max(1.4826 * float(np.median(off)), 0.05)
    return [bool(o > OUTLIER * spread) for o in off]


def _mm(lengths: Iterable[float]) -> str:
    return " x ".join(f"{v:.4g}" for v in lengths) + " mm"


def _fix(case: str, what: str, evidence: str, mend: str) -> Finding:
    return Finding(severity="fix", case=case, what=what, evidence=evidence, mend=mend)


def _look(case: str, what: str, evidence: str, mend: str) -> Finding:
    return Finding(severity="look", case=case, what=what, evidence=evidence, mend=mend)
