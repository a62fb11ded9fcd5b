"""Classes of a case, one or several: from the table to the split."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medseg.core.errors import CaseError, MedsegError
from medseg.data.classes import check_classes, class_text, classes_of, several_classes
from medseg.data.cohort import Cohort
from medseg.data.fingerprint import fingerprint
from medseg.data.plan import Intensity, Preparation
from medseg.data.planning import make_plan
from medseg.data.prepare import prepare, prepare_pair
from medseg.imaging.grid import Grid
from medseg.imaging.image import Image, write_image


def _table(folder: Path, rows: list[str], head: str) -> Path:
    rng = np.random.default_rng(0)
    for n in range(len(rows)):
        array = rng.normal(size=(1, 12, 12, 6)).astype(np.float32)
        write_image(Image(array, Grid.from_spacing((12, 12, 6))), folder / f"c{n}.nii.gz")
    lines = [head, *(f"c{n}.nii.gz,{row}" for n, row in enumerate(rows))]
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
    return folder / "manifest.csv"


def test_a_cell_names_one_class_several_or_none():
    assert classes_of("b; a;b") == ("a", "b")
    assert class_text("b; a") == "a;b"
    assert class_text(";") == ";" and classes_of(";") == ()
    assert class_text(" ") is None and class_text("a") == "a"
    assert several_classes(["a", None, ";"]) and not several_classes(["a", None])


def test_a_manifest_with_several_classes_a_case(tmp_path):
    file = _table(tmp_path, ["b;a", "a", ";", "c", "", "b"] * 2, "image,class")
    cohort = Cohort.from_csv(file, quiet=True)
    assert cohort.task == "classification"
    assert cohort.classes == ("a", "b", "c")
    assert cohort.multilabel
    assert [c.label_class for c in cohort.cases[:5]] == ["a;b", "a", ";", "c", None]
    parts = cohort.split(test=0, folds=2)
    for name in cohort.classes:  # each class is spread, alone or in company
        shares = [sum(name in classes_of(cohort[i].label_class) for i in fold.valid) for fold in parts.folds]
        assert min(shares) >= 1


def test_groups_join_patients(tmp_path):
    rows = ["a,p1,", "b,p2,7", "a,p3,7", "b,,8", "a,,8", "b,p3,"]
    cohort = Cohort.from_csv(_table(tmp_path, rows, "image,class,patient,near_duplicate_group"), quiet=True)
    of = [case.patient for case in cohort.cases]
    assert of[1] == of[2] == of[5]
    assert of[3] == of[4] == "group-8"
    assert len(set(of)) == 3


def test_a_column_called_label_is_the_class_unless_it_holds_files(tmp_path):
    cohort = Cohort.from_csv(_table(tmp_path, ["0", "1"], "path,label"), quiet=True)
    assert cohort.classes == ("0", "1")
    cohort = Cohort.from_csv(_table(tmp_path, ["m.nii.gz", "n.nii.gz"], "path,label"), quiet=True)
    assert cohort.classes == ()


def test_roles_rename_columns(tmp_path):
    file = _table(tmp_path, ["x,1", "y,1"], "scan,diagnosis,twin")
    cohort = Cohort.from_csv(file, quiet=True, roles={"scan": "image", "diagnosis": "class", "twin": "group"})
    assert cohort.classes == ("x", "y")
    assert len({case.patient for case in cohort.cases}) == 1


def _boxed() -> tuple[Image, Image]:
    """A large image with a small mask far from its middle."""
    grid = Grid.from_spacing((40, 30, 20), (1.0, 1.0, 2.0))
    mask = np.zeros((1, *grid.shape), np.uint8)
    mask[0, 5:11, 20:28, 12:16] = 3
    rng = np.random.default_rng(0)
    return Image(rng.normal(size=mask.shape).astype(np.float32), grid), Image(mask, grid)


def _of_region(region: str, channels=("MR",)) -> Preparation:
    return Preparation(
        channels=channels, spacing_mm=(1, 1, 2), intensity={c: Intensity(name="zscore") for c in channels},
        classes=("a", "b"), whole=(40, 30, 20), region=region, margin_mm=2.0,
    )  # fmt: skip


def test_the_foreground_of_a_mask_is_cut_out_with_its_margin():
    image, mask = _boxed()
    whole, _ = prepare_pair(image, mask, _of_region("image"))
    part, beside = prepare_pair(image, mask, _of_region("mask"))
    assert whole.grid.shape == (40, 30, 20)
    assert part.grid.shape == (10, 12, 6)
    assert beside is None
    corner = part.grid.to_mm(np.zeros(3))
    assert np.allclose(corner, image.grid.to_mm(np.array([3, 18, 11])))


def test_a_channel_may_be_the_mask():
    image, mask = _boxed()
    both = image.but(np.concatenate([image.array, mask.array.astype(np.float32)]))
    part = prepare(both, _of_region("where", ("MR", "where")))
    assert part.grid.shape == prepare(image, _of_region("mask"), mask).grid.shape


def test_an_image_that_is_a_mask_needs_no_other():
    image, mask = _boxed()
    itself = image.but((mask.array > 0).astype(np.float32) * 255)
    assert prepare(itself, _of_region("mask")).grid.shape == (10, 12, 6)


def test_without_a_mask_its_foreground_cannot_be_looked_at():
    image, mask = _boxed()
    with pytest.raises(CaseError, match="no mask was given"):
        prepare(image, _of_region("mask"))
    with pytest.raises(CaseError, match="empty"):
        prepare(image, _of_region("mask"), mask.but(np.zeros_like(mask.array)))


def _cohort(classes: list[str], **more):
    from types import SimpleNamespace

    named = tuple(sorted({n for c in classes for n in classes_of(c)}))
    facts = {"task": "classification", "channels": ("MR",), "labels": (), "classes": named, "cases": ()}
    return SimpleNamespace(**(facts | {"multilabel": several_classes(classes)} | more))


def _planned(arrays: list[np.ndarray], classes: list[str], **overrides):
    prints = [
        fingerprint(Image(a, Grid.from_spacing(a.shape[1:])), channels=["MR"], case=f"c{n}", label_class=c)
        for n, (a, c) in enumerate(zip(arrays, classes, strict=True))
    ]
    return make_plan(prints, _cohort(classes), overrides)


def _noise(n: int, shape=(1, 32, 32, 1), scale=255.0) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [np.rint(rng.random(shape) * scale).astype(np.float32) for _ in range(n)]


def test_pictures_of_8_bits_keep_one_scale_and_masks_stay_0_and_1():
    plan = _planned(_noise(6), ["a", "b"] * 3)
    assert plan.intensity["MR"] == Intensity(name="window_unit", settings={"low": 0.0, "high": 255.0})
    plan = _planned([np.where(a > 99, 255, 0) for a in _noise(6, (1, 24, 24, 24))], ["a", "b"] * 3)
    assert plan.intensity["MR"] == Intensity(name="binary", settings={"above": 127.5})
    plan = _planned(_noise(6, scale=4000.0), ["a", "b"] * 3)
    assert plan.intensity["MR"].name == "zscore"


def test_binary_images_are_prepared_as_0_and_1():
    array = np.where(np.random.default_rng(0).random((1, 12, 12, 12)) > 0.5, 255, 0).astype(np.float32)
    settings = _of_region("image").but(
        intensity={"MR": Intensity(name="binary", settings={"above": 127.5})}, spacing_mm=(1, 1, 1)
    )
    assert set(np.unique(prepare(Image(array, Grid.from_spacing((12, 12, 12))), settings).array)) == {0, 1}


def test_classes_of_unequal_size_are_balanced_with_a_reason():
    assert _planned(_noise(10), ["a", "b"] * 5).balance == "none"
    plan = _planned(_noise(10), ["a"] * 8 + ["b"] * 2)
    assert plan.balance == "sampling"
    assert "a 8, b 2" in plan.why["balance"]
    plan = _planned(_noise(10), ["a"] * 8 + ["b"] * 2, balance="loss")
    assert plan.class_weights == (0.625, 2.5)


def test_several_classes_a_case_weigh_their_positives():
    plan = _planned(_noise(12), ["a", "a;b", ";"] * 4)
    assert plan.multilabel
    assert plan.balance == "loss"
    assert plan.class_weights == (1.0, 2.0)


def test_more_time_makes_a_wider_classifier():
    wide, narrow = (
        _planned(_noise(6), ["a", "b"] * 3, budget_minutes=m).network_arguments["widen_factor"]
        for m in (600, 0.1)
    )
    assert wide > narrow


def test_the_plan_of_a_region_is_made_for_its_size():
    image, mask = _boxed()
    prints = [
        fingerprint(image, mask, channels=["MR"], case=f"c{n}", label_class="ab"[n % 2]) for n in range(4)
    ]
    whole = make_plan(prints, _cohort(["a", "b"]))
    part = make_plan(prints, _cohort(["a", "b"]), {"region": "mask", "region_margin_mm": 2.0})
    assert np.prod(part.patch) < np.prod(whole.patch) / 4
    assert part.preparation().region == "mask"


def _classed(folder: Path, rows: list[str]) -> Cohort:
    return Cohort.from_csv(_table(folder, rows, "image,patient,class"))


def test_there_must_be_two_classes_to_tell_apart(tmp_path, caplog):
    check_classes(_classed(tmp_path, ["p1,a", "p2,b", "p3,a", "p4,b", "p5,"]))
    assert not caplog.records
    with pytest.raises(MedsegError, match="only one class") as caught:
        check_classes(_classed(tmp_path, ["p1,a", "p2,a", "p3,"]))
    assert "2 cases of class a" in str(caught.value)
    with pytest.raises(MedsegError, match=r"no case .* has a class"):
        check_classes(Cohort.from_csv(_table(tmp_path, ["p1", "p2"], "image,patient")))


def test_a_finding_that_is_there_or_not_is_enough(tmp_path):
    check_classes(_classed(tmp_path, ["p1,effusion", "p2,;", "p3,effusion", "p4,;"]))
    with pytest.raises(MedsegError, match="only one class"):
        check_classes(_classed(tmp_path, ["p1,;", "p2,;"]))


def test_a_class_of_one_patient_is_named(tmp_path, caplog):
    check_classes(_classed(tmp_path, ["p1,rare", "p1,rare", "p2,b", "p3,a", "p4,b", "p5,a"]))
    assert "single patient: rare" in caplog.text


def test_a_region_that_no_case_has_is_refused_when_the_plan_is_made(tmp_path):
    cohort = _classed(tmp_path, ["p1,a", "p2,b"])
    rng = np.random.default_rng(0)
    image = Image(rng.normal(size=(1, 12, 12, 6)).astype(np.float32), Grid.from_spacing((12, 12, 6)))
    facts = [fingerprint(image, channels=("image",), label_class=name) for name in "ab"]
    with pytest.raises(MedsegError, match="no case has one"):
        make_plan(facts, cohort, {"region": "mask"})
