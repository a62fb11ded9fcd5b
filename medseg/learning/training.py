"""Train one model: from prepared cases to a model folder, watched, resumable, stopped with notice."""

from __future__ import annotations

import logging
import shutil
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch

from medseg.core.errors import MedsegError
from medseg.core.progress import meter
from medseg.core.values import validated
from medseg.data.plan import Plan
from medseg.data.seen import seen_record
from medseg.learning.devices import keep_memory, seed_everything
from medseg.learning.job import Job, Start, Term
from medseg.learning.joint import terms_of
from medseg.learning.model import save_model
from medseg.learning.monitor import set_aside
from medseg.learning.quantiles import quantiles_by_channel
from medseg.learning.sampling import PreparedCase
from medseg.learning.settings import Training, Tuning
from medseg.learning.together import ALONE, World, call_in, world

log = logging.getLogger("medseg")


class Observer(Protocol):
    """Who watches a training. What an observer does wrong never stops it."""

    def on_start(self, info: dict[str, Any]) -> None: ...
    def on_epoch(self, epoch: int, values: dict[str, float]) -> None: ...
    def on_end(self, model_folder: Path, figures: list[Path]) -> None: ...


def train_model(
    cases: Sequence[PreparedCase],
    plan: Plan,
    training: Training,
    *,
    out: Path,
    device: torch.device,
    observers: Sequence[Observer] = (),
    name: str = "model",
    data_digest: str = "",
    start: Start | None = None,
    terms: Sequence[Term] = (),
    quiet: bool = False,
) -> Path:
    """Train one model on `cases`: ``out/model``, ``out/history.csv``, and meanwhile ``out/checkpoint``.

    Cut off at any moment and called again with the same arguments, it goes on from its last checkpoint;
    with a number of epochs, on a CPU, the result is the same to the last bit. Where several processes train
    together (`medseg.learning.together`) this is the leader's side; with `terms` it trains alone.

    Parameters
    ----------
    cases : sequence of PreparedCase
        The training part alone. A few patients of it are set aside as monitor (see `Training.monitor`).
    data_digest : str
        Digest of the training data for the model card.
    start : Start, optional
        Weights to begin from, and how they are tuned; fresh weights by default.
    terms : sequence of Term
        What is added to the loss at each step (adaptation to another site, a second head).

    Returns
    -------
    Path
        The model folder.

    Raises
    ------
    MedsegError
        No case to train on, or the loss stops being a number (the last good checkpoint stays).
    """
    keep_memory()
    seed_everything(training.seed)
    trained, monitored = set_aside(cases, training.monitor, plan, training.seed)
    if not trained:
        raise MedsegError("there is no case to train on", mend="check which cases were refused at ingest")
    ours = ALONE if terms else world()
    job = Job(trained, monitored, plan, training, device, out, start, (*terms, *terms_of(plan)), ours)
    if ours.size > 1:
        call_in(_message(job, cases))
    with _in_step(ours):
        job.resume()
    info = {
        "plan": plan.model_dump(mode="json"),
        "training": training.model_dump(mode="json"),
        "device": str(device),
        "data_digest": data_digest,
        "history": job.history,
        **({"processes": ours.size} if ours.size > 1 else {}),
        **({"start": _numbers(job.start.account)} if job.start else {}),
    }
    _tell(observers, "on_start", info)
    bar = meter(f"train {name}", total=1000, unit="‰", quiet=quiet)
    with _in_step(ours), _stop_on_sigterm() as stop, bar:
        for row in job.epochs(stop, bar):
            _tell(observers, "on_epoch", row["epoch"], {k: v for k, v in row.items() if k != "epoch"})
    folder = out / "model"
    save_model(folder, plan, job.chosen(), _card(name, job, data_digest))
    shutil.rmtree(out / "checkpoint", ignore_errors=True)
    _tell(observers, "on_end", folder, _figures(job.history, out))
    return folder


