"""DICOM folders as a cohort: the series selected are cases or channels, ids are keyed hashes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from medseg.core.errors import CaseError, MedsegError
from medseg.data.cohort import Cohort, Refusal
from medseg.data.discover import Draft, Frame, LabelsLike, assemble, log, refusal, skipped
from medseg.data.discover_table import hashed_patient
from medseg.data.naming import Ids
from medseg.data.pairing import Choice, Pairs, chosen_of, labels_of, paired, pairing_fault
from medseg.data.selection import Chosen, Unfit, choose
from medseg.data.selection_rules import Selection
from medseg.imaging.dicom_in import Found, find_dicom
from medseg.imaging.dicom_policy import DEFAULT, DicomPolicy
from medseg.imaging.dicom_references import ReferenceFile
from medseg.imaging.dicom_series import LeftOut, Series


@dataclass(frozen=True)
class Survey:
    """What lies in a DICOM folder, and what a selection makes of it; nothing is decoded."""

    found: Found
    chosen: Chosen


def survey(
    root: str | Path,
    select: Selection | None = None,
    policy: DicomPolicy = DEFAULT,
    *,
    quiet: bool = True,
) -> Survey:
    """Find every series below a folder and choose among them; without a selection each is a case.

    Raises
    ------
    MedsegError
        No such folder, or no DICOM in it.
    """
    found = find_dicom(Path(root).expanduser(), policy, quiet=quiet)
    return Survey(found, choose(found.series, select or Selection()))


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
    select: Selection | None = None,
    reference: Choice = "auto",
) -> Cohort:
    """See `Cohort.from_dicom`. `need_reference` is by default True when any reference is found.

    `ids` is accepted for uniformity: ids of DICOM are keyed hashes whatever it says.
    """
    seen = survey(root, select, policy, quiet=quiet)
    found, picked = seen.found, seen.chosen.picked
    pairs = paired(found.references, found.series, reference)
    need = bool(pairs.used) if need_reference is None else need_reference
    names = _channel_names(seen.chosen, select, tuple(channels or ()))
    refused = [_left_out(thing) for thing in found.left_out] + unselected(seen.chosen)
    drafts = []
    for case in picked:
        several = list(case.series.values()) * (len(names) if len(case.series) == 1 else 1)  # colours
        images = dict(zip(names, several, strict=True))
        own, why_not = _references(case.id, images, pairs, need, labels)
        if why_not is not None:
            refused.append(why_not)
        else:
            drafts.append(_draft(case.id, images, own))
            for mend in dict.fromkeys(mend for series in images.values() for mend in series.mends):
                log.warning("case %s: %s", case.id, mend.said())
    refused += pairs.rows
    frame = Frame(names, labels_of(pairs.used, labels, found.series), name=name or "cohort", quiet=quiet)
    return assemble(drafts, frame, refused)


def unselected(chosen: Chosen) -> list[Refusal]:
    """Rows for the series that became no case, and for the studies that could not."""
    unfit = {study.id for study in chosen.unfit}
    rows = [_unfit(study) for study in chosen.unfit]
    for one in chosen.looked:
        if not one.taken:
            rows.append(skipped(one.series.uid_hash, one.reason()))
        elif one.study in unfit:
            rows.append(skipped(one.series.uid_hash, f"selected, but study {one.study} was refused"))
    return rows


def _channel_names(chosen: Chosen, select: Selection | None, asked: tuple[str, ...]) -> tuple[str, ...]:
    """The channels of the rules; of a single rule those asked for (colours, say), else the modality."""
    if select is not None and select.channels:
        if asked and asked != tuple(select.channels):
            raise MedsegError(
                "the channels asked for are not those of the selection",
                evidence=f"{', '.join(asked)} against {', '.join(select.channels)}",
                mend="leave the channels out: the selection names them",
            )
        return tuple(select.channels)
    modalities = {series.modality for case in chosen.picked for series in case.series.values()}
    return asked or (next(iter(modalities)) if len(modalities) == 1 else "image",)


def _references(
    case: str, images: Mapping[str, Series], pairs: Pairs, need: bool, labels: LabelsLike
) -> tuple[list[ReferenceFile], Refusal | None]:
    """The references of the first channel, on whose grid they will lie; or why the case is not taken."""
    channel, first = next(iter(images.items()))
    own = chosen_of(pairs.of(first), labels)
    drawn_on = next((c for c, s in images.items() if pairs.of(s)), channel)
    if not own and drawn_on != channel:
        error = CaseError(
            "the reference was drawn on another channel than the first",
            case=case,
            evidence=f"drawn on {drawn_on}, the first is {channel}",
            mend=f"name {drawn_on} first among the channels of the selection",
        )
        return [], refusal(error, case, case)
    return own, pairing_fault(first, own, need, labels)


def _draft(case: str, images: Mapping[str, Series], own: Sequence[ReferenceFile]) -> Draft:
    first = next(iter(images.values()))
    modalities = {series.modality for series in images.values()}
    return Draft(
        id=case,
        images={channel: series.files for channel, series in images.items()},
        reference=tuple(reference.file for reference in own),
        patient=hashed_patient(first.patient_key) if first.patient_key else case,
        groups={"modality": first.modality} if len(modalities) == 1 else {},
        kind="dicom",
        reference_kind=own[0].kind if own else None,
        parts={channel: series.part for channel, series in images.items()},
        policy=first.policy,
    )


def _unfit(study: Unfit) -> Refusal:
    return refusal(CaseError(study.reason, case=study.id, mend=study.mend), study.id, study.id)


def _left_out(thing: LeftOut) -> Refusal:
    if thing.status == "skipped":
        return skipped(thing.series, thing.reason)
    log.warning("%s", thing.error())
    reason = f"{thing.reason}; {thing.mend}" if thing.mend else thing.reason
    return Refusal(series=thing.series, status="refused", reason=reason)
