"""What the grey values of a series mean beyond slope and intercept: noted for the report, never applied.

PET: units and the factor to SUV by body weight. Philips MR: the private scale that its own software uses.
Any image: that a Real World Value Mapping stands in the header.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medseg.imaging.dicom_deflate import bounded
from medseg.imaging.dicom_header import tolerant
from medseg.imaging.dicom_values import numbers_of, text_of, words_of

if TYPE_CHECKING:
    from pydicom import Dataset

UNITS = {
    "BQML": "Bq/ml", "CNTS": "counts", "CPS": "counts per second", "GML": "g/ml (SUV already)",
    "NONE": "none", "PROPCNTS": "proportional to counts", "PROPCPS": "proportional to counts per second",
    "1CM": "1/cm", "CM2": "cm2", "CM2ML": "cm2/ml (SUV by body surface already)", "PCNT": "percent",
    "MGMINML": "mg/min/ml", "UMOLMINML": "umol/min/ml", "MLMING": "ml/min/g", "MLG": "ml/g",
    "UMOLML": "umol/ml", "STDDEV": "standard deviations",
}  # fmt: skip
_PHILIPS_PET, _PHILIPS_MR = "Philips PET Private Group", "Philips MR Imaging DD 001"
_SUV_SCALE, _SLOPE, _INTERCEPT = 0x70531000, 0x2005100E, 0x2005100D
_TAGS: list[Any] = [
    "Modality", "Units", "SUVType", "DecayCorrection", "CorrectedImage", "PatientWeight", "SeriesDate",
    "SeriesTime", "AcquisitionDate", "AcquisitionTime", "RadiopharmaceuticalInformationSequence",
    "RealWorldValueMappingSequence", "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence", 0x70530010, _SUV_SCALE, 0x20050010, _SLOPE, _INTERCEPT,
]  # fmt: skip
_LONGEST_S = 24 * 3600.0


def value_notes(file: Path) -> tuple[str, ...]:
    """Remarks on the values of a series, from the header of one of its files: numbers and units alone.

    The SUV factor holds for the values as they are delivered (after slope and intercept). It is worked
    out as ``1000 x weight (kg) / activity (Bq)`` of a Units = BQML series, the activity decayed from
    injection to the start of the series with DecayCorrection = START, as injected with ADMIN. It is
    left out where anything it needs is absent, or the time between is negative or more than a day.
    """
    try:
        return _notes_of(file, file.stat().st_mtime_ns)  # of one file there may be many volumes
    except Exception:  # damaged bytes may raise anything; no note then
        return ()


@lru_cache(maxsize=16)
def _notes_of(file: Path, _changed_ns: int) -> tuple[str, ...]:
    from pydicom import dcmread

    with tolerant():
        dataset = dcmread(bounded(file), stop_before_pixels=True, specific_tags=_TAGS, force=True)
        return tuple(_notes(dataset))


def _notes(dataset: Dataset) -> Iterator[str]:
    units = text_of(dataset, "Units").upper()
    if text_of(dataset, "Modality") == "PT":
        yield f"PET values in {UNITS[units]}" if units in UNITS else "PET values in units that are not named"
        factor, basis = suv_factor(dataset)
        yield f"SUV factor {factor:.6g} per stored unit ({basis}), not applied" if factor else basis
    slope = _private(dataset, _PHILIPS_MR, _SLOPE)
    if slope:
        intercept = _private(dataset, _PHILIPS_MR, _INTERCEPT) or 0.0
        yield f"Philips private scale: slope {slope:.6g}, intercept {intercept:.6g}, not applied"
    if _has_mapping(dataset):
        yield "a Real World Value Mapping stands in the header, not applied"


def suv_factor(dataset: Dataset) -> tuple[float | None, str]:
    """The factor from the values of a PET image to SUV by body weight (g/ml), and what it rests on.

    The first is None where it cannot be told; the second says why then.
    """
    units = text_of(dataset, "Units").upper()
    if units == "GML" and text_of(dataset, "SUVType").upper() in ("", "BW"):
        return 1.0, "values are SUV by body weight"
    if units == "CNTS" and (scale := _private(dataset, _PHILIPS_PET, _SUV_SCALE)):
        return scale, "Philips private SUV scale"
    if units != "BQML":
        return None, "no SUV factor: it follows from Units = BQML alone"
    corrected = {word.upper() for word in words_of(dataset, "CorrectedImage")}
    if corrected and not corrected >= {"ATTN", "DECY"}:
        return None, "no SUV factor: the image is not corrected for attenuation and decay"
    return _by_activity(dataset)


def _by_activity(dataset: Dataset) -> tuple[float | None, str]:
    tracer = next(iter(dataset.get("RadiopharmaceuticalInformationSequence") or ()), None)
    weight_kg = _number(dataset, "PatientWeight")
    dose_bq = _number(tracer, "RadionuclideTotalDose")
    if not weight_kg or not dose_bq:
        return None, "no SUV factor: weight or injected activity is absent"
    correction = text_of(dataset, "DecayCorrection").upper()
    if correction == "ADMIN":
        return 1000 * weight_kg / dose_bq, "body weight, decay corrected to the injection"
    half_life_s, waited_s = _number(tracer, "RadionuclideHalfLife"), _waited_s(dataset, tracer)
    if correction != "START" or not half_life_s or waited_s is None:
        return None, "no SUV factor: decay correction, half-life or the times do not tell it"
    return 1000 * weight_kg / (dose_bq * 2 ** (-waited_s / half_life_s)), (
        "body weight, decay corrected to the start of the series"
    )


def _number(dataset: Dataset | None, keyword: str) -> float | None:
    """A positive number, or None."""
    found = numbers_of(dataset, keyword) if dataset is not None else None
    return found[0] if found and math.isfinite(found[0]) and found[0] > 0 else None


def _waited_s(dataset: Dataset, tracer: Dataset | None) -> float | None:
    """Seconds from injection to what the image was decay corrected to; None when that cannot be so."""
    if tracer is None:
        return None
    start = _moment(text_of(dataset, "SeriesDate"), text_of(dataset, "SeriesTime"))
    first = _moment(text_of(dataset, "AcquisitionDate"), text_of(dataset, "AcquisitionTime"))
    if start is None or (first is not None and start > first):
        return (
            None  # a series made later than its acquisition was worked on: its time is not that of the scan
        )
    whole = text_of(tracer, "RadiopharmaceuticalStartDateTime")
    injected = _moment(whole[:8], whole[8:].split("+")[0].split("-")[0])
    if injected is None:  # a time of day: of the day of the scan, or of the evening before
        injected = _moment(text_of(dataset, "SeriesDate"), text_of(tracer, "RadiopharmaceuticalStartTime"))
        if injected is not None and injected > start:
            injected -= timedelta(days=1)
    waited = None if injected is None else (start - injected).total_seconds()
    return waited if waited is not None and 0 <= waited <= _LONGEST_S else None


def _moment(day: str, time: str) -> datetime | None:
    clock = time.split(".")[0]
    if len(clock) not in (2, 4, 6):
        return None
    try:
        return datetime.strptime(day + clock.ljust(6, "0"), "%Y%m%d%H%M%S")
    except ValueError:
        return None


def _private(dataset: Dataset, creator: str, tag: int) -> float | None:
    """A private number, only where its block is reserved by the maker; None for 0 and what is none."""
    owner = dataset.get((tag >> 16 << 16) | 0x10)
    if owner is None or str(_plain(owner.value)).strip() != creator or tag not in dataset:
        return None
    value = dataset[tag].value
    try:
        found = float(_plain(value[0] if isinstance(value, list | tuple) else value))
    except (ValueError, TypeError, IndexError):
        return None
    return found if math.isfinite(found) and found else None


def _plain(value: Any) -> Any:
    """Bytes (of implicit files, whose private elements have no type) as text, or as a 4-byte float."""
    import struct

    if not isinstance(value, bytes):
        return value
    text = value.decode("ascii", "replace").strip(" \0")
    return text if text.isprintable() and text.isascii() else struct.unpack("<f", value[:4])[0]


def _has_mapping(dataset: Dataset) -> bool:
    groups = dataset.get("SharedFunctionalGroupsSequence"), dataset.get("PerFrameFunctionalGroupsSequence")
    places = [dataset, *(next(iter(group), dataset) for group in groups if group)]
    return any("RealWorldValueMappingSequence" in place for place in places)
