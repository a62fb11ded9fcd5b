"""One writer a run folder; the lock dies with its owner."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from medseg.core.errors import MedsegError
from medseg.core.lock import lock_folder, release_folder

HOLD = (
    "import sys, time; from pathlib import Path; from medseg.core.lock import lock_folder\n"
    "lock_folder(Path(sys.argv[1])); print('held', flush=True); time.sleep(60)"
)


def _holder(folder: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_folder_held_by_another_process_is_refused_until_that_dies(tmp_path: Path) -> None:
    process = _holder(tmp_path)
    try:
        with pytest.raises(MedsegError, match="another process is writing") as caught:
            lock_folder(tmp_path)
        assert f'"pid": {process.pid}' in str(caught.value)
        assert "--run" in str(caught.value)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    lock_folder(tmp_path)
    release_folder(tmp_path)


def test_asking_twice_in_one_process_is_no_conflict(tmp_path: Path) -> None:
    lock_folder(tmp_path)
    lock_folder(tmp_path / "." )  # fmt: skip
    release_folder(tmp_path)
    release_folder(tmp_path)
    process = _holder(tmp_path)
    process.kill()
    process.communicate()


def test_a_place_that_is_no_folder_or_not_writable_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(MedsegError, match="cannot be written") as caught:
        lock_folder(tmp_path / "file" / "run")
    assert "--run" in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(MedsegError, match="cannot be written"):
        lock_folder(tmp_path / "run")
