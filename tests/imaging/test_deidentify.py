"""Pseudonyms are stable under one key, different under another, and the key is kept private."""

from __future__ import annotations

import stat

import pytest
from hypothesis import given
from hypothesis import strategies as some

from medseg.core.errors import MedsegError
from medseg.imaging.deidentify import keyed_hash, project_key


def test_the_hash_is_hmac_sha256_of_the_text():
    # RFC 4231, test case 2
    whole = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    assert keyed_hash("what do ya want for nothing?", b"Jefe", 64) == whole


@given(some.text(), some.text(), some.binary(min_size=1))
def test_different_texts_have_different_hashes_of_the_length_asked_for(a: str, b: str, key: bytes):
    assert len(keyed_hash(a, key, 16)) == 16
    assert (keyed_hash(a, key, 32) == keyed_hash(b, key, 32)) == (a == b)


def test_the_environment_gives_the_key(monkeypatch):
    monkeypatch.setenv("MEDSEG_KEY", " of the study \n")
    assert project_key() == b"of the study"


def test_a_key_is_made_once_and_readable_by_its_owner_alone(monkeypatch, tmp_path):
    monkeypatch.delenv("MEDSEG_KEY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    first = project_key()
    file = tmp_path / ".config" / "medseg" / "key"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert len(first) == 64
    assert project_key() == first
    assert [f.name for f in file.parent.iterdir()] == ["key"]


def test_an_empty_key_is_refused(monkeypatch):
    monkeypatch.setenv("MEDSEG_KEY", "")
    with pytest.raises(MedsegError, match="empty"):
        project_key()


def test_a_home_that_cannot_be_written_is_named_with_the_mend(monkeypatch, tmp_path):
    monkeypatch.delenv("MEDSEG_KEY", raising=False)
    (tmp_path / ".config").write_text("a file, not a folder")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(MedsegError, match="MEDSEG_KEY"):
        project_key()
