"""What is put to the test: a model of ours, a MONAI bundle, or masks and classes that any tool has made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medseg.core.errors import MedsegError
from medseg.core.files import read_json, sha256_of
from medseg.core.run import Run
from medseg.core.stage import Artifact, artifact_of
from medseg.core.values import digest
from medseg.data.cohort import Source
from medseg.data.naming import hashed_name
from medseg.evaluation.folders import find_masks
from medseg.imaging.labels import Labels
from medseg.imaging.masks import Postprocessing
from medseg.learning.settings import Prediction
from medseg.workflows.journey import Ingested

WEIGHTS = "models/model.pt"
BUNDLE = ("configs/inference.json", "configs/inference.yaml", "configs/inference.yml")


@dataclass(frozen=True)
class Using:
    """How a subject is used: windows and precision, device, whether code of a bundle may run, thresholds."""

    prediction: Prediction = field(default_factory=Prediction)
    device: str = "auto"
    trust: bool = False
    thresholds: Mapping[int, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Subject:
    """What is tested, opened as far as can be told without an image.

    Parameters
    ----------
    kind : {"medseg", "bundle", "masks", "classes"}
    about : mapping
        Sentences for the report: ``what``, ``identity``, ``task``, ``network``, ``preparation``, ...
    task : str
    labels, classes
        What its answers mean; empty where it does not say.
    models : sequence of Artifact
        Model folders (``medseg``), the bundle (``bundle``), none for results made elsewhere.
    results : mapping
        Case name -> file of a mask (``masks``), or -> class -> probability (``classes``).
    training : mapping
        ``ranges`` (summary of the training cases), ``cases``, ``seen`` (records of digests), ``note``.
    postprocessing : Postprocessing
        Mask steps that belong to the model.
    prediction : Prediction
        How it looked at images when it was judged.
    """

    kind: str
    about: Mapping[str, Any]
    task: str
    labels: Labels = ()
    classes: tuple[str, ...] = ()
    models: Sequence[Artifact] = ()
    results: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    postprocessing: Postprocessing = field(default_factory=Postprocessing)
    prediction: Prediction = field(default_factory=Prediction)

    def predict(self, run: Run, raw: Ingested, using: Using) -> dict[str, Artifact]:
        """A folder for each case with ``mask.nii.gz`` or ``probabilities.json``; failed cases are missing.

        Raises
        ------
        MedsegError
            Thresholds for what does not show its probabilities.
        """
        if using.thresholds and self.kind != "medseg":
            mend = "leave postprocessing.thresholds out"
            raise MedsegError("thresholds need the probabilities of a model of medseg", mend=mend)
        return _PREDICT[self.kind](self, run, raw, using)


def open_subject(place: str | Path, training: str | Path | None = None) -> Subject:
    """Look what lies there.

    Parameters
    ----------
    place : path
        Model folder, fold folder or run folder; folder of a MONAI bundle; folder of masks ``<case>.nii.gz``
        (what ``medseg predict`` or any other tool writes); class table ``case,<class>,...``.
    training : path, optional
        Run folder the model was trained in, where it has been moved away from it: for the ranges of the
        training cases and the proof that no image was trained on.

    Raises
    ------
    MedsegError
        None of these.
    """
    from medseg.learning.model import model_folders

    place = Path(place)
    if place.is_file() and place.suffix.lower() == ".csv":
        return _of_table(place, training)
    if any((place / name).is_file() for name in BUNDLE):
        return _of_bundle(place, training)
    if place.is_dir() and (folders := model_folders(place)):
        return _of_models(place, folders, training)
    if place.is_dir() and any(place.glob("*.nii*")):
        return _of_masks(place, training)
    raise MedsegError(
        "there is nothing here that could be validated",
        file=str(place),
        mend="give a model or run folder, a MONAI bundle, a folder of masks <case>.nii.gz, or a class table",
    )


def _of_models(place: Path, folders: Sequence[Path], training: str | Path | None) -> Subject:
    from medseg.core.values import validated
    from medseg.data.plan import Plan
    from medseg.learning.model import CARD, PLAN, chosen_with
    from medseg.workflows.subject_words import of_models

    artifacts = tuple(artifact_of(folder) for folder in folders)
    cards = [read_json(folder / CARD) for folder in folders]
    plan = validated(Plan, read_json(folders[0] / PLAN))
    about = of_models(plan, cards) | {"identity": digest([c["weights_sha256"] for c in cards])}
    steps, how = chosen_with(place)
    return Subject(
        "medseg", about, plan.task, plan.labels, plan.classes, artifacts,
        training=_training(place, folders, cards, training), postprocessing=steps, prediction=how,
    )  # fmt: skip


def _training(
    place: Path, folders: Sequence[Path], cards: Sequence[Mapping[str, Any]], given: str | Path | None
) -> dict[str, Any]:
    """What is known of the training cases: from the cards, and from the run folder where there is one."""
    from medseg.workflows.provenance import seen_in_run

    told = [card.get("training_data") or {} for card in cards]
    known = {"ranges": told[0].get("ranges") or {}, "cases": _cases(told)}
    records = [data.get("seen") or {} for data in told]
    if all(records):
        return known | {"seen": records, "note": "digests kept in the model"}
    found = seen_in_run(Path(given) if given else place, folders)
    return known | ({"seen": [found], "note": "images of the run the model was trained in"} if found else {})


def _cases(told: Sequence[Mapping[str, Any]]) -> int | None:
    known = [int(d["cases"]) + int(d.get("monitor_cases", 0)) for d in told if "cases" in d]
    return max(known) if known else None


def _of_bundle(place: Path, training: str | Path | None) -> Subject:
    from medseg.workflows.subject_words import of_bundle

    about, labels = of_bundle(place)
    artifact = artifact_of(place)
    about |= {"identity": artifact.digest}
    known = _named_run(training) or _exported(place)
    return Subject("bundle", about, "segmentation", labels, models=(artifact,), training=known)


def _exported(place: Path) -> dict[str, Any]:
    """What an export of ours tells of its training, while the weights are still those it was made with."""
    from medseg.workflows.exporting import MANIFEST

    for root, name in ((place, "."), (place.parent, place.name)):
        if not (root / MANIFEST).is_file():
            continue
        try:
            told = read_json(root / MANIFEST)
            data, sealed = told["training_data"][name], told["files"][f"{name}/{WEIGHTS}".removeprefix("./")]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if data.get("seen") and sha256_of(place / WEIGHTS) == sealed:
            known = {"ranges": data.get("ranges") or {}, "cases": _cases([data]), "seen": [data["seen"]]}
            return known | {"note": "digests kept in the export"}
    return {}


def _named_run(training: str | Path | None) -> dict[str, Any]:
    """What a run folder that the user names tells of the training."""
    from medseg.workflows.provenance import seen_in_run

    if not training:
        return {}
    if not (found := seen_in_run(Path(training), ())):
        raise MedsegError("this is no run folder of a training", file=str(training), mend="training=RUN")
    return {"seen": [found], "note": "images of the run named as its training"}


def _of_masks(place: Path, training: str | Path | None) -> Subject:
    files = find_masks(place)
    about = {
        "what": "masks made elsewhere",
        "task": "segmentation",
        "identity": digest({case: sha256_of(file) for case, file in files.items()}),
        "prediction": f"{len(files)} masks were handed in; how they were made is not known to this run",
    }
    return Subject("masks", about, "segmentation", results=files, training=_named_run(training))


def _of_table(place: Path, training: str | Path | None) -> Subject:
    from medseg.evaluation.class_tables import probabilities_of, read_table

    table = {case: probabilities_of(cells, case) for case, cells in read_table(place).items()}
    classes = tuple(sorted({name for cells in table.values() for name in cells}))
    about = {
        "what": "classes given elsewhere",
        "task": "classification",
        "identity": sha256_of(place),
        "prediction": f"answers for {len(table)} cases were handed in; how they were made is not known",
    }
    known = _named_run(training)
    return Subject("classes", about, "classification", classes=classes, results=table, training=known)


def _by_models(subject: Subject, run: Run, raw: Ingested, using: Using) -> dict[str, Artifact]:
    from medseg.stages.predict import predict

    items = {case: (raw[case], *subject.models) for case in raw}
    how: dict[str, Any] = {"prediction": using.prediction, "device": using.device}
    how |= {"quality": True} if subject.task == "segmentation" else {}
    how |= {"thresholds": using.thresholds} if using.thresholds else {}
    return dict(run.map(predict, items, **how))


def _by_bundle(subject: Subject, run: Run, raw: Ingested, using: Using) -> dict[str, Artifact]:
    from medseg.learning.bundle_use import open_bundle
    from medseg.stages.bundle import bundle

    open_bundle(subject.models[0].path, using.device, trust=using.trust)  # complains once, not a case each
    items = {case: (raw[case], subject.models[0]) for case in raw}
    return dict(run.map(bundle, items, device=using.device, trust=using.trust))


def _from_masks(subject: Subject, run: Run, raw: Ingested, using: Using) -> dict[str, Artifact]:
    from medseg.stages.given import given

    named = matched_names(subject.results, raw)
    items = {
        case: Source(kind="nifti", files=(str(file.resolve()),), sha256=sha256_of(file))
        for case, file in named.items()
    }
    return dict(run.map(given, items))


def _from_table(subject: Subject, run: Run, raw: Ingested, using: Using) -> dict[str, Artifact]:
    from medseg.stages.given import told

    named = matched_names(subject.results, raw)
    return dict(run.map(told, {case: {"probabilities": cells} for case, cells in named.items()}))


_PREDICT = {"medseg": _by_models, "bundle": _by_bundle, "masks": _from_masks, "classes": _from_table}


def matched_names(results: Mapping[str, Any], raw: Ingested) -> dict[str, Any]:
    """Results by the ids of the cases: under the same name, or the hash that stands for that name.

    Raises
    ------
    MedsegError
        None of them has the name of a case.
    """
    by_id = {hashed_name(name): result for name, result in results.items()} | dict(results)
    found = {case: by_id[case] for case in raw if case in by_id}
    if not found:
        raise MedsegError(
            "no result has the name of a case",
            evidence=f"results: {', '.join(list(results)[:3])}; cases: {', '.join(list(raw)[:3])}",
            mend="call the results <case>.nii.gz (or give the column 'case') by the ids in ingest.csv",
        )
    return found
