"""Split: by patient, even, deterministic, and closed to leaks."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medseg.core.errors import MedsegError
from medseg.core.values import digest
from medseg.data.cohort import Case, Cohort, Source, Split
from medseg.data.split import explicit_split


def cohort(sizes: list[int], classes: list[str] | None = None, place: str = "") -> Cohort:
    """Patients with these numbers of cases; `place` changes paths and content, and nothing else."""
    cases = []
    for patient, size in enumerate(sizes):
        for n in range(size):
            content = digest([place, patient, n])
            cases.append(
                Case(
                    id=f"c{patient}-{n}",
                    patient=f"p{patient}",
                    images={"image": Source(kind="nifti", files=(f"/{place}/{n}",), sha256=content)},
                    label_class=classes[patient] if classes else None,
                )
            )
    return Cohort(name="c", channels=("image",), cases=tuple(cases))


def patients_of(c: Cohort, ids: tuple[str, ...]) -> set[str]:
    return {c[i].patient for i in ids}


def check_whole(c: Cohort, split: Split) -> None:
    everyone = {case.id for case in c.cases}
    rest = everyone - set(split.test)
    for fold in split.folds:
        assert not set(fold.train) & set(fold.valid)
        assert set(fold.train) | set(fold.valid) == rest
        assert not patients_of(c, fold.train) & patients_of(c, fold.valid)
        assert not patients_of(c, fold.train) & patients_of(c, split.test)
    assert sorted(i for fold in split.folds for i in fold.valid) == sorted(rest)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 4), min_size=8, max_size=40), st.integers(2, 4), st.integers(0, 5))
def test_parts_are_disjoint_by_patient_and_cover_all(sizes: list[int], folds: int, seed: int) -> None:
    c = cohort(sizes)
    check_whole(c, c.split(test=0.2, folds=folds, seed=seed))


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 3), min_size=8, max_size=30), st.randoms())
def test_content_paths_and_order_do_not_change_who_goes_where(sizes: list[int], random: object) -> None:
    plain, changed = cohort(sizes), cohort(sizes, place="elsewhere")
    shuffled = list(changed.cases)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert changed.but(cases=tuple(shuffled)).split(folds=3) == plain.split(folds=3)


def test_another_seed_gives_another_split_and_the_same_seed_the_same() -> None:
    c = cohort([1] * 40)
    assert c.split(seed=1) == c.split(seed=1)
    assert c.split(seed=1).test != c.split(seed=2).test


def test_the_shares_are_kept() -> None:
    split = cohort([1] * 100).split(test=0.2, folds=5)
    assert len(split.test) == 20
    assert [len(fold.valid) for fold in split.folds] == [16] * 5


def test_classes_are_spread_evenly() -> None:
    c = cohort([1] * 100, classes=["rare" if n % 5 == 0 else "common" for n in range(100)])
    split = c.split(test=0.2, folds=4)
    assert Counter(c[i].label_class for i in split.test) == {"rare": 4, "common": 16}
    for fold in split.folds:
        assert Counter(c[i].label_class for i in fold.valid) == {"rare": 4, "common": 16}


def test_groups_are_spread_evenly_too() -> None:
    c = cohort([1] * 60)
    sited = tuple(case.but(groups={"site": "A" if n < 15 else "B"}) for n, case in enumerate(c.cases))
    c = c.but(cases=sited)
    split = c.split(test=0.2, folds=3)
    assert Counter(c[i].groups["site"] for i in split.test) == {"A": 3, "B": 9}


def test_a_single_fold_trains_on_everything_outside_the_test_part() -> None:
    c = cohort([2] * 10)
    split = c.split(test=0.2, folds=1)
    (fold,) = split.folds
    assert fold.valid == ()
    assert set(fold.train) | set(split.test) == {case.id for case in c.cases}
    assert c.split(test=0, folds=2).test == ()


def test_a_test_part_can_be_given_and_is_checked() -> None:
    c = cohort([2, 1, 1, 1])
    assert c.split(folds=2, test_ids=["c0-0", "c0-1"]).test == ("c0-0", "c0-1")
    with pytest.raises(MedsegError, match="one patient is in two parts") as error:
        c.split(folds=2, test_ids=["c0-0"])
    assert "c0-0 (test) and c0-1 (rest) of patient p0" in str(error.value)
    with pytest.raises(MedsegError, match="not in the cohort"):
        c.split(test_ids=["nobody"])


def test_one_patient_in_two_given_parts_is_refused_with_the_pairs() -> None:
    c = cohort([2, 2, 1])
    with pytest.raises(MedsegError, match="one patient is in two parts") as error:
        explicit_split(c, test=["c0-0"], folds=[["c0-1", "c1-0"], ["c1-1", "c2-0"]])
    assert error.value.case == "c0-0"
    assert "c0-0 (test) and c0-1 (fold 0)" in str(error.value)
    assert "c1-0 (fold 0) and c1-1 (fold 1)" in str(error.value)
    assert "mend" in str(error.value)
    good = explicit_split(c, test=["c2-0"], folds=[["c0-0", "c0-1"], ["c1-0", "c1-1"]])
    assert good.folds[0].train == ("c1-0", "c1-1")


def test_the_same_image_under_two_patients_is_a_leak() -> None:
    c = cohort([1, 1, 1])
    twin = c.cases[1].but(images=c.cases[0].images)
    with pytest.raises(MedsegError, match="the same image stands under different patients") as error:
        c.but(cases=(c.cases[0], twin, c.cases[2])).split()
    assert "c0-0 = c1-0" in str(error.value)


def test_more_folds_than_patients_and_no_cases_are_refused() -> None:
    with pytest.raises(MedsegError, match="more folds than patients"):
        cohort([3, 3]).split(folds=5)
    with pytest.raises(MedsegError, match="no case to split"):
        cohort([]).split()
    with pytest.raises(MedsegError, match="test share"):
        cohort([1]).split(test=1)


def test_hippocampus_sides_stay_together(shared_data: Path) -> None:
    c = Cohort.open(shared_data / "hippocampus")
    split = c.split(seed=0)
    check_whole(c, split)
    assert abs(len(split.test) - 40) <= 1  # whole subjects
    sides = {(int(i[-3:]) + 1) // 2 for i in split.test}
    assert not sides & {(int(i[-3:]) + 1) // 2 for i in split.folds[0].train}
