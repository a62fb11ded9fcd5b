"""Pictures from file to plan: colour when it is named, pixels that stay pixels, a plan in two dimensions."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image as Pillow

from medseg.core.errors import CaseError
from medseg.data.audit_checks import _spacing
from medseg.data.audit_facts import Facts
from medseg.data.cohort import Cohort, Ingesting
from medseg.data.fingerprint import CaseFingerprint, fingerprint
from medseg.data.planning import make_plan
from medseg.data.prepare import prepare
from medseg.data.reading import TakenIn, read_case_image, source_record, take_in
from medseg.imaging.dicom_policy import DicomPolicy
from medseg.imaging.grid import PIXELS, Grid
from medseg.imaging.image import Image, read_image, write_image
from tests.pictures import ROWS, region, write_picture

RGB = ("red", "green", "blue")
FRONTAL = np.array([[-1, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1.0]])
"""Columns to the patient's left, rows to the feet."""
COLOUR = np.random.default_rng(0).integers(0, 256, (12, 8, 3), dtype=np.uint8)


def taken(cohort: Cohort, number: int = 0) -> tuple[TakenIn, dict]:
    case = cohort.cases[number]
    found = take_in(case, cohort.channels, (), Ingesting())
    return found, source_record(case, found)


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    for name in ("red/a", "red/b", "blue/a", "blue/b"):
        file = tmp_path / "classes" / f"{name}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Pillow.fromarray(np.roll(COLOUR, len(name), axis=0)).save(file)
    return tmp_path / "classes"


def test_a_picture_in_colour_is_one_channel_unless_three_are_named(classes):
    one, record = taken(Cohort.open(classes))
    assert list(one.images) == ["image"]
    assert record["notes"] == [PIXELS, "colour given up: 100.0% of the pixels were not grey"]
    three, record = taken(Cohort.open(classes, channels=RGB))
    assert record["channels"] == list(RGB)
    assert record["notes"] == [PIXELS]
    assert not record["spacing_known"]
    found = np.stack([three.images[c].array[0, :, :, 0].T for c in RGB], axis=-1)
    assert np.array_equal(found, np.roll(COLOUR, len("blue/a"), axis=0))


def test_three_channels_may_stand_in_one_column_of_a_manifest(classes):
    (classes / "manifest.csv").write_text("image,class\nred/a.png,red\nblue/a.png,blue\n")
    three, _ = taken(Cohort.open(classes, channels=RGB))
    assert np.array_equal(three.images["green"].array[0, :, :, 0].T, np.roll(COLOUR[..., 1], 5, axis=0))


def test_two_channels_are_no_colours(classes):
    with pytest.raises(CaseError, match="another number of channels"):
        taken(Cohort.open(classes, channels=("red", "green")))


def test_a_model_of_three_channels_reads_a_picture_in_colour(classes, tmp_path):
    case = Cohort.open(classes).cases[0]
    assert read_case_image(case, RGB).array.shape == (3, 8, 12, 1)
    assert read_case_image(case, ("grey",)).array.shape == (1, 8, 12, 1)
    write_image(Image(np.ones((1, 8, 12, 1), np.float32), Grid.from_spacing((8, 12, 1))), tmp_path / "a.nii")
    with pytest.raises(CaseError, match="lacks a channel"):
        read_case_image(Cohort.open(tmp_path / "a.nii").cases[0], RGB)


def test_radiographs_and_ultrasound_become_cases_with_honest_sizes(tmp_path):
    write_picture(tmp_path / "a" / "dx.dcm", PixelSpacing=[0.2, 0.1], PatientOrientation=["L", "F"])
    write_picture(tmp_path / "b" / "bare.dcm")
    write_picture(tmp_path / "c" / "us.dcm", "US", COLOUR, SequenceOfUltrasoundRegions=[region()])
    cohort = Cohort.open(tmp_path)
    assert len(cohort) == 2
    assert "cohort.dicom.burned_in=take" in cohort.refused[0].reason
    records = {record["axes"]: record for _, record in (taken(cohort, n) for n in range(2))}
    assert records["LIP"]["spacing_mm"] == [0.1, 0.2, 1.0]
    assert records["LIP"]["spacing_known"]
    assert not records["LPS"]["spacing_known"]
    assert records["LPS"]["modality"] == "DX"
    (us,) = Cohort.open(tmp_path / "c", policy=DicomPolicy(burned_in="take"), channels=RGB).cases
    assert np.array_equal(read_case_image(us, RGB).array[..., 0], COLOUR.transpose(2, 1, 0))


