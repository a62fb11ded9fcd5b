"""Fetch: whole, checked, resumed, and safe to unpack. The server stands on loopback."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from medseg.core.errors import MedsegError
from medseg.data import download, unpack
from medseg.data.cohort import Cohort
from medseg.data.public import SETS, describe, fetch

NAME = "msd-hippocampus"
TOP = "Task04_Hippocampus"


class Server(ThreadingHTTPServer):
    """Serves one archive; knows ranges; can break the line or lose its temper."""

    body: bytes = b""
    ranges: list[str | None]
    break_after: list[int]
    errors: list[int]
    knows_ranges = True


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.server.ranges.append(asked)
        if self.server.errors:
            self.send_error(self.server.errors.pop(0))
            return
        start = int(asked[6:-1]) if asked and self.server.knows_ranges else 0
        if start >= len(self.server.body):
            self.send_error(416)
            return
        part = self.server.body[start:]
        self.send_response(206 if start else 200)
        if start:
            self.send_header(
                "Content-Range", f"bytes {start}-{len(self.server.body) - 1}/{len(self.server.body)}"
            )
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part[: self.server.break_after.pop(0)] if self.server.break_after else part)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(download, "PAUSE_S", 0.0)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    made = Server(("127.0.0.1", 0), Handler)
    made.ranges, made.break_after, made.errors = [], [], []
    thread = threading.Thread(target=made.serve_forever, daemon=True)
    thread.start()
    yield made
    made.shutdown()
    made.server_close()
    thread.join()


def archive(members: dict[str, bytes], more: Callable[[tarfile.TarFile], None] | None = None) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        if more:
            more(tar)
    return stream.getvalue()


def good() -> bytes:
    said = {"labels": {"0": "background", "1": "organ"}, "training": []}
    return archive(
        {
            f"{TOP}/dataset.json": json.dumps(said).encode(),
            f"{TOP}/._dataset.json": b"finder",
            f"{TOP}/imagesTr/a.nii.gz": bytes(range(256)) * 200,
        }
    )


def get(server: Server, folder: Path, body: bytes, md5: str | None = None) -> Path:
    server.body = body
    url = f"http://127.0.0.1:{server.server_address[1]}/{TOP}.tar"
    return fetch(NAME, folder, url=url, md5=md5 or hashlib.md5(body).hexdigest(), quiet=True)


def test_a_set_is_fetched_unpacked_and_then_left_alone(server: Server, tmp_path: Path) -> None:
    folder = get(server, tmp_path / "data", good())
    assert folder == tmp_path / "data" / TOP
    assert (folder / "imagesTr" / "a.nii.gz").stat().st_size == 51200
    assert not (folder / "._dataset.json").exists()
    assert [p.name for p in (tmp_path / "data").iterdir()] == [TOP]
    assert get(server, tmp_path / "data", good()) == folder
    assert len(server.ranges) == 1


def test_a_broken_line_goes_on_where_it_stopped(server: Server, tmp_path: Path) -> None:
    server.break_after = [20_000, 10_000]
    get(server, tmp_path, good())
    assert server.ranges == [None, "bytes=20000-", "bytes=30000-"]


def test_a_part_kept_from_yesterday_is_used(server: Server, tmp_path: Path) -> None:
    (tmp_path / f".{TOP}.tar.part").write_bytes(good()[:33_000])
    get(server, tmp_path, good())
    assert server.ranges == ["bytes=33000-"]


def test_a_whole_archive_kept_from_yesterday_is_not_loaded_again(server: Server, tmp_path: Path) -> None:
    (tmp_path / f".{TOP}.tar.part").write_bytes(good())
    get(server, tmp_path, good())
    assert server.ranges == [f"bytes={len(good())}-"]


def test_a_part_of_another_archive_is_thrown_away(server: Server, tmp_path: Path) -> None:
    (tmp_path / f".{TOP}.tar.part").write_bytes(b"x" * 5000)
    get(server, tmp_path, good())
    assert server.ranges == ["bytes=5000-", None]


def test_a_server_without_ranges_is_read_from_the_start(server: Server, tmp_path: Path) -> None:
    server.knows_ranges = False
    server.break_after = [20_000]
    assert get(server, tmp_path, good()).is_dir()


def test_a_server_that_stumbles_is_asked_again_and_one_that_refuses_is_not(
    server: Server, tmp_path: Path
) -> None:
    server.errors = [503, 500]
    get(server, tmp_path / "a", good())
    assert len(server.ranges) == 3
    server.errors = [404]
    with pytest.raises(MedsegError, match="refuses the download") as error:
        get(server, tmp_path / "b", good())
    assert "HTTP 404" in str(error.value)
    assert len(server.ranges) == 4


def test_a_server_that_never_answers_is_given_up_with_advice(server: Server, tmp_path: Path) -> None:
    server.errors = [503] * 10
    with pytest.raises(MedsegError, match="failed 6 times") as error:
        get(server, tmp_path, good())
    assert "goes on where it stopped" in str(error.value)


def test_a_wrong_checksum_leaves_nothing_behind(server: Server, tmp_path: Path) -> None:
    with pytest.raises(MedsegError, match="not the one that was expected") as error:
        get(server, tmp_path, good(), md5="0" * 32)
    assert "MD5" in str(error.value)
    assert list(tmp_path.iterdir()) == []


def _link(name: str, target: str, kind: bytes) -> Callable[[tarfile.TarFile], None]:
    def add(tar: tarfile.TarFile) -> None:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, target
        tar.addfile(info)

    return add


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (archive({f"{TOP}/../../evil": b"x"}), "leads out"),
        (archive({"/etc/evil": b"x"}), "leads out"),
        (
            archive({f"{TOP}/ok": b"x"}, _link(f"{TOP}/l", "/etc/passwd", tarfile.SYMTYPE)),
            "a link or a device",
        ),
        (archive({f"{TOP}/ok": b"x"}, _link(f"{TOP}/l", f"{TOP}/ok", tarfile.LNKTYPE)), "a link or a device"),
        (archive({f"{TOP}/ok": b"x"}, _link(f"{TOP}/d", "", tarfile.FIFOTYPE)), "a link or a device"),
        (archive({"Other/dataset.json": b"{}"}), "does not hold the data set"),
        (b"this is no archive" * 100, "cannot be unpacked"),
    ],
)
def test_a_hostile_or_wrong_archive_is_refused(
    server: Server, tmp_path: Path, body: bytes, words: str
) -> None:
    with pytest.raises(MedsegError, match=words):
        get(server, tmp_path / "data", body)
    assert not (tmp_path / "data" / TOP).exists()
    assert not (tmp_path / "evil").exists()
    assert not any(p.is_dir() for p in (tmp_path / "data").iterdir())


def test_bombs_are_refused(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpack, "MAX_ENTRIES", 3)
    with pytest.raises(MedsegError, match="more than 3 entries"):
        get(server, tmp_path, archive({f"{TOP}/{n}": b"" for n in range(5)}))
    monkeypatch.setattr(unpack, "MAX_ENTRIES", 100)
    monkeypatch.setattr(unpack, "SLACK_BYTES", 0)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        info = tarfile.TarInfo(f"{TOP}/zeros")
        info.size = 10_000_000
        tar.addfile(info, io.BytesIO(bytes(info.size)))
    with pytest.raises(MedsegError, match="grows beyond bound"):
        get(server, tmp_path, packed.getvalue())


def test_a_folder_of_the_users_own_is_never_touched(server: Server, tmp_path: Path) -> None:
    mine = tmp_path / TOP / "notes.txt"
    mine.parent.mkdir()
    mine.write_text("mine")
    with pytest.raises(MedsegError, match="is not this data set"):
        get(server, tmp_path, good())
    assert mine.read_text() == "mine"
    assert server.ranges == []


def test_names_are_known_and_near_ones_proposed(tmp_path: Path) -> None:
    assert len(SETS) == 10
    assert all(len(found.md5) == 32 and found.url.startswith("https://") for found in SETS.values())
    assert NAME in describe()
    with pytest.raises(MedsegError, match="unknown data set") as error:
        fetch("msd-hipocampus", tmp_path)
    assert f"did you mean '{NAME}'" in str(error.value)
    with pytest.raises(MedsegError, match="only http"):
        fetch(NAME, tmp_path, url="file:///etc/passwd")


def test_what_was_fetched_opens_as_a_cohort(server: Server, tmp_path: Path) -> None:
    folder = get(server, tmp_path, good())
    assert [r.status for r in Cohort.open(folder).refused] == ["skipped"]
