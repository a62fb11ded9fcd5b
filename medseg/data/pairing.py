"""Which reference (DICOM SEG, RTSTRUCT) belongs to which series, and what its structures are called."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from medseg.core.errors import CaseError, MedsegError
from medseg.data.cohort import Refusal
from medseg.data.discover import LabelsLike, as_labels, refusal, skipped
from medseg.imaging.dicom_naming import plain_name
from medseg.imaging.dicom_references import IN_WORDS, ReferenceFile
from medseg.imaging.dicom_regions import region_labels
from medseg.imaging.dicom_rtstruct_in import contours_lie_on
from medseg.imaging.dicom_seg_in import lies_on, segment_labels
from medseg.imaging.dicom_series import Series
from medseg.imaging.labels import TISSUE, Label, Labels

Choice = Literal["auto", "seg", "rtstruct", "none"]
"""Which references count: all, one kind of them, or none at all (prediction)."""

References = Sequence[ReferenceFile]


@dataclass(frozen=True)
class Pairs:
    """References by the series they belong to, and rows for those that belong nowhere.

    Attributes
    ----------
    used : list of ReferenceFile
        All references that count, whether or not their series is here.
    own : dict
        ``uid_hash`` of a series -> its references.
    rows : list of Refusal
        What was not asked for, has no series here, or could belong to several.
    """

    used: list[ReferenceFile] = field(default_factory=list)
    own: dict[str, list[ReferenceFile]] = field(default_factory=dict)
    rows: list[Refusal] = field(default_factory=list)

    def of(self, series: Series) -> list[ReferenceFile]:
        """The references of a series."""
        return self.own.get(series.uid_hash, [])


def paired(references: References, series: Sequence[Series], choice: Choice = "auto") -> Pairs:
    """Match references with series: by the images they name, else by frame, patient and geometry.

    Raises
    ------
    MedsegError
        A `choice` that there is not.
    """
    if choice not in get_args(Choice):
        raise MedsegError(
            f"there is no kind of reference '{choice}'", mend=f"known: {', '.join(get_args(Choice))}"
        )
    if choice == "none":
        return Pairs()
    pairs = Pairs(used=[r for r in references if choice in ("auto", r.kind)])
    pairs.rows.extend(_not_asked_for(r) for r in references if r not in pairs.used)
    for reference in pairs.used:
        homes = _homes(reference, series)
        for home in homes if len(homes) == 1 or reference.names_images else ():
            pairs.own.setdefault(home.uid_hash, []).append(reference)
        if not homes:
            pairs.rows.append(_lonely(reference))
        elif len(homes) > 1 and not reference.names_images:
            pairs.rows.append(_anybodys(reference, len(homes)))
    return pairs


def labels_of(references: References, given: LabelsLike, series: Sequence[Series] = ()) -> Labels:
    """The labels given, or the names of structures in the order they are met.

    Coded terms and colours come from the objects. Names that differ in case and blanks alone are one.
    With `series`, regions of an RTSTRUCT in none of their frames of reference are no labels.
    """
    frames = {s.frame_of_reference for s in series}
    found = [label for reference in references for label in _structures(reference, frames)]
    met = {plain_name(label.name): label for label in reversed(found)}
    names = dict.fromkeys(plain_name(label.name) for label in found)
    asked = as_labels(given) or as_labels({met[n].name: number for number, n in enumerate(names, start=1)})
    return tuple(_with_terms(label, met.get(plain_name(label.name))) for label in asked)


def chosen_of(own: References, given: LabelsLike) -> list[ReferenceFile]:
    """Of several references of a series those that hold a label asked for; a single one stays."""
    asked = {plain_name(label.name) for label in as_labels(given)}
    if len(own) < 2 or not asked:
        return list(own)
    holding = [r for r in own if _names(r) & asked]
    return holding or list(own)


def pairing_fault(series: Series, own: References, need: bool, given: LabelsLike = None) -> Refusal | None:
    """Why the references of a series cannot be used together, or why it is passed over without one."""
    if need and not own:
        return skipped(series.uid_hash, f"{series.modality} series to which no reference refers")
    kinds = sorted({r.kind for r in own})
    if len(kinds) > 1:
        words = " and ".join(f"{sum(r.kind == k for r in own)} {IN_WORDS[k]}" for k in kinds)
        return _fault(
            series, own, "references of two kinds belong to this series", words,
            "choose one kind: cohort.reference=seg or cohort.reference=rtstruct",
        )  # fmt: skip
    shared = _shared_names(own, {plain_name(label.name) for label in as_labels(given)})
    if shared:
        return _fault(
            series, own, "several references of this series hold the same label: which one counts?",
            f"{len(own)} {IN_WORDS[kinds[0]]} objects, {shared} label(s) in more than one",
            "leave one of them in the folder",
        )  # fmt: skip
    return None


def _fault(series: Series, own: References, what: str, evidence: str, mend: str) -> Refusal:
    error = CaseError(what, case=series.uid_hash, file=str(own[0].file), evidence=evidence, mend=mend)
    return refusal(error, series.uid_hash, series.uid_hash)


def _homes(reference: ReferenceFile, series: Sequence[Series]) -> list[Series]:
    """The series a reference belongs to; several only when it names images of several, or names none."""
    images = [s for s in series if reference.names_image_of(s)]
    if images:
        return images
    own = [s for s in series if reference.belongs_to(s)]
    if len(own) < 2:
        return own
    return [s for s in own if _fits(reference, s)]


def _fits(reference: ReferenceFile, series: Series) -> bool:
    try:
        return (lies_on if reference.kind == "seg" else contours_lie_on)(reference.file, series)
    except Exception:  # a damaged object fits nowhere
        return False


def _with_terms(label: Label, met: Label | None) -> Label:
    """The label with the terms and colour of the structure of its name, where it has none of its own."""
    if met is None or label.type != TISSUE:
        return label
    return label.but(category=met.category, type=met.type, colour=label.colour or met.colour)


def _structures(reference: ReferenceFile, frames: Collection[str] = ()) -> Labels:
    try:
        if reference.kind == "seg":
            return segment_labels(reference.file)
        # a set in a frame that no series has may still be taken, or is refused when it is read
        return region_labels(reference.file, frames or None) or region_labels(reference.file)
    except Exception:  # a damaged object is refused when its case is read
        return ()


def _names(reference: ReferenceFile) -> set[str]:
    return {plain_name(label.name) for label in _structures(reference)}


def _shared_names(own: References, asked: set[str]) -> int:
    """How many labels (of those asked for, if any are) stand in more than one object."""
    names = [name for r in own for name in (_names(r) & asked if asked else _names(r))]
    return len({name for name in names if names.count(name) > 1})


def _not_asked_for(reference: ReferenceFile) -> Refusal:
    return skipped(reference.series, f"{_a(reference)} that was not asked for")


NO_IMAGE = "whose image series is not here, or was refused"
"""In the reason of a refused reference: it is no case of its own."""


def _lonely(reference: ReferenceFile) -> Refusal:
    return _refused(
        reference,
        f"{_a(reference)} {NO_IMAGE}",
        "add the series it refers to",
    )


def _anybodys(reference: ReferenceFile, count: int) -> Refusal:
    return _refused(
        reference,
        f"{_a(reference)} that names no series, and {count} of its patient lie where it does",
        "keep it in a folder with the series it was drawn on alone",
    )


def _refused(reference: ReferenceFile, what: str, mend: str) -> Refusal:
    return refusal(
        CaseError(what, case=reference.series, file=str(reference.file), mend=mend), reference.series
    )


def _a(reference: ReferenceFile) -> str:
    return f"{'a' if reference.kind == 'seg' else 'an'} {IN_WORDS[reference.kind]}"
