"""The training loop, to be read in one sitting: draw, change, forward, loss, backward, step, look, save."""

from __future__ import annotations

import csv
import io
import logging
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from medseg.core.errors import MedsegError
from medseg.core.files import write_text
from medseg.data.plan import Plan
from medseg.learning.augment import augment
from medseg.learning.checkpoint import State, load_checkpoint, save_checkpoint
from medseg.learning.devices import autocast, channels_last, number_format
from medseg.learning.losses import Loss, loss_of
from medseg.learning.monitor import look
from medseg.learning.networks import build_network
from medseg.learning.sampling import Drawn, PreparedCase, Sampler
from medseg.learning.settings import Training, Tuning
from medseg.learning.tuning import groups_of, set_free

log = logging.getLogger("medseg")

_AS_GOOD = 0.002
"""A later checkpoint is preferred while its monitor score is within this of the best."""
_MARGIN = 1e-3


@dataclass(frozen=True)
class Moment:
    """One step as a term of the loss sees it: patches, target, what the network said, progress 0 to 1."""

    network: nn.Module
    image: Tensor
    target: Tensor
    logits: Any
    progress: float
    drawn: Drawn


Term = Callable[[Moment], Tensor]
"""Adds a scalar to the loss. One with a method ``parameters()`` has parameters of its own trained along;
one that keeps state across steps has ``state_dict()`` (of tensors) and ``load_state_dict()``; one with a
method ``attach(network)`` is shown the network before the first step."""


@dataclass(frozen=True)
class Start:
    """Weights a training begins from.

    Attributes
    ----------
    fill : function
        ``fill(network) -> names of the parameters that hold carried weights``.
    tuning : Tuning
        How they are tuned.
    account : mapping
        What was loaded, adapted, left and why; goes into the model card.
    """

    fill: Callable[[nn.Module], set[str]]
    tuning: Tuning = field(default_factory=Tuning)
    account: Mapping[str, Any] = field(default_factory=dict)


