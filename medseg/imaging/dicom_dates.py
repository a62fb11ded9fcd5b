"""When a study was made: read for shifting alone (`deidentify.shifted_day`), never stored as it stands."""

from __future__ import annotations

from datetime import date, datetime
from pathlib import Path

from medseg.imaging.dicom_deflate import bounded
from medseg.imaging.dicom_header import text_of, tolerant

_TAGS = ("StudyDate", "AcquisitionDate", "AcquisitionDateTime", "SeriesDate", "ContentDate")


def study_date(file: str | Path) -> date | None:
    """The date of the study a DICOM file belongs to (of the acquisition, where the study has none).

    None when the file says nothing that is a date, or cannot be read.
    """
    from pydicom import dcmread

    try:
        with tolerant():
            dataset = dcmread(
                bounded(Path(file)), stop_before_pixels=True, specific_tags=list(_TAGS), force=True
            )
            texts = [text_of(dataset, tag) for tag in _TAGS]
    except Exception:  # damaged bytes may raise anything; the case is refused elsewhere then
        return None
    return next((day for day in map(_day, texts) if day), None)


def _day(text: str) -> date | None:
    """``20240131`` or, as in old files, ``2024.01.31``."""
    try:
        return datetime.strptime(text.replace(".", "")[:8], "%Y%m%d").date()
    except ValueError:
        return None
