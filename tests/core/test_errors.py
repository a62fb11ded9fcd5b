"""Errors say what, where, on what evidence and what to do; what may be stored holds no file."""

from __future__ import annotations

import pickle

import pytest

from medseg.core.errors import CaseError, MedsegError, unexpected

ERROR = CaseError(
    "the mask lies elsewhere",
    case="case_1",
    file="/data/Muster/x.nii.gz",
    evidence="5 mm apart",
    mend="resample it",
)


def test_the_message_has_its_parts_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDSEG_SHOW_PATHS", "1")
    assert str(ERROR).splitlines() == [
        "case case_1: the mask lies elsewhere",
        "  file: /data/Muster/x.nii.gz",
        "  seen: 5 mm apart",
        "  mend: resample it",
    ]


def test_without_a_terminal_a_path_keeps_only_words_that_name_nobody() -> None:
    assert "file: /data/.../x.nii.gz (MEDSEG_SHOW_PATHS=1 shows it whole)" in str(ERROR)


def test_the_text_of_a_foreign_error_is_shown_at_a_terminal_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    error = FileNotFoundError(2, "No such file", "/data/Muster")
    assert unexpected(error) == "FileNotFoundError (MEDSEG_SHOW_PATHS=1 shows its text)"
    monkeypatch.setenv("MEDSEG_SHOW_PATHS", "1")
    assert unexpected(error) == "FileNotFoundError: [Errno 2] No such file: '/data/Muster'"


def test_the_public_message_leaves_the_file_out() -> None:
    assert "Muster" not in ERROR.public()
    assert "5 mm apart" in ERROR.public()


def test_an_error_crosses_a_process_boundary_whole() -> None:
    back = pickle.loads(pickle.dumps(ERROR))
    assert type(back) is CaseError
    assert str(back) == str(ERROR)


def test_a_case_is_named_once() -> None:
    assert CaseError("bad").with_case("a").with_case("b").case == "a"


def test_exit_codes_are_those_of_the_contract() -> None:
    assert (MedsegError.exit_code, CaseError.exit_code) == (2, 3)
