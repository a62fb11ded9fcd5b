"""An archive to talk to: a real Orthanc on loopback, with ports, names and a folder of its own.

Remote access is off and nobody is allowed by default: who may send, ask and fetch is named, as in a hospital.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

AE, OURS = "TESTPACS", "MEDSEG"
_PLUGINS = ("/usr/share/orthanc/plugins", "/usr/lib/orthanc", "/usr/local/share/orthanc/plugins")
_DICOMWEB = "OrthancDicomWeb"


def free_port() -> int:
    """A port that nobody holds at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def dcmtk(name: str) -> str:
    """Path of a DCMTK program: pynetdicom puts scripts of the same names into the environment."""
    for folder in ("/usr/bin", "/usr/local/bin", "/opt/homebrew/bin"):
        if (Path(folder) / name).is_file():
            return str(Path(folder) / name)
    pytest.skip(f"DCMTK's {name} is not installed (Debian: apt install dcmtk)")


@dataclass(frozen=True)
class Archive:
    """A running Orthanc: where it listens, and what it says it holds."""

    port: int
    http: int
    move_port: int
    folder: Path = field(repr=False)

    @property
    def words(self) -> list[str]:
        """Settings that lead to it."""
        return [
            *(
                "pacs.host=127.0.0.1",
                f"pacs.port={self.port}",
                f"pacs.called_ae={AE}",
                f"pacs.ae_title={OURS}",
            ),
            f"pacs.web.url=http://127.0.0.1:{self.http}/dicom-web",
            *("pacs.timeout_seconds=10", "pull.move_host=127.0.0.1", f"pull.move_port={self.move_port}"),
        ]

    def get(self, path: str) -> Any:
        """An answer of its own interface (not DICOM)."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http}{path}", timeout=10) as answer:
            return json.load(answer)

    def instances(self) -> list[dict[str, Any]]:
        """Every object it holds."""
        return self.get("/instances?expand")

    def clear(self) -> None:
        """Forget everything."""
        for study in self.get("/studies"):
            address = f"http://127.0.0.1:{self.http}/studies/{study}"
            urllib.request.urlopen(urllib.request.Request(address, method="DELETE"), timeout=10).close()

    def put(self, files: Sequence[Path]) -> None:
        """Bring files in by its own interface: none of our code has a hand in it."""
        for file in files:
            address = f"http://127.0.0.1:{self.http}/instances"
            request = urllib.request.Request(address, data=file.read_bytes(), method="POST")
            urllib.request.urlopen(request, timeout=30).close()


@contextmanager
def orthanc(folder: Path, **more: Any) -> Iterator[Archive]:
    """Run an Orthanc in `folder`; skips where there is none."""
    binary = shutil.which("Orthanc") or shutil.which("orthanc") or shutil.which("Orthanc", path="/usr/sbin")
    if binary is None:
        pytest.skip("Orthanc is not installed (Debian: apt install orthanc orthanc-dicomweb)")
    plugins = [str(f) for place in _PLUGINS for f in Path(place).glob(f"lib{_DICOMWEB}.*")][:1]
    if not plugins:
        pytest.skip("Orthanc has no DICOMweb plugin (Debian: apt install orthanc-dicomweb)")
    archive = Archive(free_port(), free_port(), free_port(), folder)
    (folder / "orthanc.json").write_text(json.dumps(_settings(archive, plugins) | more))
    with (folder / "orthanc.log").open("wb") as log:
        process = subprocess.Popen([binary, str(folder / "orthanc.json")], stdout=log, stderr=log)
    try:
        _wait(process, archive)
        yield archive
    finally:
        process.kill()  # a gentle end takes seconds, and nothing of it is kept
        process.wait()


def _settings(archive: Archive, plugins: list[str]) -> dict[str, Any]:
    database = str(archive.folder / "db")
    modality = {
        "AET": OURS, "Host": "127.0.0.1", "Port": archive.move_port, "AllowEcho": True, "AllowFind": True,
        "AllowGet": True, "AllowMove": True, "AllowStore": True,
    }  # fmt: skip
    never = {f"DicomAlwaysAllow{what}": False for what in ("Echo", "Store", "Find", "Get", "Move")}
    return {
        "Name": "test", "StorageDirectory": database, "IndexDirectory": database,
        "RemoteAccessAllowed": False, "AuthenticationEnabled": False, "HttpPort": archive.http,
        "DicomPort": archive.port, "DicomAet": AE, "DicomCheckCalledAet": True,
        "DicomCheckModalityHost": False, "DicomModalities": {"medseg": modality}, "Plugins": plugins,
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        "ConcurrentJobs": 1, "DicomThreadsCount": 4, "StableAge": 1, **never,
    }  # fmt: skip


def _wait(process: subprocess.Popen[bytes], archive: Archive) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        assert process.poll() is None, (archive.folder / "orthanc.log").read_text()[-2000:]
        try:
            archive.get("/system")
            return
        except OSError:
            time.sleep(0.05)
    raise AssertionError("Orthanc did not answer within 30 seconds")
