"""``medseg sweep``: settings tried on the same folds and judged out of fold; what is done once is done."""

from __future__ import annotations

import logging
import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medseg.core.config import load_config
from medseg.core.errors import MedsegError
from medseg.core.files import read_json, sha256_of, write_json, write_text
from medseg.core.run import Run
from medseg.core.values import digest
from medseg.data.cohort import Split
from medseg.learning.tracking import Tracking, finish_group, finish_workflow, open_group, open_workflow
from medseg.workflows import training as road
from medseg.workflows.ground import Ground, configuration
from medseg.workflows.journey import ingest_all
from medseg.workflows.judging import headlines
from medseg.workflows.looking import audit_cases
from medseg.workflows.opening import open_cohort
from medseg.workflows.outcome import Outcome
from medseg.workflows.settings import TrainSettings
from medseg.workflows.sweep_space import Axis, Point, grid, parse, point_of, study, words_of
from medseg.workflows.sweep_table import table
from medseg.workflows.transferring import carried_weights

log = logging.getLogger("medseg")

TRIALS, TRIAL = "trials", "trial.json"
FOLDS = 3
"""Folds of a recipe that has a single one: a sweep is judged by cross-validation."""


@dataclass(frozen=True)
class Trial:
    """One point of a sweep: what came of it."""

    name: str
    point: Point
    status: str
    rows: Sequence[dict[str, Any]] = ()
    cost: tuple[int, int] = (0, 0)
    minutes: float = 0.0
    reason: str = ""
    whole: bool = True
    """Whether no case of it failed on the way; else it is done again when the sweep is."""


def sweep(
    config: str | Path | None,
    words: Sequence[str],
    run: Run,
    *,
    trials: int | None = None,
    folds: int | None = None,
    device: str = "auto",
) -> Outcome:
    """Try settings: every combination of values, or `trials` points that an Optuna search asks for.

    Parameters
    ----------
    config : path or None
        A recipe, as for ``medseg train``.
    words : sequence of str
        Overrides. ``key=a,b`` is tried with each value, ``key=1e-4..1e-2:log`` (or ``2..8:int``) with values
        between; a single value is the same for all trials.
    run : Run
        Cases are read, looked at and prepared once for all trials; each trial lies in ``trials/<key>``, where
        the key is that of its settings: run again, finished trials are kept and others go on.
    trials : int, optional
        Points of the search; without it every combination is tried.
    folds : int, optional
        Train only so many of the folds: a cheaper look.

    Returns
    -------
    Outcome
        The table, best first, with intervals and paired differences; also ``sweep.csv``, ``sweep.json``. Exit
        code 3 when trials failed.

    Raises
    ------
    MedsegError
        Nothing to try, a setting that is none, or no trial that came to its end.
    """
    axes, same = parse(words)
    if not axes:
        raise MedsegError("there is nothing to try", mend="give several values: training.rate=1e-3,3e-4")
    base = load_config(TrainSettings, config, same)
    if base.candidates:
        raise MedsegError("a sweep tries settings of one configuration", mend="leave candidates out")
    ground = _ground(base, run, folds, device)
    group = f"sweep {base.name}"
    tracking = open_group(base.tracking, run.root, group)
    done = _carried_out(axes, base, trials, lambda point: _tried(ground, config, same, point, tracking))
    found = table(done, axes, base.scoring, base.choosing.metric)
    found |= {"folds": len(ground.parts.folds), "cases": len(ground.seen), "test_part": "not looked at"}
    text = found.pop("text")
    write_text(run.root / "sweep.csv", found.pop("csv"))
    write_json(run.root / "sweep.json", found)
    best = found["trials"][0]
    finish_group(tracking, run.root, group, {f"best_{found['metric']}": best["mean"]}, {"best": best["said"]})
    again = shlex.join(["medseg", "train", str(config or "CONFIG"), *same, *words_of(best["settings"])])
    folds = len(ground.parts.folds)
    where = f"the same {folds} folds" if folds > 1 else "the same fold"
    lines = [f"{base.name}: judged by cross-validation on {where}", text]
    lines += [f"table: {run.root / 'sweep.csv'}", f"the best as a training of its own: {again}"]
    return Outcome(found, "\n".join(lines), 3 if found["failed"] else 0)


def _ground(base: TrainSettings, run: Run, judged: int | None, device: str) -> Ground:
    """Cases and folds of all trials. The test part is cut off as in training, and never looked at."""
    cohort = open_cohort(base.cohort, base.task, run.quiet)
    split = base.split if base.split.cross_validates else base.split.but(folds=FOLDS)
    if split is not base.split:
        log.info("sweep        %d folds: a single one leaves nothing to judge trials by", FOLDS)
    parts = cohort.split(test=split.test, folds=split.folds, seed=split.seed)
    if judged is not None:
        parts = Split(test=parts.test, folds=parts.folds[: max(1, judged)], seed=parts.seed)
    raw = ingest_all(run, cohort, base.ingest)
    audit_cases(run, raw)
    settings = base.but(split=split)
    return Ground(run, raw, parts, settings, device, carried_weights(run, base.transfer))


