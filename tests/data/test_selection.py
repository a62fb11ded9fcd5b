"""Selection: which series of a study become cases or channels, and the reason of every one left out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medseg.core.config import load_config
from medseg.core.errors import MedsegError
from medseg.core.values import validated
from medseg.data.cohort import Cohort
from medseg.data.discover_dicom import Survey, survey
from medseg.data.selection_rules import Selection, orientation_of_grid, pattern_of
from medseg.imaging.dicom_ct import Subject, write_ct_series
from medseg.imaging.grid import Grid
from medseg.imaging.image import Image

MR = "1.2.840.10008.5.1.4.1.1.4"
AXIAL = Grid.from_spacing((10, 12, 6), (1.0, 1.0, 4.0))


def turned(order: tuple[int, int, int], shape: tuple[int, int, int], mm: tuple[float, ...]) -> Grid:
    """A grid whose axes run along the world axes in `order`; slices along the last one."""
    affine = np.eye(4)
    affine[:3, :3] = np.eye(3)[:, list(order)] * np.array(mm)
    return Grid(shape, affine)


SAGITTAL = turned((1, 2, 0), (12, 10, 8), (1.0, 1.0, 2.0))


def write_series(folder: Path, name: str, grid: Grid = AXIAL, study: str = "one", **tags: Any) -> None:
    """An MR series of a study as files in ``folder/study/name``; keywords overwrite elements."""
    from pydicom import dcmread
    from pydicom.uid import UID

    values = np.random.default_rng(len(name)).integers(0, 900, grid.shape).astype(np.float32)
    subject = Subject("4711", f"Muster^{study}", "F", 50, f"{study}|{name}")
    whole = Subject("4711", "", "F", 50, study)
    given = {
        "SOPClassUID": MR,
        "Modality": "MR",
        "PatientID": f"id of {study}",
        "StudyInstanceUID": whole.uid("study"),
        "FrameOfReferenceUID": whole.uid("frame"),
        "SeriesDescription": name,
    } | tags
    for file in write_ct_series(Image(values[None], grid), subject, folder / study / name.replace(" ", "_")):
        dataset = dcmread(file)
        dataset.file_meta.MediaStorageSOPClassUID = UID(given["SOPClassUID"])
        for keyword, value in given.items():
            setattr(dataset, keyword, value)
        dataset.save_as(file, enforce_file_format=True)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of five series: two T1 (with and without agent), FLAIR, DWI, a derived map."""
    root = tmp_path_factory.mktemp("study")
    write_series(root, "t1 mprage", turned((0, 1, 2), (10, 12, 9), (1, 1, 2)), SeriesNumber=2, EchoTime="3.5")
    write_series(root, "T1 Gd", SeriesNumber=7, EchoTime="3.5", ContrastBolusAgent="agent")
    write_series(root, "FLAIR", SAGITTAL, SeriesNumber=3, EchoTime="120", Manufacturer="Philips Medical")
    write_series(root, "dwi", SeriesNumber=4, EchoTime="80", DiffusionBValue=1000.0, ProtocolName="ep2d diff")
    write_series(root, "adc", SeriesNumber=5, EchoTime="80", ImageType=["DERIVED", "SECONDARY", "ADC"])
    return root


def taken(root: Path, **rules: Any) -> dict[str, str]:
    """Description of each series -> ``taken`` or the reason, under one flat rule."""
    seen = survey(root, validated(Selection, rules))
    return {one.facts.texts[0]: one.verdicts[""] for one in seen.chosen.looked}


def names_taken(root: Path, **rules: Any) -> set[str]:
    return {name for name, said in taken(root, **rules).items() if said == "taken"}


