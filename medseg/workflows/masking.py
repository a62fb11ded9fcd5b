"""Thresholds and mask steps that pay on cases not seen in training: what comes after the networks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from medseg.core.files import write_json
from medseg.data.plan import Plan
from medseg.imaging.masks import Postprocessing, Step
from medseg.workflows import training as road
from medseg.workflows.ground import Configuration, Ground
from medseg.workflows.rivals import Beside, joined


def choose_postprocessing(
    ground: Ground, found: Configuration
) -> tuple[Configuration, Postprocessing, Beside]:
    """That of the recipe, else thresholds and then mask steps that cross-validation shows to pay.

    Writes ``thresholds.json`` and ``steps.json``: what was tried, with intervals.

    Returns
    -------
    Configuration
        As given; its predictions are those with the thresholds.
    """
    settings = ground.settings
    given, choosing = settings.postprocessing, settings.choosing
    if given.steps or given.thresholds or not choosing.steps or found.plan.task != "segmentation":
        return found, given, Beside()
    if not settings.split.cross_validates:
        said = "none was tried: a single fold leaves no predictions of cases that were not trained on"
        return found, Postprocessing(), Beside((), {"Mask steps": {"kept": said}}, {"steps": {"note": said}})
    ignored = settings.scoring.ignore or ground.raw.cohort.ignore
    found, thresholds, first = _thresholds(ground, found, ignored)
    steps, second = _steps(ground, found, ignored)
    return found, Postprocessing(thresholds=thresholds, steps=steps), joined(first, second)


def _thresholds(
    ground: Ground, found: Configuration, ignored: int | None
) -> tuple[Configuration, dict[int, float], Beside]:
    from medseg.evaluation.choice_thresholds import choose_thresholds, thresholds_for
    from medseg.stages.thresholds import read_tries, try_thresholds

    settings, raw = ground.settings, ground.raw
    options = thresholds_for(found.plan.labels, settings.choosing.thresholds)
    if not options:
        return found, {}, Beside()
    items = {case: (raw[case], *found.judges[case]) for case in found.predicted if case in raw}
    how = {"options": options, "prediction": settings.prediction, "ignore": ignored}
    tried = found.home.map(try_thresholds, items, **how, device=ground.device)
    rows = [row for artifact in tried.values() for row in read_tries(artifact)]
    decided = choose_thresholds(rows, options, settings.scoring, _confidence(ground))
    write_json(ground.run.root / "thresholds.json", decided)
    said = _said(ground, "thresholds", decided)
    thresholds = {int(value): float(t) for value, t in decided["thresholds"].items()}
    if thresholds:
        chosen = settings.prediction, ground.device, Postprocessing(thresholds=thresholds)
        found = replace(found, predicted=road.predict_cases(found.home, raw, found.judges, *chosen))
    return found, thresholds, said


def _steps(ground: Ground, found: Configuration, ignored: int | None) -> tuple[tuple[Step, ...], Beside]:
    from medseg.evaluation.choice_steps import choose_steps, options_for
    from medseg.stages.postprocess import read_tries, try_steps

    settings, raw = ground.settings, ground.raw
    labels = tuple(x for x in raw.cohort.labels if x.region or x.value != ignored)
    options = options_for(tuple(x for x in labels if x.value != ignored), _typical_ml(found.plan))
    if not options:
        return (), Beside()
    items = {case: (mask, raw[case]) for case, mask in found.predicted.items() if case in raw}
    how = {"labels": labels, "options": options, "scoring": settings.scoring.but(ignore=ignored)}
    tried = found.home.map(try_steps, items, **how)
    rows = [row for artifact in tried.values() for row in read_tries(artifact)]
    decided = choose_steps(rows, options, settings.scoring, _confidence(ground))
    write_json(ground.run.root / "steps.json", decided)
    steps = tuple(Step.model_validate(step) for step in decided["steps"])
    return steps, _said(ground, "steps", decided)


def _confidence(ground: Ground) -> float:
    """Of all thresholds together, and of all steps together: half of what may go wrong is left to each."""
    choosing = ground.settings.choosing
    return 1 - (1 - choosing.confidence) / 2 if choosing.thresholds else choosing.confidence


_TITLES = {"thresholds": "Thresholds", "steps": "Mask steps"}


def _said(ground: Ground, what: str, decided: Mapping[str, Any]) -> Beside:
    """What was kept: lines for the console, a block for the report, and whole for the summary."""
    from medseg.evaluation.choice import said_of

    title, lines = _TITLES[what], list(said_of(what, decided))
    facts = {f"kept {n}": line for n, line in enumerate(lines, 1)} | {"rule": decided["rule"]}
    together = 100 * ground.settings.choosing.confidence
    facts["intervals"] = f"{100 * decided['confidence']:.4g} % each, {together:g} % of all together"
    console = tuple(f"  {title.lower()}: {line}" for line in lines)
    return Beside(console, {title: facts}, {what: dict(decided)})


def _typical_ml(plan: Plan) -> dict[str, float]:
    """The median volume of each value among the training cases."""
    return {value: float(cell["median"]) for value, cell in plan.fingerprint.get("volume_ml", {}).items()}
