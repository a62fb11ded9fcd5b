"""Nothing is ever half written."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from medseg.core.files import (
    files_below,
    read_json,
    replace_folder,
    sha256_of,
    write_json,
    write_text,
    written_whole,
)


def test_a_file_written_whole_is_there_and_nothing_beside_it(tmp_path: Path) -> None:
    with written_whole(tmp_path / "deep" / "a.nii.gz") as beside:
        assert beside.name.endswith(".nii.gz"), "writers choose their format by the suffix"
        beside.write_text("x")
        assert not (tmp_path / "deep" / "a.nii.gz").exists()
    assert [f.name for f in (tmp_path / "deep").iterdir()] == ["a.nii.gz"]


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    write_text(file, "old")

    def fail_half_way() -> None:
        with written_whole(file) as beside:
            beside.write_text("ne")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail_half_way()
    assert file.read_text() == "old"
    assert [f.name for f in tmp_path.iterdir()] == ["a.txt"]


def test_a_writer_killed_at_any_moment_leaves_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    write_json(file, {"n": -1})
    code = (
        "import sys; from pathlib import Path; from medseg.core.files import write_json\n"
        "n = 0\nwhile True:\n    write_json(Path(sys.argv[1]), {'n': n, 'long': 'x' * 200000}); n += 1"
    )
    for wait in (0.4, 0.55, 0.7):
        process = subprocess.Popen([sys.executable, "-c", code, str(file)])
        time.sleep(wait)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert isinstance(read_json(file)["n"], int)


def test_json_is_readable_sorted_and_strict(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"b": 1, "a": [2]})
    assert (tmp_path / "a.json").read_text() == '{\n  "a": [\n    2\n  ],\n  "b": 1\n}\n'
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "b.json", {"a": float("nan")})
    assert not (tmp_path / "b.json").exists()


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    old, made = tmp_path / "x", tmp_path / ".x.partial"
    write_text(old / "gone.txt", "old")
    write_text(made / "sub" / "new.txt", "new")
    replace_folder(made, old)
    assert [f.relative_to(tmp_path).as_posix() for f in files_below(tmp_path)] == ["x/sub/new.txt"]


def test_files_below_leaves_links_out_and_is_sorted(tmp_path: Path) -> None:
    for name in ("b", "a", "c/d"):
        write_text(tmp_path / name, name)
    (tmp_path / "link").symlink_to(tmp_path / "a")
    assert [f.relative_to(tmp_path).as_posix() for f in files_below(tmp_path)] == ["a", "b", "c/d"]


def test_sha256_is_that_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256_of(tmp_path / "a").startswith("ba7816bf8f01cfea414140de5dae2223")
