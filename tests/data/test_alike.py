"""Near-duplicates: found by their thumbnails, kept together by the split."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medseg.core.errors import MedsegError
from medseg.data.alike import alike, group_alike, joined, thumbnail
from medseg.data.cohort import Cohort


def _smooth(rng: np.random.Generator, side: int) -> np.ndarray:
    knots = rng.random((6, 6))
    return np.kron(knots, np.ones((side // 6 + 1,) * 2))[:side, :side]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Twelve pictures: of the first, a brighter and a resized copy; of the fourth, a noisy one."""
    from PIL import Image

    rng = np.random.default_rng(0)
    base = [_smooth(rng, 48) for _ in range(9)]
    made = {f"p{i:02d}": b for i, b in enumerate(base)}
    made["q0"] = base[0] * 0.7 + 0.2
    made["q1"] = np.kron(base[0], np.ones((2, 2)))
    made["q2"] = np.clip(base[3] + rng.normal(0, 0.05, base[3].shape), 0, 1)
    lines = ["path,label_name"]
    for n, (name, array) in enumerate(made.items()):
        Image.fromarray((array * 255).astype(np.uint8)).save(tmp_path / f"{name}.png")
        lines.append(f"{name}.png,{'ab'[n % 2]}")
    (tmp_path / "labels.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_copies_end_under_one_patient_and_strangers_do_not(pictures):
    before = Cohort.open(pictures, quiet=True, ids="names")
    after = group_alike(before, 0.97, quiet=True)
    of = {case.id: case.patient for case in after.cases}
    assert of["p00"] == of["q0"] == of["q1"]
    assert of["p03"] == of["q2"]
    assert len(set(of.values())) == 9
    assert [c.but(patient="") for c in after.cases] == [c.but(patient="") for c in before.cases]


def test_no_split_comes_between_near_duplicates(pictures):
    cohort = group_alike(Cohort.open(pictures, quiet=True, ids="names"), 0.97, quiet=True)
    for seed in range(8):
        parts = cohort.split(test=0.3, folds=3, seed=seed)
        for part in (parts.test, *(fold.valid for fold in parts.folds)):
            assert len({"p00", "q0", "q1"} & set(part)) in (0, 3)
            assert len({"p03", "q2"} & set(part)) in (0, 2)


def test_who_was_one_patient_stays_one(pictures):
    cohort = Cohort.open(pictures, quiet=True, ids="names")
    cases = [c.but(patient="same") if c.id in ("p05", "q2") else c for c in cohort.cases]
    after = group_alike(cohort.but(cases=tuple(cases)), 0.97, quiet=True)
    of = {case.id: case.patient for case in after.cases}
    assert of["p05"] == of["q2"] == of["p03"]


def test_a_limit_that_joins_most_cases_is_refused(pictures):
    cohort = Cohort.open(pictures, quiet=True, ids="names")
    with pytest.raises(MedsegError, match="too much alike"):
        group_alike(cohort, 0.0001, quiet=True)


def test_a_thumbnail_is_blind_to_size_brightness_and_contrast():
    rng = np.random.default_rng(1)
    array = _smooth(rng, 64)[..., None]
    a, b = thumbnail(array), thumbnail(np.kron(array, np.ones((3, 3, 1))) * 5 + 100)
    assert len(a) == 256
    assert np.allclose(a, b, atol=1e-5)
    assert float(a @ a) == pytest.approx(1, abs=1e-5)
    assert len(thumbnail(rng.random((20, 30, 9)))) == 512


def test_box_means_keep_what_boxes_hold():
    array = np.arange(20 * 16, dtype=float).reshape(20, 16, 1)
    small = thumbnail(array)
    assert small.reshape(16, 16)[:, 0].argmax() == 15  # rows rise downwards, whatever the ratio of sizes


def test_pairs_are_those_above_the_limit_among_thumbnails_of_one_kind():
    a, b = np.eye(4, dtype=np.float32)[:2]
    near = (a + 0.1 * b) / np.linalg.norm(a + 0.1 * b)
    assert alike([a, b, near, np.ones(9, np.float32) / 3], 0.9) == [(0, 2)]


def test_chains_hold_together():
    assert joined(6, [(4, 5), (0, 1), (1, 4)]) == [0, 0, 2, 3, 0, 0]
    assert joined(3, []) == [0, 1, 2]


def test_the_groups_of_a_published_audit_are_found_again(shared_data):
    """Near-duplicates of breast ultrasound pictures, as the table's own column numbers them."""
    root = shared_data / "classification2d" / "busi"
    told = {c.id: c.patient for c in Cohort.open(root, quiet=True, ids="names").cases}
    silent = {"near_duplicate_group": "ignore"}
    cohort = Cohort.open(root, format="csv", quiet=True, ids="names", roles=silent)
    assert len({c.patient for c in cohort.cases}) == len(cohort) == 180
    found = {c.id: c.patient for c in group_alike(cohort, 0.97, quiet=True).cases}
    ids = sorted(told)
    pairs = [(a, b) for n, a in enumerate(ids) for b in ids[n + 1 :]]
    same = [p for p in pairs if told[p[0]] == told[p[1]]]
    again = [p for p in same if found[p[0]] == found[p[1]]]
    assert len(same) > 20
    assert len(again) >= 0.9 * len(same)


@pytest.mark.parametrize(
    ("table", "cases", "classes"),
    [
        ("classification2d/mednist", 1200, 6),
        ("classification2d/busi", 180, 3),
        ("classification3d/adrenal", 240, 2),
    ],
)
def test_tables_of_published_sets_are_read_as_they_are(shared_data, table, cases, classes):
    cohort = Cohort.open(shared_data / table, quiet=True)
    assert (len(cohort), len(cohort.classes), cohort.task) == (cases, classes, "classification")
    assert not cohort.multilabel and not cohort.refused
