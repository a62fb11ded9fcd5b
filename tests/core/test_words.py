"""Words that name nobody: study words and numbers stay, everything that may be a person goes."""

from __future__ import annotations

import sys

import pytest

from medseg.core import words

STUDY = (
    *("case_017", "hippocampus_001", "patient001", "sub-01_ses-02_T1w", "BraTS20_Training_001", "s0001"),
    *("MCUCXR_0001_0", "LIDC-IDRI-0001", "benign (12)", "adrenal_train_0012", "IXI002", "a_1", "0000007"),
    *("liver lesions 3", "case-3fa9c0de12"),
)
PEOPLE = (
    *("Muster_Hans", "muster", "MUSTER^HANS", "HansMuster", "Kim_Lee", "LiNa", "McLee", "case_Muster_3"),
    *(
        "Müller",
        "Žo",
        "王伟",
        "1957-03-12",
        "19570312",
        "12.03.1957",
        "scan_1957_03_12",
        "0012345678",
        "123456",
    ),
)


@pytest.mark.parametrize("name", STUDY)
def test_study_words_and_numbers_name_nobody(name: str) -> None:
    assert words.names_nobody(name)
    assert words.masked(f"data/{name}.nii.gz") == f"data/{name}.nii.gz"


@pytest.mark.parametrize("name", PEOPLE)
def test_everything_else_may_be_a_person(name: str) -> None:
    assert not words.names_nobody(name)
    shown = words.masked(f"data/{name}/IM0003")
    assert shown.startswith("data/")
    assert shown.endswith("/IM0003")
    assert name not in shown
    assert not any(part.lower() in shown.lower() for part in ("Muster", "Hans", "Lee", "1957", "345678"))


def test_words_most_names_share_are_the_study_s() -> None:
    names = ["Zugspitze_001_x", "Zugspitze_002_y", "zugspitze_003", "Muster_004"]
    shared = words.shared_words(names)
    assert "zugspitze" in shared and "muster" not in shared
    assert [words.names_nobody(name, shared) for name in names] == [True, True, True, False]
    assert not words.shared_words(["Muster_1", "Muster_2"]), "two of two are not enough"


def test_the_uid_of_a_series_is_shown_and_that_of_a_folder_is_not() -> None:
    uid = "1.3.12.2.1107.5.2.43.167006.2023112816005912972175803.0.0.0"
    assert words.masked(f"/data/Muster/IM1 (series {uid})") == f"/data/.../IM1 (series {uid})"
    assert uid not in words.masked(f"/data/{uid}/IM1")


def test_a_path_is_shown_whole_on_a_terminal_or_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    path = "/data/Muster/series-2/slice_014.dcm"
    monkeypatch.delenv(words.SHOW_VARIABLE, raising=False)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False, raising=False)
    assert words.shown(path) == "/data/.../series-2/slice_014.dcm (MEDSEG_SHOW_PATHS=1 shows it whole)"
    assert words.shown("data/case_1.nii.gz") == "data/case_1.nii.gz"
    monkeypatch.setenv(words.SHOW_VARIABLE, "1")
    assert words.shown(path) == path
    monkeypatch.setenv(words.SHOW_VARIABLE, "0")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert words.shown(path) == path
