"""Compressed frames decoded in processes of their own, with limited memory and time, several at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.core.errors import CaseError

_BASE_BYTES = 2**30
_COPIES = 6  # a decoder holds the frames several times over
_SHARE = 16  # files worth a process of their own


def decoded_apart(files: Sequence[str], claimed_bytes: int) -> Iterator[NDArray[Any]]:
    """Stored values of each compressed file, in order; never more than one file's worth in memory here.

    Raises
    ------
    CaseError
        At the first file whose stream cannot be decoded within the limits.
    """
    if not files:
        return
    workers = max(1, min(os.cpu_count() or 1, len(files) // _SHARE))
    shares = [files[len(files) * k // workers : len(files) * (k + 1) // workers] for k in range(workers)]
    with (
        tempfile.TemporaryDirectory(prefix="medseg-") as folder,
        ThreadPoolExecutor(workers) as pool,
    ):
        places = [Path(folder) / str(k) for k in range(workers)]
        jobs = [
            pool.submit(_worked, share, place, claimed_bytes)
            for share, place in zip(shares, places, strict=True)
        ]
        for share, place, job in zip(shares, places, jobs, strict=True):
            yield from _brought(share, place, job, len(files))


def _brought(share: Sequence[str], place: Path, job: Future[_Done], total: int) -> Iterator[NDArray[Any]]:
    for number, file in enumerate(share):
        made = place / f"{number}.npy"
        while not made.exists() and not job.done():
            time.sleep(0.003)
        if not made.exists():
            raise _refusal(job.result(), file, f"one of {total} image(s)")
        yield np.load(made, allow_pickle=False)
        made.unlink()


_Done = subprocess.CompletedProcess[str] | None


def _worked(files: Sequence[str], out: Path, claimed_bytes: int) -> _Done:
    """The worker's end, or None when its time ran out (it is dead then)."""
    out.mkdir()
    memory = _BASE_BYTES + _COPIES * claimed_bytes
    job = json.dumps({"files": list(files), "out": str(out), "memory_bytes": memory})
    quiet = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "medseg.imaging.dicom_worker"]
    seconds = 30 + len(files) * (1 + claimed_bytes / 5e6)
    try:
        return subprocess.run(
            command, input=job, capture_output=True, text=True, timeout=seconds, env=quiet, check=False
        )
    except subprocess.TimeoutExpired:
        return None


def _refusal(done: _Done, file: str, which: str) -> CaseError:
    if done is None:
        evidence = "the decoder did not end in time"
    elif done.returncode < 0:
        evidence = f"the decoder crashed (signal {-done.returncode})"
    else:
        # the worker's own last line: an error type and numbers, never text from the file
        evidence = (done.stdout.strip().splitlines() or ["the decoder failed"])[-1]
    return CaseError(
        "a compressed image cannot be decoded",
        file=file,
        evidence=f"{which}: {evidence}",
        mend="copy or export the file again: it is damaged or cut off",
    )
