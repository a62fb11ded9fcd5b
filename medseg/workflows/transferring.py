"""Begin from weights that are there already: fetch them, take their network, and see whether it paid."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import replace
from math import ceil, prod
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from medseg.core.errors import MedsegError
from medseg.core.files import read_json
from medseg.core.run import Run
from medseg.core.stage import Artifact
from medseg.core.values import validated
from medseg.data.cohort import Split
from medseg.data.plan import Plan
from medseg.learning.settings import Transfer
from medseg.learning.tracking import store_uri
from medseg.workflows.journey import Ingested
from medseg.workflows.outcome import Outcome
from medseg.workflows.settings import TrainSettings

if TYPE_CHECKING:
    from medseg.learning.weights import Weights

log = logging.getLogger("medseg")

NAME = "pretrained"
TWIN = "scratch"
"""Folder of the run in which the twin is trained and judged."""


def carried_weights(run: Run, transfer: Transfer | None) -> Artifact | None:
    """The weights to begin from, under our networks' names: ``weights/pretrained``; None for fresh ones.

    Raises
    ------
    MedsegError
        They cannot be had, or are not what they should be.
    """
    if transfer is None or not transfer.source:
        return None
    from medseg.learning.weights_fetch import Source
    from medseg.stages.weights import weights

    source = Source(transfer.source, transfer.sha256)
    made = run.map(weights, {NAME: source}, format=transfer.format, prefix=transfer.prefix)
    if made.failed:
        said = made.failed[NAME].message.removeprefix(f"case {NAME}: ")
        raise MedsegError("there are no weights to begin from", evidence=said)
    return made[NAME]


def check_fit(weights: Artifact | None, plan: Plan, transfer: Transfer) -> None:
    """Stop before anything is prepared when too little of the weights fits the plan's network.

    Raises
    ------
    MedsegError
        Less than the floor could be carried; or there are no weights, and settings that speak of some.
    """
    if weights is None:
        return _check_idle(transfer)
    from medseg.learning import transfer as carrying
    from medseg.learning.weights import saved_weights

    carrying.account_of(plan, saved_weights(weights.path), transfer)


def _check_idle(transfer: Transfer) -> None:
    """Settings that say how weights are carried mean nothing without any."""
    idle = [name for name, value in transfer if value != getattr(Transfer(), name)]
    if idle:
        raise MedsegError(
            f"transfer.{idle[0]} is set, but there are no weights to begin from",
            mend=f"set transfer.source, or leave transfer.{idle[0]} out",
        )


def import_weights(
    source: str,
    out: str | Path,
    *,
    format: str = "auto",
    sha256: str = "",
    prefix: Mapping[str, str] | None = None,
) -> Outcome:
    """Published weights of any form -> a folder that ``transfer.source`` takes, and what is known of them.

    Parameters
    ----------
    source : str
        A file or folder, ``hf:owner/repo/file[@revision]``, or a web address.
    out : path
        Folder for ``weights.safetensors`` and ``origin.json``; one written before is replaced.
    format : str
        A name of `medseg.learning.weights.FORMATS`; ``nnunet`` must be named.
    sha256 : str
        Of the file: needed for what comes from elsewhere; ``unpinned`` takes whatever comes.
    prefix : mapping, optional
        What names begin with there -> what they begin with in our networks.

    Raises
    ------
    MedsegError
        They cannot be had, are not of this form, or `out` holds something else.
    """
    from medseg.learning.weights import ORIGIN, load_weights, save_weights
    from medseg.learning.weights_fetch import Source, fetch_weights

    if Source(source).remote and not sha256:
        raise MedsegError(
            "what comes from elsewhere must be pinned",
            evidence=source,
            mend="give --sha256 HEX of the file (or --sha256 unpinned, to take whatever comes)",
        )
    wanted = validated(
        Transfer, {"source": source, "format": format, "sha256": sha256, "prefix": prefix or {}}
    )
    target = Path(out)
    if target.exists() and any(target.iterdir()) and not (target / ORIGIN).is_file():
        raise MedsegError("the folder holds something else", file=str(out), mend="give a new folder")
    with TemporaryDirectory() as fetched:
        place = fetch_weights(Source(source, wanted.sha256), Path(fetched))
        found = load_weights(place, format, wanted.prefix, "" if wanted.remote else wanted.sha256)
    save_weights(target, found)
    return Outcome(_imported(found), _said(found, target))


def _imported(found: Weights) -> dict[str, Any]:
    count = sum(tensor.numel() for tensor in found.tensors.values())
    kept = {"format": found.format, "sha256": found.sha256, "tensors": len(found.tensors), "numbers": count}
    return {**kept, "dropped": dict(found.dropped), "facts": dict(found.facts)}


def _said(found: Weights, out: Path) -> str:
    """What was found, and the lines of a recipe that begins from it."""
    from medseg.learning.transfer import facts_of

    told = _imported(found)
    lines = [
        f"import-weights: {told['numbers']:,} numbers in {told['tensors']} tensors ({found.format}) in {out}",
        f"  sha256 of the source: {found.sha256}",
        *(f"  left behind: {why} ({count:,} numbers)" for why, count in found.dropped.items()),
        *(f"  note: {note}" for note in found.facts.get("notes", ())),
        "recipe:",
        f"  transfer: {{source: {out}}}",
    ]
    if facts := facts_of(found):
        arguments = ", ".join(f"{k}: {v}" for k, v in facts["network_arguments"].items())
        lines.append(
            f"  plan: {{network: {facts['network']}, network_arguments: {{{arguments}}}}}  # taken by itself"
        )
    return "\n".join(lines)


def adopted(weights: Artifact | None, settings: TrainSettings, plan: Plan) -> dict[str, Any]:
    """The network the weights were made for, as choices of the plan; none where the recipe sets its own.

    Levels of flat images do not serve volumes (nor the other way): then only the widths are taken, and only
    where there are as many levels.
    """
    if weights is None or not settings.transfer.adopt or "network" in settings.plan:
        return {}
    facts = read_json(weights / "origin.json")["facts"]
    if facts.get("network") is None or facts.get("task") not in (None, settings.task):
        return {}
    arguments = facts["network_arguments"]
    if "strides" in arguments and facts.get("dimensions", plan.dimensions) != plan.dimensions:
        if len(plan.network_arguments.get("widths", ())) != len(arguments.get("widths", ())):
            return {}
        arguments = {k: arguments[k] for k in ("widths", "norm") if k in arguments}
    given = settings.plan.get("network_arguments", {})
    return {"network": facts["network"], "network_arguments": {**arguments, **given}}


def fitting_patch(plan: Plan) -> tuple[int, ...] | None:
    """A patch that the network's strides divide, no smaller than the plan's; None when the plan's is one."""
    strides = plan.network_arguments.get("strides")
    if not strides:
        return None
    steps = [prod(stride[axis] for stride in strides) for axis in range(plan.dimensions)]
    steps += [1] * (3 - len(steps))
    patch = tuple(ceil(side / step) * step for side, step in zip(plan.patch, steps, strict=True))
    return patch if patch != plan.patch else None


