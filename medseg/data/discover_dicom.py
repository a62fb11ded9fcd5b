"""DICOM folders as a cohort: a series is a case, a SEG object its reference, ids are keyed hashes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from medseg.data.cohort import Cohort, Refusal
from medseg.data.discover import Draft, Frame, LabelsLike, assemble, log, skipped
from medseg.data.discover_table import hashed_patient
from medseg.data.naming import Ids
from medseg.data.pairing import labels_of, lonely, pairing_fault
from medseg.imaging.dicom_in import find_dicom
from medseg.imaging.dicom_policy import DEFAULT, DicomPolicy
from medseg.imaging.dicom_references import ReferenceFile
from medseg.imaging.dicom_series import LeftOut, Series


def from_dicom(
    root: str | Path,
    *,
    labels: LabelsLike = None,
    channels: Iterable[str] | None = None,
    name: str | None = None,
    need_reference: bool | None = None,
    quiet: bool = False,
    policy: DicomPolicy = DEFAULT,
    ids: Ids = "auto",
) -> Cohort:
    """See `Cohort.from_dicom`. `need_reference` is by default True when any SEG is found.

    `ids` is accepted for uniformity: ids of DICOM are keyed hashes whatever it says.
    """
    found = find_dicom(Path(root).expanduser(), policy)
    need = bool(found.segs) if need_reference is None else need_reference
    modalities = sorted({series.modality for series in found.series})
    channel = next(iter(channels or (modalities if len(modalities) == 1 else ("image",))))
    refused = [_left_out(thing) for thing in found.left_out]
    drafts = []
    for series in found.series:
        segs = [seg for seg in found.segs if seg.belongs_to(series)]
        why_not = pairing_fault(series, segs, need)
        if why_not is not None:
            refused.append(why_not)
        else:
            drafts.append(_draft(series, segs, channel))
    refused += lonely(found.segs, found.series)
    named = labels_of(found.segs, labels)
    frame = Frame((channel,), named, name=name or "cohort", quiet=quiet)
    return assemble(drafts, frame, refused)


def _draft(series: Series, segs: Sequence[ReferenceFile], channel: str) -> Draft:
    return Draft(
        id=series.uid_hash,
        images={channel: series.files},
        reference=tuple(seg.file for seg in segs),
        patient=hashed_patient(series.patient_key) if series.patient_key else series.uid_hash,
        groups={"modality": series.modality},
        kind="dicom",
        reference_kind="seg",
        parts={channel: series.part},
        policy=series.policy,
    )


def _left_out(thing: LeftOut) -> Refusal:
    if thing.status == "skipped":
        return skipped(thing.series, thing.reason)
    log.warning("%s", thing.error())
    reason = f"{thing.reason}; {thing.mend}" if thing.mend else thing.reason
    return Refusal(series=thing.series, status="refused", reason=reason)
