"""Who trains and who judges: by patient, stratified, and the same every time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from medseg.core.errors import MedsegError
from medseg.core.values import digest
from medseg.data.classes import classes_of
from medseg.data.cohort import Case, Cohort, Fold, Split

MOST_VALUES = 12
"""A group with more values than this (an age, a voxel count) is no stratum."""


@dataclass(frozen=True)
class _Patient:
    """One patient's cases, the strata they lie in, and a place in line."""

    ids: tuple[str, ...]
    strata: frozenset[str]
    place: str


def split(
    cohort: Cohort,
    test: float = 0.2,
    folds: int = 5,
    seed: int = 0,
    test_ids: Collection[str] | None = None,
) -> Split:
    """Lock a test part away and cut the rest into folds; a patient is never in two parts.

    Classes and groups are spread evenly. The result depends on the seed and the case ids, not on
    paths, on the order of the cases or on their content: a corrected image leaves everybody in place.

    Parameters
    ----------
    test : float
        Share of the cases in the test part, 0 for none.
    folds : int
        Folds over the rest. With 1 there is a single fold that trains on all of it and is judged
        on nothing (``valid`` is empty): the test part judges.
    seed : int
        Another seed, another split.
    test_ids : collection of str, optional
        The test part, given case by case; `test` is not used then.

    Raises
    ------
    MedsegError
        No cases, more folds than patients, a patient in two parts, an unknown case in `test_ids`,
        or the same image under two patients.
    """
    check_leaks(cohort)
    patients = _in_line(cohort, seed)
    if test_ids is None:
        locked, rest = _cut(patients, test)
    else:
        check_parts(cohort, {"test": test_ids, "rest": {c.id for c in cohort.cases} - set(test_ids)})
        given = set(test_ids)
        locked = [p for p in patients if given & set(p.ids)]
        rest = _without(patients, locked)
    _check_enough(rest, folds, len(cohort))
    return Split(test=_ids(locked), folds=tuple(_folds(rest, folds)), seed=seed)


def explicit_split(
    cohort: Cohort, test: Collection[str], folds: Sequence[Collection[str]], seed: int = 0
) -> Split:
    """The split given case by case: the test part, and the part each fold is judged on.

    Raises
    ------
    MedsegError
        A patient in two parts (the pairs are listed), a case in two parts, or an unknown case.
    """
    check_leaks(cohort)
    parts = {"test": test} | {f"fold {i}": ids for i, ids in enumerate(folds)}
    check_parts(cohort, parts)
    rest = sorted({i for ids in folds for i in ids})
    made = [Fold(train=tuple(i for i in rest if i not in set(v)), valid=tuple(sorted(v))) for v in folds]
    return Split(test=tuple(sorted(test)), folds=tuple(made), seed=seed)


def check_parts(cohort: Cohort, parts: Mapping[str, Collection[str]]) -> None:
    """Refuse parts that share a patient or a case, or name a case that is not there.

    Raises
    ------
    MedsegError
        With the pairs of cases, their parts, and the patient they share.
    """
    known = {case.id: case.patient for case in cohort.cases}
    unknown = sorted({i for ids in parts.values() for i in ids} - set(known))
    if unknown:
        raise MedsegError(
            "the split names cases that are not in the cohort",
            case=unknown[0],
            evidence=_few(unknown),
            mend="correct the ids, or look in ingest.csv whether the case was refused",
        )
    pairs = _shared(parts, known)
    if pairs:
        raise MedsegError(
            "one patient is in two parts of the split",
            case=pairs[0].split(" ", 1)[0],
            evidence=_few(pairs),
            mend="put all cases of a patient into the same part",
        )


def check_leaks(cohort: Cohort) -> None:
    """Refuse a cohort in which the same image belongs to two patients.

    Raises
    ------
    MedsegError
        With the case ids that share an image, byte for byte.
    """
    pairs = same_images(cohort.cases)
    leaks = [ids for ids in pairs if len({cohort[i].patient for i in ids}) > 1]
    if leaks:
        raise MedsegError(
            "the same image stands under different patients: a split would leak",
            case=leaks[0][0],
            evidence=_few([" = ".join(ids) for ids in leaks]),
            mend="leave the copies out, or give them the same patient",
        )


def same_images(cases: Iterable[Case]) -> list[tuple[str, ...]]:
    """Ids of cases that hold the same image file, byte for byte; a tuple for each such image."""
    holders: dict[str, list[str]] = {}
    for case in cases:
        for sha256 in {source.sha256 for source in case.images.values()}:
            holders.setdefault(sha256, []).append(case.id)
    return sorted({tuple(ids) for ids in holders.values() if len(ids) > 1})


