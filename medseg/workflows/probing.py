"""How much of a question a frozen encoder answers: embeddings once, then simple classifiers by fold."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from medseg.core.errors import MedsegError
from medseg.core.files import read_json, write_json
from medseg.core.run import Run
from medseg.core.stage import Artifact, artifact_of
from medseg.core.values import Value
from medseg.data.cohort import Cohort, Fold, Split
from medseg.data.plan import Preparation
from medseg.evaluation.policy import Scoring
from medseg.imaging.labels import values_of
from medseg.learning.settings import Transfer
from medseg.workflows.journey import Ingested, ingest_all, make_plan
from medseg.workflows.judging import headlines, summary_lines
from medseg.workflows.outcome import Outcome, named_failures
from medseg.workflows.training import score_all
from medseg.workflows.transferring import NAME, carried_weights

if TYPE_CHECKING:
    from medseg.evaluation.scoring import Scores

Kind = Literal["linear", "knn"]


class ProbeSettings(Value):
    """What ``medseg probe`` may be told as ``key=value``."""

    kinds: tuple[Kind, ...] = ("linear", "knn")
    folds: int = Field(default=5, ge=2, le=50)
    seed: int = 0
    plan: dict[str, Any] = {}
    """Published weights: choices of the plan (``plan.network`` where the weights do not tell it)."""
    transfer: Transfer = Transfer()
    """Published weights: their form, sha256, prefix map; the source is the first word of the command."""
    scoring: Scoring = Scoring()


def probe_all(
    source: str, cohort: Cohort, run: Run, settings: ProbeSettings | None = None, device: str = "auto"
) -> Outcome:
    """Each kind of probe on one encoder: ``probe/<kind>.csv``, ``probe/summary.json``.

    Parameters
    ----------
    source : str
        A model folder, or anything that ``transfer.source`` takes.

    Raises
    ------
    MedsegError
        No encoder to be had there, or the cohort is not one of classification.
    """
    how = settings or ProbeSettings()
    _check(cohort)
    model, said = _encoder(source, cohort, run, how)
    lines, told = [said] if said else [], {}
    for kind in how.kinds:
        scores = probe(
            run, cohort, model, kind=kind, folds=how.folds, seed=how.seed, device=device, scoring=how.scoring
        )
        summary = scores.summary()
        told[kind] = headlines(summary)
        lines += [f"{kind} probe, {how.folds} folds over the patients", *summary_lines(summary)]
    write_json(run.root / "probe" / "summary.json", told)
    return Outcome({"probe": told}, "\n".join(lines) + named_failures(run), 3 if run.failures else 0)


def probe(
    run: Run,
    cohort: Cohort,
    model: str | Path,
    *,
    kind: Kind = "linear",
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
    _check(cohort)
    encoder = artifact_of(_folder(model))
    raw = ingest_all(run, _named_alike(cohort, encoder))
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


def _check(cohort: Cohort) -> None:
    if cohort.task != "classification":
        raise MedsegError(
            "a probe answers questions about classes; the cohort has masks",
            mend="give a cohort with classes: a manifest with a column 'class', or folders named by class",
        )


def _encoder(source: str, cohort: Cohort, run: Run, how: ProbeSettings) -> tuple[Path, str]:
    """The model folder whose encoder is asked, and what is to be said of it."""
    from medseg.learning.model import PLAN, model_folders

    if any((folder / PLAN).is_file() for folder in model_folders(Path(source))):
        return _folder(source), ""
    from medseg.learning.account import Account
    from medseg.stages.encoder import encoder

    transfer = how.transfer.but(source=source)
    weights = carried_weights(run, transfer)
    assert weights is not None
    facts = read_json(weights / "origin.json")["facts"]
    if facts.get("task", "classification") != "classification" and "network" not in how.plan:
        raise MedsegError(
            "these weights are of a network for segmentation, which gives no classes",
            evidence=f"network {facts.get('network')}",
            mend="give a medseg model of segmentation (its encoder is asked), or weights of a classifier",
        )
    taken = {k: facts[k] for k in ("network", "network_arguments") if facts.get(k)}
    plan = make_plan(run, ingest_all(run, cohort), **(taken | how.plan))
    made = run.map(encoder, {NAME: weights}, plan=plan, transfer=transfer)
    if made.failed:
        message = made.failed[NAME].message.removeprefix(f"case {NAME}: ")
        raise MedsegError("the weights give no encoder", evidence=message)
    account = read_json(made[NAME] / "model" / "card.json")["start"]
    known = Account.model_validate({k: v for k, v in account.items() if k != "share"})
    return made[NAME].part("model").path, known.table()


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


def _named_alike(cohort: Cohort, model: Artifact) -> Cohort:
    """The cohort with its channel under the model's name for it, where both have one."""
    channels = read_json(model / "plan.json")["channels"]
    if len(channels) != 1 or len(cohort.channels) != 1:
        return cohort
    cases = tuple(c.but(images=dict(zip(channels, c.images.values(), strict=True))) for c in cohort.cases)
    return cohort.but(channels=tuple(channels), cases=cases)


def _preparation(model: Artifact, cohort: Cohort) -> Preparation:
    """As the model's plan says, but with the cohort's own classes and labels."""
    from medseg.core.values import validated
    from medseg.data.plan import Plan

    plan = validated(Plan, read_json(model / "plan.json"))
    if plan.channels != cohort.channels:
        raise MedsegError(
            "the model looks at other channels than the cohort has",
            evidence=f"model: {', '.join(plan.channels)}; cohort: {', '.join(cohort.channels)}",
            mend="name the cohort's channels as the model does",
        )
    values = values_of(cohort.labels)
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