def _carried_out(
    axes: Sequence[Axis], base: TrainSettings, trials: int | None, tried: Callable[[Point], Trial]
) -> list[Trial]:
    """Every point once: of the grid, or those that the search asks for."""
    done: dict[str, Trial] = {}
    if trials is None:
        points = list(grid(axes))
        for number, point in enumerate(points, 1):
            log.info("trial %d/%d    %s", number, len(points), " ".join(words_of(point)))
            trial = tried(point)
            done[trial.name] = trial
        return list(done.values())
    from medseg.evaluation.choice import mean_of, metric_for, metric_is_low

    asked, space = study(axes, base.training.seed, metric_is_low(base.choosing.metric))
    for number in range(1, trials + 1):
        question = asked.ask(dict(space))
        point = point_of(question.params)
        log.info("trial %d/%d    %s", number, trials, " ".join(words_of(point)))
        trial = tried(point)
        done[trial.name] = trial
        value = None
        if trial.rows:
            metric = metric_for(trial.rows, base.choosing.metric)
            value = mean_of(trial.rows, metric, base.scoring)["mean"]
        asked.tell(question, value, state=_state(value))
    return list(done.values())


def _state(value: float | None) -> Any:
    from optuna.trial import TrialState

    return TrialState.FAIL if value is None else TrialState.COMPLETE


def _tried(
    ground: Ground, config: str | Path | None, same: Sequence[str], point: Point, tracking: Tracking
) -> Trial:
    """One trial; one that fails is a row of the table, and the others go on."""
    settings = load_config(TrainSettings, config, [*same, *words_of(point)])
    about = settings.but(name="trial", cohort=type(settings.cohort)(), tracking=Tracking(), export=())
    name = digest([about.but(split=ground.settings.split), len(ground.parts.folds)])[:12]
    watch = tracking.but(mark=name, told=dict(point))
    there = ground.but(settings.but(split=ground.settings.split, tracking=watch))
    home = ground.run.at(f"{TRIALS}/{name}")
    stands_on = digest([name, {case: a.digest for case, a in ground.seen.items()}])
    if (kept := _kept(home, name, point, stands_on)) is not None:
        log.info("             kept")
        return kept
    start = time.monotonic()
    open_workflow(there.watch(home, name), home.root)
    try:
        trial = _trained(there, home, name, point, start)
    except MedsegError as error:
        if any("SystemExit" in failure.public for failure in home.failures):
            raise  # the batch system asked for the end
        trial = Trial(name, point, "failed", reason=error.public())
    except Exception as error:  # one bad trial must not end the others
        trial = Trial(name, point, "failed", reason=f"unexpected {type(error).__name__}")
    if trial.status == "failed":
        log.error("trial failed: %s", trial.reason)
        finish_workflow(there.watch(home, name), home.root, {}, status="FAILED")
    _write(home, trial, stands_on)
    return trial


def _trained(ground: Ground, home: Run, name: str, point: Point, start: float) -> Trial:
    settings, before = ground.settings, len(home.failures)
    found = configuration(ground, home, name)
    masks = found.predicted
    if found.judges and not masks:
        first = home.failures[before] if len(home.failures) > before else None
        raise MedsegError("no case could be predicted", evidence=first.public if first else None)
    if settings.postprocessing.steps:
        masks = road.postprocess_all(home, ground.raw, masks, settings.postprocessing)
    scores = road.score_all(home, ground.raw, masks, found.judges, settings.scoring)
    scores.to_csv(home.root / "scores.csv")
    finish_workflow(ground.watch(home, name), home.root, headlines(scores.summary()))
    minutes, whole = (time.monotonic() - start) / 60, len(home.failures) == before
    return Trial(name, point, "ok", scores.rows, found.cost, minutes, whole=whole)


def _write(home: Run, trial: Trial, stands_on: str) -> None:
    told: dict[str, Any] = {"settings": trial.point, "status": trial.status, "reason": trial.reason}
    told |= {"cost": list(trial.cost), "minutes": round(trial.minutes, 2), "stands_on": stands_on}
    scores = home.root / "scores.csv"
    told["scores"] = sha256_of(scores) if trial.status == "ok" and trial.whole else ""
    write_json(home.root / TRIAL, told)


def _kept(home: Run, name: str, point: Point, stands_on: str) -> Trial | None:
    """A trial that came to its end before, on the same cases and folds."""
    from medseg.evaluation.scoring import read_rows

    try:
        told = read_json(home.root / TRIAL)
        whole = told["status"] == "ok" and told["stands_on"] == stands_on
        scores = home.root / "scores.csv"
        if not whole or sha256_of(scores) != told["scores"]:
            return None
    except (OSError, ValueError, KeyError):
        return None
    networks, weights = told["cost"]
    return Trial(name, point, "ok", read_rows(scores), (networks, weights), told["minutes"])
