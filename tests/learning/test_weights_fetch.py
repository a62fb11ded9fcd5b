"""Weights from elsewhere: pinned, resumed, refused when they are another file; the hub without a network."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from medseg.core.errors import MedsegError
from medseg.learning.settings import Transfer
from medseg.learning.weights import load_weights
from medseg.learning.weights_fetch import Source, fetch_weights

COMMIT = "a" * 40


@pytest.fixture
def file(tmp_path: Path) -> Path:
    torch.save({"a.b": torch.arange(4.0)}, tmp_path / "weights.pth")
    return tmp_path / "weights.pth"


@pytest.fixture
def sha(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.fixture
def serve(file: Path) -> Iterator[Callable[[], tuple[str, list[str]]]]:
    """A server that gives the file at any address, and the list of what it was asked for."""
    asked: list[str] = []
    content = file.read_bytes()

    class Answer(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

        def do_HEAD(self) -> None:
            self._head()

        def do_GET(self) -> None:
            self._head()
            self.wfile.write(content)

        def _head(self) -> None:
            asked.append(f"{self.command} {self.path} {self.headers.get('User-Agent', '')}")
            if "missing" in self.path:
                self.send_response(404)
                self.send_header("X-Error-Code", "EntryNotFound")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("ETag", '"abc"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.end_headers()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield lambda: (f"http://127.0.0.1:{server.server_address[1]}", asked)
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_web_address_gives_the_file_that_was_pinned(serve, sha, tmp_path):
    url, _ = serve()
    got = fetch_weights(Source(f"{url}/x/weights.pth?token=1", sha), tmp_path / "got", quiet=True)
    assert got.name == "weights.pth"
    assert load_weights(got).sha256 == sha


def test_another_file_than_the_pinned_one_is_refused_and_goes(serve, tmp_path):
    url, _ = serve()
    with pytest.raises(MedsegError, match="not the file that was pinned"):
        fetch_weights(Source(f"{url}/weights.pth", "0" * 64), tmp_path / "got", quiet=True)
    assert not list((tmp_path / "got").iterdir())


def test_unpinned_takes_what_comes(serve, tmp_path):
    url, _ = serve()
    fetch_weights(Source(f"{url}/weights.pth", "unpinned"), tmp_path / "got", quiet=True)


def test_the_hub_is_asked_for_the_file_alone_and_its_cache_serves_without_it(
    serve, sha, tmp_path, monkeypatch
):
    pytest.importorskip("huggingface_hub")
    url, asked = serve()
    monkeypatch.setenv("HF_ENDPOINT", url)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    source = Source(f"hf:owner/name/some/weights.pth@{COMMIT}", sha)
    first = fetch_weights(source, tmp_path / "got")
    assert load_weights(first).sha256 == sha
    assert all(f"/owner/name/resolve/{COMMIT}/some/weights.pth" in request for request in asked)
    seen = len(asked)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert fetch_weights(source, tmp_path / "got") == first
    assert len(asked) == seen
    with pytest.raises(MedsegError, match="not the file that was pinned"):
        fetch_weights(Source(source.address, "0" * 64), tmp_path / "got")
    assert first.exists(), "the cache is the hub's, not ours to clean"


def test_a_cache_as_the_hub_lays_it_serves_a_named_revision(file, sha, tmp_path, monkeypatch):
    pytest.importorskip("huggingface_hub")
    home = tmp_path / "cache" / "models--owner--name"
    for folder in ("blobs", "refs", f"snapshots/{COMMIT}"):
        (home / folder).mkdir(parents=True)
    (home / "refs" / "main").write_text(COMMIT)
    (home / "blobs" / sha).write_bytes(file.read_bytes())
    (home / "snapshots" / COMMIT / "w.pth").symlink_to(home / "blobs" / sha)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for address in ("hf:owner/name/w.pth", "hf:owner/name/w.pth@main"):
        assert load_weights(fetch_weights(Source(address, sha), tmp_path)).sha256 == sha


def test_what_the_hub_has_not_is_told(serve, sha, tmp_path, monkeypatch):
    pytest.importorskip("huggingface_hub")
    monkeypatch.setenv("HF_ENDPOINT", serve()[0])
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(MedsegError, match="does not give the file"):
        fetch_weights(Source(f"hf:owner/name/missing.pth@{COMMIT}", sha), tmp_path / "got")


@pytest.mark.parametrize("address", ["hf:owner", "hf:owner/name", "hf:owner/name/"])
def test_an_address_on_the_hub_has_three_parts(address, tmp_path):
    with pytest.raises(MedsegError, match="owner/repository/file"):
        fetch_weights(Source(address, "0" * 64), tmp_path)


@pytest.mark.parametrize("source", ["hf:a/b/c.pth", "https://x.org/c.pth"])
def test_what_comes_from_elsewhere_must_be_pinned(source):
    with pytest.raises(ValueError, match="sha256"):
        Transfer(source=source)
    assert Transfer(source=source, sha256="unpinned").remote
    assert Transfer(source=source, sha256="AB" * 32).sha256 == "ab" * 32


def test_the_identity_is_the_content_and_the_address_only_where_any_content_is_taken(file, sha, tmp_path):
    other = tmp_path / "other.pth"
    other.write_bytes(file.read_bytes())
    assert Source(str(file)).identity() == Source(str(other)).identity()
    assert Source("https://x.org/w.pth", sha).identity() == Source("hf:a/b/w.pth", sha).identity()
    assert Source("https://x.org/w.pth", "unpinned").identity() == "https://x.org/w.pth"
    other.write_bytes(b"else")
    assert Source(str(file)).identity() != Source(str(other)).identity()
