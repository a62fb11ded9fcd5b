"""Which SEG belongs to which series, and what its segments are called."""

from __future__ import annotations

from collections.abc import Sequence

from medseg.core.errors import CaseError, MedsegError
from medseg.data.cohort import Refusal
from medseg.data.discover import LabelsLike, as_labels, refusal, skipped
from medseg.imaging.dicom_references import ReferenceFile
from medseg.imaging.dicom_seg_in import segment_labels
from medseg.imaging.dicom_series import Series
from medseg.imaging.labels import TISSUE, Label, Labels


def labels_of(segs: Sequence[ReferenceFile], given: LabelsLike) -> Labels:
    """The labels given, or the segment names in the order they are met; coded terms come from the SEGs."""
    met = {label.name: label for seg in segs for label in reversed(_segments(seg))}
    names = dict.fromkeys(label.name for seg in segs for label in _segments(seg))
    asked = as_labels(given) or as_labels({name: number for number, name in enumerate(names, start=1)})
    return tuple(_with_terms(label, met.get(label.name)) for label in asked)


def _with_terms(label: Label, met: Label | None) -> Label:
    """The label with the terms and colour of the segment of its name, where it has none of its own."""
    if met is None or label.type != TISSUE:
        return label
    return label.but(category=met.category, type=met.type, colour=label.colour or met.colour)


def _segments(seg: ReferenceFile) -> Labels:
    try:
        return segment_labels(seg.file)
    except (MedsegError, ValueError, AttributeError):  # a damaged SEG is refused when its case is read
        return ()


def pairing_fault(series: Series, segs: Sequence[ReferenceFile], need: bool) -> Refusal | None:
    if len(segs) > 1:
        error = CaseError(
            "several DICOM SEG objects belong to this series, and it is not said which one counts",
            case=series.uid_hash,
            file=str(segs[0].file),
            evidence=f"{len(segs)} SEG objects",
            mend="leave one of them in the folder",
        )
        return refusal(error, series.uid_hash, series.uid_hash)
    if need and not segs:
        return skipped(series.uid_hash, f"{series.modality} series to which no DICOM SEG refers")
    return None


def lonely(segs: Sequence[ReferenceFile], series: Sequence[Series]) -> list[Refusal]:
    """Rows for SEG objects whose series is not here, or was refused."""
    alone = [seg for seg in segs if not any(seg.belongs_to(s) for s in series)]
    return [
        refusal(
            CaseError(
                "a DICOM SEG whose image series is not here, or was refused",
                case=seg.series,
                file=str(seg.file),
                mend="add the series it refers to",
            ),
            seg.series,
        )
        for seg in alone
    ]
