"""Predictors for the listener's tests: their model's name says how they behave."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from medseg.core.errors import CaseError


def make(model: str, **about: Any) -> Callable[[Path, Path], Sequence[Path]]:
    """``copy``; ``crash``; ``refuse:UID`` (that study only); ``wait:FILE`` (until the file is there)."""
    kind, _, what = model.partition(":")

    def work(images: Path, results: Path) -> Sequence[Path]:
        if kind == "crash":
            os._exit(9)
        while kind == "wait" and not Path(what).exists():
            time.sleep(0.02)
        return [_result(images, results, refused=what if kind == "refuse" else "")]

    return work


def _result(images: Path, results: Path, refused: str) -> Path:
    from pydicom import dcmread
    from pydicom.uid import generate_uid

    files = sorted(images.rglob("*.dcm"))
    result = dcmread(files[0])
    if result.StudyInstanceUID == refused:
        raise CaseError("this study is refused", evidence=f"{len(files)} images", mend="send another")
    result.SeriesInstanceUID, result.SOPInstanceUID = generate_uid(), generate_uid()
    result.file_meta.MediaStorageSOPInstanceUID = result.SOPInstanceUID
    result.SeriesDescription = f"result of {len(files)}"
    results.mkdir(exist_ok=True)
    result.save_as(results / "result.dcm", enforce_file_format=True)
    return results / "result.dcm"
