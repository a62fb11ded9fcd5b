"""How much of a question a frozen encoder answers: embeddings once, then simple classifiers by fold."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from medseg.core.errors import MedsegError
from medseg.core.run import Run
from medseg.core.stage import Artifact, artifact_of
from medseg.data.cohort import Cohort, Fold, Split
from medseg.data.plan import Preparation
from medseg.evaluation.policy import Scoring
from medseg.workflows.journey import Ingested, ingest_all
from medseg.workflows.training import score_all

if TYPE_CHECKING:
    from medseg.evaluation.scoring import Scores


def probe(
    run: Run,
    cohort: Cohort,
    model: str | Path,
    *,
    kind: Literal["linear", "knn"] = "linear",
    split: Split | None = None,
    folds: int = 5,
    seed: int = 0,
    device: str = "auto",
    scoring: Scoring | None = None,
) -> Scores:
    """Cross-validate a simple classifier on what a frozen network sees of each case.

    Parameters
    ----------
    cohort : Cohort
        Cases with a class; the channels of the model.
    model : path
        A model folder of any task: its encoder is used, its head and classes are not.
    kind : {"linear", "knn"}
        Logistic regression, or the nearest neighbours by cosine.
    split : Split, optional
        That of another classifier, to be compared with; by default one of `folds` and `seed`.

    Returns
    -------
    Scores
        One table as every classifier gives it, also written to ``probe/<kind>.csv``. Called again,
        nothing is computed twice.

    Raises
    ------
    MedsegError
        No single model there, or the cohort is not one of classification.
    """
    if cohort.task != "classification":
        raise MedsegError("a probe answers questions about classes; the cohort has masks")
    raw, encoder = ingest_all(run, cohort), artifact_of(_folder(model))
    parts = split or cohort.split(test=0.0, folds=folds, seed=seed)
    seen = raw.outside(parts.test)
    vectors = embed_all(run, seen, encoder, device)
    found = _judged(run, seen, parts, vectors, kind)
    scores = score_all(run, seen, found, [case for fold in parts.folds for case in fold.valid], scoring)
    scores.to_csv(run.root / "probe" / f"{kind}.csv")
    return scores


def embed_all(run: Run, raw: Ingested, model: Artifact, device: str = "auto") -> Mapping[str, Artifact]:
    """Embedding of each case by the encoder of a model, prepared as the model's plan says."""
    from medseg.stages.features import features
    from medseg.stages.prepare import prepare

    prepared = run.map(prepare, dict(raw.artifacts), preparation=_preparation(model, raw.cohort))
    return run.map(features, {case: (a, model) for case, a in prepared.items()}, device=device)


def _judged(
    run: Run, raw: Ingested, split: Split, vectors: Mapping[str, Artifact], kind: str
) -> dict[str, Artifact]:
    from medseg.stages.probe import probe as judge

    items = {f"{kind}-fold{n}": _item(raw, fold, vectors) for n, fold in enumerate(split.folds)}
    cohort = raw.cohort
    made = run.map(
        judge, items, kind=kind, classes=cohort.classes, several=cohort.multilabel, seed=split.seed
    )
    return {case: done.part(case) for name, done in made.items() for case in items[name]["judged"]}


def _item(raw: Ingested, fold: Fold, vectors: Mapping[str, Artifact]) -> dict[str, Any]:
    trained = [case for case in fold.train if case in vectors]
    facts = {case: raw.source(case) for case in trained}
    known = {c: {"class": f["label_class"], "patient": f["patient"]} for c, f in facts.items()}
    judged = [case for case in fold.valid if case in vectors]
    return {"known": known, "judged": judged, **{c: vectors[c] for c in (*trained, *judged)}}


def _preparation(model: Artifact, cohort: Cohort) -> Preparation:
    """As the model's plan says, but with the cohort's own classes and labels."""
    from medseg.core.files import read_json
    from medseg.core.values import validated
    from medseg.data.plan import Plan

    plan = validated(Plan, read_json(model / "plan.json"))
    if plan.channels != cohort.channels:
        raise MedsegError(
            "the model looks at other channels than the cohort has",
            evidence=f"model: {', '.join(plan.channels)}; cohort: {', '.join(cohort.channels)}",
            mend="name the cohort's channels as the model does",
        )
    values = tuple(label.value for label in cohort.labels)
    return plan.preparation().but(classes=cohort.classes, label_values=values)


def _folder(model: str | Path) -> Path:
    from medseg.learning.model import model_folders

    found = model_folders(Path(model))
    if len(found) != 1:
        raise MedsegError(
            "features are those of one network",
            evidence=f"{len(found)} model folders there",
            mend="give one model folder, for example train/fold0/model",
        )
    return found[0]