def test_the_file_that_is_written_says_that_the_size_is_unknown(tmp_path):
    write_picture(tmp_path / "in" / "bare.dcm")
    found, _ = taken(Cohort.open(tmp_path / "in"))
    write_image(found.images["DX"], tmp_path / "image.nii.gz")
    stored = nib.load(tmp_path / "image.nii.gz")
    assert stored.shape == (4, 3, 1)  # type: ignore[attr-defined]
    assert stored.header.get_xyzt_units()[0] == "unknown"  # type: ignore[attr-defined]
    assert np.array_equal(read_image(tmp_path / "image.nii.gz").array[0, :, :, 0].T, ROWS)
    record = taken(Cohort.open(tmp_path / "image.nii.gz"))[1]
    assert not record["spacing_known"]
    assert record["notes"] == [PIXELS]


def _seen(known: bool, frontal: bool = True) -> CaseFingerprint:
    grid = Grid((64, 48, 1), FRONTAL if frontal else np.diag([-1.0, -1, 1, 1]), known)
    rng = np.random.default_rng(0)
    array = rng.normal(size=(1, *grid.shape)).astype(np.float32)
    mask = Image((array > 1).astype(np.uint8), grid)
    return fingerprint(Image(array, grid), mask, channels=("image",), label_values=(1,))


@pytest.mark.parametrize(
    ("known", "words"),
    [
        ([False, False], "in pixels: no image says how large its pixels are"),
        ([True, False], "1 of them do not say how large their pixels are"),
    ],
)
def test_a_plan_says_where_mm_are_pixels(known, words):
    cohort = Cohort(name="x", channels=("image",), cases=(), labels=())
    plan = make_plan([_seen(k) for k in known], cohort)
    assert words in plan.why["spacing_mm"]
    assert "pixels" not in make_plan([_seen(True)], cohort).why["spacing_mm"]


def test_views_of_every_plane_are_planned_and_prepared_in_two_dimensions():
    cohort = Cohort(name="x", channels=("image",), cases=(), labels=())
    seen = [_seen(False), _seen(False, frontal=False)]
    assert {f.shape for f in seen} == {(64, 48, 1)}
    plan = make_plan(seen, cohort)
    assert plan.dimensions == 2
    array = np.random.default_rng(0).normal(size=(1, 64, 48, 1)).astype(np.float32)
    picture = Image(array, Grid((64, 48, 1), FRONTAL))
    assert prepare(picture, plan.preparation()).array.shape == (1, 64, 48, 1)


def test_an_audit_asks_about_known_and_unknown_sizes_in_one_cohort():
    facts = [
        Facts(f"c{n}", (4, 3, 1), (1.0, 1.0, 1.0), "LPS", 0.001, "DX", {}, (), spacing_known=known)
        for n, known in enumerate((True, True, False))
    ]
    cohort = Cohort(name="x", channels=("image",), cases=())
    assert [f.evidence for f in _spacing(facts, cohort)] == ["1 of 3 are in pixels"]
    assert list(_spacing(facts[:2], cohort)) == []


def test_real_pictures_are_taken_as_they_are(shared_data):
    folder = shared_data / "classification2d" / "mednist"
    cohort = Cohort.open(folder)
    found, record = taken(cohort)
    stored = np.asarray(Pillow.open(cohort.cases[0].images["image"].files[0]))
    assert np.array_equal(found.images["image"].array[0, :, :, 0].T, stored)
    assert record["shape"] == [64, 64, 1]
    assert record["notes"] == [PIXELS]
