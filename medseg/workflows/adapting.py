"""A model brought to another site: the shift in numbers, then methods that need no label of the target."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medseg.core.errors import MedsegError
from medseg.core.files import write_json
from medseg.core.run import Run
from medseg.core.stage import Artifact, artifact_of, read_record
from medseg.data.cohort import Cohort
from medseg.data.plan import MASK, Plan
from medseg.learning.settings import Adaptation
from medseg.workflows.journey import Ingested, ingest_all, reopen
from medseg.workflows.outcome import Outcome, named_failures
from medseg.workflows.settings import CohortSettings, TrainSettings

log = logging.getLogger("medseg")


@dataclass(frozen=True)
class Adapted:
    """What came of an adaptation: the model folders, by the names of the models they came from."""

    models: Mapping[str, Artifact]
    shift: Mapping[str, Any]
    text: str


def adapt(
    model: str | Path,
    target: Cohort,
    run: Run,
    *,
    adaptation: Adaptation | None = None,
    source: str | Path | None = None,
    device: str = "auto",
) -> Outcome:
    """Compare two sites, and adapt a model to the second: ``shift.json`` and ``adapt/<model>/model``.

    Parameters
    ----------
    model : path
        A model folder, a fold's folder, or a run folder (each of its models is adapted).
    target : Cohort
        Images of the other site. References and classes are dropped before anything is read.
    adaptation : Adaptation, optional
        Its method; ``none`` (the default) only reports.
    source : path, optional
        The run folder of the model's training; by default the one the model lies in. Only the training
        cases of each model are used, never those its fold is judged on.

    Raises
    ------
    MedsegError
        No model, no image of the target, or a method that cannot be carried out.
    """
    settings = adaptation or Adaptation()
    done = adapt_models(model_artifacts(model), target, run, settings, source, device)
    told = {"shift": done.shift, "models": {name: str(a.path) for name, a in done.models.items()}}
    lines = [done.text, *(f"adapted: {a.path}" for a in done.models.values())]
    return Outcome(told, "\n".join(lines) + named_failures(run), 3 if run.failures else 0)


def with_adaptation(run: Run, settings: TrainSettings, outcome: Outcome, device: str) -> Outcome:
    """The outcome of a training recipe, with its models adapted where it names another site."""
    how = settings.adaptation
    if not how.target.root:
        return outcome
    target = open_target(how.target, run.quiet, masks=looks_at_masks(run.root))
    beside = Run(run.root / "adapted", workers=run.workers, quiet=run.quiet)
    done = adapt(run.root, target, beside, adaptation=how.how(), source=run.root, device=device)
    summary = {**outcome.summary, "adaptation": done.summary}
    return Outcome(summary, f"{outcome.text}\n{done.text}", outcome.exit_code or done.exit_code)


def looks_at_masks(model: str | Path) -> bool:
    """Whether a mask tells models where to look: then it is input, and says nothing of the class."""
    return any(_of_mask(_plan(folder)) for folder in model_artifacts(model).values())


def _of_mask(plan: Plan) -> bool:
    return plan.region == MASK and plan.task == "classification"


def open_target(settings: CohortSettings, quiet: bool = False, masks: bool = False) -> Cohort:
    """Images of another site; they need no references, and `masks` only where a model looks there."""
    given = settings.model_dump(include={"channels", "image", "ids", "roles", *(["reference"] * masks)})
    options = {k: v for k, v in given.items() if v}
    return Cohort.open(
        settings.root,
        format=settings.format,
        quiet=quiet,
        need_reference=False,
        images_alone=not masks,
        **options,
    )


def adapt_models(
    models: Mapping[str, Artifact],
    target: Cohort,
    run: Run,
    settings: Adaptation,
    source: str | Path | None = None,
    device: str = "auto",
) -> Adapted:
    """The models of a run, each adapted step by step; the shift is that seen by the first."""
    _check(settings)
    sites = {name: _source_of(folder, source) for name, folder in models.items()}
    masks = any(_of_mask(_plan(folder)) for folder in models.values())
    raw = ingest_all(run, without_labels(target, masks=masks))
    shift, text = report_shift(
        run, next(iter(models.values())), next(iter(sites.values())), raw, settings, device
    )
    made: Mapping[str, Artifact] = models if settings.steps else {}
    for number, method in enumerate(settings.steps, start=1):
        step = settings.but(method=method)
        made = _one_step(
            run, made, sites, raw, step, "" if len(settings.steps) == 1 else f"-{number}", device
        )
    return Adapted(made, shift, text)


def without_labels(cohort: Cohort, *, masks: bool = False) -> Cohort:
    """The images of a cohort alone: no class is known, and no reference but `masks` to look at."""
    nothing = {"label_class": None} if masks else {"reference": None, "label_class": None}
    return cohort.but(cases=tuple(case.but(**nothing) for case in cohort.cases))


def model_artifacts(model: str | Path) -> dict[str, Artifact]:
    """Name -> model folder: ``fold0``, ... of a run; the folder's own name for a single one."""
    from medseg.learning.model import model_folders

    folders = model_folders(Path(model))
    if not folders:
        raise MedsegError("there is no model in this folder", file=str(model))
    named = {model_name(folder): folder for folder in folders}
    if len(named) < len(folders):
        raise MedsegError("these are models of several configurations", mend="give one of candidates/<name>")
    return {name: artifact_of(folder) for name, folder in named.items()}


