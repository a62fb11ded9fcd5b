"""A download over http that goes on where it was cut off."""

from __future__ import annotations

import shutil
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path
from typing import Any

from medseg.core.errors import MedsegError
from medseg.core.progress import meter

MIB = 2**20
TRIES = 6
TIMEOUT_S = 30
PAUSE_S = 1.0
"""Wait before the second try; doubled for each further one, up to eight times."""


def download(url: str, file: Path, *, quiet: bool = False) -> None:
    """Download `url` to `file`, from where `file` ends; tries again when the line breaks.

    Raises
    ------
    MedsegError
        Not an http(s) address, refused by the server, not enough room, or no answer in six tries.
    """
    if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
        raise MedsegError("only http and https addresses can be fetched", evidence=url)
    last: Exception | None = None
    for attempt in range(TRIES):
        if attempt:
            time.sleep(PAUSE_S * min(2 ** (attempt - 1), 8))
        before = file.stat().st_size if file.is_file() else 0
        try:
            _one_go(url, file, before, quiet)
            return
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 416 and before:  # nothing beyond what we hold: whole, or another file
                return
            if error.code < 500:
                raise MedsegError(
                    "the server refuses the download", evidence=f"HTTP {error.code} {error.reason}: {url}"
                ) from error
            last = error
        except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError) as error:
            last = error
    raise MedsegError(
        f"the download failed {TRIES} times",
        evidence=f"{url}: {last}",
        mend="check the connection (or HTTPS_PROXY) and run the same command: it goes on where it stopped",
    )


def _one_go(url: str, file: Path, have: int, quiet: bool) -> None:
    headers = {"Range": f"bytes={have}-"} if have else {}
    request = urllib.request.Request(url, headers=headers)
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
        goes_on = answer.status == 206 and _starts_at(answer, have)
        have = have if goes_on else 0
        length = answer.headers.get("Content-Length")
        total = have + int(length) if length else None
        _check_room(file, total, have)
        with file.open("ab" if goes_on else "wb") as stream:
            for chunk in _chunks(answer, have, total, quiet):
                stream.write(chunk)
    if total is not None and file.stat().st_size < total:
        raise ConnectionError(f"the line broke after {file.stat().st_size} of {total} bytes")


def _chunks(answer: Any, have: int, total: int | None, quiet: bool) -> Iterator[bytes]:
    done = have
    with meter("download", total=total // MIB if total else None, unit="MiB", quiet=quiet) as bar:
        bar.update(have // MIB)
        while chunk := answer.read(MIB):
            yield chunk
            bar.update((done + len(chunk)) // MIB - done // MIB)
            done += len(chunk)


def _starts_at(answer: Any, have: int) -> bool:
    return str(answer.headers.get("Content-Range", "")).startswith(f"bytes {have}-")


def _check_room(file: Path, total: int | None, have: int) -> None:
    """The archive and what it unpacks to lie beside each other for a moment."""
    free = shutil.disk_usage(file.parent).free
    need = (2 * total - have) if total else 0
    if need > free:
        raise MedsegError(
            "there is not enough room for the data set",
            file=str(file.parent),
            evidence=f"{need / 1e9:.1f} GB needed, {free / 1e9:.1f} GB free",
            mend="give a folder on another disk",
        )
