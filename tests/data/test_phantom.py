"""Phantoms: their voxel counts agree with 4/3 pi abc, their files with what a scanner would send."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Picture

from medseg.core.errors import MedsegError
from medseg.core.files import files_below, sha256_of
from medseg.data.phantom import (
    PHANTOM_LABELS,
    Phantom,
    draw_patient,
    read_truth,
    write_class_phantoms,
    write_phantoms,
)
from medseg.data.phantom_body import Ellipsoid, labelled
from medseg.imaging.deidentify import keyed_hash, project_key
from medseg.imaging.dicom_in import find_dicom, read_series
from medseg.imaging.dicom_seg import read_seg
from medseg.imaging.grid import Grid
from medseg.imaging.image import read_image, read_mask


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("MEDSEG_KEY", "for tests")


def counted_ml(phantom: Phantom) -> dict[str, float]:
    array = phantom.mask.array
    return {x.name: float((array == x.value).sum() * phantom.mask.grid.voxel_ml) for x in PHANTOM_LABELS}


def digests(root: Path) -> dict[str, str]:
    return {str(f.relative_to(root)): sha256_of(f) for f in files_below(root)}


def test_an_ellipsoid_has_the_volume_of_the_formula():
    body = Ellipsoid((3, -2, 1), (20, 30, 25), 100, 1, turn=0.4)
    assert body.volume_ml == pytest.approx(4 / 3 * math.pi * 20 * 30 * 25 / 1000)
    grid = Grid((80, 80, 80), np.array([[1, 0, 0, -40], [0, 1, 0, -40], [0, 0, 1, -40], [0, 0, 0, 1.0]]))
    mask = labelled((body,), grid)
    assert int(mask.array.sum()) / 1000 == pytest.approx(body.volume_ml, rel=2e-3)


def test_depth_is_the_distance_to_the_surface_of_a_sphere():
    ball = Ellipsoid((1, 2, 3), (10, 10, 10), 0)
    points = np.array([[1, 2, 3 + r] for r in (2.0, 9.0, 10.0, 14.0)])
    assert ball.depth_mm(points) == pytest.approx([8, 1, 0, -4])


@pytest.mark.parametrize("number", range(6))
def test_voxel_counts_agree_with_the_closed_form(number):
    phantom = draw_patient(1, number)
    counted = counted_ml(phantom)
    for organ in ("liver", "spleen"):
        assert counted[organ] == pytest.approx(phantom.volumes_ml[organ], rel=0.02)
    assert counted["lesion"] == pytest.approx(phantom.volumes_ml["lesion"], rel=0.035)


@pytest.mark.parametrize("number", range(4))
def test_nothing_is_cut_off_at_the_edge_of_the_image(number):
    mask = draw_patient(2, number).mask.array[0]
    inner = mask[1:-1, 1:-1, 1:-1]
    assert np.count_nonzero(inner) == np.count_nonzero(mask)


def test_the_lesion_lies_inside_the_liver():
    liver, _, lesion = (b for b in draw_patient(3, 0).bodies if b.value)
    surface = np.random.default_rng(0).normal(size=(500, 3))
    surface *= np.array(lesion.radii_mm) / np.linalg.norm(surface, axis=1, keepdims=True)
    assert (liver.depth_mm(surface + np.array(lesion.centre_mm)) > 3).all()


def test_patients_differ_in_orientation_spacing_shape_and_volume():
    some = [draw_patient(0, number) for number in range(4)]
    assert {p.orientation for p in some} == {"axial", "oblique", "sagittal"}
    assert {p.image.grid.axis_codes for p in some} == {"LPS", "PIR"}
    assert len({p.image.grid.spacing_mm for p in some}) == 4
    assert all(p.image.grid.spacing_mm[2] > p.image.grid.spacing_mm[0] for p in some)
    assert len({round(p.volumes_ml["liver"], 3) for p in some}) == 4


def test_the_organs_have_their_hounsfield_units_and_the_image_has_noise():
    phantom = draw_patient(0, 0)
    image, mask = phantom.image.array, phantom.mask.array
    liver, spleen, lesion = (image[mask == label.value].mean() for label in PHANTOM_LABELS)
    assert 85 < liver < 120
    assert 115 < spleen < 155
    assert 30 < lesion < 75
    assert image.min() < -950
    assert image.max() > 300
    assert 5 < image[mask == 2].std() < 40


def test_without_lesion_the_volume_is_zero():
    phantom = draw_patient(0, 0, lesions=0)
    assert phantom.volumes_ml["lesion"] == 0
    assert not (phantom.mask.array == 3).any()


def test_dicom_phantoms_are_found_read_and_matched_with_the_truth(tmp_path):
    labels = write_phantoms(tmp_path, 4, seed=5, size="tiny")
    assert labels == PHANTOM_LABELS
    found = find_dicom(tmp_path)
    truth = read_truth(tmp_path)
    assert len(found.series) == len(found.segs) == 4
    for series in found.series:
        own = [seg for seg in found.segs if seg.belongs_to(series)]
        assert len(own) == 1
        mask = read_seg(own[0].file, series.grid, labels=labels, frame_of_reference=series.frame_of_reference)
        volumes = truth[series.uid_hash]
        assert volumes == truth[keyed_hash(series.patient_key, project_key())]
        for label in labels[:2]:
            counted = float((mask.array == label.value).sum() * mask.grid.voxel_ml)
            assert counted == pytest.approx(volumes[label.name], rel=0.05)


def test_a_dicom_phantom_is_what_was_drawn(tmp_path):
    write_phantoms(tmp_path, 2, seed=5, size="tiny")
    drawn = draw_patient(5, 1, "tiny")
    found = find_dicom(tmp_path / "patient002")
    image = read_series(found.series[0])
    assert image.grid.matches(drawn.image.grid)
    assert np.array_equal(image.array, drawn.image.array)
    mask = read_seg(found.segs[0].file, image.grid, labels=PHANTOM_LABELS)
    assert np.array_equal(mask.array, drawn.mask.array)


@pytest.mark.parametrize("form", ["dicom", "msd", "nifti"])
def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path, form):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_phantoms(tmp_path / name, 2, seed=seed, format=form, size="tiny")
    assert digests(tmp_path / "a") == digests(tmp_path / "b")
    same = digests(tmp_path / "a").items() & digests(tmp_path / "c").items()
    assert {name for name, _ in same} <= {"dataset.json"}


def test_an_msd_set_describes_itself(tmp_path):
    write_phantoms(tmp_path, 3, format="msd", size="tiny", channels=2)
    said = json.loads((tmp_path / "dataset.json").read_text())
    assert said["labels"] == {"0": "background", "1": "liver", "2": "spleen", "3": "lesion"}
    assert said["numTraining"] == len(said["training"]) == 3
    for pair in said["training"]:
        image, mask = read_image(tmp_path / pair["image"]), read_mask(tmp_path / pair["label"])
        assert image.array.shape[0] == 2
        assert image.grid.matches(mask.grid)
    assert set(read_truth(tmp_path)) == {"patient001", "patient002", "patient003"}


def test_class_phantoms_show_as_many_lesions_as_their_class_says(tmp_path):
    names = write_class_phantoms(tmp_path, 6, classes=3)
    rows = list(csv.DictReader((tmp_path / "manifest.csv").read_text().splitlines()))
    assert [row["class"] for row in rows] == [*names, *names]
    assert len({row["patient"] for row in rows}) == 6
    grey = np.asarray(Picture.open(tmp_path / rows[0]["image"]))
    assert grey.dtype == np.uint8
    assert grey.ndim == 2
    write_class_phantoms(tmp_path / "volumes", 4, format="nifti", size="tiny")
    assert read_image(tmp_path / "volumes" / "images" / "case0001.nii.gz").grid.axis_codes == "LPS"


def test_what_cannot_be_written_is_refused(tmp_path):
    with pytest.raises(MedsegError, match="cannot be written"):
        write_phantoms(tmp_path, 2, format="dicom", channels=2)
    with pytest.raises(MedsegError, match="2 to 4 classes"):
        write_class_phantoms(tmp_path, 2, classes=7)
