"""The settings of a recipe: one frozen model, read from YAML, checked before anything is touched."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from medseg.core.config import load_config
from medseg.core.values import Value
from medseg.data.cohort import Ingesting, Task
from medseg.data.naming import Ids
from medseg.data.pairing import Choice
from medseg.data.review import Marks, given_marks
from medseg.data.selection_rules import Selection
from medseg.evaluation.policy import Scoring
from medseg.imaging.dicom_out import DicomOutput, ObjectKind
from medseg.imaging.dicom_policy import DicomPolicy
from medseg.imaging.masks import Postprocessing
from medseg.learning.settings import Adaptation, Explaining, Prediction, Pretext, Training, Transfer
from medseg.learning.tracking import Tracking


def _rules(given: Any) -> Any:
    """Rules written in place, or the path of a file of them; what they say counts, not where they lie."""
    return load_config(Selection, given) if isinstance(given, str) and given else given or None


Rules = Annotated[Selection | None, BeforeValidator(_rules)]
Marked = Annotated[Marks, BeforeValidator(given_marks)]


class CohortSettings(Value):
    """Where the images are and what they are."""

    root: str = ""
    """Data set folder, manifest, or DICOM folder; relative paths count from the current folder."""
    format: str = "auto"
    name: str = ""
    labels: dict[str, int | tuple[int, ...]] = {}
    """Name to value; taken from the data set's own description where it has one. Lists of values are regions,
    which may overlap; ``ignore`` marks voxels of references that nobody knows."""
    channels: tuple[str, ...] = ()
    image: str = ""
    """Glob of the images below the root (format ``nifti``)."""
    reference: str = ""
    """Glob of the references below the root (``nifti``), or their kind (DICOM): ``seg``, ``rtstruct``."""
    roles: dict[str, str] = {}
    """Manifests: column -> case, patient, group, image, reference, class, ignore, where its name differs."""
    group_alike: float | None = Field(default=None, gt=0, lt=1)
    """Images whose thumbnails correlate above this (0.97) count as one patient: no split parts them."""
    exclude: tuple[str, ...] = ()
    """Case ids to leave out."""
    marks: Marked = {}
    """What a reader marked in a report, or the path of its ``marks.yaml``: ``fail`` leaves a case out."""
    ids: Ids = "auto"
    """Case ids from names of files: where they are study numbers, always, or never (keyed hashes)."""
    dicom: DicomPolicy = DicomPolicy()
    """What reading DICOM may mend, take or refuse."""
    select: Rules = None
    """Which series of a DICOM study are cases or channels: rules, or the path of a YAML file of them."""


class IngestSettings(Value):
    """What ``medseg ingest`` may be told."""

    ingest: Ingesting = Ingesting()
    dicom: DicomPolicy = DicomPolicy()
    ids: Ids = "auto"
    select: Rules = None
    channels: tuple[str, ...] = ()
    """Names of the channels; three for one picture a case are its colours."""
    reference: Choice = "auto"
    """Which DICOM references count when a series has SEG and RTSTRUCT."""
    marks: Marked = {}
    """What a reader marked in a report, or the path of its ``marks.yaml``."""

    def options(self) -> dict[str, Any]:
        """The part of it that opening a cohort needs."""
        policy = {} if self.dicom == DicomPolicy() else {"policy": self.dicom}
        policy |= {} if self.reference == "auto" else {"reference": self.reference}
        return {"ids": self.ids, "select": self.select, "channels": self.channels, **policy}


class SplitSettings(Value):
    """Who is trained on and who is judged: always by patient."""

    test: float = Field(default=0.2, ge=0, lt=1)
    """Share of the patients locked away as test part."""
    folds: int = Field(default=5, ge=1, le=50)
    """Cross-validation folds over the rest; 1 trains one model on the rest and judges it on the test part."""
    seed: int = 0
    open_test: bool = True
    """Judge on the test part at the end: once, by the models of all folds together; false keeps it locked."""

    @property
    def cross_validates(self) -> bool:
        """Whether cases outside the test part are judged, each by the fold that has not seen it."""
        return self.folds > 1

    def judges_test(self) -> bool:
        """Whether the scores of the run are those of the test part: a single fold has no others."""
        return self.open_test and not self.cross_validates


class Choosing(Value):
    """What cross-validation decides. Nothing of it ever looks at the test part."""

    metric: str = ""
    """Configurations are compared by its mean over labels: ``dice`` (``auroc`` of classes) by default."""
    steps: bool = True
    """Try mask steps (largest component, smallest volume, holes) on cross-validated masks, label by label,
    and keep those that pay; not where `postprocessing` is given."""
    thresholds: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = (0.3, 0.4, 0.6, 0.7)
    """Before the steps, probabilities at which a label may be taken instead of 0.5, tried on each label: one
    more pass over the cross-validated cases; none to leave it out."""
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    """Of the intervals that decide; of thresholds and steps, for all that are tried together."""


Configurations = dict[str, dict[str, Any]]


def _configurations(given: Any) -> Any:
    """``2d,3d,2d+3d``, a list of names, or names with the choices of the plan that make them."""
    if isinstance(given, str):
        given = [name.strip() for name in given.strip("[]").split(",") if name.strip()]
    if isinstance(given, list | tuple):
        return {str(name).removesuffix(" ensemble").replace(" ", ""): {} for name in given}
    return given or {}


class AdaptationSettings(Adaptation):
    """Another site the models of a recipe are to work at, and how they are brought there."""

    target: CohortSettings = CohortSettings()
    """Its images; labels that may lie there are not read."""

    def how(self) -> Adaptation:
        """The part that says how."""
        return Adaptation(**{name: getattr(self, name) for name in Adaptation.model_fields})

    @model_validator(mode="after")
    def _has_target(self) -> AdaptationSettings:
        if not self.target.root and self.how() != Adaptation():
            raise ValueError("settings of an adaptation without another site: set adaptation.target.root")
        return self


class PretextSettings(Pretext):
    """Images without labels that the network learns from before it is trained, and how."""

    images: CohortSettings = CohortSettings()
    """Where they are; references that may lie there are not read."""

    def how(self) -> Pretext:
        """The part that says how."""
        return Pretext(**{name: getattr(self, name) for name in Pretext.model_fields})

    @model_validator(mode="after")
    def _has_images(self) -> PretextSettings:
        if not self.images.root and self.how() != Pretext():
            raise ValueError("settings of a pretext without images: set pretext.images.root")
        return self


class TrainSettings(Value):
    """A training recipe: ``medseg train CONFIG``."""

    name: str = Field(default="training", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    task: Task = "segmentation"
    cohort: CohortSettings = CohortSettings()
    ingest: Ingesting = Ingesting()
    split: SplitSettings = SplitSettings()
    plan: dict[str, Any] = {}
    """Choices of the plan to override; the rest derives itself again."""
    candidates: Annotated[Configurations, BeforeValidator(_configurations)] = {}
    """Configurations to choose from by cross-validation: ``3d``, ``2d``, ``cascade``, several joined by ``+``
    (mean of their probabilities), or names of your own with choices of the plan. None: the plan decides."""
    choosing: Choosing = Choosing()
    training: Training = Training()
    transfer: Transfer = Transfer()
    """Weights to begin from (``transfer.source``); fresh ones by default."""
    pretext: PretextSettings = PretextSettings()
    """Images without labels (``pretext.images.root``) to learn from first; the training begins from there."""
    adaptation: AdaptationSettings = AdaptationSettings()
    """Images of another site (``adaptation.target.root``) each model is adapted to: ``adapted/adapt``."""
    prediction: Prediction = Prediction()
    postprocessing: Postprocessing = Postprocessing()
    """Thresholds and mask steps set by hand; without any, cross-validation tries some (`choosing.steps`)."""
    scoring: Scoring = Scoring()
    export: tuple[ObjectKind, ...] = ()
    """DICOM objects written for the cases judged, when their source is DICOM."""
    explain: Explaining | None = None
    """Where the models looked in the worst cases judged: ``explain: {method: gradcam, cases: 5}``."""
    tracking: Tracking = Tracking()
    """MLflow: by default a local SQLite file beside the runs; MLFLOW_TRACKING_URI wins."""

    def choices(self, device: str = "auto") -> dict[str, Any]:
        """What planning is told: device and budget of the training, then the choices made by hand."""
        from medseg.learning.devices import hardware

        length, precision = self.training.budget_minutes, self.training.precision
        told = {"device": hardware(device), "budget_minutes": length, "precision": precision}
        return told | self.plan

    def watch(self) -> Tracking:
        """Tracking under the name of the recipe."""
        return self.tracking.but(workflow=self.name)


class PredictSettings(Value):
    """What ``medseg predict`` may be told as ``key=value``."""

    dicom: DicomPolicy = DicomPolicy()
    """What reading DICOM may mend, take or refuse: ``dicom.tilt=shear``, ``dicom.burned_in=take``, ..."""
    output: DicomOutput = DicomOutput()
    """How results are written as DICOM: ``output.seg=labelmap``, ``output.holes=inner``."""
    select: Rules = None
    """Which series of a DICOM study are predicted or serve as channels: ``select=RULES.yaml``."""
    align: bool = False
    """Resample channels in one frame of reference onto the grid of the first."""
    prediction: Prediction = Prediction()
    postprocessing: Postprocessing | None = None
    """Mask steps; by default those the model carries."""
