"""The listener: nothing acknowledged is lost, nothing is sent twice, one bad study stops no other."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pynetdicom", reason="pynetdicom is not installed (pip install 'medseg[pacs]')")

from medseg.core.config import load_config
from medseg.core.errors import CaseError, MedsegError
from medseg.imaging.deidentify import keyed_hash, project_key
from medseg.imaging.dicom_net import Peer
from medseg.imaging.dicom_receive import NO_ROOM, Arrival
from medseg.workflows import listening
from medseg.workflows.listening_spool import (
    FAILED,
    STUDIES,
    Arrivals,
    State,
    read_state,
    round_of,
    write_state,
)
from medseg.workflows.pacs_settings import PacsSettings
from tests.pacs_server import OURS, Archive, dcmtk, free_port, orthanc

PROJECT = Path(__file__).resolve().parents[2]
PATIENCE = "listen.broken_seconds=0.3"
FAKE = "listen.predict=tests.workflows.fake_predictor:make"
DOOR = [
    "listen.host=127.0.0.1",
    "listen.callers=[SENDER]",
    "listen.peers=[127.0.0.1]",
    "listen.min_free_gb=0",
]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    with orthanc(tmp_path_factory.mktemp("orthanc")) as running:
        yield running


@pytest.fixture
def empty(archive: Archive) -> Archive:
    archive.clear()
    return archive


def until(true: Callable[[], Any], seconds: float = 40) -> Any:
    """Wait until something holds, and give it."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := true():
            return found
        time.sleep(0.02)
    raise AssertionError("it did not come true in time")


def slices(tiny_dicom: Path, patient: int) -> list[Path]:
    return sorted((tiny_dicom / f"patient00{patient}" / "ct").glob("*.dcm"))


def send(port: int, files: Sequence[Path]) -> int:
    words = [dcmtk("storescu"), "-aet", "SENDER", "-aec", OURS, "127.0.0.1", str(port), *map(str, files)]
    return subprocess.run(words, capture_output=True, check=False, timeout=30).returncode


def study_of(files: Sequence[Path]) -> str:
    from pydicom import dcmread

    return keyed_hash(str(dcmread(files[0], stop_before_pixels=True).StudyInstanceUID), project_key(), 16)


# in this process, for what needs no killing


@dataclass
class Listener:
    """A listener in a thread."""

    port: int
    spool: Path
    outcome: list[Any]

    def state(self, study: str) -> State:
        return read_state(self.spool / STUDIES / study)


@contextmanager
def listener(
    spool: Path, words: Sequence[str], model: str | Path = "copy", **more: Any
) -> Iterator[Listener]:
    settings = load_config(
        PacsSettings, None, [*DOOR, "listen.port=0", "listen.quiet_seconds=0.3", PATIENCE, FAKE, *words]
    )
    stop, ports, outcome = threading.Event(), [], []

    def work() -> None:
        outcome.append(listening.listen(settings, model, spool, stop=stop, ready=ports.append, **more))

    thread = threading.Thread(target=work)
    thread.start()
    try:
        until(lambda: ports or not thread.is_alive())
        yield Listener(ports[0], spool, outcome)
    finally:
        stop.set()
        thread.join(timeout=30)


def test_a_study_comes_in_is_predicted_and_its_seg_goes_back(
    empty: Archive, tiny_run: Path, tiny_dicom: Path, tmp_path: Path
) -> None:
    from medseg.imaging import dicom_query, dicom_web
    from medseg.imaging.dicom_header import read_header

    files = slices(tiny_dicom, 1)
    settings = load_config(PacsSettings, None, empty.words)
    with listener(tmp_path, [*empty.words, "listen.predict=medseg"], tiny_run, device="cpu") as running:
        assert send(running.port, files) == 0
        until(lambda: running.state(study_of(files)).step == "done")
    find = dicom_web.asking_web(settings.pacs)
    (seg,) = dicom_query.find_series(find, {"PatientID": "PHANTOM*", "Modality": "SEG"})
    assert seg.instances == 1
    (result,) = (tmp_path / STUDIES / study_of(files) / "results").glob("*.seg.dcm")
    header, source = read_header(result), read_header(files[0])
    assert header is not None and source is not None
    assert (header.referenced_series, header.study_uid) == (source.series_uid, source.study_uid)
    assert [running.outcome[0].exit_code, running.outcome[0].summary["counts"]] == [0, {"done": 1}]


