"""Stage ingest: DICOM and pictures through the door; NIfTI faults are in tests/data/test_bad_input.py."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from medseg.core.files import read_json
from medseg.core.run import Results, Run
from medseg.data.cohort import Cohort, Ingesting
from medseg.data.ingested import read_ingested
from medseg.data.phantom import write_phantoms
from medseg.data.reading import read_case_image
from medseg.imaging.image import read_image
from medseg.stages.ingest import ingest


@pytest.fixture(autouse=True)
def _own_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDSEG_KEY", "a key for tests")


def taken_in(cohort: Cohort, folder: Path, settings: Ingesting | None = None) -> Results:
    run = Run(folder, quiet=True)
    return run.map(
        ingest,
        {case.id: case for case in cohort.cases},
        channels=cohort.channels,
        labels=cohort.labels,
        settings=settings or Ingesting(),
    )


def test_dicom_phantoms_come_through_with_their_labels(tmp_path: Path) -> None:
    known = write_phantoms(tmp_path / "dicom", 3, seed=1, format="dicom", size="tiny")
    cohort = Cohort.open(tmp_path / "dicom", labels=known)
    made = taken_in(cohort, tmp_path / "run")
    assert len(made) == 3
    for case, artifact in made.items():
        there = read_ingested(artifact.path)
        assert there.mask is not None
        assert there.mask.grid.matches(there.image.grid)
        assert set(np.unique(there.mask.array)) <= {0, *(label.value for label in known)}
        assert there.source["modality"] == "CT"
        assert there.source["case"] == case
        assert np.array_equal(there.image.array, read_case_image(cohort[case], ("any name",)).array)


def test_dicom_and_nifti_phantoms_hold_the_same_organs(tmp_path: Path) -> None:
    known = write_phantoms(tmp_path / "dicom", 2, seed=5, format="dicom", size="tiny")
    write_phantoms(tmp_path / "msd", 2, seed=5, format="msd", size="tiny")
    volumes = []
    for name in ("dicom", "msd"):
        cohort = Cohort.open(tmp_path / name, labels=known)
        made = taken_in(cohort, tmp_path / f"run_{name}")
        voxels = [read_json(a / "source.json")["label_voxels"] for a in made.values()]
        volumes.append(sorted(v["1"] for v in voxels))
    assert volumes[0] == volumes[1]


def test_a_series_with_two_segs_is_refused_and_one_without_is_skipped(tmp_path: Path) -> None:
    known = write_phantoms(tmp_path, 3, seed=2, format="dicom", size="tiny")
    segs = sorted(tmp_path.rglob("seg.dcm"))
    shutil.copy(segs[0], segs[0].with_name("again.dcm"))
    segs[1].unlink()
    cohort = Cohort.open(tmp_path, labels=known)
    assert len(cohort) == 1
    reasons = sorted((r.status, r.reason.split(";")[0]) for r in cohort.refused if r.series != "-")
    assert [status for status, _ in reasons] == ["refused", "skipped"]
    assert "hold the same label" in reasons[0][1]
    assert "to which no reference refers" in reasons[1][1]
    assert len(Cohort.open(tmp_path, labels=known, need_reference=False)) == 2


def test_a_seg_without_its_series_is_refused(tmp_path: Path) -> None:
    write_phantoms(tmp_path, 2, seed=2, format="dicom", size="tiny")
    shutil.rmtree(sorted(tmp_path.rglob("seg.dcm"))[0].parent / "ct")
    cohort = Cohort.open(tmp_path)
    assert len(cohort) == 1
    assert any("whose image series is not here" in r.reason for r in cohort.refused)


def test_another_key_gives_other_ids_of_the_same_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = write_phantoms(tmp_path, 4, seed=2, format="dicom", size="tiny")
    one = Cohort.open(tmp_path, labels=known)
    monkeypatch.setenv("MEDSEG_KEY", "another key")
    other = Cohort.open(tmp_path, labels=known)
    assert not {case.id for case in one.cases} & {case.id for case in other.cases}
    images = [{case.images["CT"].sha256 for case in c.cases} for c in (one, other)]
    assert images[0] == images[1]


def test_labels_of_dicom_seg_keep_their_coded_terms_and_colours(tmp_path: Path) -> None:
    known = write_phantoms(tmp_path, 2, seed=2, format="dicom", size="tiny")
    assert [x.type for x in Cohort.open(tmp_path).labels] == [x.type for x in known]
    named = Cohort.open(tmp_path, labels={x.name: x.value for x in known}).labels
    assert [(x.name, x.value, x.category, x.type) for x in named] == [
        (x.name, x.value, x.category, x.type) for x in known
    ]
    for mine, drawn in zip(named, known, strict=True):
        pairs = [(int(mine.colour[i : i + 2], 16), int(drawn.colour[i : i + 2], 16)) for i in (1, 3, 5)]
        assert all(abs(a - b) <= 2 for a, b in pairs)


def test_radiographs_with_grey_masks_need_a_threshold(shared_data: Path, tmp_path: Path) -> None:
    cohort = Cohort.open(shared_data / "segmentation2d" / "cxr_montgomery", labels="lung=1")
    cohort = cohort.subset([case.id for case in cohort.cases[:2]])
    refused = taken_in(cohort, tmp_path)
    assert not refused
    assert all("ingest.label_threshold=127" in f.message for f in refused.failed.values())
    made = taken_in(cohort, tmp_path, Ingesting(label_threshold=127))
    there = read_ingested(next(iter(made.values())).path)
    assert there.image.grid.shape == (512, 512, 1)
    assert there.mask is not None
    assert 0.1 < float(there.mask.array.mean()) < 0.5


def test_a_real_dicom_series_equals_its_reference_volume(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "dicom" / "mr_study1_hippocrop"
    made = taken_in(Cohort.open(folder), tmp_path)
    (artifact,) = made.values()
    ours = read_image(artifact / "image.nii.gz")
    theirs = read_image(next((folder / "ref").glob("*.nii.gz")))
    assert sorted(ours.grid.shape) == sorted(theirs.grid.shape)
    assert float(ours.array.sum()) == pytest.approx(float(theirs.array.sum()))
    assert ours.grid.voxel_ml == pytest.approx(theirs.grid.voxel_ml, rel=1e-5)


def test_one_changed_case_is_the_only_one_made_again(tmp_path: Path) -> None:
    known = write_phantoms(tmp_path / "msd", 3, seed=7, format="msd", size="tiny")
    taken_in(Cohort.open(tmp_path / "msd", labels=known), tmp_path / "run")
    write_phantoms(tmp_path / "new", 4, seed=8, format="msd", size="tiny")
    for kind in ("imagesTr", "labelsTr"):
        shutil.copy(
            tmp_path / "new" / kind / "patient004.nii.gz", tmp_path / "msd" / kind / "patient002.nii.gz"
        )
    again = taken_in(Cohort.open(tmp_path / "msd", labels=known), tmp_path / "run")
    assert list(again.made) == ["patient002"]
    assert sorted(again.kept) == ["patient001", "patient003"]
    assert again.made["patient002"] == "changed: item"
