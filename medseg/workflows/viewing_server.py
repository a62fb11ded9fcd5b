"""A server for one person on this machine: a fixed table of answers behind a random address, and no more."""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

log = logging.getLogger("medseg")

HOST = "127.0.0.1"
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Frame-Options": "DENY",
}


@dataclass(frozen=True)
class Answer:
    """What is sent: bytes or a file, its media type, and a policy for a page."""

    body: bytes | Path
    kind: str
    policy: str = "default-src 'none'"


Answers = Callable[[str], Answer | None]
"""The decoded path below the token, without a leading slash -> answer; None: there is nothing."""


@contextmanager
def serving(answers: Answers) -> Iterator[str]:
    """Serve on the loopback interface, on a free port, until the block ends; gives the address.

    The address holds a random token. A request without it, of another host name (a page elsewhere that had
    its name pointed here), or for anything that `answers` does not know, gets 404 and no word more.
    """
    token = secrets.token_urlsafe(24)
    server = ThreadingHTTPServer((HOST, 0), _handler(token, answers))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True)
    thread.start()
    try:
        yield f"http://{HOST}:{server.server_port}/{token}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def table(known: Mapping[str, Callable[[], Answer]]) -> Answers:
    """Answers from a table of exact paths."""
    return lambda path: known[path]() if path in known else None


def _handler(token: str, answers: Answers) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        """Answers GET and HEAD."""

        server_version, sys_version = "medseg", ""
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            """Send the answer, or 404."""
            self._send(whole=True)

        def do_HEAD(self) -> None:
            """Send its headers."""
            self._send(whole=False)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing is logged: the address holds the token."""

        def _send(self, whole: bool) -> None:
            answer = self._answer()
            size = 0 if answer is None else _size(answer.body)
            self.send_response(HTTPStatus.NOT_FOUND if answer is None else HTTPStatus.OK)
            for name, value in HEADERS.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(size))
            if answer is not None:
                self.send_header("Content-Type", answer.kind)
                self.send_header("Content-Security-Policy", answer.policy)
            self.end_headers()
            if answer is not None and whole:
                self._write(answer.body)

        def _write(self, body: bytes | Path) -> None:
            try:
                if isinstance(body, bytes):
                    self.wfile.write(body)
                    return
                with body.open("rb") as stream:
                    while chunk := stream.read(1 << 20):
                        self.wfile.write(chunk)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True

        def _answer(self) -> Answer | None:
            port = self.connection.getsockname()[1]
            here = {f"{HOST}:{port}", f"localhost:{port}"}
            given, _, path = urlsplit(self.path).path.lstrip("/").partition("/")
            if self.headers.get("Host") not in here or not secrets.compare_digest(
                given.encode("utf-8", "replace"), token.encode()
            ):
                return None
            try:
                return answers(unquote(path))
            except OSError:
                log.warning("a file that was to be shown is gone")
                return None

    return Handler


def _size(body: bytes | Path) -> int:
    return len(body) if isinstance(body, bytes) else body.stat().st_size