def with_twin(
    run: Run,
    raw: Ingested,
    prepared: Mapping[str, Artifact],
    split: Split,
    plan: Plan,
    settings: TrainSettings,
    device: str,
    outcome: Outcome,
) -> Outcome:
    """Train the same from fresh weights on the same folds, and compare case by case.

    The twin lies in ``scratch/`` of the run, the comparison (carried - fresh) in ``scratch/compare``.
    """
    from medseg.evaluation.compare import compare
    from medseg.workflows import training as road

    twin = Run(run.root / TWIN, workers=run.workers, quiet=run.quiet)
    watch = settings.watch()
    watch = watch.but(uri=store_uri(watch, run.root), workflow=f"{settings.name}-{TWIN}")
    training = settings.training
    if training.optimizer == "auto":
        training = training.but(optimizer="adamw")  # as carried weights are tuned: weights are compared alone
    models = road.train_folds(twin, prepared, split, plan, training, device=device, tracking=watch)
    judges = road.held_out(split, models, settings.split.judges_test())
    predicted = road.predict_cases(twin, raw, judges, settings.prediction, device, settings.postprocessing)
    masks = road.postprocess_all(twin, raw, predicted, settings.postprocessing)
    scores = road.score_all(twin, raw, masks, judges, settings.scoring)
    scores.to_csv(twin.root / "scores.csv")
    done = compare(twin.root / "scores.csv", run.root / "scores.csv", twin.root / "compare", settings.scoring)
    twin.close()
    run.failures.extend(twin.failures)
    text = f"{outcome.text}\ncarried weights - fresh weights, on the same cases:\n{done.text}"
    return replace(outcome, text=text, summary={**outcome.summary, "twin": done.summary})


def account_of(networks: Iterable[Path]) -> dict[str, str]:
    """What the first model card says of the weights it began from, in words; empty for fresh weights."""
    from medseg.learning.account import Account

    for folder in networks:
        card = read_json(folder / "model" / "card.json")
        if found := card.get("start"):
            return Account.model_validate({k: v for k, v in found.items() if k != "share"}).words()
    return {}
