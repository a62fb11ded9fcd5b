"""Train a cascade: a coarse network first, and then one that is given the answer of the first."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medseg.core.errors import MedsegError
from medseg.core.run import Run
from medseg.core.stage import Artifact
from medseg.core.values import validated
from medseg.data.cohort import Cohort, Split
from medseg.data.plan import Cascade, Plan
from medseg.learning.settings import Training
from medseg.workflows import training as road
from medseg.workflows.journey import Ingested, make_plan
from medseg.workflows.pacing import expected

if TYPE_CHECKING:
    from medseg.workflows.ground import Ground

FIRST, INNER = "first", "first/inner"
"""Folders of the coarse networks: those that are used, and those that answer for training cases."""
_COARSER, _SIDE = 2.0, 8

Models = Mapping[str, tuple[Artifact, ...]]


def coarse_first(plan: Plan) -> Cascade:
    """A first network whose patch covers the median image: at least twice as coarse, cube voxels stay cubes.

    Raises
    ------
    MedsegError
        A plan of classes, or a 2-D one (a slice shows all there is at once).
    """
    if plan.task == "classification":
        raise MedsegError("a cascade is for segmentation", mend="leave plan.cascade out")
    if plan.dimensions == 2:
        raise MedsegError("a cascade needs a 3-D plan", mend="leave it out, or set a patch of some depth")
    shape, spacing = (plan.fingerprint[name]["median"] for name in ("shape", "spacing_mm"))
    extent = [n * mm / to for n, mm, to in zip(shape, spacing, plan.spacing_mm, strict=True)]
    coarser = max(_COARSER, *(n / side for n, side in zip(extent, plan.patch, strict=True)))
    patch = tuple(max(_SIDE, -(-round(n / coarser) // _SIDE) * _SIDE) for n in extent)
    spacing_mm = tuple(float(f"{mm * coarser:.4g}") for mm in plan.spacing_mm)
    return validated(Cascade, {"spacing_mm": spacing_mm, "patch": patch})


def with_cascade(plan: Plan) -> Plan:
    """The plan with a cascade that no rule asked for."""
    return plan.but(cascade=coarse_first(plan), why={**plan.why, "cascade": "asked for by hand"})


def planned_first(run: Run, raw: Ingested, to: Path, plan: Plan, choices: Mapping[str, Any]) -> Plan:
    """The plan of the coarse network of a cascade, by the choices that made the plan of the other."""
    assert plan.cascade is not None
    given = {**choices, "members": 1, "cascade": "none"}
    given |= {"spacing_mm": plan.cascade.spacing_mm, "patch": plan.cascade.patch}
    return make_plan(run, raw, to=to, **given)


def train_cascade(ground: Ground, home: Run) -> Callable[..., Models]:
    """In place of `train_folds`, for a plan that declares a cascade.

    The first network of each fold learns from the fold's training cases. What the second is given of a
    training case comes from a first network that has not seen it: that of another fold, or, where there is a
    single fold, of one of three inner ones. Otherwise it would learn to trust answers that are too good.
    """

    def train(
        run: Run,
        prepared: Mapping[str, Artifact],
        split: Split,
        plan: Plan,
        training: Training,
        *,
        weights: Artifact | None = None,
        **more: Any,
    ) -> Models:
        if weights is not None:
            raise MedsegError("a cascade begins from fresh weights", mend="leave transfer.source out")
        choices, coarse = ground.settings.choices(ground.device), home.at(FIRST)
        low_plan = planned_first(ground.run, ground.seen, coarse.root / "plan.yaml", plan, choices)
        low = ground.prepared(low_plan, coarse)
        how = {"training": training.but(members=1), "told": False, **more}
        names = road.network_names(split, plan, training)
        with expected(run, plan, training, split, names, ground.device, (coarse, low_plan)):
            used = road.train_folds(coarse, low, split, low_plan, **how)
            judges = _unseen(ground, home, low, split, low_plan, used, how)
            answered = _answered(ground, home, prepared, judges)
            firsts = {fold: next(iter(models)) for fold, models in used.items()}
            return road.train_folds(run, answered, split, plan, training, firsts=firsts, told=False, **more)

    return train


def _unseen(
    ground: Ground,
    home: Run,
    low: Mapping[str, Artifact],
    split: Split,
    plan: Plan,
    used: Models,
    how: Mapping[str, Any],
) -> Models:
    """Training case -> first networks that have not seen it."""
    if len(split.folds) > 1:
        return road.held_out(split, used, test=False)
    from medseg.learning.cascade import INNER_FOLDS

    cases = {case for fold in split.folds for case in fold.train}
    cohort: Cohort = ground.raw.cohort
    few = cohort.but(cases=tuple(case for case in cohort.cases if case.id in cases))
    inner = few.split(test=0.0, folds=min(INNER_FOLDS, len(few.patients())), seed=split.seed)
    models = road.train_folds(home.at(INNER), low, inner, plan, **how)
    return road.held_out(inner, models, test=False)


def _answered(
    ground: Ground, home: Run, prepared: Mapping[str, Artifact], judges: Models
) -> Mapping[str, Artifact]:
    """Prepared cases with the first answer behind their channels."""
    from medseg.stages.answer import answer

    items = {c: (prepared[c], ground.raw[c], *judges[c]) for c in prepared if c in judges}
    how = {"prediction": ground.settings.prediction, "device": ground.device}
    return home.map(answer, items, **how)