def test_late_images_make_a_new_round_and_the_same_again_make_none(
    empty: Archive, tiny_dicom: Path, tmp_path: Path
) -> None:
    files = slices(tiny_dicom, 1)
    with listener(tmp_path, empty.words) as running:

        def done(images: int) -> bool:
            descriptions = [i["MainDicomTags"].get("SeriesDescription") for i in empty.get("/series?expand")]
            return f"result of {images}" in descriptions and running.state(study_of(files)).step == "done"

        send(running.port, files[:5])
        until(lambda: done(5))
        send(running.port, files)
        until(lambda: done(len(files)))
        before = (tmp_path / STUDIES / study_of(files) / "state.json").stat().st_mtime_ns
        send(running.port, files)
        time.sleep(1)
        assert (tmp_path / STUDIES / study_of(files) / "state.json").stat().st_mtime_ns == before
    assert len(empty.instances()) == 2


def test_a_failed_study_is_set_aside_and_taken_up_when_it_is_sent_again(
    empty: Archive, tiny_dicom: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from pydicom import dcmread

    bad, good = slices(tiny_dicom, 1), slices(tiny_dicom, 2)
    caplog.set_level(logging.DEBUG, "medseg")
    uid = str(dcmread(bad[0]).StudyInstanceUID)
    with listener(tmp_path, empty.words, f"refuse:{uid}") as running:
        send(running.port, [*bad, *good])
        until(lambda: running.state(study_of(good)).step == "done")
        aside = tmp_path / FAILED / study_of(bad)
        until(lambda: read_state(aside).step == "failed")
        first = read_state(aside)
        assert "this study is refused" in first.remarks[0] and f"{len(bad)} images" in first.remarks[0]
        send(running.port, bad[:1])
        until(lambda: read_state(aside).step == "failed" and read_state(aside).since > first.since)
    assert running.outcome[0].exit_code == 3
    assert study_of(bad) in running.outcome[0].text
    assert len(list(aside.glob("images/*/*.dcm"))) == len(bad)
    with listener(tmp_path, [*empty.words, "listen.retry_failed=true"]) as running:
        until(lambda: running.state(study_of(bad)).step == "done")
    assert len(empty.instances()) == 2
    text = caplog.text + json.dumps([p.read_text() for p in tmp_path.rglob("*.json*")])
    assert not [word for word in ("PHANTOM", "Phantom", "2.25.", uid) if word in text]


def test_objects_without_pixels_are_kept_and_start_nothing(
    empty: Archive, tiny_dicom: Path, tmp_path: Path
) -> None:
    from medseg.imaging import dicom_store

    seg = tiny_dicom / "patient001" / "seg.dcm"
    thing = dicom_store.outgoing(seg)
    assert thing is not None
    with listener(tmp_path, empty.words) as running:
        answers: list[Any] = []
        to = Peer(host="127.0.0.1", port=running.port, called_ae=OURS, ae_title="SENDER", timeout_seconds=5)
        dicom_store.send(to, [thing], answers.append)
        assert answers[0].stored
        until(lambda: running.state(study_of([seg])).step == "done")
    assert "nothing to predict" in running.state(study_of([seg])).remarks[0]
    assert len(list((tmp_path / STUDIES).glob("*/other/*/*.dcm"))) == 1
    assert empty.instances() == []


def test_uids_like_paths_stay_inside_the_spool(empty: Archive, tiny_dicom: Path, tmp_path: Path) -> None:
    from pydicom import dcmread

    from medseg.imaging import dicom_store
    from medseg.imaging.dicom_header import tolerant

    (tmp_path / "in").mkdir()
    with tolerant():
        evil = dcmread(slices(tiny_dicom, 1)[0])
        evil.StudyInstanceUID, evil.SeriesInstanceUID = "../../../evil", "/tmp/evil"
        evil.SOPInstanceUID = evil.file_meta.MediaStorageSOPInstanceUID = "../x"
        evil.save_as(tmp_path / "in" / "evil.dcm", enforce_file_format=True)
        thing = dicom_store.outgoing(tmp_path / "in" / "evil.dcm")
    assert thing is not None and thing.sop_uid == "../x"
    spool = tmp_path / "deep" / "spool"
    with listener(spool, [*empty.words, "listen.send=nowhere"]) as running:
        answers: list[Any] = []
        to = Peer(host="127.0.0.1", port=running.port, called_ae=OURS, ae_title="SENDER", timeout_seconds=5)
        dicom_store.send(to, [thing], answers.append)
        assert answers[0].stored
        until(lambda: len(list(spool.glob("studies/*/images/*/*.dcm"))) == 1)
    outside = [p for p in tmp_path.rglob("*") if p.is_file() and spool not in p.parents]
    assert outside == [tmp_path / "in" / "evil.dcm"]
    assert not Path("/tmp/evil").exists()


# killed at every point


@contextmanager
def child(
    spool: Path, port: int, words: Sequence[str], model: str = "copy"
) -> Iterator[subprocess.Popen[bytes]]:
    """``medseg pacs listen`` as a process of its own; its log lies beside the spool."""
    log = spool.with_suffix(".log")
    call = [sys.executable, "-m", "medseg.cli", "pacs", "listen", model, "--run", str(spool), *DOOR, FAKE]
    call += [f"listen.port={port}", "listen.quiet_seconds=0.3", PATIENCE, *words]
    ready = log.read_bytes().count(b"listening on port") if log.exists() else 0
    with log.open("ab") as stream:
        process = subprocess.Popen(call, cwd=PROJECT, stdout=stream, stderr=stream)
    try:
        until(lambda: log.read_bytes().count(b"listening on port") > ready or process.poll() is not None)
        yield process
    finally:
        process.kill()
        process.wait()


def test_killed_between_receiving_predicting_and_sending_the_result_arrives_once(
    empty: Archive, tiny_dicom: Path, tmp_path: Path
) -> None:
    files, spool, port = slices(tiny_dicom, 1), tmp_path / "spool", free_port()
    study, go = spool / STUDIES / study_of(files), tmp_path / "go"
    away = [*empty.words, f"pacs.port={free_port()}"]

    with child(spool, port, [*away, "listen.quiet_seconds=60"], f"wait:{go}") as process:
        assert send(port, files) == 0  # acknowledged: from here on it may not be lost
        os.kill(process.pid, signal.SIGKILL)
    assert len(list(study.glob("images/*/*.dcm"))) == len(files)
    assert not (study / "state.json").exists()

    with child(spool, port, away, f"wait:{go}") as process:
        until(lambda: read_state(study).step == "predicting")
        os.kill(process.pid, signal.SIGKILL)
    assert not (study / "results" / "result.dcm").exists()

    go.touch()
    with child(spool, port, away, f"wait:{go}") as process:
        until(lambda: read_state(study).attempts and read_state(study).step == "predicted")
        os.kill(process.pid, signal.SIGKILL)
    result = (study / "results" / "result.dcm").read_bytes()
    assert empty.instances() == []

    words = [*empty.words, "listen.clean_after_hours=null"]
    with child(spool, port, words, f"wait:{go}") as process:
        until(lambda: len(empty.instances()) == 1)
        os.kill(process.pid, signal.SIGKILL)
    with child(spool, port, words, f"wait:{go}") as process:
        until(lambda: read_state(study).step == "done")
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 0
    assert (study / "results" / "result.dcm").read_bytes() == result
    (instance,) = empty.instances()
    assert instance["MainDicomTags"]["SOPInstanceUID"].encode() in result
    said = spool.with_suffix(".log").read_text()
    assert "next try in" in said and "stopping" in said
    assert not [word for word in ("PHANTOM", "Phantom", "2.25.", "Traceback") if word in said]


def test_a_study_that_ends_the_program_again_and_again_is_set_aside(
    empty: Archive, tiny_dicom: Path, tmp_path: Path
) -> None:
    files, spool, port = slices(tiny_dicom, 1), tmp_path / "spool", free_port()
    words = [*empty.words, "listen.max_attempts=1"]
    with child(spool, port, words, "crash") as process:
        assert send(port, files) == 0
        assert process.wait(timeout=30) == 9
    with child(spool, port, words, "crash") as process:
        until(lambda: read_state(spool / FAILED / study_of(files)).step == "failed")
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 3
    assert "ended the program" in read_state(spool / FAILED / study_of(files)).remarks[0]


def test_two_listeners_do_not_share_a_spool_or_a_port(empty: Archive, tmp_path: Path) -> None:
    with listener(tmp_path / "one", empty.words) as running:
        taken = load_config(PacsSettings, None, [*DOOR, FAKE, *empty.words, f"listen.port={running.port}"])
        with pytest.raises(MedsegError, match="cannot be listened on"):
            listening.listen(taken, "copy", tmp_path / "two")
        call = [sys.executable, "-m", "medseg.cli", "pacs", "listen", "copy", "--run", str(tmp_path / "one")]
        call += [*DOOR, FAKE, *empty.words, f"listen.port={free_port()}"]
        done = subprocess.run(call, cwd=PROJECT, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 2
        assert "another process" in done.stderr


# the spool by itself


def arrival(folder: Path, sop: str = "1", study: str = "1.2", content: bytes = b"image") -> Arrival:
    folder.mkdir(exist_ok=True)
    (folder / "came").write_bytes(content)
    return Arrival(folder / "came", study, f"{study}.1", sop, is_image=True)


class Line(threading.Thread):
    """Stands for an association: open for as long as it is alive."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.over = threading.Event()
        self.was_released = True
        self.start()

    def run(self) -> None:
        self.over.wait(30)


def desk(tmp_path: Path, **more: Any) -> Arrivals:
    limits = {"max_bytes": 1e9, "min_free_bytes": 0, "max_objects": 100}
    return Arrivals(tmp_path / "spool", **{**limits, **more})


def test_limits_refuse_objects_and_keep_nothing_of_them(tmp_path: Path) -> None:
    line = Line()
    few = desk(tmp_path, max_objects=2)
    assert [few.take(arrival(tmp_path / "in", sop), line) for sop in "1223"] == [0, 0, 0, NO_ROOM]
    small = desk(tmp_path, max_bytes=20)
    assert small.take(arrival(tmp_path / "in", "4"), line) == 0
    assert small.take(arrival(tmp_path / "in", "5", content=b"long image"), line) == NO_ROOM
    full = desk(tmp_path, min_free_bytes=shutil.disk_usage(tmp_path).total)
    assert full.take(arrival(tmp_path / "in", "6"), line) == NO_ROOM
    assert len(list((tmp_path / "spool").glob("studies/*/images/*/*.dcm"))) == 3
    line.over.set()


def test_a_study_of_which_something_was_refused_is_not_predicted(tmp_path: Path) -> None:
    line, arrivals = Line(), desk(tmp_path, max_objects=1)
    assert [arrivals.take(arrival(tmp_path / "in", sop), line) for sop in "12"] == [0, NO_ROOM]
    (study,) = (arrivals.spool / STUDIES).iterdir()
    ready = State(step="received", round=round_of(study))
    with pytest.raises(CaseError, match="not whole"):
        listening._predict(job(), arrivals, study, ready)
    arrivals.max_objects = 2
    assert arrivals.take(arrival(tmp_path / "in", "2"), line) == 0
    listening._predict(job(), arrivals, study, ready)
    assert read_state(study).step == "predicted"
    line.over.set()


def test_what_was_cut_off_is_given_more_time(tmp_path: Path) -> None:
    study = keyed_hash("1.2", project_key(), 16)
    for released in (True, False):
        line, arrivals = Line(), desk(tmp_path, patience=60)
        assert not arrivals.quiet(study, 0)  # as after a restart
        arrivals.take(arrival(tmp_path / "in"), line)
        line.was_released = released
        arrivals.ended(line)
        assert arrivals.quiet(study, 0) is released
        line.over.set()


def test_results_that_are_gone_are_made_again(tmp_path: Path) -> None:
    arrivals = desk(tmp_path)
    study = kept_study(arrivals, tmp_path, step="predicted", results=("gone.dcm",), since=time.time())
    listening._step(job(), arrivals, study)
    assert read_state(study).step == "received"


def test_a_study_that_grew_while_it_failed_is_not_set_aside(tmp_path: Path) -> None:
    arrivals = desk(tmp_path)
    study = kept_study(arrivals, tmp_path, step="received")
    before = read_state(study)
    arrivals.take(arrival(tmp_path / "in", "2"), threading.current_thread())
    listening._fail(job(), arrivals, study, before, "bad")
    assert study.exists()
    listening._fail(job(), arrivals, study, before.but(round=round_of(study)), "bad")
    assert not study.exists() and read_state(arrivals.spool / FAILED / study.name).remarks == ("bad",)


def test_a_study_is_quiet_only_after_its_last_association_ended(tmp_path: Path) -> None:
    arrivals, line, other = desk(tmp_path), Line(), Line()
    study = keyed_hash("1.2", project_key(), 16)
    assert arrivals.take(arrival(tmp_path / "in"), line) == 0
    assert not arrivals.quiet(study, 0)
    arrivals.ended(other)
    assert not arrivals.quiet(study, 0)
    arrivals.ended(line)
    assert arrivals.quiet(study, 0)
    assert not arrivals.quiet(study, 5)
    arrivals.take(arrival(tmp_path / "in", "2"), other)
    assert not arrivals.quiet(study, 0)
    other.over.set()  # it dies without a word
    other.join()
    assert arrivals.quiet(study, 0)
    line.over.set()


def job(**settings: Any) -> Any:
    given = load_config(PacsSettings, None, [f"listen.{key}={value}" for key, value in settings.items()])
    return listening._Job(given.listen, Peer(host="127.0.0.1", port=free_port()), lambda images, out: [], {})


def kept_study(arrivals: Arrivals, tmp_path: Path, **state: Any) -> Path:
    arrivals.take(arrival(tmp_path / "in"), threading.current_thread())
    arrivals.ended(threading.current_thread())
    (study,) = (arrivals.spool / STUDIES).iterdir()
    write_state(study, State(round=round_of(study), **state))
    return study


def test_done_studies_leave_after_their_time_and_new_images_keep_them(tmp_path: Path) -> None:
    arrivals = desk(tmp_path)
    study = kept_study(arrivals, tmp_path, step="done", since=time.time() - 7200)
    for hours, there in (("null", True), ("3", True), ("1", False)):
        listening._step(job(clean_after_hours=hours), arrivals, study)
        assert study.exists() is there
    study = kept_study(arrivals, tmp_path, step="done", since=0)
    before = read_state(study)
    arrivals.take(arrival(tmp_path / "in", "2"), threading.current_thread())
    arrivals.forget(study, before.round)
    assert study.exists()
    assert [p.name for p in (tmp_path / "spool" / ".gone").iterdir()] == []


def test_delivery_is_tried_with_growing_pauses_and_given_up_in_the_end(tmp_path: Path) -> None:
    arrivals = desk(tmp_path)
    study = kept_study(arrivals, tmp_path, step="predicted", since=time.time())
    pauses = []
    for _ in range(12):
        listening._try_later(job(), study, read_state(study), "away", hopeless=False)
        pauses.append(round(read_state(study).not_before - time.time()))
    assert pauses[:4] == [1, 2, 4, 8] and pauses[-1] == 300
    with pytest.raises(CaseError, match="cannot be delivered"):
        listening._try_later(job(), study, read_state(study).but(since=0), "away", hopeless=False)
    with pytest.raises(CaseError, match="cannot be delivered"):
        listening._try_later(job(), study, read_state(study), "refused", hopeless=True)


def test_a_state_that_cannot_be_read_costs_a_prediction_and_no_image(tmp_path: Path) -> None:
    study = kept_study(desk(tmp_path), tmp_path, step="done", since=1)
    (study / "state.json").write_text('{"step": "do')
    assert read_state(study) == State()
    assert len(list(study.glob("images/*/*.dcm"))) == 1


def test_what_was_on_its_way_when_killed_is_cleared(tmp_path: Path) -> None:
    from medseg.imaging.dicom_receive import clear

    (tmp_path / ".incoming" / "folder").mkdir(parents=True)
    (tmp_path / ".incoming" / "half.dcm").write_bytes(b"half")
    clear(tmp_path / ".incoming")
    assert list((tmp_path / ".incoming").iterdir()) == []


def test_without_a_place_for_results_it_does_not_start(tmp_path: Path) -> None:
    settings = load_config(PacsSettings, None, [*DOOR, FAKE])
    with pytest.raises(MedsegError, match="where results go"):
        listening.listen(settings, "copy", tmp_path)