ALL = {"t1 mprage", "T1 Gd", "FLAIR", "dwi", "adc"}


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ({}, ALL),
        ({"modality": "mr"}, ALL),
        ({"modality": ["CT", "PT"]}, set()),
        ({"description": "t1"}, {"t1 mprage", "T1 Gd"}),
        ({"description": "t1*"}, {"t1 mprage", "T1 Gd"}),
        ({"description": "*gd"}, {"T1 Gd"}),
        ({"description": "/^(flair|adc)$/"}, {"FLAIR", "adc"}),
        ({"description": ["flair", "EP2D"]}, {"FLAIR", "dwi"}),
        ({"not_description": ["t1", "diff"]}, {"FLAIR", "adc"}),
        ({"orientation": "sagittal"}, {"FLAIR"}),
        ({"orientation": ["coronal", "oblique"]}, set()),
        ({"slice_mm": [None, 2]}, {"t1 mprage", "FLAIR"}),
        ({"slice_mm": 4}, {"T1 Gd", "dwi", "adc"}),
        ({"in_plane_mm": [1.01, None]}, set()),
        ({"slices": [8, 8]}, {"FLAIR"}),
        ({"contrast": True}, {"T1 Gd"}),
        ({"contrast": False}, ALL - {"T1 Gd"}),
        ({"echo_ms": [80, 200]}, {"FLAIR", "dwi", "adc"}),
        ({"b_value": [500, None]}, {"dwi"}),
        ({"image_type": ["original", "primary"]}, ALL - {"adc"}),
        ({"not_image_type": "DERIVED"}, ALL - {"adc"}),
        ({"body_part": "abdo*"}, ALL),
        ({"manufacturer": "philips"}, {"FLAIR"}),
        ({"description": "t1", "prefer": "most_slices"}, {"t1 mprage"}),
        ({"prefer": "thinnest", "orientation": "axial"}, {"t1 mprage"}),
        ({"prefer": "largest_field", "orientation": "axial", "slice_mm": 4}, {"T1 Gd", "dwi", "adc"}),
        ({"prefer": "first"}, {"t1 mprage"}),
        ({"prefer": "last"}, {"T1 Gd"}),
        ({"prefer": "last", "take": "all"}, ALL),
    ],
    ids=lambda given: " ".join(sorted(given)) if isinstance(given, set) else str(given),
)
def test_each_condition_takes_what_it_says(study: Path, rules: dict[str, Any], expected: set[str]) -> None:
    found = names_taken(study, **rules)
    if rules.get("prefer") == "largest_field":  # all alike: the lower series number decides
        assert found == {"dwi"} and found < expected
    else:
        assert found == expected


def test_a_reason_holds_numbers_and_words_of_the_rule_alone(study: Path) -> None:
    said = taken(study, modality="MR", description="t1", slice_mm=[3, 5], contrast=True)
    assert said["T1 Gd"] == "taken"
    assert said["t1 mprage"] == "slice spacing is 2 mm, outside 3 to 5"
    assert said["dwi"] == "description does not match"
    assert taken(study, b_value=[0, 100])["FLAIR"] == "b-value is not stated"
    assert taken(study, orientation="axial")["FLAIR"] == "orientation is sagittal, not axial"


CHANNELS = {
    "modality": "MR",
    "channels": {"t1": {"description": "t1", "contrast": False}, "flair": {"description": "flair"}},
}


def cohort_of(root: Path, **rules: Any) -> Cohort:
    return Cohort.open(root, select=validated(Selection, rules), quiet=True)


def test_a_study_becomes_one_case_with_channels_in_the_order_of_the_rules(study: Path) -> None:
    cohort = cohort_of(study, **CHANNELS)
    assert cohort.channels == ("t1", "flair")
    (case,) = cohort.cases
    assert {c: Path(s.files[0]).parent.name for c, s in case.images.items()} == {
        "t1": "t1_mprage",
        "flair": "FLAIR",
    }
    assert case.groups == {"modality": "MR"}
    reasons = [r.reason for r in cohort.refused]
    assert len(reasons) == 3
    assert all(r.startswith("not selected: rule t1: ") and "; rule flair: " in r for r in reasons)
    stored = json.dumps(cohort.public())
    assert not any(text in stored for text in ("mprage", "Gd", "4711", "Muster", "ep2d"))


def test_a_study_that_lacks_a_channel_is_refused_by_name(study: Path) -> None:
    rules = {"channels": {"t1": {"description": "mprage"}, "t2": {"description": "t2"}}}
    cohort = cohort_of(study, **rules)
    assert not cohort.cases
    (refused,) = [r for r in cohort.refused if r.status == "refused"]
    assert "lacks a series for t2: none of 5 fits" in refused.reason
    skipped = [r for r in cohort.refused if r.status == "skipped"]
    assert len(skipped) == 5
    assert sum(f"selected, but study {refused.series} was refused" in r.reason for r in skipped) == 1


def test_several_that_fit_need_a_preference(study: Path) -> None:
    rules = {"channels": {"t1": {"description": "t1"}, "flair": {"description": "flair"}}}
    (refused,) = [r for r in cohort_of(study, **rules).refused if r.status == "refused"]
    assert "2 series fit rule t1" in refused.reason and "prefer" in refused.reason
    rules["channels"]["t1"]["prefer"] = "last"
    (case,) = cohort_of(study, **rules).cases
    assert Path(case.images["t1"].files[0]).parent.name == "T1_Gd"


