"""Files that come to stay, and receipts that survive a torn line."""

from __future__ import annotations

from pathlib import Path

from medseg.core.spool import add_receipt, receipts, settle


def test_a_file_that_settles_is_new_only_once(tmp_path: Path) -> None:
    final = tmp_path / "a" / "b" / "file"
    for content, new in ((b"one", True), (b"one", False), (b"two", True)):
        (tmp_path / "came").write_bytes(content)
        assert settle(tmp_path / "came", final) is new
        assert final.read_bytes() == content
        assert not (tmp_path / "came").exists()


def test_the_last_receipt_for_a_key_counts(tmp_path: Path) -> None:
    assert receipts(tmp_path / "none") == {}
    add_receipt(tmp_path / "file", "a", status="1")
    add_receipt(tmp_path / "file", "a", status="2")
    with (tmp_path / "file").open("a") as file:
        file.write('{"key": "b", "sta')
    add_receipt(tmp_path / "file", "c")
    assert receipts(tmp_path / "file") == {"a": {"status": "2"}, "c": {}}
