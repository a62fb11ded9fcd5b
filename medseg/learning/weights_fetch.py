"""Weights from where they lie: this machine, the Hugging Face hub (and its cache), any web address."""

from __future__ import annotations

import logging
import os
import re
import urllib.parse
from dataclasses import dataclass
from pathlib import Path

from medseg.core.errors import MedsegError
from medseg.core.files import sha256_of
from medseg.data.download import download
from medseg.learning.settings import UNPINNED, Transfer
from medseg.learning.weights import content_of

_HUB = re.compile(r"hf:(?P<repo>[\w.-]+/[\w.-]+)/(?P<file>[^@]+?)(?:@(?P<revision>[\w./-]+))?")


@dataclass(frozen=True)
class Source:
    """Where weights are, and what they are: equal content has the same identity, wherever it lies."""

    address: str
    sha256: str = ""

    def identity(self) -> str:
        """What counts in keys: the content, or the address where any content is taken."""
        if not self.remote:
            return content_of(Path(self.address).expanduser())
        return self.address if self.sha256 == UNPINNED else self.sha256

    @property
    def remote(self) -> bool:
        """Whether it is fetched over a network (or from a cache of what was)."""
        return Transfer(source=self.address, sha256=UNPINNED).remote


def fetch_weights(source: Source, folder: Path, *, quiet: bool = False) -> Path:
    """The file or folder on this machine; what comes from elsewhere is put into `folder` or a cache.

    The hub's cache is used, also without a connection (``HF_HUB_OFFLINE=1``); ``HF_ENDPOINT`` names a
    mirror. Nothing is told to the hub but what is asked for.

    Raises
    ------
    MedsegError
        No such place, no connection, a file that is not the one pinned, or the package for the hub is
        missing.
    """
    address = source.address
    if address.startswith("hf:"):
        file = _from_hub(address)
    elif source.remote:
        name = Path(urllib.parse.unquote(urllib.parse.urlsplit(address).path)).name or "weights"
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / name
        download(address, file, quiet=quiet)
    else:
        return Path(address).expanduser()
    _check(file, source)
    return file


def _check(file: Path, source: Source) -> None:
    found = sha256_of(file)
    if source.sha256 not in (UNPINNED, found):
        if not source.address.startswith("hf:"):
            file.unlink()  # ours, and of no use
        raise MedsegError(
            "what was fetched is not the file that was pinned",
            evidence=f"sha256 {found}, pinned {source.sha256 or 'none'}",
            mend="check address and revision; pin this one only if you trust where it came from",
        )


def _from_hub(address: str) -> Path:
    parts = _HUB.fullmatch(address)
    if parts is None:
        raise MedsegError(
            "an address on the hub is written hf:owner/repository/file[@revision]", evidence=address
        )
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    try:
        from huggingface_hub import hf_hub_download
    except ImportError as error:
        raise MedsegError(
            "weights from the hub need the package huggingface_hub",
            mend="pip install 'medseg[hub]', or download the file and give its path",
        ) from error
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # its attempts are summed up below
    try:
        found = hf_hub_download(
            parts["repo"],
            parts["file"],
            revision=parts["revision"],
            endpoint=os.environ.get("HF_ENDPOINT") or None,
            cache_dir=os.environ.get("HF_HUB_CACHE") or None,
            local_files_only=os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"),
        )
    except Exception as error:  # the hub has a dozen kinds, from no connection to no such revision
        raise MedsegError(
            "the hub (or its cache on this machine) does not give the file",
            evidence=f"{address}: {type(error).__name__}",
            mend="check owner/repository/file and revision, the connection, and HF_HUB_OFFLINE",
        ) from error
    return Path(found)
