"""What a stage is, what it leaves behind, and why one is run again."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from medseg.core.files import files_below, read_json, sha256_of
from medseg.core.values import digest, identity_of

F = TypeVar("F", bound=Callable[..., None])

RECORD = "record.json"
_NAMED = 6
"""Changed inputs named in a message; the rest are counted."""
KEY, BEGUN = ".key", ".begun"
"""Marks in an unfinished folder: what it will be, and that a worker took it up. Gone when it is whole."""


@dataclass(frozen=True)
class StageInfo:
    """Name and version of a stage, and the shared arguments that cannot change its result."""

    name: str
    version: int
    ignore: frozenset[str]
    in_process: bool
    essential: bool = False


def stage(
    *,
    version: int,
    name: str | None = None,
    ignore: tuple[str, ...] = (),
    in_process: bool = False,
    essential: bool = False,
) -> Callable[[F], F]:
    """Declare a plain function ``(item, *, settings..., out: Path) -> None`` to be a stage.

    The function stays what it is: call it by hand on any folder.

    Parameters
    ----------
    version : int
        Raise it when the same input gives another output: all folders of the stage are made anew.
    name : str, optional
        Folder name; the function's own name by default.
    ignore : tuple of str
        Shared arguments left out of the key (``device``, ``tracking``): they cannot change a result.
    in_process : bool
        True for stages that hold the device (training, prediction): never sent to a pool.
    essential : bool
        Nothing goes on without its result: whoever maps it raises with its failure, which is not said before.
    """

    def declare(function: F) -> F:
        info = StageInfo(name or function.__name__, version, frozenset(ignore), in_process, essential)
        function.__stage__ = info  # type: ignore[attr-defined]
        return function

    return declare


def info_of(function: Callable[..., None]) -> StageInfo:
    """The declaration of a stage; TypeError for a function that is none."""
    info = getattr(function, "__stage__", None)
    if info is None:
        raise TypeError(f"{function.__name__} is not declared with @stage")
    return info


@dataclass(frozen=True)
class Artifact:
    """A finished folder (or a part of one) and the sha256 of each file in it.

    Equal content gives an equal `digest`, wherever the folder lies and whenever it was made.
    """

    path: Path
    files: Mapping[str, str] = field(repr=False)

    @property
    def digest(self) -> str:
        """sha256 over relative paths and file digests."""
        return digest(dict(self.files))

    def identity(self) -> str:
        """What counts in keys: the content, never the place."""
        return self.digest

    def part(self, name: str) -> Artifact:
        """The sub-folder `name` as an artifact of its own, blind to its neighbours."""
        inside = {f[len(name) + 1 :]: d for f, d in self.files.items() if f.startswith(name + "/")}
        return Artifact(self.path / name, inside)

    def __truediv__(self, name: str) -> Path:
        return self.path / name


def artifact_of(folder: Path) -> Artifact:
    """Hash every file of `folder` (its record excepted)."""
    files = {f.relative_to(folder).as_posix(): f for f in files_below(folder)}
    return Artifact(folder, {n: sha256_of(f) for n, f in files.items() if n not in (RECORD, KEY, BEGUN)})


def key_parts(info: StageInfo, item: Any, shared: Mapping[str, Any]) -> dict[str, Any]:
    """Digest of each thing that decides the result: stage, item (by parts), shared arguments."""
    parts = {"version": info.version, **_item_parts(item)}
    kept = {k: v for k, v in shared.items() if k not in info.ignore}
    return parts | {name: digest(value) for name, value in kept.items()}


def key_of(info: StageInfo, parts: Mapping[str, Any]) -> str:
    """The key of one item: sha256 over stage name and parts."""
    return digest({"stage": info.name, **parts})


def read_record(folder: Path) -> dict[str, Any] | None:
    """The record of a finished folder, or None when there is none that can be read."""
    try:
        record = read_json(folder / RECORD)
    except (OSError, ValueError):
        return None
    whole = isinstance(record, dict) and all(isinstance(record.get(k), dict) for k in ("inputs", "outputs"))
    return record if whole else None


def why_again(record: Mapping[str, Any] | None, parts: Mapping[str, Any]) -> str:
    """In a few words: what differs from the time the folder was made."""
    if record is None:
        return "new"
    before = record.get("inputs", {})
    changed = [k for k in {**before, **parts} if before.get(k) != parts.get(k)]
    if not changed:
        return "key differs"
    # what all items share says more than the names of hundreds of them
    changed.sort(key=lambda part: (part.startswith("item."), part))
    more = f" and {len(changed) - _NAMED} more" if len(changed) > _NAMED else ""
    return f"changed: {', '.join(changed[:_NAMED])}{more}"


def damage(folder: Path, record: Mapping[str, Any]) -> str | None:
    """The first file that is not what the record says, or None when the folder is whole."""
    now = artifact_of(folder).files
    for name, expected in record["outputs"].items():
        if now.get(name) != expected:
            return name
    return None


def open_partial(partial: Path, key: str) -> Path:
    """The unfinished folder for `key`: kept when it is of the same key, made empty otherwise."""
    mark = partial / KEY
    if not (mark.is_file() and mark.read_text() == key):
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        mark.write_text(key)
    for cut_off in partial.rglob(".*.tmp.*"):  # a file whose writer was killed (see written_whole)
        cut_off.unlink(missing_ok=True)
    return partial


def _item_parts(item: Any) -> dict[str, str]:
    """Digests of the parts of an item, named so that a change can be told."""
    if isinstance(item, Mapping):
        return {f"item.{k}": digest(v) for k, v in item.items()}
    if isinstance(item, tuple):
        return {f"item.{i}": digest(v) for i, v in enumerate(item)}
    return {"item": digest(identity_of(item))}
