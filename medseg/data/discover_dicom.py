"""DICOM folders as a cohort: a series is a case, a SEG object its reference, ids are keyed hashes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from medseg.core.errors import CaseError, MedsegError
from medseg.data.cohort import Cohort, Refusal
from medseg.data.discover import Draft, Frame, LabelsLike, as_labels, assemble, log, refusal, skipped
from medseg.data.discover_table import hashed_patient
from medseg.imaging.dicom_in import SegFile, find_dicom
from medseg.imaging.dicom_seg_in import segment_labels
from medseg.imaging.dicom_series import LeftOut, Series
from medseg.imaging.labels import TISSUE, Label, Labels


def from_dicom(
    root: str | Path,
    *,
    labels: LabelsLike = None,
    channels: Iterable[str] | None = None,
    name: str | None = None,
    need_reference: bool | None = None,
    quiet: bool = False,
) -> Cohort:
    """See `Cohort.from_dicom`. `need_reference` is by default True when any SEG is found."""
    found = find_dicom(Path(root).expanduser())
    need = bool(found.segs) if need_reference is None else need_reference
    modalities = sorted({series.modality for series in found.series})
    channel = next(iter(channels or (modalities if len(modalities) == 1 else ("image",))))
    refused = [_left_out(thing) for thing in found.left_out]
    drafts = []
    for series in found.series:
        segs = [seg for seg in found.segs if seg.belongs_to(series)]
        why_not = _pairing_fault(series, segs, need)
        if why_not is not None:
            refused.append(why_not)
        else:
            drafts.append(_draft(series, segs, channel))
    refused += _lonely(found.segs, found.series)
    named = _labels_of(found.segs, labels)
    frame = Frame((channel,), named, name=name or "cohort", quiet=quiet)
    return assemble(drafts, frame, refused)


def _labels_of(segs: Sequence[SegFile], given: LabelsLike) -> Labels:
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


def _segments(seg: SegFile) -> Labels:
    try:
        return segment_labels(seg.file)
    except (MedsegError, ValueError, AttributeError):  # a damaged SEG is refused when its case is read
        return ()


def _draft(series: Series, segs: Sequence[SegFile], channel: str) -> Draft:
    return Draft(
        id=series.uid_hash,
        images={channel: series.files},
        reference=tuple(seg.file for seg in segs),
        patient=hashed_patient(series.patient_key) if series.patient_key else series.uid_hash,
        groups={"modality": series.modality},
        kind="dicom",
        reference_kind="seg",
    )


def _pairing_fault(series: Series, segs: Sequence[SegFile], need: bool) -> Refusal | None:
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


def _lonely(segs: Sequence[SegFile], series: Sequence[Series]) -> list[Refusal]:
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


def _left_out(thing: LeftOut) -> Refusal:
    if thing.status == "skipped":
        return skipped(thing.series, thing.reason)
    log.warning("%s", thing.error())
    reason = f"{thing.reason}; {thing.mend}" if thing.mend else thing.reason
    return Refusal(series=thing.series, status="refused", reason=reason)
