"""Who is in the study: sources, cases, the cohort, and the split by patient."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from medseg.core.errors import MedsegError
from medseg.core.values import Value, validated
from medseg.data.classes import several_classes
from medseg.imaging.dicom_layers import Overlap
from medseg.imaging.dicom_policy import DicomPolicy
from medseg.imaging.labels import IGNORE, Label, Labels

Task = Literal["segmentation", "classification"]
CASE_ID = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"


class Source(Value):
    """Files that hold one image or one reference, known by their content.

    `kind` names the reader. For ``dicom`` the files are the slices of one series. Paths are absolute
    and live only in memory: what is stored of a source is `sha256`.
    """

    kind: Literal["nifti", "dicom", "seg", "rtstruct", "raster"]
    files: tuple[str, ...] = ()
    sha256: str
    """sha256 of the file, or over the sorted sha256 of all files when there are several."""
    part: str = ""
    """Which volume of the files, when they hold several (`Series.part`)."""
    policy: DicomPolicy = DicomPolicy()
    """How DICOM files are read: what is mended, taken, refused."""

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


class Ingesting(Value):
    """What is done to a case at the door. Nothing is repaired unless it is asked for here."""

    require_reference: bool = False
    """Refuse a case that has no reference (training needs one; prediction does not)."""
    ignore: int | None = None
    """Value of references that is taken although it is no label: the cohort's `ignore`."""
    label_threshold: float | None = None
    """Grey-valued reference: voxels above it become 1, all others 0. Applied before `label_map`."""
    label_map: dict[int, int] = {}
    """Stored value -> value of a configured label (or 0); values that are not listed stay."""
    overlap: Overlap = "refuse"
    """Structures of a SEG or RTSTRUCT that overlap: refuse, or give each voxel to the label with the smaller
    (``first``) or the greater value (``last``)."""
    fraction: float = Field(default=0.5, gt=0, le=1)
    """Fractional SEG: a voxel belongs to a segment from this fraction on."""
    align: bool = False
    """Channels on different grids in one frame of reference: resample all onto the grid of the first."""
    dates: Literal["none", "shifted"] = "none"
    """Store the day of a DICOM study, shifted by a secret offset of its patient (`study_day`), or nothing."""