def report_shift(
    run: Run, model: Artifact, source: Ingested | None, target: Ingested, settings: Adaptation, device: str
) -> tuple[dict[str, Any], str]:
    """Source against target in numbers, and which method is worth trying; kept in ``shift.json``."""
    from medseg.data.shift import differences
    from medseg.learning.shift import advice
    from medseg.stages.shift import read_view, shift

    prints = _fingerprints(run, target, "target")
    rows = differences(_fingerprints(run, source, "source"), prints) if source else []
    item = _item(run, model, source, target)
    name = model_name(model.path)
    made = run.map(shift, {name: item}, confidence=settings.confidence, device=device)
    if made.failed:
        raise MedsegError("the shift could not be measured", evidence=made.failed[name].message)
    seen = read_view(made[name])
    found = {"images": rows, "seen_by_the_model": seen, "advice": advice(seen, rows)}
    write_json(run.root / "shift.json", found)
    return found, shift_text(found)


def shift_text(found: Mapping[str, Any]) -> str:
    """The report in lines: what differs most, what the model sees, what is worth trying and why."""
    seen, rows = found["seen_by_the_model"], sorted(found["images"], key=lambda r: -abs(r["delta"]))
    lines = [f"shift: {seen['source_cases']} source cases, {seen['target_cases']} target cases"]
    lines += [
        f"  {r['quantity']:<24} {r['source']:>10.5g} -> {r['target']:>10.5g}   delta {r['delta']:+.2f}"
        for r in rows[:8]
    ]
    grey = ", ".join(f"{name} {value:.2f} sd" for name, value in seen["grey_distance"].items())
    apart = seen["told_apart"]
    lines += [
        f"  grey values after the plan: {grey or 'not known of the source'}",
        f"  features tell the sites apart: {'too few cases' if apart is None else f'area {apart:.2f}'}",
        *(f"  {a['method']:<22} {a['worth']:<6} {a['why']}" for a in found["advice"]),
    ]
    return "\n".join(lines)


def _check(settings: Adaptation) -> None:
    from medseg.core.registry import look_up
    from medseg.learning.adapt import METHODS

    for method in settings.steps:
        look_up(METHODS, method, "adaptation method")


def _one_step(
    run: Run,
    models: Mapping[str, Artifact],
    sites: Mapping[str, Ingested | None],
    target: Ingested,
    settings: Adaptation,
    ending: str,
    device: str,
) -> dict[str, Artifact]:
    from medseg.stages.adapt import adapt as stage

    items = {name + ending: _item(run, model, sites[name], target) for name, model in models.items()}
    made = run.map(stage, items, adaptation=settings, device=device, quiet=run.quiet)
    if made.failed:
        failure = next(iter(made.failed.values()))
        raise MedsegError(f"{settings.method} of {failure.item} ended early", evidence=failure.message)
    return {name: made[name + ending].part("model") for name in models}


def _item(run: Run, model: Artifact, source: Ingested | None, target: Ingested) -> dict[str, Artifact]:
    """A model and the cases of both sites, prepared as its plan says."""
    from medseg.learning.cascade import refuse_cascade
    from medseg.stages.adapt import MODEL, SOURCE, TARGET

    item, plan = {MODEL: model}, _plan(model)
    refuse_cascade(plan, "adaptation")
    for kind, cases in ((SOURCE, source), (TARGET, target)):
        there = _prepared(run, cases, plan, kind.strip()) if cases else {}
        item |= {kind + case: a for case, a in there.items()}
    return item


def _prepared(run: Run, raw: Ingested, plan: Plan, kind: str) -> dict[str, Artifact]:
    """Cases prepared by a plan, under names that keep the two sites apart."""
    from medseg.stages.prepare import prepare

    items = {f"{kind}-{case}": a for case, a in raw.artifacts.items()}
    made = run.map(prepare, items, preparation=plan.preparation())
    if items and not made.artifacts:
        failure = next(iter(made.failed.values()))
        raise MedsegError(f"no image of the {kind} could be prepared", evidence=failure.message)
    return {name.removeprefix(f"{kind}-"): a for name, a in made.items()}


def _fingerprints(run: Run, raw: Ingested, kind: str) -> Sequence[Any]:
    from medseg.stages.fingerprint import fingerprint, read_fingerprint

    items = {f"{kind}-{case}": a for case, a in raw.artifacts.items()}
    return [read_fingerprint(a) for a in run.map(fingerprint, items, label_values=()).values()]


def _source_of(model: Artifact, source: str | Path | None) -> Ingested | None:
    """The training cases of a model: those its record names, in the run folder it lies in or `source`."""
    trained = model.path.parent
    root = Path(source) if source else trained.parent.parent
    if not (root / "cohort.json").is_file():
        if source:
            raise MedsegError("the source is no run folder: it holds no cohort.json", file=str(source))
        return None
    raw = reopen(root)
    record = read_record(_trained_in(root, model) or trained)
    named = [n.removeprefix("item.") for n in record["inputs"] if n.startswith("item.")] if record else []
    known = [case for case in named if case in raw]
    if not known and not source:
        return None
    return raw.only(known) if known else raw


def _trained_in(root: Path, model: Artifact) -> Path | None:
    """The folder of a run in which these very weights were trained, wherever the model lies now."""
    from medseg.core.files import read_json

    ours = read_json(model / "card.json")["weights_sha256"]
    cards = sorted(root.glob("train/*/model/card.json"))
    return next((c.parent.parent for c in cards if read_json(c).get("weights_sha256") == ours), None)


def _plan(model: Artifact) -> Plan:
    from medseg.core.files import read_json
    from medseg.core.values import validated

    return validated(Plan, read_json(model / "plan.json"))


def model_name(folder: Path) -> str:
    """``fold0`` for ``.../train/fold0/model``, else the folder's own name."""
    return folder.parent.name if folder.name == "model" and folder.parent.name else folder.name
