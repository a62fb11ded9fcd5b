"""Keys are made of content: never of places, times or the order of a dict."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as s

from medseg.core.files import write_json, write_text
from medseg.core.stage import (
    RECORD,
    Artifact,
    artifact_of,
    damage,
    info_of,
    key_of,
    key_parts,
    open_partial,
    read_record,
    stage,
    why_again,
)
from medseg.core.values import Value


class Settings(Value):
    spacing_mm: float = 1.0


@stage(version=2, name="clean", ignore=("device",))
def cleaner(item: object, *, settings: Settings, device: str, out: Path) -> None: ...


INFO = info_of(cleaner)


def _key(item: object, **shared: object) -> str:
    return key_of(INFO, key_parts(INFO, item, shared))


def _folder(root: Path, **files: str) -> Artifact:
    for name, text in files.items():
        write_text(root / name, text)
    return artifact_of(root)


def test_a_stage_stays_a_plain_function() -> None:
    assert cleaner("x", settings=Settings(), device="cpu", out=Path()) is None
    assert (INFO.name, INFO.version, INFO.in_process) == ("clean", 2, False)


def test_a_function_that_is_no_stage_is_refused() -> None:
    with pytest.raises(TypeError, match="not declared"):
        info_of(print)


@given(s.dictionaries(s.text(min_size=1, max_size=4), s.integers(), max_size=5))
def test_a_key_is_blind_to_the_order_of_items(item: dict[str, int]) -> None:
    turned = dict(reversed(list(item.items())))
    assert _key(item, a=1, b=2) == _key(turned, b=2, a=1)


def test_a_key_is_blind_to_place_and_time_and_sees_content(tmp_path: Path) -> None:
    one = _folder(tmp_path / "one", image="voxels", note="n")
    shutil.copytree(tmp_path / "one", tmp_path / "elsewhere" / "two")
    os.utime(tmp_path / "elsewhere" / "two" / "image", (1, 1))
    two = artifact_of(tmp_path / "elsewhere" / "two")
    assert _key(one) == _key(two)
    write_text(tmp_path / "one" / "image", "voxelz")
    assert _key(artifact_of(tmp_path / "one")) != _key(two)


def test_a_key_sees_version_stage_and_settings_but_not_what_is_ignored() -> None:
    key = _key("x", settings=Settings(), device="cpu")
    assert key == _key("x", settings=Settings(), device="cuda")
    assert key != _key("x", settings=Settings(spacing_mm=2.0), device="cpu")
    assert key != _key("y", settings=Settings(), device="cpu")

    @stage(version=3, name="clean", ignore=("device",))
    def newer(item: object, *, out: Path) -> None: ...

    later = info_of(newer)
    assert key != key_of(later, key_parts(later, "x", {"settings": Settings()}))


def test_a_renamed_file_changes_the_digest_and_a_record_does_not(tmp_path: Path) -> None:
    before = _folder(tmp_path, a="1").digest
    write_text(tmp_path / RECORD, "{}")
    assert artifact_of(tmp_path).digest == before
    (tmp_path / "a").rename(tmp_path / "b")
    assert artifact_of(tmp_path).digest != before


def test_a_part_of_an_artifact_is_blind_to_its_neighbours(tmp_path: Path) -> None:
    before = _folder(tmp_path, **{"model/weights": "w", "history.csv": "1"}).part("model")
    after = _folder(tmp_path, **{"history.csv": "2"}).part("model")
    assert before.digest == after.digest
    assert after / "weights" == tmp_path / "model" / "weights"
    assert after.files == artifact_of(tmp_path / "model").files


def test_the_reason_names_what_changed() -> None:
    old = key_parts(INFO, {"image": "a", "mask": "b"}, {"settings": Settings()})
    new = key_parts(INFO, {"image": "a", "mask": "c"}, {"settings": Settings(spacing_mm=2)})
    assert why_again(None, new) == "new"
    assert why_again({"inputs": old}, new) == "changed: settings, item.mask"
    assert why_again({"inputs": old}, old) == "key differs"


def test_damage_names_the_file(tmp_path: Path) -> None:
    record = {"outputs": dict(_folder(tmp_path, a="1", b="2").files)}
    assert damage(tmp_path, record) is None
    write_text(tmp_path / "b", "3")
    assert damage(tmp_path, record) == "b"
    (tmp_path / "a").unlink()
    assert damage(tmp_path, record) == "a"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"inputs": 1, "outputs": 2}', '{"key": "x"', "\x00"])
def test_a_record_that_cannot_be_used_counts_as_none(tmp_path: Path, text: str) -> None:
    (tmp_path / RECORD).write_text(text)
    assert read_record(tmp_path) is None
    write_json(tmp_path / RECORD, {"key": "k", "inputs": {}, "outputs": {}})
    assert read_record(tmp_path) is not None


def test_an_unfinished_folder_is_kept_for_its_own_key_and_emptied_for_another(tmp_path: Path) -> None:
    partial = open_partial(tmp_path / ".a.partial", "key1")
    write_text(partial / "checkpoint", "half")
    write_text(partial / ".77.tmp.checkpoint", "cut off by kill -9")
    open_partial(partial, "key1")
    assert (partial / "checkpoint").exists()
    assert not (partial / ".77.tmp.checkpoint").exists()
    open_partial(partial, "key2")
    assert not (partial / "checkpoint").exists()


def test_many_changes_are_counted_and_what_all_share_is_named_first():
    parts = {f"item.{n:03d}": n for n in range(100)} | {"plan": 1}
    said = why_again({"inputs": {}}, parts)
    assert said.startswith("changed: plan, item.000") and said.endswith("and 95 more")
