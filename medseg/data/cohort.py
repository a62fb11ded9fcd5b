"""Who is in the study: sources, cases, the cohort, and the split by patient."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from medseg.core.values import Value
from medseg.imaging.labels import Labels

Task = Literal["segmentation", "classification"]
CASE_ID = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"


class Source(Value):
    """Files that hold one image or one reference, known by their content.

    `kind` names the reader. For ``dicom`` the files are the slices of one series. Paths are absolute
    and live only in memory: what is stored of a source is `sha256`.
    """

    kind: Literal["nifti", "dicom", "seg", "rtstruct", "raster"]
    files: tuple[str, ...]
    sha256: str
    """sha256 of the file, or over the sorted sha256 of all files when there are several."""

    outside_identity: ClassVar[frozenset[str]] = frozenset({"files"})


class Case(Value):
    """One image (all its channels) of one patient, with what is known about it.

    `patient` is a keyed hash or a study pseudonym, never a name. `groups` holds site, scanner, sex,
    age band and the like, for stratified splits and subgroup tables.
    """

    id: str = Field(pattern=CASE_ID)
    patient: str
    images: dict[str, Source]
    reference: Source | None = None
    label_class: str | None = None
    groups: dict[str, str] = {}


class Refusal(Value):
    """A series or case that was found and not taken, and why (a sentence without identifiers)."""

    series: str
    case: str | None = None
    status: Literal["skipped", "refused"]
    reason: str


class Fold(Value):
    """Case ids a model is trained on and judged on; both sorted."""

    train: tuple[str, ...]
    valid: tuple[str, ...]


class Split(Value):
    """The locked test part and the folds over the rest; no patient is in two parts."""

    test: tuple[str, ...]
    folds: tuple[Fold, ...]
    seed: int


class Cohort(Value):
    """Cases with their common channels and labels."""

    name: str
    task: Task = "segmentation"
    channels: tuple[str, ...]
    labels: Labels = ()
    classes: tuple[str, ...] = ()
    cases: tuple[Case, ...]
    refused: tuple[Refusal, ...] = ()

    def __getitem__(self, case_id: str) -> Case:
        return next(case for case in self.cases if case.id == case_id)

    def public(self) -> dict[str, Any]:
        """What may be stored: everything but the paths of the files."""
        return self.model_dump(mode="json", exclude={"cases": {"__all__": {"images": {"__all__": {"files"}}, "reference": {"files"}}}})