def _in_line(cohort: Cohort, seed: int) -> list[_Patient]:
    """Patients in the order of a seeded digest of their first case id: a changed image moves nobody."""
    useful = _useful_strata(cohort)
    found = []
    for cases in cohort.patients().values():
        ids = tuple(sorted(case.id for case in cases))
        strata = frozenset(s for case in cases for s in _strata(case) if s in useful)
        found.append(_Patient(ids, strata, digest([seed, ids[0]])))
    return sorted(found, key=lambda patient: patient.place)


def _strata(case: Case) -> list[str]:
    named = [f"{k}={v}" for k, v in case.groups.items()]
    return [*named, *(f"class={name}" for name in classes_of(case.label_class))]


def _useful_strata(cohort: Cohort) -> set[str]:
    seen = {s for case in cohort.cases for s in _strata(case)}
    values = Counter(s.partition("=")[0] for s in seen)
    return {s for s in seen if 1 < values[s.partition("=")[0]] <= MOST_VALUES}


def _cut(patients: list[_Patient], share: float) -> tuple[list[_Patient], list[_Patient]]:
    if not 0 <= share < 1:
        raise MedsegError("the test share must lie from 0 to below 1", evidence=f"test = {share}")
    if share == 0:
        return [], patients
    locked, rest = _deal(patients, [share, 1 - share])
    return locked, rest


def _folds(patients: list[_Patient], n: int) -> Iterable[Fold]:
    if n == 1:
        yield Fold(train=_ids(patients), valid=())
        return
    for part in _deal(patients, [1 / n] * n):
        judged = _ids(part)
        yield Fold(train=_ids(_without(patients, part)), valid=judged)


def _deal(patients: list[_Patient], shares: list[float]) -> list[list[_Patient]]:
    """Deal patients to parts: the rarest stratum first, each to the part that lacks it most.

    This is the iterative stratification of Sechidis et al. (2011), with whole patients as the unit.
    """
    size = sum(len(p.ids) for p in patients)
    lack = [{"": share * size} for share in shares]
    for stratum, total in _totals(patients).items():
        for part, share in zip(lack, shares, strict=True):
            part[stratum] = share * total
    parts: list[list[_Patient]] = [[] for _ in shares]
    for patient, first in _rarest_first(patients):
        best = max(range(len(shares)), key=lambda i: (*_need(lack[i], patient, first), -i))
        parts[best].append(patient)
        for stratum in ("", *patient.strata):
            lack[best][stratum] -= len(patient.ids)
    return parts


def _need(lack: Mapping[str, float], patient: _Patient, first: str) -> tuple[float, ...]:
    """How much a part lacks what the patient brings; rounded, so that equal needs tie on any machine."""
    needs = (lack[first], sum(lack[s] for s in patient.strata), lack[""])
    return tuple(round(n, 9) for n in needs)


def _rarest_first(patients: list[_Patient]) -> Iterable[tuple[_Patient, str]]:
    """Patients with the stratum they are dealt for; patients of the rarest stratum come first."""
    left = list(patients)
    while left:
        totals = _totals(left)
        rarest = min(totals, key=lambda s: (totals[s], s)) if totals else ""
        now = [p for p in left if rarest in p.strata] if rarest else left
        yield from ((p, rarest) for p in now)
        left = _without(left, now)


def _totals(patients: Iterable[_Patient]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for patient in patients:
        for stratum in patient.strata:
            counts[stratum] += len(patient.ids)
    return counts


def _shared(parts: Mapping[str, Collection[str]], patient_of: Mapping[str, str]) -> list[str]:
    """``case (part) and case (part)`` for each patient found in two parts."""
    first: dict[str, tuple[str, str]] = {}
    pairs = []
    for part, ids in parts.items():
        for case in sorted(ids):
            other, where = first.setdefault(patient_of[case], (case, part))
            if where != part:
                pairs.append(f"{other} ({where}) and {case} ({part}) of patient {patient_of[case]}")
    return pairs


def _check_enough(rest: list[_Patient], folds: int, cases: int) -> None:
    if not cases:
        raise MedsegError("there is no case to split", mend="look in ingest.csv why the cases were refused")
    if folds < 1 or len(rest) < folds:
        raise MedsegError(
            "there are more folds than patients",
            evidence=f"{folds} folds, {len(rest)} patients outside the test part",
            mend="use fewer folds, or a smaller test part",
        )


def _without(patients: list[_Patient], some: Iterable[_Patient]) -> list[_Patient]:
    out = set(some)
    return [p for p in patients if p not in out]


def _ids(patients: Iterable[_Patient]) -> tuple[str, ...]:
    return tuple(sorted(i for patient in patients for i in patient.ids))


def _few(items: list[str], limit: int = 10) -> str:
    more = f" and {len(items) - limit} more" if len(items) > limit else ""
    return "; ".join(items[:limit]) + more
