"""From prepared cases to models that are judged on cases they have not seen."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from medseg.core.errors import MedsegError
from medseg.core.run import Run
from medseg.core.stage import Artifact
from medseg.core.values import digest
from medseg.data.cohort import Cohort, Fold, Split
from medseg.data.plan import Plan
from medseg.evaluation.policy import Scoring
from medseg.imaging.masks import Postprocessing
from medseg.learning.settings import Prediction, Training, Transfer
from medseg.learning.tracking import Tracking, finish_workflow, open_workflow
from medseg.workflows.journey import Ingested, ingest_all, prepare_all
from medseg.workflows.judging import headlines
from medseg.workflows.looking import audit_cases
from medseg.workflows.opening import open_cohort
from medseg.workflows.outcome import Outcome, named_failures
from medseg.workflows.pacing import expected
from medseg.workflows.rivals import Beside, beside, joined, several_rule
from medseg.workflows.settings import TrainSettings
from medseg.workflows.transferring import carried_weights, with_twin

if TYPE_CHECKING:
    from medseg.evaluation.scoring import Scores

log = logging.getLogger("medseg")


def train_folds(
    run: Run,
    prepared: Mapping[str, Artifact],
    split: Split,
    plan: Plan,
    training: Training,
    *,
    device: str = "auto",
    tracking: Tracking | None = None,
    weights: Artifact | None = None,
    transfer: Transfer | None = None,
    firsts: Mapping[str, Artifact] | None = None,
    told: bool = True,
) -> dict[str, tuple[Artifact, ...]]:
    """Train every fold, each trained on its own training cases and nothing else.

    With several workers the folds are trained beside one another, each with its share of the cores: on CPUs,
    and on a cluster.

    Parameters
    ----------
    weights : Artifact, optional
        What every training begins from (`transferring.carried_weights`), tuned as `transfer` says.
    firsts : mapping, optional
        Of a cascade: fold name -> model folder of the network that answers first.
    told : bool
        Whether to say beforehand what it will cost.

    Returns
    -------
    dict
        Fold name (``fold0``, ...) -> the ``model`` parts of its networks: one, or several whose
        probabilities are averaged (`Plan.members`; ``train/fold0-1``, ``train/fold0-2``, ...).

    Raises
    ------
    MedsegError
        A network could not be trained: there is nothing to judge without it.
    """
    from medseg.stages.train import FIRST_NETWORK

    items = {f"fold{n}": _training_item(fold, prepared, weights) for n, fold in enumerate(split.folds)}
    for fold, first in (firsts or {}).items():
        items[fold] |= {FIRST_NETWORK: first}
    tracking = _known(tracking or Tracking(), plan, training)
    more = {} if weights is None else {"transfer": transfer or Transfer()}
    names = network_names(split, plan, training)
    members = len(names["fold0"])
    models: dict[str, tuple[Artifact, ...]] = dict.fromkeys(items, ())
    with expected(run, plan, training, split, names, device) if told else nullcontext():
        for number in range(members):
            named = {names[fold][number]: item for fold, item in items.items()}
            made = _trained(run, named, plan, training.of_member(number, members), device, tracking, **more)
            models = {fold: (*models[fold], made[names[fold][number]]) for fold in items}
    return models


def network_names(split: Split, plan: Plan, training: Training) -> dict[str, tuple[str, ...]]:
    """Fold name -> the folders of its networks in ``train/``: ``fold0``, or ``fold0-1``, ``fold0-2``, ..."""
    members = training.members or plan.members
    endings = [f"-{number}" for number in range(1, members + 1)] if members > 1 else [""]
    return {f"fold{n}": tuple(f"fold{n}{ending}" for ending in endings) for n in range(len(split.folds))}


def predict_cases(
    run: Run,
    raw: Ingested,
    models: Mapping[str, Collection[Artifact]],
    prediction: Prediction,
    device: str = "auto",
    postprocessing: Postprocessing | None = None,
) -> dict[str, Artifact]:
    """Predict each case with the models named for it (several: mean of their probabilities).

    Thresholds of `postprocessing` make the masks; its mask steps come after (`postprocess_all`).
    """
    from medseg.stages.predict import predict

    items = {c: (raw[c], *models[c]) for c in models if c in raw}
    thresholds = postprocessing.thresholds if postprocessing else {}
    more = {"thresholds": thresholds} if thresholds else {}  # a key knows of those that are set
    return dict(run.map(predict, items, prediction=prediction, device=device, **more))


def postprocess_all(
    run: Run, raw: Ingested, predicted: Mapping[str, Artifact], postprocessing: Postprocessing | None = None
) -> dict[str, Artifact]:
    """Mask steps on every predicted mask; class probabilities pass through."""
    from medseg.stages.postprocess import postprocess

    if raw.cohort.task != "segmentation":
        return dict(predicted)
    labels = raw.cohort.labels
    more = {"labels": labels} if any(label.region for label in labels) else {}  # a key knows of regions
    return dict(
        run.map(postprocess, dict(predicted), postprocessing=postprocessing or Postprocessing(), **more)
    )


def score_all(
    run: Run,
    raw: Ingested,
    masks: Mapping[str, Artifact],
    cases: Iterable[str],
    scoring: Scoring | None = None,
) -> Scores:
    """Scores of every case that was to be predicted; one without prediction counts as missed."""
    from medseg.evaluation.scoring import Scores
    from medseg.stages.score import read_rows, score

    scoring = several_rule(scoring or Scoring(), raw)
    items = {case: (masks.get(case), raw[case]) for case in cases if case in raw}
    cohort = raw.cohort
    if scoring.ignore is None and cohort.ignore is not None:
        scoring = scoring.but(ignore=cohort.ignore)
    classes = cohort.classes if cohort.task == "classification" else ()
    scored = run.map(score, items, labels=cohort.labels, scoring=scoring, classes=classes)
    return Scores([row for a in scored.values() for row in read_rows(a)], scoring=scoring)


def held_out(
    split: Split, models: Mapping[str, tuple[Artifact, ...]], test: bool
) -> dict[str, tuple[Artifact, ...]]:
    """Which models judge which case: those of its fold, and all of them for the test part."""
    judges = {case: models[f"fold{n}"] for n, fold in enumerate(split.folds) for case in fold.valid}
    if test:
        everyone = tuple(model for fold in models.values() for model in fold)
        judges |= dict.fromkeys(split.test, everyone)
    return judges


def cross_validate(
    run: Run,
    cohort: Cohort,
    plan: Plan,
    training: Training | None = None,
    *,
    folds: int = 5,
    test: float = 0.0,
    seed: int = 0,
    device: str = "auto",
    prediction: Prediction | None = None,
    postprocessing: Postprocessing | None = None,
    scoring: Scoring | None = None,
    tracking: Tracking | None = None,
    transfer: Transfer | None = None,
) -> Scores:
    """Train a model a fold and judge every case by the model that has not seen its patient.

    Parameters
    ----------
    run : Run
        Where everything is kept: called again, nothing is done twice.
    cohort : Cohort
        Cases with references.
    plan : Plan
        From `make_plan`, changed or not.
    training : Training, optional
        Epochs or budget, rate, loss, ...
    folds : int
        Folds over the patients outside the test part; 1 trains one model and needs `test` > 0.
    test : float
        Share of the patients locked away; judged only when `folds` is 1.
    transfer : Transfer, optional
        Weights every model begins from, and how they are tuned; fresh ones by default.

    Returns
    -------
    Scores
        One row a case, label and metric; `scores.models` holds the fold models.
    """
    raw = ingest_all(run, cohort)
    split = cohort.split(test=test, folds=folds, seed=seed)
    prepared = prepare_all(run, raw.outside(split.test), plan)
    models = train_folds(
        run, prepared, split, plan, training or Training(), device=device, tracking=tracking,
        weights=carried_weights(run, transfer), transfer=transfer,
    )  # fmt: skip
    judges = held_out(split, models, test=folds == 1)
    predicted = predict_cases(run, raw, judges, prediction or Prediction(), device, postprocessing)
    masks = postprocess_all(run, raw, predicted, postprocessing)
    scores = score_all(run, raw, masks, judges, scoring)
    scores.models = _load(models)
    finish_workflow(tracking or Tracking(), run.root, headlines(scores.summary()))
    return scores


def train(settings: TrainSettings, run: Run, device: str = "auto") -> Outcome:
    """The whole recipe: images -> plan -> models -> scores -> report (-> DICOM objects)."""
    from medseg.workflows.adapting import with_adaptation
    from medseg.workflows.choosing import choose, keep_final
    from medseg.workflows.explaining import explain_worst
    from medseg.workflows.exporting import export_objects
    from medseg.workflows.ground import Ground, configuration
    from medseg.workflows.locked import open_test
    from medseg.workflows.masking import choose_postprocessing
    from medseg.workflows.reporting import report_training

    cohort = open_cohort(settings.cohort, settings.task, run.quiet)
    split = settings.split
    parts = cohort.split(test=split.test, folds=split.folds, seed=split.seed)
    raw = ingest_all(run, cohort, settings.ingest)
    audit_cases(run, raw)
    ground = Ground(run, raw, parts, settings, device, carried_weights(run, settings.transfer))

    found, chosen = choose(ground) if settings.candidates else (configuration(ground, run), Beside())
    found, steps, tried = choose_postprocessing(ground, found)
    masks = postprocess_all(found.home, raw, found.predicted, steps)
    scores = score_all(found.home, raw, masks, found.judges, settings.scoring)
    keep_final(ground, found, steps, {**chosen.summary, **tried.summary})
    if not found.judges:
        return _unjudged(run, settings, parts)

    opened = open_test(ground, found, steps)  # the test part, once everything is decided
    if settings.export:
        export_objects(run, raw, {**masks, **opened.masks}, settings.export)
    rival = beside(run, raw, parts, found.plan, settings, found.predicted, scores)
    looked = explain_worst(run, raw, found.judges, masks, scores, settings.explain, device)
    more = joined(chosen, tried, opened.said, rival)
    outcome = report_training(
        run, raw, parts, found.plan, settings, masks, scores, more, looked, found.networks
    )
    outcome = with_adaptation(run, settings, outcome, device)
    if found.begun is None or not settings.transfer.twin:
        return outcome
    prepared, same = ground.prepared(found.plan, found.home), settings.but(postprocessing=steps)
    return with_twin(run, raw, prepared, parts, found.plan, same, device, outcome)


def _unjudged(run: Run, settings: TrainSettings, parts: Split) -> Outcome:
    """The end of a recipe that keeps no case aside to judge: models, and no scores."""
    finish_workflow(settings.watch(), run.root, {})
    why = "the test part stays locked" if parts.test else "there is no test part"
    cases, model = len(parts.folds[0].train), run.root / "final" / "model"
    text = f"{settings.name}: trained on {cases} cases; none was judged: a single fold, and {why}"
    more = {"summary": {}, "model": str(model), "quarantined": [f.public for f in run.failures]}
    return Outcome(more, f"{text}\nmodel: {model}{named_failures(run)}", 3 if run.failures else 0)


def _training_item(fold: Fold, prepared: Mapping[str, Artifact], weights: Artifact | None) -> dict[str, Any]:
    from medseg.stages.train import PRETRAINED

    start = {} if weights is None else {PRETRAINED: weights}
    return {"fold": fold, **start, **{case: prepared[case] for case in fold.train if case in prepared}}


def _trained(
    run: Run,
    items: Mapping[str, Any],
    plan: Plan,
    training: Training,
    device: str,
    tracking: Tracking | None,
    **more: Any,
) -> dict[str, Artifact]:
    from medseg.stages.train import train

    shared = {"plan": plan, "training": training, "device": device, "tracking": tracking or Tracking()}
    if spread := _beside_one_another(run, len(items), device):
        open_workflow(tracking, run.root)
    made = run.at("", spread=spread).map(train, items, **shared, **more)  # a key knows of weights it has
    if made.failed:
        failure = next(iter(made.failed.values()))
        raise MedsegError(f"training of {failure.item} ended early", evidence=failure.message)
    return {name: artifact.part("model") for name, artifact in made.items()}


def _beside_one_another(run: Run, trainings: int, device: str) -> bool:
    """Whether trainings are sent to workers: on a cluster, and where no GPU is filled by one alone."""
    if trainings < 2 or run.workers in (None, 0, 1):
        return False
    from medseg.learning.devices import hardware

    return str(run.workers).startswith("dask:") or hardware(device) == "cpu"


def _known(tracking: Tracking, plan: Plan, training: Training) -> Tracking:
    """Tracking that knows all networks of a workflow to be of one, though their seeds differ."""
    return tracking if tracking.mark else tracking.but(mark=digest([plan, training])[:32])


def _load(models: Mapping[str, tuple[Artifact, ...]]) -> list[Any]:
    """The models of each fold as one, callable on an image."""
    from medseg.learning.model import open_models

    return [open_models([artifact.path for artifact in fold]) for fold in models.values()]