class Job:
    """One training: what it works with, and where it stands (``state.facts``)."""

    def __init__(
        self,
        trained: list[PreparedCase],
        monitored: list[PreparedCase],
        plan: Plan,
        training: Training,
        device: torch.device,
        out: Path,
        start: Start | None = None,
        terms: Sequence[Term] = (),
    ) -> None:
        self.start, self.terms = start, list(terms)
        self.plan, self.training, self.device, self.out = plan, training, device, out
        self.trained, self.monitored = trained, monitored
        batch = training.batch or plan.batch
        self.sampler = Sampler(trained, plan, batch, training.foreground, training.seed)
        self.steps = training.steps_per_epoch or min(250, max(20, math.ceil(len(trained) / batch)))
        self.dtype = number_format(device, training.precision, plan)
        self.loss: Loss = loss_of(plan, training.loss)
        network = build_network(plan).to(device)
        carried = start.fill(network) if start else set()
        groups = groups_of(network, plan, start.tuning if start else Tuning(), carried)
        for term in self.terms:
            if hasattr(term, "attach"):
                term.attach(network)
        groups += [_group_of(term) for term in self.terms if hasattr(term, "parameters")]
        optimizer = torch.optim.AdamW(
            groups, lr=training.rate, weight_decay=training.weight_decay, fused=True
        )
        average = {k: v.detach().clone() for k, v in network.state_dict().items()}
        self.state = State(network, average, optimizer, terms=self.terms)
        self.state.facts = {"step": 0, "seconds": 0.0, "wait": 0.0, "loss": 0.0, "history": [], "best": None}
        self.saved = time.monotonic()

    @property
    def history(self) -> list[dict[str, float]]:
        """One row an epoch."""
        return self.state.facts["history"]

    @property
    def progress(self) -> float:
        """Share of the training done, 0 to 1: by steps, or by seconds when there is a budget."""
        epochs, budget = self.training.length
        if budget is not None:
            return min(1.0, self.state.facts["seconds"] / budget)
        return self.state.facts["step"] / ((epochs or 1) * self.steps)

    def resume(self) -> None:
        """Take up the last checkpoint, if there is one."""
        if load_checkpoint(self.out / "checkpoint", self.state):
            step = self.state.facts["step"]
            log.info("resumed from epoch %d (step %d)", step // self.steps, step)

    def epochs(self, stop: threading.Event, bar: Any) -> Iterator[dict[str, float]]:
        """Train to the end; a row of the history for each epoch."""
        while self.progress < 1:
            loss = self._epoch(stop, bar)
            row = self._row(loss)
            self.history.append(row)
            write_text(self.out / "history.csv", history_csv(self.history))
            if self.progress >= 1 or time.monotonic() - self.saved > self.training.checkpoint_seconds:
                self._save()
            yield row

    def chosen(self) -> dict[str, Tensor]:
        """The weights to keep: those of the best look at the monitor cases, else the last."""
        return self.state.best or self._weights()

    def _epoch(self, stop: threading.Event, bar: Any) -> float:
        """Steps up to the end of the epoch (or of the budget); the mean loss."""
        facts = self.state.facts
        epoch, first = divmod(facts["step"], self.steps)
        self.state.network.train()
        set_free(self.state.network, self.state.optimizer.param_groups, self.progress)
        start = time.perf_counter()
        for drawn in self.sampler.epoch(epoch, range(first, self.steps)):
            ready = time.perf_counter()
            facts["loss"] += self._step(drawn)
            facts["step"] += 1
            facts["wait"] += ready - start
            facts["seconds"] += time.perf_counter() - start
            start = time.perf_counter()
            bar.update(int(1000 * self.progress) - bar.n)
            if stop.is_set():
                self._save()
                raise SystemExit(143)
            if self.progress >= 1:
                break
        done = facts["step"] - epoch * self.steps
        return facts["loss"] / done

    def _step(self, drawn: Drawn) -> float:
        """One step of the optimiser; the loss."""
        network, optimizer = self.state.network, self.state.optimizer
        for group in optimizer.param_groups:
            group["lr"] = group["scale"] * rate_at(self.progress, self.training)
        image, target = self._changed(drawn)
        with autocast(self.device, self.dtype):
            logits = network(image)
        loss = self.loss(logits, target)
        moment = Moment(network, image, target, logits, self.progress, drawn)
        for term in self.terms:
            loss = loss + term(moment)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), self.training.clip)
        optimizer.step()
        self._follow()
        return float(loss.detach())

    def _changed(self, drawn: Drawn) -> tuple[Tensor, Tensor]:
        """Windows to augmented patches on the device, in the memory format convolutions like."""
        image = torch.from_numpy(drawn.image).to(self.device, non_blocking=True)
        target = torch.from_numpy(drawn.target).to(self.device, non_blocking=True)
        image, target = augment(
            image, target, self.plan.patch, self.plan.spacing_mm, drawn.seeds, self.training.augment
        )
        return image.contiguous(memory_format=channels_last(3)), target

    def _follow(self) -> None:
        """Move the averaged weights a little towards the present ones (quickly at first)."""
        step = self.state.facts["step"]
        decay = min(self.training.average, (1 + step) / (10 + step)) if self.training.average else 0.0
        with torch.no_grad():
            for name, value in self.state.network.state_dict().items():
                if value.is_floating_point():
                    self.state.average[name].lerp_(value, 1 - decay)
                else:
                    self.state.average[name].copy_(value)

    def _row(self, loss: float) -> dict[str, float]:
        """Close the epoch: check it, look at the monitor cases when due, and sum it up."""
        facts = self.state.facts
        epoch = math.ceil(facts["step"] / self.steps)
        if not math.isfinite(loss):
            raise MedsegError(
                f"the loss is not a number any more in epoch {epoch}",
                evidence=f"rate {rate_at(self.progress, self.training):.3g}, {self.dtype}",
                mend="lower training.rate, or set training.precision=float32; run again: it starts from the "
                "last good checkpoint",
            )
        row = {
            "epoch": epoch,
            "step": facts["step"],
            "progress": round(self.progress, 5),
            "loss": round(loss, 6),
            "rate": rate_at(self.progress, self.training),
            "wait_share": round(facts["wait"] / facts["seconds"], 4),
        }
        row |= self._look(epoch)
        facts["loss"] = 0.0
        return row | {"seconds": round(facts["seconds"], 2)}

    def _look(self, epoch: int) -> dict[str, float]:
        """Scores on the monitor cases when it is time; the best weights so far are kept."""
        facts = self.state.facts
        every = self.training.monitor_every
        before = self.history[-1]["progress"] if self.history else 0.0
        due = math.floor(self.progress / every + _MARGIN) > math.floor(before / every + _MARGIN)
        if not self.monitored or not (due or self.progress >= 1):
            return {}
        start = time.perf_counter()
        scores = self._judged()
        facts["seconds"] += time.perf_counter() - start
        score, best = scores.pop("score"), facts["best"]
        if best is None or score >= best["top"] - _AS_GOOD:
            top = max(score, best["top"]) if best else score
            facts["best"] = {
                "step": facts["step"],
                "epoch": epoch,
                "score": score,
                "top": top,
                "scores": scores,
            }
            self.state.best = {k: v.clone() for k, v in self._weights().items()}
        log.info("epoch %d, %.0f %%: %s", epoch, 100 * self.progress, _words(scores))
        return {f"monitor_{k}": round(v, 5) for k, v in scores.items()}

    def _judged(self) -> dict[str, float]:
        """Scores of the averaged weights, lent to the network for the look."""
        network = self.state.network
        now = {k: v.clone() for k, v in network.state_dict().items()}
        network.load_state_dict(self._weights())
        try:
            return look(network, self.plan, self.monitored, self.device)
        finally:
            network.load_state_dict(now)

    def _weights(self) -> dict[str, Tensor]:
        return self.state.average if self.training.average else self.state.network.state_dict()

    def _save(self) -> None:
        save_checkpoint(self.out / "checkpoint", self.state)
        self.saved = time.monotonic()


def rate_at(progress: float, training: Training) -> float:
    """Learning rate at a share of the training: a linear rise, then a cosine down to zero."""
    rise = min(1.0, max(progress, 1e-3) / training.warm_up) if training.warm_up else 1.0
    return training.rate * rise * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def history_csv(rows: Sequence[Mapping[str, float]]) -> str:
    """The history as CSV; epochs without a look at the monitor leave its columns empty."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _group_of(term: Any) -> dict[str, Any]:
    return {"params": list(term.parameters()), "scale": 1.0, "free_from": 0.0}


def _words(scores: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.3f}" for name, value in scores.items())