class Cohort(Value):
    """Cases with their common channels and labels.

    Make one with `open` (which looks what lies there) or with one of the `from_...` constructors.
    All of them take ``labels`` (``"kidney=1,tumour=2"``, a mapping or `Labels`), ``channels``,
    ``name`` and ``quiet``, hash every file, and put what they cannot take into `refused`. ``ids`` says
    how cases found by their file names are called: ``auto`` (names that can only be study numbers stay,
    the others become keyed hashes), ``names`` or ``hashed``; see `medseg.data.naming`.
    Three channels where there is one picture a case (``red,green,blue``) are its colours; one channel is
    its luminance.

    Raises
    ------
    MedsegError
        Two cases share an id, or a case lacks a channel.
    """

    name: str
    task: Task = "segmentation"
    channels: tuple[str, ...]
    labels: Labels = ()
    ignore: int | None = None
    """Value of references that marks voxels nobody knows: given as a label called ``ignore``."""
    classes: tuple[str, ...] = ()
    cases: tuple[Case, ...]
    refused: tuple[Refusal, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _ignored(cls, given: Any) -> Any:
        """A label called ``ignore`` is none: its value is that of `ignore`."""
        found = [x for x in given.get("labels") or () if isinstance(x, Label) and x.name == IGNORE]
        if not found:
            return given
        rest = tuple(x for x in given["labels"] if x not in found)
        return {**given, "labels": rest, "ignore": found[0].value}

    def model_post_init(self, _: Any, /) -> None:
        ids = Counter(case.id for case in self.cases)
        twice = [name for name, n in ids.items() if n > 1]
        if twice:
            raise MedsegError(
                "two cases have the same id",
                case=twice[0],
                evidence=", ".join(f"{name} x {ids[name]}" for name in twice),
                mend="give each case an id of its own",
            )
        for case in self.cases:
            if set(case.images) != set(self.channels):
                raise MedsegError(
                    "the case does not have the channels of its cohort",
                    case=case.id,
                    evidence=f"has {', '.join(case.images)}; cohort: {', '.join(self.channels)}",
                    mend="add the missing image, or leave the case or the channel out",
                )

    @classmethod
    def open(cls, root: str | Path, *, format: str = "auto", **options: Any) -> Cohort:
        """The cohort in a folder, file or manifest, whatever its layout.

        Parameters
        ----------
        root : path
            Data set folder, image file, CSV/JSON manifest or DICOM folder.
        format : str
            ``msd``, ``nnunet``, ``nifti``, ``csv``, ``dicom``, ``classes``, or ``auto`` to look.
        **options
            Handed to the ``from_...`` constructor of that format.

        Raises
        ------
        MedsegError
            Nothing there, nothing in it that can be read, or an unknown format.
        """
        from medseg.data.discover_open import open_cohort

        return open_cohort(root, format, **options)

    @classmethod
    def from_msd(cls, root: str | Path, **options: Any) -> Cohort:
        """A Medical Segmentation Decathlon folder: ``dataset.json``, ``imagesTr``, ``labelsTr``.

        Patients come from the column ``subject_guess`` of ``cases.csv`` when it is there; MSD
        hippocampus ids 2k-1 and 2k are the two sides of one person; else each case is a patient.
        """
        from medseg.data.discover_sets import from_msd

        return from_msd(root, **options)

    @classmethod
    def from_nnunet(cls, root: str | Path, **options: Any) -> Cohort:
        """An nnU-Net (version 2) raw data set: ``dataset.json``, ``imagesTr/<case>_0000...``."""
        from medseg.data.discover_sets import from_nnunet

        return from_nnunet(root, **options)

    @classmethod
    def from_nifti(cls, root: str | Path, **options: Any) -> Cohort:
        """Images and references paired by file name, found by globs (NIfTI, PNG, JPEG, TIFF).

        Parameters
        ----------
        root : path
            Folder the globs start from.
        image, reference : str, optional
            Globs such as ``imagesTr/*.nii.gz`` and ``labelsTr/*.nii.gz``, or with several channels
            ``*/{channel}.nii.gz``; what the ``*`` match is the case id and must be equal in both.
            Without them the usual folder names are looked for.
        need_reference : bool, optional
            Refuse an image without reference; by default True when any reference is found.
        """
        from medseg.data.discover_globs import from_nifti

        return from_nifti(root, **options)

    @classmethod
    def from_classes(cls, root: str | Path, **options: Any) -> Cohort:
        """Images in one folder a class: ``root/<class>/<image>``."""
        from medseg.data.discover_globs import from_classes

        return from_classes(root, **options)

    @classmethod
    def from_csv(cls, file: str | Path, **options: Any) -> Cohort:
        """A manifest, CSV or JSON: a row a case, paths relative to the manifest.

        Columns: ``case``, ``patient``, ``image`` (or ``image_<channel>`` each), ``reference``,
        ``class`` (``a;b`` where a case may have several, ``;`` for none), ``group`` (near-duplicates: kept
        together as if of one patient); any other column becomes a group. ``roles={"column": "role"}``
        renames columns. Patients are stored as keyed hashes.
        """
        from medseg.data.discover_table import from_csv

        return from_csv(file, **options)

    @classmethod
    def from_dicom(cls, root: str | Path, **options: Any) -> Cohort:
        """DICOM series below `root`, a case each; SEG and RTSTRUCT objects become their references.

        References are matched by the images they name. Several of one series are merged when they hold
        different labels; ``reference="seg"`` or ``"rtstruct"`` takes those of one kind alone, ``"none"``
        takes none. Case and patient ids are keyed hashes.
        """
        from medseg.data.discover_dicom import from_dicom

        return from_dicom(root, **options)

    def split(
        self,
        test: float = 0.2,
        folds: int = 5,
        seed: int = 0,
        test_ids: Collection[str] | None = None,
    ) -> Split:
        """Test part and folds, by patient; see `medseg.data.split.split`."""
        from medseg.data.split import split

        return split(self, test, folds, seed, test_ids)

    def subset(self, ids: Collection[str]) -> Cohort:
        """The cohort with these cases alone, in its own order."""
        return self.but(cases=tuple(case for case in self.cases if case.id in set(ids)))

    def patients(self) -> dict[str, tuple[Case, ...]]:
        """Cases by patient, in the order of the cohort."""
        found: dict[str, tuple[Case, ...]] = {}
        for case in self.cases:
            found[case.patient] = (*found.get(case.patient, ()), case)
        return found

    @property
    def multilabel(self) -> bool:
        """Whether a case may have several classes, or none (``class`` holds ``a;b``, or ``;``)."""
        return several_classes(case.label_class for case in self.cases)

    def __getitem__(self, case_id: str) -> Case:
        return next(case for case in self.cases if case.id == case_id)

    def __len__(self) -> int:
        return len(self.cases)

    def public(self) -> dict[str, Any]:
        """What may be stored: everything but the paths of the files."""
        no_files = {"images": {"__all__": {"files"}}, "reference": {"files"}}
        return self.model_dump(mode="json", exclude={"cases": {"__all__": no_files}})

    @classmethod
    def from_public(cls, content: Mapping[str, Any]) -> Cohort:
        """The cohort of a stored `public()`: everything but the places of its files."""
        return validated(cls, content)
