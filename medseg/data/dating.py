"""When a case was scanned, for those who need intervals: a shifted day, and only on request."""

from __future__ import annotations

from medseg.data.cohort import Case, Ingesting


def dated(case: Case, settings: Ingesting) -> dict[str, int]:
    """``study_day`` of a DICOM case when ``ingest.dates: shifted`` asks for it; else nothing.

    The offset is a function of the patient and of the project's key: the same in every run under one
    key, so that the days of one patient can be subtracted, and those of two cannot.
    """
    source = next(iter(case.images.values()))
    if settings.dates == "none" or source.kind != "dicom" or not source.files:
        return {}
    from medseg.imaging.deidentify import project_key, shifted_day
    from medseg.imaging.dicom_dates import study_date

    day = study_date(source.files[0])
    return {} if day is None else {"study_day": shifted_day(day, case.patient, project_key())}
