"""The spool of a listener: what was acknowledged, and a small file a study that says how far it is.

::

    SPOOL/.incoming/                 on its way, not acknowledged
    SPOOL/studies/<study>/images/<series>/<object>.dcm
                          other/     objects without pixels (SEG, SR, ...)
                          results/   what the predictor wrote
                          refused/   an empty file for each object that there was no room for
                          state.json receipts.jsonl
    SPOOL/failed/<study>/            the same, set aside with the reason in state.json

Every name is a keyed hash. Associations put objects in from their threads (`Arrivals`); only the listener's
main thread changes states.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from medseg.core.files import files_below, read_json, write_json
from medseg.core.spool import make_folder, settle
from medseg.core.values import Value, digest
from medseg.imaging.deidentify import keyed_hash, project_key
from medseg.imaging.dicom_net import SUCCESS
from medseg.imaging.dicom_receive import NO_ROOM, Arrival

INCOMING, STUDIES, FAILED, GONE = ".incoming", "studies", "failed", ".gone"
REFUSED = "refused"
_STATE = "state.json"


class State(Value):
    """How far a study is. `round` names the images it holds for: others have come when it differs."""

    step: Literal["receiving", "received", "predicting", "predicted", "sent", "done", "failed"] = "receiving"
    round: str = ""
    results: tuple[str, ...] = ()
    """Files below ``results/`` to be sent."""
    attempts: int = 0
    """Predictions begun, or sendings that failed, in this step."""
    not_before: float = 0.0
    """Seconds since 1970 before which sending is not tried again."""
    since: float = 0.0
    """When this step began."""
    remarks: tuple[str, ...] = ()
    """Reasons, without anything that identifies."""


def read_state(study: Path) -> State:
    """The state of a study; that of a new one when there is none yet."""
    try:
        return State.model_validate(read_json(study / _STATE))
    except (OSError, ValueError):
        return State()


def write_state(study: Path, state: State) -> State:
    """Write a state whole and flushed, and give it back."""
    write_json(study / _STATE, state.model_dump(mode="json"))
    return state


def round_of(study: Path) -> str:
    """A digest of which images a study has now; empty when it has none."""
    images = study / "images"
    files = [(f.relative_to(images).as_posix(), f.stat()) for f in _objects(images)]
    return digest([[name, about.st_size, about.st_mtime_ns] for name, about in files]) if files else ""


def studies(spool: Path) -> list[Path]:
    """The studies that are not set aside."""
    return sorted(p for p in (spool / STUDIES).iterdir() if p.is_dir() and not p.name.startswith("."))


@dataclass
class Arrivals:
    """What comes in: gives objects their place, and knows which studies may still be growing."""

    spool: Path
    max_bytes: float
    min_free_bytes: float
    max_objects: int
    patience: float = 0.0
    """Seconds to wait longer for what was cut off: the sender will try again."""
    key: bytes = field(default_factory=project_key, repr=False)
    lock: threading.RLock = field(default_factory=threading.RLock)
    begun: float = field(default_factory=time.monotonic)
    _last: dict[str, float] = field(default_factory=dict)
    _rounds: dict[str, str] = field(default_factory=dict)
    _open: dict[Any, set[str]] = field(default_factory=dict)
    _objects: Counter[str] = field(default_factory=Counter)
    _bytes: int = 0

    def __post_init__(self) -> None:
        for name in (INCOMING, STUDIES, FAILED, GONE):
            make_folder(self.spool / name)
        shutil.rmtree(self.spool / GONE)
        make_folder(self.spool / GONE)
        self.count()

    def count(self) -> None:
        """Look how much there is."""
        self._objects.clear()
        self._bytes = 0
        for folder in (*_below(self.spool / STUDIES), *_below(self.spool / FAILED)):
            sizes = [f.stat().st_size for kind in ("images", "other") for f in _objects(folder / kind)]
            self._objects[folder.name] += len(sizes)
            self._bytes += sum(sizes)

    def take(self, arrival: Arrival, association: Any) -> int:
        """Keep one object: success is answered when it lies flushed in its place."""
        name = keyed_hash(arrival.study_uid, self.key, 16)
        size = arrival.file.stat().st_size
        with self.lock:
            place = self._place(arrival)
            known = any((self.spool / part / name / place).is_file() for part in (STUDIES, FAILED))
            if not known and not self._room(name, size):
                self._refused(name, place).touch()
                return NO_ROOM
            self._open.setdefault(association, set()).add(name)
            if settle(arrival.file, self.back(name) / place):
                self._bytes += size
                self._objects[name] += not known
                self._rounds.pop(name, None)
            self._refused(name, place).unlink(missing_ok=True)
            self._last[name] = time.monotonic()
        return SUCCESS

    def _refused(self, study: str, place: Path) -> Path:
        """The mark that an object was refused: a study that lacks any must not be predicted."""
        folder = self.back(study) / REFUSED
        make_folder(folder)
        return folder / place.name

    def _room(self, study: str, size: int) -> bool:
        free = shutil.disk_usage(self.spool).free - size
        fits = self._bytes + size <= self.max_bytes and free >= self.min_free_bytes
        return fits and self._objects[study] < self.max_objects

    def _place(self, arrival: Arrival) -> Path:
        kind = "images" if arrival.is_image else "other"
        series = keyed_hash(arrival.series_uid, self.key, 16)
        return Path(kind) / series / f"{keyed_hash(arrival.sop_uid, self.key, 32)}.dcm"

    def back(self, study: str) -> Path:
        """The folder of a study; one that was set aside is taken up again."""
        folder, aside = self.spool / STUDIES / study, self.spool / FAILED / study
        with self.lock:
            if aside.is_dir() and not folder.exists():
                aside.replace(folder)
                write_state(folder, State())
        return folder

    def round(self, study: Path) -> str:
        """`round_of`, looked up again only when something has come."""
        with self.lock:
            if study.name not in self._rounds:
                self._rounds[study.name] = round_of(study)
            return self._rounds[study.name]

    def ended(self, association: Any) -> None:
        """An association is over: the quiet of what it brought begins now, or later if it was cut off."""
        late = 0.0 if getattr(association, "was_released", False) else self.patience
        with self.lock:
            for name in self._open.pop(association, ()):
                self._last[name] = time.monotonic() + late

    def quiet(self, study: str, seconds: float) -> bool:
        """Whether nothing of a study has come for `seconds` and no association is open that brought any."""
        with self.lock:
            for association in [a for a in self._open if not a.is_alive()]:
                self.ended(association)  # it ended in a way that nobody told us of
            growing = any(study in names for names in self._open.values())
            last = self._last.get(study, self.begun + self.patience)  # a restart cut everything off
        return not growing and time.monotonic() - last >= seconds

    def set_aside(self, study: Path, of_round: str) -> None:
        """Move a failed study out of the way, unless something new has come in the meantime."""
        with self.lock:
            if self.round(study) != of_round:
                return
            aside = self.spool / FAILED / study.name
            shutil.rmtree(aside, ignore_errors=True)
            study.replace(aside)
            self._rounds.pop(study.name, None)

    def forget(self, study: Path, of_round: str) -> None:
        """Remove a finished study, unless something new has come in the meantime."""
        with self.lock:
            if round_of(study) != of_round:
                return
            study.replace(self.spool / GONE / study.name)
            self._rounds.pop(study.name, None)
            shutil.rmtree(self.spool / GONE / study.name)
            self.count()


def _below(folder: Path) -> Iterator[Path]:
    return (path for path in folder.iterdir() if path.is_dir())


def _objects(folder: Path) -> list[Path]:
    return files_below(folder) if folder.is_dir() else []
