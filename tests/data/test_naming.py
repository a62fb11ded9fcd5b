"""Case ids: study numbers stay, what may be somebody's name becomes a keyed hash, pairs stay pairs."""

from __future__ import annotations

import csv
import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from medseg.core.errors import MedsegError
from medseg.data.cohort import Cohort
from medseg.data.naming import case_ids
from medseg.imaging.image import write_image
from tests.data.conftest import box, noise


def two_folders(root: Path, names: tuple[str, ...]) -> Path:
    for seed, name in enumerate(names):
        write_image(noise(seed), root / "images" / f"{name}.nii.gz")
        write_image(box(), root / "labels" / f"{name}.nii.gz")
    return root


def test_only_names_that_may_be_somebody_s_are_hashed(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "medseg"):
        ids = case_ids(["case_1", "Muster_Hans", "case_2"])
    assert [ids["case_1"], ids["case_2"]] == ["case_1", "case_2"]
    assert ids["Muster_Hans"].startswith("case-") and len(ids["Muster_Hans"]) == 15
    assert "1 of 3" in caplog.text and "ids=names" in caplog.text and "Muster" not in caplog.text


def test_the_policy_may_keep_all_or_none() -> None:
    assert case_ids(["Muster Hans"], "names") == {"Muster Hans": "Muster_Hans"}
    hashed = case_ids(["case_1", "case_2"], "hashed")
    assert all(i.startswith("case-") for i in hashed.values()) and len(set(hashed.values())) == 2
    with pytest.raises(MedsegError, match="unknown way"):
        case_ids(["a"], "hash")  # type: ignore[arg-type]


def test_hashes_are_keyed(monkeypatch: pytest.MonkeyPatch) -> None:
    one = case_ids(["Muster"])
    assert case_ids(["Muster"]) == one
    monkeypatch.setenv("MEDSEG_KEY", "another key")
    assert case_ids(["Muster"]) != one


def test_hashed_cases_keep_their_references_and_their_patients(tmp_path: Path) -> None:
    root = two_folders(tmp_path, ("Muster_Hans", "Beispiel_Eva", "case_7"))
    with (root / "cases.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows(
            [["id", "site"], ["Muster_Hans", "A"], ["Beispiel_Eva", "B"], ["7", "A"]]
        )
    cohort = Cohort.open(root, labels="organ=1")
    assert len(cohort) == 3 and not cohort.refused
    for case in cohort.cases:
        image, reference = Path(case.images["image"].files[0]), case.reference
        assert reference is not None and Path(reference.files[0]).name == image.name
        assert case.patient == case.id
        assert case.groups == {"site": "B" if image.name.startswith("Bei") else "A"}
    stored = json.dumps(cohort.public())
    assert "Muster" not in stored and "Beispiel" not in stored and '"case_7"' in stored


def test_an_image_left_alone_is_refused_under_its_hash(tmp_path: Path) -> None:
    root = two_folders(tmp_path, ("Muster_Hans", "case_7"))
    (root / "labels" / "Muster_Hans.nii.gz").unlink()
    write_image(box(), root / "labels" / "Beispiel_Eva.nii.gz")
    cohort = Cohort.open(root, labels="organ=1")
    assert [case.id for case in cohort.cases] == ["case_7"]
    assert len([r for r in cohort.refused if r.series.startswith("case-")]) == 2
    assert not any(name in json.dumps(cohort.public()) for name in ("Muster", "Beispiel"))


def test_a_single_file_keeps_its_name_only_when_asked(tmp_path: Path) -> None:
    file = tmp_path / "Muster_Hans.nii.gz"
    write_image(noise(1), file)
    assert Cohort.open(file).cases[0].id.startswith("case-")
    assert Cohort.open(file).cases[0].patient.startswith("case-")
    assert Cohort.open(file, ids="names").cases[0].id == "Muster_Hans"


def test_a_described_set_keeps_the_words_its_cases_share(msd: Callable[..., Path]) -> None:
    cohort = Cohort.open(msd(["Zugspitze_01", "Zugspitze_02", "Zugspitze_03", "Muster_04"]))
    ids = [case.id for case in cohort.cases]
    assert ids[:3] == ["Zugspitze_01", "Zugspitze_02", "Zugspitze_03"]
    assert ids[3].startswith("case-")


def test_case_columns_stay_and_file_stems_are_judged(tmp_path: Path) -> None:
    write_image(noise(1), tmp_path / "Muster_Hans.nii.gz")
    table = tmp_path / "list.csv"
    table.write_text("case,image\nZugspitze-1,Muster_Hans.nii.gz\n")
    assert Cohort.open(table).cases[0].id == "Zugspitze-1"
    assert Cohort.from_csv(table, ids="hashed").cases[0].id.startswith("case-")
    table.write_text("image\nMuster_Hans.nii.gz\n")
    assert Cohort.open(table).cases[0].id.startswith("case-")


def test_channels_named_after_the_patient_s_folder_lose_the_name(tmp_path: Path) -> None:
    for n, name in enumerate(("Muster_Hans", "Beispiel_Eva")):
        for m, channel in enumerate(("T1w", "FLAIR")):
            write_image(noise(2 * n + m), tmp_path / name / f"{name}_{channel}.nii.gz")
    cohort = Cohort.open(tmp_path)
    assert cohort.channels == ("FLAIR", "T1w") and len(cohort) == 2
    assert not any(name in json.dumps(cohort.public()) for name in ("Muster", "Beispiel"))


def test_channels_that_may_be_a_name_are_hashed(tmp_path: Path) -> None:
    for n, name in enumerate(("Muster", "Beispiel")):
        write_image(noise(n), tmp_path / f"p{n}" / f"{name}.nii.gz")
    cohort = Cohort.open(tmp_path)
    stored = json.dumps(cohort.public())
    assert not cohort.cases and len(cohort.refused) == 2
    assert "Muster" not in stored and "Beispiel" not in stored