def test_one_series_cannot_be_two_channels(study: Path) -> None:
    rules = {"channels": {"a": {"description": "flair"}, "b": {"orientation": "sagittal"}}}
    (refused,) = [r for r in cohort_of(study, **rules).refused if r.status == "refused"]
    assert "one series fits the rules of two channels" in refused.reason


def test_studies_in_which_nothing_fits_are_skipped_not_refused(study: Path, tmp_path: Path) -> None:
    write_series(tmp_path, "thorax", study="two", SOPClassUID="1.2.840.10008.5.1.4.1.1.2", Modality="CT")
    write_series(tmp_path, "t1 fl2d", study="three")
    write_series(tmp_path, "flair", study="three", SeriesNumber=9)
    cohort = cohort_of(tmp_path, **CHANNELS)
    assert len(cohort.cases) == 1
    assert [r.status for r in cohort.refused] == ["skipped"]
    assert "modality is CT, not MR" in cohort.refused[0].reason


def test_per_patient_gathers_the_series_of_several_studies(tmp_path: Path) -> None:
    write_series(tmp_path, "t1", study="early", PatientID="the same")
    write_series(tmp_path, "flair", study="late", PatientID="the same")
    assert not cohort_of(tmp_path, **CHANNELS).cases
    (case,) = cohort_of(tmp_path, per="patient", **CHANNELS).cases
    assert set(case.images) == {"t1", "flair"}


def test_the_planes_not_the_name_give_the_orientation() -> None:
    assert orientation_of_grid(AXIAL) == "axial"
    assert orientation_of_grid(SAGITTAL) == "sagittal"
    assert orientation_of_grid(turned((0, 2, 1), (3, 3, 3), (1, 1, 1))) == "coronal"
    for degrees, name in ((30, "axial"), (45, "oblique"), (60, "coronal")):
        angle = np.radians(degrees)
        affine = np.eye(4)
        affine[:3, 1] = [0, np.cos(angle), np.sin(angle)]
        affine[:3, 2] = [0, -np.sin(angle), np.cos(angle)]
        assert orientation_of_grid(Grid((3, 3, 3), affine.reshape(4, 4) * [1, 1, 1, 1])) == name


def test_patterns_are_text_globs_or_regular_expressions() -> None:
    assert pattern_of("t1").search("AX T1 post")
    assert not pattern_of("t1*").search("AX T1 post")
    assert pattern_of("ax*post").search("AX T1 post")
    assert not pattern_of("t.").search("T1") and pattern_of("/t./").search("T1")
    assert pattern_of("a+b").search("A+B")


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ({"modalty": "CT"}, "did you mean 'modality'"),
        ({"channels": {"t1": {"descripton": "x"}}}, "did you mean 'description'"),
        ({"slices": [9, 3]}, "must not be above"),
        ({"description": "/(/"}, "no regular expression"),
        ({"orientation": "axal"}, "orientation"),
        ({"channels": {"t 1": {}}}, "channels"),
        ({"channels": {"t1": {}}, "take": "all"}, "take: all"),
    ],
    ids=str,
)
def test_rules_that_cannot_be_meant_are_usage_errors(rules: dict[str, Any], said: str) -> None:
    with pytest.raises(MedsegError, match="cannot be used") as error:
        validated(Selection, rules)
    assert said in str(error.value)


def test_rules_are_read_from_yaml(tmp_path: Path) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text(
        "modality: CT\nslice_mm: [null, 3]\ndescription: [portal, '/ven(ous)?/']\nprefer: thinnest\n"
    )
    rules = load_config(Selection, file)
    assert (rules.modality, rules.slice_mm, rules.prefer) == (("CT",), (None, 3.0), "thinnest")


def test_only_dicom_has_series_to_select(tmp_path: Path, msd: Any) -> None:
    with pytest.raises(MedsegError, match="no option 'select'"):
        Cohort.open(msd(), select=Selection(modality=("CT",)))


def test_choosing_is_blind_to_the_order_of_the_files(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from medseg.data import discover_dicom

    def reversed_find(*words: Any, **options: Any) -> Any:
        found = plain(*words, **options)
        found.series.reverse()
        return found

    def chosen(seen: Survey) -> dict[str, str]:
        return {one.series.uid_hash: one.verdicts[""] for one in seen.chosen.looked}

    plain, rules = discover_dicom.find_dicom, validated(Selection, {"prefer": "largest_field"})
    before = chosen(survey(study, rules))
    monkeypatch.setattr(discover_dicom, "find_dicom", reversed_find)
    assert chosen(survey(study, rules)) == before
