"""The configuration that cross-validation decides for, and what a recipe ends in."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from medseg.core.errors import MedsegError
from medseg.core.files import write_json
from medseg.core.values import nearest
from medseg.data.plan import Plan
from medseg.imaging.masks import Postprocessing
from medseg.learning.tracking import finish_workflow
from medseg.workflows import training as road
from medseg.workflows.ground import Configuration, Ground, configuration, together
from medseg.workflows.judging import headlines
from medseg.workflows.rivals import Beside

log = logging.getLogger("medseg")

CHOICE = "choice.json"
HOMES = "candidates"
BUILT_IN = ("3d", "2d", "cascade")
_SIDE = 16
_LARGEST = 512


def choose(ground: Ground) -> tuple[Configuration, Beside]:
    """Train each candidate on the same folds, and take the one the rule of `choose_best` names.

    Each lies in ``candidates/<name>`` with its plan, models and ``scores.csv``; what was decided, and why, in
    ``choice.json``.

    Raises
    ------
    MedsegError
        A single fold (nothing is cross-validated), or a candidate that nobody knows.
    """
    from medseg.evaluation.choice import choose_best

    settings = ground.settings
    _check(settings.candidates, settings.split.folds)
    found: dict[str, Configuration] = {}
    for name in _simple_first(settings.candidates):
        home = ground.run.at(f"{HOMES}/{name}")
        log.info("candidate    %s", name)
        if "+" in name:
            found[name] = together(ground, home, name, [found[part] for part in name.split("+")])
        else:
            choices = settings.candidates.get(name) or _choices(ground, name)
            found[name] = configuration(ground, home, name, **choices)
    asked = {name: found[name] for name in settings.candidates}
    rows = {name: _scored(ground, name, one) for name, one in asked.items()}
    how = settings.scoring.but(confidence=settings.choosing.confidence)
    costs = {name: one.cost for name, one in asked.items()}
    decided = choose_best(rows, costs, how, settings.choosing.metric)
    write_json(ground.run.root / CHOICE, decided)
    return found[decided["chosen"]], said_of_choice(decided)


def keep_final(
    ground: Ground, found: Configuration, steps: Postprocessing, choice: Mapping[str, Any]
) -> None:
    """``final/model``: the models and the postprocessing that goes with them, as one folder to carry away."""
    from medseg.stages.final import final

    root = ground.run.root
    names = {name.replace(" ", "-"): folder / "model" for name, folder in found.networks.items()}
    by_path = {model.path: model for model in found.everyone}
    item = {name: by_path[folder] for name, folder in names.items()}
    trained = {name: folder.relative_to(root).as_posix() for name, folder in names.items()}
    how = {"postprocessing": steps, "prediction": ground.settings.prediction}
    made = ground.run.map(final, {"model": item}, trained=trained, **how, choice=dict(choice))
    if made.failed:
        raise MedsegError("the models could not be gathered", evidence=made.failed["model"].message)


def said_of_choice(decided: Mapping[str, Any]) -> Beside:
    """The choice in lines for the console, a block for the report, and whole for the summary."""
    metric, lines, facts = decided["metric"], [], {}
    for row in decided["candidates"]:
        gap, ci = row["best_less_this"], row["ci"]
        text = f"{metric} {row['mean']:.4f}" + (f" [{ci[0]:.4f}, {ci[1]:.4f}]" if ci else "")
        if gap is not None:
            limits = f" [{gap['ci'][0]:+.4f}, {gap['ci'][1]:+.4f}]" if gap["ci"] else ""
            text += f", best less this {gap['difference']:+.4f}{limits}"
        text += f", {row['networks']} network{'s' * (row['networks'] > 1)} of {row['weights']:,} weights"
        facts[row["name"]] = text
        mark = "*" if row["name"] == decided["chosen"] else " "
        lines.append(f"  {mark} {row['name']:<12} {text}")
    said = f"{decided['chosen']}: {decided['reason']}"
    lines = ["candidates, cross-validated on the same folds:", *lines, f"  chosen: {said}"]
    block = {**facts, "chosen": said, "rule": decided["rule"]}
    return Beside(tuple(lines), {"Choice of the configuration": block}, {"choice": dict(decided)})


def _check(candidates: Mapping[str, Any], folds: int) -> None:
    if folds < 2:
        raise MedsegError(
            "candidates are compared by cross-validation, and a single fold has none",
            mend="set split.folds=5, or leave candidates out",
        )
    known = [*BUILT_IN, *(name for name, choices in candidates.items() if choices)]
    for name in candidates:
        for part in name.split("+"):
            if part not in known:
                guess = nearest(part, known)
                raise MedsegError(
                    f"there is no candidate '{part}'",
                    evidence=f"known: {', '.join(known)}, and several joined by +",
                    mend=f"did you mean '{guess}'?" if guess else "give it choices of the plan",
                )


def _simple_first(candidates: Mapping[str, Any]) -> list[str]:
    """All that must be trained, then what is made of it."""
    parts = [part for name in candidates for part in name.split("+")]
    return list(dict.fromkeys([*parts, *candidates]))


def _choices(ground: Ground, name: str) -> dict[str, Any]:
    """The choices of the plan that make a built-in candidate."""
    if name == "cascade":
        return {"cascade": True}
    if name == "3d":
        return {"cascade": "none"}
    plan = ground.planned(ground.run.at(f"{HOMES}/{name}"), cascade="none")
    return {"cascade": "none", "patch": flat_patch(plan), **_flat_levels(ground.settings.plan)}


def _flat_levels(plan: Mapping[str, Any]) -> dict[str, Any]:
    """Levels that were set by hand, without their third axis."""
    given = plan.get("network_arguments") or {}
    flat = {n: [[i, j, 1] for i, j, _ in given[n]] for n in ("strides", "kernels") if n in given}
    return {"network_arguments": {**given, **flat}} if flat else {}


def flat_patch(plan: Plan) -> tuple[int, int, int]:
    """The patch of a 2-D plan: a slice of the median image, rounded up to multiples of 16, at most 512."""
    shape, spacing = (plan.fingerprint[name]["median"] for name in ("shape", "spacing_mm"))
    sides = [n * mm / to for n, mm, to in zip(shape, spacing, plan.spacing_mm, strict=True)]
    i, j = (min(_LARGEST, -(-round(side) // _SIDE) * _SIDE) for side in sides[:2])
    return i, j, 1


def _scored(ground: Ground, name: str, found: Configuration) -> list[dict[str, Any]]:
    """The rows of a candidate: ``candidates/<name>/scores.csv``."""
    scores = road.score_all(found.home, ground.raw, found.predicted, found.judges, ground.settings.scoring)
    scores.to_csv(found.home.root / "scores.csv")
    summary = scores.summary()
    write_json(found.home.root / "summary.json", summary)
    finish_workflow(ground.watch(found.home, name), found.home.root, headlines(summary))
    return scores.rows