def train_along(message: Mapping[str, Any]) -> None:
    """Another process's side of `train_model`: the same steps with its own share of every batch.

    Parameters
    ----------
    message : mapping
        The leader's word: cases by folder (all processes see the same disk), plan, training, and which
        weights were carried, how they are tuned.
    """
    keep_memory()
    plan, training = validated(Plan, message["plan"]), validated(Training, message["training"])
    seed_everything(training.seed)
    cases = [PreparedCase(name, Path(folder)) for name, folder in message["cases"]]
    trained, monitored = set_aside(cases, training.monitor, plan, training.seed)
    tuning = validated(Tuning, message["tuning"])
    start = Start(lambda _: set(message["carried"]), tuning) if message["carried"] else None
    device = torch.device(message["device"])
    job = Job(
        trained, monitored, plan, training, device, Path(message["out"]), start, terms_of(plan), world()
    )
    job.resume()
    with _stop_on_sigterm() as stop, meter("train along", total=1000, quiet=True) as bar:
        for _ in job.epochs(stop, bar):
            pass


def _message(job: Job, cases: Sequence[PreparedCase]) -> dict[str, Any]:
    """What the others must know to train along."""
    return {
        "cases": [(case.id, str(case.folder.resolve())) for case in cases],
        "plan": job.plan.model_dump(mode="json"),
        "training": job.training.model_dump(mode="json"),
        "out": str(job.out.resolve()),
        "device": job.device.type,
        "carried": sorted(job.carried),
        "tuning": (job.start.tuning if job.start else Tuning()).model_dump(mode="json"),
    }


@contextmanager
def _in_step(ours: World) -> Iterator[None]:
    """What goes wrong in here leaves the others waiting at a step that never comes: there is no going on."""
    try:
        yield
    except BaseException as error:
        if ours.size > 1 and not getattr(error, "agreed", False):
            ours.broken = True
        raise


def _card(name: str, job: Job, data_digest: str) -> dict[str, Any]:
    from medseg.core.version import __version__

    plan, best = job.plan, job.state.facts["best"]
    classes = {"classes": list(plan.classes)} if plan.classes else {}
    return {
        "name": name,
        "version": __version__,
        "task": plan.task,
        "channels": list(plan.channels),
        "labels": [label.model_dump(mode="json") for label in plan.labels],
        **classes,
        "intended_use": "",
        "training_data": {
            "digest": data_digest,
            "cases": len(job.trained),
            "patients": len({c.patient for c in job.trained}),
            "monitor_cases": len(job.monitored),
            "ranges": plan.fingerprint,
            "quantiles": quantiles_by_channel(job.trained, plan),
            "seen": seen_record((c.info for c in (*job.trained, *job.monitored)), data_digest),
        },
        "training": job.training.model_dump(mode="json"),
        "optimizer": job.optimizer,
        "steps": job.state.facts["step"],
        **({"processes": job.world.size} if job.world.size > 1 else {}),
        **({"ended": job.state.facts["ended"]} if job.state.facts["ended"] else {}),
        "chosen_epoch": best["epoch"] if best else None,
        "monitor": best["scores"] if best else {},
        "parameters": sum(p.numel() for p in job.state.network.parameters()),
        **({"start": dict(job.start.account)} if job.start else {}),
    }


def _numbers(account: Mapping[str, Any]) -> dict[str, Any]:
    """An account of carried weights without its remarks: what is told while the training is watched."""
    return {k: v for k, v in account.items() if k not in ("adapted", "left", "unused")}


def _figures(history: Sequence[Mapping[str, float]], out: Path) -> list[Path]:
    from medseg.learning.curves import draw_history

    try:
        return [draw_history(history, out / "history.png")]
    except Exception as error:  # a picture must not cost the training
        log.warning("the training curve was not drawn: %s", type(error).__name__)
        return []


def _tell(observers: Sequence[Observer], event: str, *values: Any) -> None:
    for observer in observers:
        try:
            getattr(observer, event)(*values)
        except Exception as error:
            log.warning("an observer failed in %s (%s); the training goes on", event, type(error).__name__)


@contextmanager
def _stop_on_sigterm() -> Iterator[threading.Event]:
    """An event that SIGTERM sets (a batch system's notice): the step is finished and saved first."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = signal.signal(signal.SIGTERM, lambda *_: stop.set())
    try:
        yield stop
    finally:
        signal.signal(signal.SIGTERM, before)
