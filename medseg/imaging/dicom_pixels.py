"""Stored pixel values out of DICOM files; foreign decoders run only in a fenced process of their own."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medseg.core.errors import CaseError
from medseg.imaging.dicom_bits import DEFLATED_FRAME, RLE, packed_frames
from medseg.imaging.dicom_header import tolerant

if TYPE_CHECKING:
    from pydicom import Dataset

_MEND = "copy or export the file again: it is damaged or cut off"


def stored_values(files: Sequence[Path], compressed: bool, claimed_bytes: int) -> list[NDArray[Any]]:
    """Stored values of each file, ``[frame, row, column]`` (colour: ``[frame, row, column, sample]``).

    Parameters
    ----------
    compressed : bool
        True sends the files to a process with limited memory and time: decoders of compressed images
        are foreign code that damaged or hostile streams can crash or blow up.
    claimed_bytes : int
        Decoded size of one file by its header; sets the limits.

    Raises
    ------
    CaseError
        A file that is cut off, or whose stream cannot be decoded within the limits.
    """
    if compressed:
        return _decoded_apart([str(f) for f in files], claimed_bytes)
    return [_native(file) for file in files]


def picture_digest(file: Path) -> str:
    """sha256 of the pixel data as stored, to tell copies from different images."""
    from pydicom import dcmread

    with tolerant():
        dataset = dcmread(file, specific_tags=["PixelData"], force=True)
        return hashlib.sha256(bytes(dataset.get("PixelData") or b"")).hexdigest()


def decode(file: str) -> NDArray[Any]:
    """Decode one file in this process; bits beyond BitsStored are dropped, signs extended."""
    from pydicom import dcmread

    with tolerant():
        dataset = dcmread(file, force=True)
        _name_syntax(dataset)
        stored = int(dataset.get("BitsStored", 0) or 0)
        if int(dataset.get("HighBit", stored - 1)) != stored - 1:
            raise ValueError("the stored bits do not begin at bit 0")
        if stored == 1 and dataset.file_meta.TransferSyntaxUID in (RLE, DEFLATED_FRAME):
            return packed_frames(dataset)
        array = np.asarray(dataset.pixel_array)
        if array.ndim - (int(dataset.get("SamplesPerPixel", 1)) > 1) == 2:
            array = array[None]
        return _within_bits(array, stored)


def _name_syntax(dataset: Dataset) -> None:
    """Files without file meta information: the parser found out how they are written."""
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    if "TransferSyntaxUID" in dataset.file_meta:
        return
    implicit, little = dataset.original_encoding
    explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit


def _within_bits(array: NDArray[Any], stored: int) -> NDArray[Any]:
    """What lies above the stored bits is not part of the value (old overlays lie there)."""
    spare = array.dtype.itemsize * 8 - stored
    if array.dtype.kind not in "iu" or stored < 2 or spare <= 0:
        return array
    return (array << spare) >> spare


def _native(file: Path) -> NDArray[Any]:
    try:
        return decode(str(file))
    except Exception as error:  # a parser fed with damaged bytes may raise anything
        raise CaseError(
            "the pixel data of an image cannot be read",
            file=str(file),
            evidence=f"{type(error).__name__}; {file.stat().st_size if file.exists() else 0} bytes on disk",
            mend=_MEND,
        ) from error


def _decoded_apart(files: list[str], claimed_bytes: int) -> list[NDArray[Any]]:
    with tempfile.TemporaryDirectory(prefix="medseg-") as folder:
        memory = 2 * 2**30 + 8 * claimed_bytes
        job = json.dumps({"files": files, "out": folder, "memory_bytes": memory})
        done = _run(job, seconds=60 + len(files) * (1 + claimed_bytes / 5e6))
        _refuse_failure(done, files, Path(folder))
        return [np.load(Path(folder) / f"{i}.npy", allow_pickle=False) for i in range(len(files))]


def _run(job: str, seconds: float) -> subprocess.CompletedProcess[str] | None:
    """The worker's end, or None when its time ran out (it is dead then)."""
    quiet = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "medseg.imaging.dicom_worker"]
    try:
        return subprocess.run(
            command, input=job, capture_output=True, text=True, timeout=seconds, env=quiet, check=False
        )
    except subprocess.TimeoutExpired:
        return None


def _refuse_failure(done: subprocess.CompletedProcess[str] | None, files: list[str], folder: Path) -> None:
    if done is not None and done.returncode == 0:
        return
    reached = len(list(folder.glob("*.npy")))
    if done is None:
        evidence = "the decoder did not end in time"
    elif done.returncode < 0:
        evidence = f"the decoder crashed (signal {-done.returncode})"
    else:
        # the worker's own last line: an error type and numbers, never text from the file
        evidence = (done.stdout.strip().splitlines() or ["the decoder failed"])[-1]
    raise CaseError(
        "a compressed image cannot be decoded",
        file=files[min(reached, len(files) - 1)],
        evidence=f"image {reached + 1} of {len(files)}: {evidence}",
        mend=_MEND,
    )
