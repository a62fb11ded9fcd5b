"""A run does everything once, redoes what it must and says why, and loses one case at a time."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from medseg.core.errors import CaseError, MedsegError
from medseg.core.files import files_below, read_json, write_text
from medseg.core.run import Results, Run
from medseg.core.stage import Artifact, artifact_of, stage


@stage(version=1)
def copy(item: str, *, suffix: str = "", device: str = "cpu", out: Path) -> None:
    """Write the item down; words in it make trouble of many kinds."""
    _trouble(item)
    write_text(out / "text.txt", item + suffix)


@stage(version=1, ignore=("device",))
def join(item: dict[str, Any] | Artifact, *, device: str = "cpu", out: Path) -> None:
    parts = [item] if isinstance(item, Artifact) else list(item.values())
    write_text(out / "joined.txt", "+".join((p / "text.txt").read_text() for p in parts))


@stage(version=1, in_process=True)
def here(item: str, *, out: Path) -> None:
    write_text(out / "pid.txt", str(os.getpid()))


@stage(version=1)
def where(item: str, *, out: Path) -> None:
    time.sleep(0.2)
    write_text(out / "pid.txt", str(os.getpid()))


@stage(version=1)
def counting(item: int, *, stop_at: str, out: Path) -> None:
    """Count to ten, keeping the place: stopped from outside, it goes on where it was."""
    place = out / "checkpoint"
    at = int(place.read_text()) if place.exists() else 0
    for n in range(at, 10):
        write_text(place, str(n))
        if Path(stop_at).exists() and n == 6:
            os.kill(os.getpid(), signal.SIGKILL)
    place.unlink()
    write_text(out / "from.txt", str(at))


def _trouble(item: str) -> None:
    if "case error" in item:
        raise CaseError("no good", file="/data/Muster/x", evidence="bad voxels")
    if "crash" in item:
        raise ZeroDivisionError("secret /data/Muster")
    if "panic" in item:
        raise SystemExit("a library that wants to leave")
    if "kill" in item:
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGKILL)


def _texts(results: Results, file: str = "text.txt") -> dict[str, str]:
    return {name: (artifact / file).read_text() for name, artifact in results.items()}


def _run(root: Path, workers: int | str | None = None) -> Run:
    return Run(root / "run", workers)


ITEMS = {"a": "one", "b": "two", "c": "three"}


@pytest.fixture(autouse=True)
def _release(tmp_path: Path) -> Iterator[None]:
    yield
    Run(tmp_path / "run").close()


def test_every_item_becomes_a_folder_with_a_record(tmp_path: Path) -> None:
    results = _run(tmp_path).map(copy, ITEMS)
    assert _texts(results) == ITEMS
    record = read_json(tmp_path / "run/copy/a/record.json")
    assert record["stage"] == "copy"
    assert list(record["outputs"]) == ["text.txt"]
    names = {f.name for f in files_below(tmp_path / "run")}
    assert names == {"text.txt", "record.json", ".lock"}, "no marks and no partial folder stay"


def test_a_finished_run_is_not_done_again_nor_written_to(tmp_path: Path) -> None:
    _run(tmp_path).map(copy, ITEMS)
    before = {f: f.stat().st_mtime_ns for f in files_below(tmp_path)}
    again = _run(tmp_path).map(copy, ITEMS)
    assert (again.made, again.kept) == ({}, ["a", "b", "c"])
    assert {f: f.stat().st_mtime_ns for f in files_below(tmp_path)} == before


def test_a_finished_run_can_be_moved(tmp_path: Path) -> None:
    _run(tmp_path).map(copy, ITEMS)
    (tmp_path / "run").rename(tmp_path / "moved")
    assert Run(tmp_path / "moved").map(copy, ITEMS).kept == ["a", "b", "c"]


def test_one_changed_item_redoes_what_depends_on_it_and_says_why(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def go(items: dict[str, str]) -> tuple[Results, Results, Results]:
        run = _run(tmp_path)
        texts = run.map(copy, items)
        folds = {"0": {k: texts[k] for k in "ab"}, "1": {k: texts[k] for k in "bc"}}
        return texts, run.map(join, texts), run.map(join_all, folds)

    go(ITEMS)
    with caplog.at_level(logging.INFO, logger="medseg"):
        texts, single, folds = go({**ITEMS, "a": "uno"})
    assert texts.made == {"a": "changed: item"}
    assert single.made == {"a": "changed: item"}
    assert folds.made == {"0": "changed: item.a"}
    assert folds.kept == ["1"]
    assert "again: a (changed: item)" in caplog.text
    assert "1 made, 2 kept" in caplog.text


@stage(version=1)
def join_all(item: dict[str, Artifact], *, out: Path) -> None:
    write_text(out / "joined.txt", "+".join((p / "text.txt").read_text() for p in item.values()))


def test_a_changed_setting_redoes_all_and_is_named(tmp_path: Path) -> None:
    run = _run(tmp_path)
    run.map(copy, ITEMS, suffix="!")
    again = run.map(copy, ITEMS, suffix="?")
    assert set(again.made.values()) == {"changed: suffix"}
    assert _texts(again)["a"] == "one?"


def test_what_is_ignored_redoes_nothing(tmp_path: Path) -> None:
    run = _run(tmp_path)
    texts = run.map(copy, ITEMS)
    run.map(join, texts, device="cpu")
    assert run.map(join, texts, device="cuda").made == {}


def test_a_stage_that_makes_the_same_bytes_again_stops_the_redoing(tmp_path: Path) -> None:
    run = _run(tmp_path)
    run.map(join, run.map(copy, {"a": "one"}, suffix="!"))
    same_bytes = run.map(copy, {"a": "one!"}, suffix="")
    assert same_bytes.made
    assert run.map(join, same_bytes).kept == ["a"]


@pytest.mark.parametrize("harm", ["changed", "removed", "truncated"])
def test_a_damaged_file_is_found_named_and_made_again(tmp_path: Path, harm: str) -> None:
    run = _run(tmp_path)
    run.map(copy, ITEMS)
    file = tmp_path / "run/copy/b/text.txt"
    if harm == "removed":
        file.unlink()
    else:
        file.write_text("tw" if harm == "truncated" else "twx")
    again = run.map(copy, ITEMS)
    assert again.made == {"b": "damaged: text.txt"}
    assert _texts(again) == ITEMS


@pytest.mark.parametrize("text", ["", "[]", "{}", "{"])
def test_a_damaged_record_means_made_again(tmp_path: Path, text: str) -> None:
    run = _run(tmp_path)
    run.map(copy, ITEMS)
    (tmp_path / "run/copy/b/record.json").write_text(text)
    assert run.map(copy, ITEMS).made == {"b": "new"}


@pytest.mark.parametrize("workers", [None, 2])
def test_a_bad_item_is_quarantined_and_the_others_finish(
    tmp_path: Path, workers: int | None, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDSEG_SHOW_PATHS", "1")
    run = _run(tmp_path, workers)
    results = run.map(copy, {"a": "one", "b": "case error", "c": "crash", "d": "panic", "e": "two"})
    assert list(results) == ["a", "e"]
    assert sorted(results.failed) == ["b", "c", "d"]
    assert [f.item for f in run.failures] == list(results.failed)
    assert results.failed["b"].public == "case b: no good\n  seen: bad voxels"
    assert "/data/Muster/x" in results.failed["b"].message, "the console is shown the file"
    assert "unexpected ZeroDivisionError in copy" in results.failed["c"].public
    assert "3 failed" not in caplog.text or "b" in caplog.text


def test_what_is_stored_of_a_failure_names_no_file(tmp_path: Path) -> None:
    results = _run(tmp_path).map(copy, {"b": "case error", "c": "crash"})
    stored = "".join(f.read_text() for f in files_below(tmp_path / "run") if f.name == "error.txt")
    assert "no good" in stored
    assert "test_run.py" in stored, "where it happened"
    for text in (stored, *(f.public for f in results.failed.values())):
        assert "Muster" not in text


def test_an_item_that_failed_is_tried_again(tmp_path: Path) -> None:
    run = _run(tmp_path)
    run.map(copy, {"a": "case error"})
    assert not (tmp_path / "run/copy/a").exists()
    mended = run.map(copy, {"a": "mended"})
    assert list(mended.made) == ["a"]
    assert not (mended["a"] / "error.txt").exists()


def test_results_come_in_the_order_of_the_items(tmp_path: Path) -> None:
    run = _run(tmp_path, 2)
    run.map(copy, {"c": "three"})
    assert list(run.map(copy, {"b": "two", "c": "three", "a": "one"})) == ["b", "c", "a"]


def test_a_pool_gives_what_a_loop_gives(tmp_path: Path) -> None:
    items = {f"n{i}": str(i) for i in range(6)}
    loop = Run(tmp_path / "loop").map(copy, items)
    pool = Run(tmp_path / "pool", 2).map(copy, items)
    assert {n: a.digest for n, a in loop.items()} == {n: a.digest for n, a in pool.items()}


def test_a_pool_works_in_other_processes_and_a_device_stage_stays_here(tmp_path: Path) -> None:
    run = _run(tmp_path, 2)
    pids = _texts(run.map(where, {str(i): "x" for i in range(4)}), "pid.txt")
    assert str(os.getpid()) not in pids.values()
    own = _texts(run.map(here, {"a": "x", "b": "y"}), "pid.txt")
    assert set(own.values()) == {str(os.getpid())}


def test_a_killed_worker_loses_its_case_and_no_other(tmp_path: Path) -> None:
    items = {f"n{i}": "kill" if i == 1 else str(i) for i in range(8)}
    results = _run(tmp_path, 2).map(copy, items)
    assert list(results.failed) == ["n1"]
    assert "killed" in results.failed["n1"].public
    assert len(results) == 7


def test_a_folder_locked_by_another_process_is_refused_before_work_begins(tmp_path: Path) -> None:
    code = (
        "import sys, time; from medseg.core.run import Run; run = Run(sys.argv[1]); run.lock();"
        "print('held', flush=True); time.sleep(60)"
    )
    call = [sys.executable, "-c", code, str(tmp_path / "run")]
    other = subprocess.Popen(call, stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(MedsegError, match="another process"):
            _run(tmp_path).map(copy, ITEMS)
    finally:
        other.kill()
        other.communicate()
    assert len(_run(tmp_path).map(copy, ITEMS)) == 3


def test_work_cut_off_by_kill_goes_on_where_it_was(tmp_path: Path) -> None:
    stop = tmp_path / "stop"
    stop.touch()
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from test_run import Run, counting;"
        "Run(sys.argv[2]).map(counting, {'a': 1}, stop_at=sys.argv[3])"
    )
    call = [sys.executable, "-c", code, str(Path(__file__).parent), str(tmp_path / "run"), str(stop)]
    assert subprocess.run(call, check=False, capture_output=True).returncode == -signal.SIGKILL
    assert not (tmp_path / "run/counting/a").exists(), "what is unfinished has not its name"
    stop.unlink()
    done = _run(tmp_path).map(counting, {"a": 1}, stop_at=str(stop))
    assert (done["a"] / "from.txt").read_text() == "6"
    assert artifact_of(done["a"].path).files == done["a"].files


@pytest.mark.parametrize("name", ["../x", "a/b", ".hidden", "", "a\nb", "a\\b"])
def test_a_name_that_leads_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(MedsegError, match="fit for a folder"):
        _run(tmp_path).map(copy, {name: "x"})
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("name", ["ü ñ 名", "a b", "x" * 120])
def test_a_name_with_spaces_and_letters_of_any_tongue_works(tmp_path: Path, name: str) -> None:
    assert list(_run(tmp_path).map(copy, {name: "x"})) == [name]


def test_no_items_give_no_results_and_no_folder(tmp_path: Path) -> None:
    assert len(_run(tmp_path).map(copy, {})) == 0
    assert not (tmp_path / "run").exists()


def test_an_interruption_leaves_finished_items_and_stops(tmp_path: Path) -> None:
    run = _run(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        run.map(interrupted, {"a": "x", "b": "stop", "c": "y"})
    assert (tmp_path / "run/interrupted/a/text.txt").exists()
    assert run.map(interrupted, {"a": "x"}).kept == ["a"]


@stage(version=1)
def interrupted(item: str, *, out: Path) -> None:
    if item == "stop":
        raise KeyboardInterrupt
    write_text(out / "text.txt", item)


def test_the_run_counts_its_results_for_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="medseg"):
        _run(tmp_path).map(copy, {"a": "one", "b": "case error"})
    assert "1 made, 0 kept, 1 failed (b)" in caplog.text


@stage(version=1, essential=True)
def needed(item: str, *, out: Path) -> None:
    raise CaseError(f"no {item}")


def test_what_nothing_goes_on_without_is_not_said_twice(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="medseg")
    made = Run(tmp_path, quiet=True).map(needed, {"a": "bread"})
    assert "no bread" in made.failed["a"].message
    assert "1 failed (a)" in caplog.text
    assert "no bread" not in caplog.text
