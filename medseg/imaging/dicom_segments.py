"""The segments of a DICOM SEG: their numbers, names, coded terms and colours."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from medseg.core.errors import CaseError
from medseg.imaging.dicom_deflate import bounded
from medseg.imaging.dicom_header import text_of, tolerant
from medseg.imaging.dicom_naming import safe_name, values_of, without_identity
from medseg.imaging.labels import TISSUE, Code, Label, Labels

if TYPE_CHECKING:
    from pydicom import Dataset


def segment_names(file: str | Path) -> dict[int, str]:
    """Segment number -> segment label of a DICOM SEG; the background of a label map is none."""
    return names_in(header_of_seg(Path(file)))


def segment_labels(file: str | Path) -> Labels:
    """The segments of a DICOM SEG as labels: value = segment number, with coded terms and colour.

    Segments without a name are left out; a term that is missing stays the default of `Label`. A name in
    which the patient's name or number stands is replaced.
    """
    dataset = header_of_seg(Path(file))
    return tuple(_label(s, dataset) for s in dataset.SegmentSequence if _is_structure(s))


def _is_structure(segment: Dataset) -> bool:
    return int(segment.SegmentNumber) > 0 and bool(text_of(segment, "SegmentLabel"))


def names_in(dataset: Dataset) -> dict[int, str]:
    """Segment number -> segment label; number 0 is the background of a label map."""
    numbers = {int(s.SegmentNumber): text_of(s, "SegmentLabel") for s in dataset.SegmentSequence}
    return {number: name for number, name in numbers.items() if number > 0}


def _label(segment: Dataset, dataset: Dataset) -> Label:
    number = int(segment.SegmentNumber)
    return Label(
        value=number,
        name=safe_name(text_of(segment, "SegmentLabel"), dataset, f"segment {number}"),
        colour=_colour(segment),
        category=_code(segment, "SegmentedPropertyCategoryCodeSequence", dataset) or TISSUE,
        type=_code(segment, "SegmentedPropertyTypeCodeSequence", dataset) or TISSUE,
    )


def _code(segment: Dataset, sequence: str, dataset: Dataset) -> Code | None:
    found = segment.get(sequence) or ()
    keywords = ("CodeValue", "CodingSchemeDesignator", "CodeMeaning")
    parts = [text_of(found[0], n) for n in keywords] if found else []
    if not parts or not all(parts) or not all(without_identity(part, dataset) for part in parts):
        return None
    return Code(value=parts[0], scheme=parts[1], meaning=parts[2])


def _colour(segment: Dataset) -> str:
    from highdicom.color import CIELabColor

    value = segment.get("RecommendedDisplayCIELabValue")
    if not value or len(value) != 3:
        return ""
    return "#" + "".join(f"{int(c):02x}" for c in CIELabColor.from_dicom_value(list(value)).to_rgb())


def header_of_seg(path: Path) -> Dataset:
    """The data set without its pixels."""
    from pydicom import dcmread

    with tolerant():
        return dcmread(bounded(path), stop_before_pixels=True, force=True)


def segment_values(dataset: Dataset, labels: Labels | None, file: Path) -> dict[int, int]:
    """Segment number -> value in the label map; without `labels` the number itself.

    Raises
    ------
    CaseError
        Segments have names that `labels` does not hold.
    """
    names = names_in(dataset)
    found = values_of(names, labels, dataset, "segment")
    unknown = [number for number, value in found.items() if value is None]
    if unknown:
        called = ", ".join(f"{number} '{names[number]}'" for number in unknown)
        raise CaseError(
            f"{len(unknown)} segment(s) have names that no label has",
            file=f"{file} (segments {called})",
            evidence=f"segments {', '.join(map(str, unknown))} of {len(names)}; "
            f"labels: {', '.join(x.name for x in labels or ())}",
            mend="name the labels of the configuration as the segments are named",
        )
    return {number: value for number, value in found.items() if value is not None}
