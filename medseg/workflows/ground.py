"""What every configuration of a recipe stands on, and what comes of one: plan, networks, predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from medseg.core.errors import MedsegError
from medseg.core.run import Run
from medseg.core.stage import Artifact
from medseg.core.values import digest
from medseg.data.cohort import Split
from medseg.data.plan import Plan
from medseg.learning.tracking import Tracking, store_uri
from medseg.workflows import training as road
from medseg.workflows.cascading import train_cascade
from medseg.workflows.journey import Ingested, make_plan, prepare_all
from medseg.workflows.restoring import restored_weights
from medseg.workflows.settings import TrainSettings
from medseg.workflows.transferring import adopted, check_fit, fitting_patch

PREPARED = "prepared"
"""Cases of configurations that lie beside one another: ``prepared/<digest>/prepare/<case>``."""

Models = Mapping[str, tuple[Artifact, ...]]
"""Fold name -> the model folders of its networks."""


@dataclass(frozen=True)
class Ground:
    """Cases, folds and settings that all configurations of a recipe share; nothing of it is done twice."""

    run: Run
    raw: Ingested
    parts: Split
    settings: TrainSettings
    device: str = "auto"
    weights: Artifact | None = None
    _prepared: dict[str, Mapping[str, Artifact]] = field(default_factory=dict, repr=False)

    @property
    def seen(self) -> Ingested:
        """The cases outside the test part: all that planning and training may look at."""
        return self.raw.outside(self.parts.test)

    def but(self, settings: TrainSettings) -> Ground:
        """The same ground under other settings of plan and training."""
        return Ground(self.run, self.raw, self.parts, settings, self.device, self.weights, self._prepared)

    def planned(self, home: Run, **choices: Any) -> Plan:
        """The plan by these choices; with carried weights that tell their network, one for that network."""
        settings, to = self.settings, home.root / "plan.yaml"
        given = settings.choices(self.device) | choices
        plan = make_plan(self.run, self.seen, to=to, **given)
        if taken := adopted(self.weights, settings, plan):
            plan = make_plan(self.run, self.seen, to=to, **given | taken)
            if patch := fitting_patch(plan):
                plan = make_plan(self.run, self.seen, to=to, **given | taken | {"patch": patch})
        return plan

    def begun(self, plan: Plan, home: Run) -> Artifact | None:
        """The weights that networks of this plan begin from; None for fresh ones."""
        settings = self.settings
        weights = restored_weights(home, self.raw, plan, settings, self.device) or self.weights
        check_fit(weights, plan, settings.transfer)
        return weights

    def prepared(self, plan: Plan, home: Run) -> Mapping[str, Artifact]:
        """The cases on the plan's grid: once for all plans that prepare alike."""
        key = digest(plan.preparation())
        if key not in self._prepared:
            alone = home.root == self.run.root
            place = self.run if alone else self.run.at(f"{PREPARED}/{key[:12]}")
            self._prepared[key] = prepare_all(place, self.seen, plan)
        return self._prepared[key]

    def watch(self, home: Run, name: str = "") -> Tracking:
        """Tracking of the trainings in `home`, in the store of the whole run."""
        watch = self.settings.watch()
        if home.root == self.run.root:
            return watch
        return watch.but(uri=store_uri(watch, self.run.root), workflow=f"{self.settings.name} {name}".strip())


@dataclass(frozen=True)
class Configuration:
    """A configuration trained on every fold, and what it says of cases its networks have not seen.

    Attributes
    ----------
    home : Run
        Its folder: ``train/``, ``predict/``, ...
    plans : tuple of Plan
        One, or those of an ensemble of configurations.
    models : mapping
        Fold name -> model folders; of an ensemble those of all its configurations.
    judges : mapping
        Case -> the models that judge it.
    predicted : mapping
        Case -> prediction by these.
    """

    name: str
    home: Run
    plans: tuple[Plan, ...]
    models: Models
    judges: Mapping[str, tuple[Artifact, ...]]
    predicted: Mapping[str, Artifact]
    begun: Artifact | None = None
    """The weights its networks began from."""

    @property
    def plan(self) -> Plan:
        """The first plan."""
        return self.plans[0]

    @property
    def everyone(self) -> tuple[Artifact, ...]:
        """All networks of all folds: what judges the test part, and new images."""
        return tuple(model for fold in self.models.values() for model in fold)

    @property
    def networks(self) -> dict[str, Path]:
        """Name -> training folder of each network."""
        homes = {model.path.parent.parent for model in self.everyone}
        named: dict[str, Path] = {}
        for model in self.everyone:
            folder = model.path.parent
            of = f"{folder.parent.parent.name} " if len(homes) > 1 else ""
            named[f"{of}{folder.name}"] = folder
        return named

    @property
    def cost(self) -> tuple[int, int]:
        """Networks a fold (the first of a cascade counts) and their weights: what is small is simple."""
        from medseg.core.files import read_json

        fold = next(iter(self.models.values()))
        places = [model / name for model in fold for name in ("card.json", "first/card.json")]
        cards = [read_json(place) for place in places if place.is_file()]
        return len(cards), sum(card["parameters"] for card in cards)


def configuration(ground: Ground, home: Run, name: str = "", **choices: Any) -> Configuration:
    """Plan, prepare, train every fold, and predict what each fold has not seen."""
    from medseg.learning.losses import loss_of

    plan = ground.planned(home, **choices)
    loss_of(plan, ground.settings.training.loss, ground.settings.training.loss_settings)  # wrong: said now
    begun = ground.begun(plan, home)
    prepared = ground.prepared(plan, home)
    train = road.train_folds if plan.cascade is None else train_cascade(ground, home)
    models = train(
        home, prepared, ground.parts, plan, ground.settings.training, device=ground.device,
        tracking=ground.watch(home, name), weights=begun, transfer=ground.settings.transfer,
    )  # fmt: skip
    return replace(_judged(ground, home, name, (plan,), models), begun=begun)


def together(ground: Ground, home: Run, name: str, members: Sequence[Configuration]) -> Configuration:
    """Several configurations as one: the mean of their probabilities on the grid of the image."""
    tasks = {configuration.plan.task for configuration in members}
    if len(members) < 2 or len(tasks) > 1:
        raise MedsegError(f"{name} is no ensemble", mend="join the names of candidates by +")
    models = {fold: tuple(x for member in members for x in member.models[fold]) for fold in members[0].models}
    plans = tuple(plan for member in members for plan in member.plans)
    return _judged(ground, home, name, plans, models)


def _judged(ground: Ground, home: Run, name: str, plans: tuple[Plan, ...], models: Models) -> Configuration:
    settings = ground.settings
    judges = road.held_out(ground.parts, models, settings.split.judges_test())
    how = settings.prediction, ground.device, settings.postprocessing
    predicted = road.predict_cases(home, ground.raw, judges, *how)
    return Configuration(name, home, plans, models, judges, predicted)
