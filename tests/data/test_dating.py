"""Dates: none by default; on request days whose intervals within a patient are exact and nothing else is."""

from __future__ import annotations

import json
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from medseg.core.run import Run
from medseg.data.cohort import Cohort, Ingesting
from medseg.imaging.deidentify import shifted_day
from medseg.imaging.dicom_dates import study_date
from medseg.stages.ingest import ingest
from tests.data.test_selection import write_series


def test_intervals_of_a_patient_are_exact_and_offsets_are_secret() -> None:
    days = [date(2023, 12, 30), date(2024, 3, 1), date(2024, 3, 2)]
    one = [shifted_day(day, "patient one", b"key") for day in days]
    assert [b - a for a, b in pairwise(one)] == [62, 1]
    true = (days[0] - date(1970, 1, 1)).days
    offsets = {true - shifted_day(days[0], f"patient {n}", b"key") for n in range(300)}
    assert min(offsets) >= 0 and max(offsets) <= 365 and len(offsets) > 150
    assert shifted_day(days[0], "patient one", b"another key") != one[0]


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({"StudyDate": "20240229"}, date(2024, 2, 29)),
        ({"StudyDate": "2024.02.29"}, date(2024, 2, 29)),
        ({"StudyDate": "", "AcquisitionDate": "20230101"}, date(2023, 1, 1)),
        ({"StudyDate": "today", "AcquisitionDateTime": "20220102030405.6"}, date(2022, 1, 2)),
        ({"StudyDate": ""}, None),
    ],
    ids=str,
)
def test_the_date_of_the_study_or_the_next_best(
    tmp_path: Path, tags: dict[str, Any], expected: date | None
) -> None:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a date that is none
        write_series(tmp_path, "t1", **tags)
    assert study_date(next(tmp_path.rglob("*.dcm"))) == expected


def test_a_source_record_holds_a_day_only_when_asked(tmp_path: Path) -> None:
    for study, day in (("early", "20240101"), ("late", "20240131")):
        write_series(tmp_path / "in", "t1", study=study, PatientID="the same", StudyDate=day)
    cohort = Cohort.open(tmp_path / "in", quiet=True)
    items = {case.id: case for case in cohort.cases}
    found = {}
    for dates in ("none", "shifted"):
        made = Run(tmp_path / dates, quiet=True).map(
            ingest, items, channels=cohort.channels, labels=(), settings=Ingesting(dates=dates)
        )
        found[dates] = [json.loads((a / "source.json").read_text()) for a in made.values()]
    assert len(found["none"]) == 2
    assert not any("study_day" in record for record in found["none"])
    one, two = (record["study_day"] for record in found["shifted"])
    assert abs(one - two) == 30
    assert "2024" not in json.dumps(found["shifted"])
