"""Cohort: the manifest of a study, from whatever lies there."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from medseg.core.errors import MedsegError
from medseg.core.files import write_json
from medseg.data.cohort import Case, Cohort, Source
from medseg.imaging.grid import Grid
from medseg.imaging.image import Image, write_image
from medseg.imaging.labels import labels

MakeMsd = Callable[..., Path]
GRID = Grid.from_spacing((6, 7, 8))


def picture(seed: int, channels: int = 1) -> Image:
    values = np.random.default_rng(seed).normal(size=(channels, *GRID.shape)).astype(np.float32)
    return Image(values, GRID)


def mask(value: int = 1) -> Image:
    array = np.zeros((1, *GRID.shape), np.uint8)
    array[0, 2:4, 2:4, 2:4] = value
    return Image(array, GRID)


def png(file: Path, seed: int) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(0, 255, (9, 12), dtype=np.uint8)
    Pillow.fromarray(values).save(file)


def rows(file: Path, content: list[dict[str, str]]) -> Path:
    with file.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(content[0]))
        writer.writeheader()
        writer.writerows(content)
    return file


def test_an_msd_set_names_its_labels_and_channels(msd: MakeMsd) -> None:
    cohort = Cohort.open(msd())
    assert [label.name for label in cohort.labels] == ["organ"]
    assert cohort.channels == ("CT",)
    assert [case.id for case in cohort.cases] == ["a_1", "a_2", "a_3"]
    assert cohort["a_2"].reference is not None
    assert cohort.name == "Small"


def test_msd_hippocampus_ids_2k_minus_1_and_2k_are_one_person(msd: MakeMsd) -> None:
    cohort = Cohort.from_msd(msd(["hippocampus_003", "hippocampus_004", "hippocampus_005"]))
    assert [case.patient for case in cohort.cases] == ["subject-2", "subject-2", "subject-3"]


def test_a_subject_column_beside_the_images_gives_the_patients(msd: MakeMsd) -> None:
    root = msd(["a_1", "a_2", "a_3"])
    rows(root / "cases.csv", [{"id": str(n), "subject_guess": str(n // 2), "site": "A"} for n in (1, 2, 3)])
    cohort = Cohort.from_msd(root)
    assert [case.patient for case in cohort.cases] == ["subject-0", "subject-1", "subject-1"]
    assert cohort["a_1"].groups == {}, "a column with one value tells nothing"


def test_files_that_dataset_json_does_not_list_are_rows_not_cases(msd: MakeMsd) -> None:
    root = msd()
    write_image(picture(9), root / "imagesTr" / "extra.nii.gz")
    cohort = Cohort.from_msd(root)
    assert [(r.series, r.status) for r in cohort.refused] == [("imagesTr extra", "skipped")]


def test_one_file_with_several_channels_serves_them_all(tmp_path: Path) -> None:
    write_image(picture(1, channels=2), tmp_path / "imagesTr" / "a.nii.gz")
    write_image(mask(), tmp_path / "labelsTr" / "a.nii.gz")
    said = {"modality": {"0": "FLAIR", "1": "T1w"}, "labels": {"0": "background", "1": "x"}}
    pair = {"image": "imagesTr/a.nii.gz", "label": "labelsTr/a.nii.gz"}
    write_json(tmp_path / "dataset.json", {**said, "training": [pair]})
    cohort = Cohort.open(tmp_path)
    assert cohort.channels == ("FLAIR", "T1w")
    assert cohort["a"].images["FLAIR"] == cohort["a"].images["T1w"]


def test_an_nnunet_set_is_known_by_its_description(tmp_path: Path) -> None:
    for channel in ("0000", "0001"):
        write_image(picture(int(channel)), tmp_path / "imagesTr" / f"x_01_{channel}.nii.gz")
    write_image(mask(), tmp_path / "labelsTr" / "x_01.nii.gz")
    said = {"channel_names": {"0": "T2", "1": "ADC"}, "labels": {"background": 0, "tumour": 1}}
    write_json(tmp_path / "dataset.json", {**said, "file_ending": ".nii.gz", "numTraining": 1})
    cohort = Cohort.open(tmp_path)
    assert cohort.channels == ("T2", "ADC")
    assert list(cohort["x_01"].images) == ["T2", "ADC"]
    assert cohort.labels[0].name == "tumour"


def test_nnunet_regions_and_its_ignored_label_are_taken(tmp_path: Path) -> None:
    labels = {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3}
    write_json(tmp_path / "dataset.json", {"channel_names": {"0": "T2"}, "labels": labels})
    for name in ("imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz"):
        write_image(mask(), tmp_path / name)
    cohort = Cohort.open(tmp_path)
    assert [(x.name, x.value, x.values) for x in cohort.labels] == [("whole", 1, (1, 2)), ("core", 2, (2,))]
    assert cohort.ignore == 3
    assert cohort.but(name="again").ignore == 3


def test_nnunet_labels_must_be_numbers(tmp_path: Path) -> None:
    write_json(tmp_path / "dataset.json", {"channel_names": {"0": "T2"}, "labels": {"whole": ["x"]}})
    with pytest.raises(MedsegError, match="whole numbers"):
        Cohort.open(tmp_path)


def test_a_broken_dataset_json_is_named(tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text("{")
    with pytest.raises(MedsegError, match=r"dataset\.json cannot be read"):
        Cohort.open(tmp_path)


def test_globs_pair_images_and_references_by_what_the_star_takes(tmp_path: Path) -> None:
    for case in ("p1", "p2"):
        write_image(picture(len(case)), tmp_path / case / "flair.nii.gz")
        write_image(picture(7), tmp_path / case / "t1c.nii.gz")
        write_image(mask(), tmp_path / case / "label.nii.gz")
    cohort = Cohort.from_nifti(
        tmp_path,
        image="*/{channel}.nii.gz",
        reference="*/label.nii.gz",
        channels=("flair", "t1c"),
        labels="x=1",
    )
    assert [case.id for case in cohort.cases] == ["p1", "p2"]
    assert cohort.channels == ("flair", "t1c")
    assert Cohort.open(tmp_path, channels=("t1c", "flair")).channels == ("t1c", "flair")


def test_masks_beside_images_are_told_by_their_suffix(tmp_path: Path) -> None:
    write_image(picture(1), tmp_path / "a.nii.gz")
    write_image(mask(), tmp_path / "a_seg.nii.gz")
    cohort = Cohort.open(tmp_path)
    assert [case.id for case in cohort.cases] == ["a"]
    assert cohort["a"].reference is not None


def test_a_single_file_is_a_cohort_of_one(tmp_path: Path) -> None:
    write_image(picture(1), tmp_path / "new patient.nii.gz")
    cohort = Cohort.open(tmp_path / "new patient.nii.gz")
    assert [case.id for case in cohort.cases] == ["new_patient"]
    assert cohort.cases[0].reference is None


def test_a_manifest_gives_patients_as_hashes_and_other_columns_as_groups(tmp_path: Path) -> None:
    for n in (1, 2):
        write_image(picture(n), tmp_path / "data" / f"{n}.nii.gz")
    table = rows(
        tmp_path / "list.csv",
        [
            {"case": "c1", "patient": "Hans Muster", "image": "data/1.nii.gz", "class": "ill", "site": "A"},
            {"case": "c2", "patient": "Hans Muster", "image": "data/2.nii.gz", "class": "well", "site": "B"},
        ],
    )
    cohort = Cohort.open(table)
    assert cohort.task == "classification"
    assert cohort.classes == ("ill", "well")
    assert cohort["c1"].patient == cohort["c2"].patient
    assert cohort["c2"].groups == {"site": "B"}
    assert "Muster" not in json.dumps(cohort.public())


def test_columns_that_may_name_a_person_never_become_groups(tmp_path: Path) -> None:
    write_image(picture(1), tmp_path / "1.nii.gz")
    table = rows(
        tmp_path / "list.csv",
        [
            {
                "case": "c1",
                "image": "1.nii.gz",
                "birth_date": "19700101",
                "patient_name": "Muster",
                "age_band": "50",
            }
        ],
    )
    assert Cohort.open(table)["c1"].groups == {"age_band": "50"}


def test_roles_rename_columns_and_a_wrong_one_gets_the_nearest_name(tmp_path: Path) -> None:
    write_image(picture(1), tmp_path / "1.nii.gz")
    table = rows(tmp_path / "list.csv", [{"scan": "1.nii.gz", "diagnosis": "ill"}])
    cohort = Cohort.from_csv(table, roles={"scan": "image", "diagnosis": "class"})
    assert cohort.cases[0].label_class == "ill"
    with pytest.raises(MedsegError, match="does not fit") as error:
        Cohort.from_csv(table, roles={"scann": "image"})
    assert "did you mean 'scan'" in str(error.value)


def test_a_json_manifest_carries_labels_and_cases(tmp_path: Path) -> None:
    write_image(picture(1), tmp_path / "t1.nii.gz")
    write_image(picture(2), tmp_path / "t2.nii.gz")
    write_image(mask(), tmp_path / "m.nii.gz")
    case = {"case": "c", "image_T1": "t1.nii.gz", "image_T2": "t2.nii.gz", "reference": "m.nii.gz"}
    write_json(tmp_path / "study.json", {"name": "study", "labels": {"organ": 1}, "cases": [case]})
    cohort = Cohort.open(tmp_path / "study.json")
    assert cohort.channels == ("T1", "T2")
    assert cohort.labels == labels(organ=1)
    assert cohort.task == "segmentation"


def test_folders_of_pictures_are_classes(tmp_path: Path) -> None:
    for n, kind in enumerate(["cat", "cat", "dog", "dog"]):
        png(tmp_path / kind / f"{n % 2}.png", n)
    cohort = Cohort.open(tmp_path)
    assert cohort.task == "classification"
    assert cohort.classes == ("cat", "dog")
    assert cohort["dog-1"].label_class == "dog"


def test_pictures_and_masks_pair_by_name(tmp_path: Path) -> None:
    png(tmp_path / "images" / "x.png", 1)
    png(tmp_path / "masks" / "x.png", 2)
    cohort = Cohort.open(tmp_path, labels="lung=1")
    reference = cohort["x"].reference
    assert reference is not None
    assert reference.kind == "raster"


def test_two_cases_with_one_id_cannot_be_a_cohort() -> None:
    case = Case(id="x", patient="x", images={"image": Source(kind="nifti", sha256="0")})
    with pytest.raises(MedsegError, match="the same id") as error:
        Cohort(name="c", channels=("image",), cases=(case, case))
    assert error.value.case == "x"


def test_an_unknown_format_and_an_unused_option_are_refused(msd: MakeMsd) -> None:
    with pytest.raises(MedsegError, match="unknown format 'nifty'"):
        Cohort.open(msd(), format="nifty")
    with pytest.raises(MedsegError, match="has no option 'reference'"):
        Cohort.open(msd(), format="msd", reference="labelsTr/*")


def test_what_is_stored_holds_no_path_and_opens_again(msd: MakeMsd, tmp_path: Path) -> None:
    cohort = Cohort.open(msd())
    text = json.dumps(cohort.public())
    assert str(tmp_path) not in text
    assert "imagesTr" not in text
    again = Cohort.from_public(json.loads(text))
    assert again.public() == cohort.public()
    assert again["a_1"].images["CT"].sha256 == cohort["a_1"].images["CT"].sha256


def test_a_case_is_the_same_wherever_its_files_lie(msd: MakeMsd) -> None:
    from medseg.core.values import digest

    here, there = Cohort.open(msd(name="here")), Cohort.open(msd(name="there"))
    assert digest(here.cases[0]) == digest(there.cases[0])


@pytest.mark.parametrize(
    ("folder", "cases", "patients"),
    [
        ("hippocampus", 200, 129),
        ("segmentation2d/cxr_montgomery", 80, 80),
        ("classification2d/busi", 180, 136),
        ("classification3d/adrenal", 240, 240),
    ],
)
def test_real_sets_open_in_under_two_seconds(
    shared_data: Path, folder: str, cases: int, patients: int
) -> None:
    start = time.perf_counter()
    cohort = Cohort.open(shared_data / folder)
    assert time.perf_counter() - start < 2
    assert len(cohort) == cases
    assert len(cohort.patients()) == patients


def test_the_dirty_folder_gives_four_cases_and_names_the_rest(shared_data: Path) -> None:
    cohort = Cohort.open(shared_data / "hippocampus_dirty", labels="Anterior=1,Posterior=2")
    assert [case.id[-3:] for case in cohort.cases] == ["001", "003", "044", "156"]
    told = {r.series: (r.status, r.reason) for r in cohort.refused}
    assert told["hippocampus_118"][0] == "refused"
    assert told["hippocampus_118"][1].startswith("an image without a reference")
    assert told["hippocampus_281"][0] == "refused"
    assert told["hippocampus_281"][1].startswith("a reference without an image")
    assert told["hidden files (1)"][0] == "skipped"


def test_dicom_beside_its_nifti_copy_is_read_as_dicom(shared_data: Path) -> None:
    cohort = Cohort.open(shared_data / "dicom" / "mr_study1_hippocrop")
    assert [case.images[cohort.channels[0]].kind for case in cohort.cases] == ["dicom"]
    assert cohort.cases[0].groups == {"modality": "MR"}


def test_dicom_phantoms_come_with_their_seg_as_reference(tmp_path: Path) -> None:
    from medseg.data.phantom import write_phantoms

    known = write_phantoms(tmp_path, 2, seed=3, format="dicom", size="tiny")
    cohort = Cohort.open(tmp_path, labels=known)
    assert len(cohort) == 2
    assert {case.reference.kind for case in cohort.cases if case.reference} == {"seg"}
    assert all(len(case.patient) == 10 for case in cohort.cases)
    assert [label.name for label in Cohort.open(tmp_path).labels] == [label.name for label in known]
