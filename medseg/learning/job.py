"""The training loop, to be read in one sitting: draw, change, forward, loss, backward, step, look, save.

Several processes that train together each run it (`medseg.learning.together`): every one draws its share of
each batch, and what decides how the loop goes on is exchanged once a step.
"""

from __future__ import annotations

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
from medseg.learning.devices import autocast, channels_last, number_format, resident
from medseg.learning.losses import Loss, loss_of
from medseg.learning.mending import FRESH, out_of_memory, pass_over, starved, went_well
from medseg.learning.monitor import look
from medseg.learning.networks import build_network
from medseg.learning.optimizers import OPTIMIZERS, optimizer_for
from medseg.learning.sampling import Drawn, PreparedCase, Sampler
from medseg.learning.schedule import history_csv, rate_at
from medseg.learning.settings import Training, Tuning
from medseg.learning.together import ALONE, World, share_statistics
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
        world: World = ALONE,
    ) -> None:
        self.start, self.terms, self.world = start, list(terms), world
        self.plan, self.training, self.device, self.out = plan, training, device, out
        self.trained, self.monitored = trained, monitored
        batch = training.batch or plan.batch
        share = plan.sampling.foreground if training.foreground is None else training.foreground
        hold = device if resident(trained, device, training.resident) else None
        self.sampler = Sampler(trained, plan, batch, share, training.seed, (world.rank, world.size), hold)
        seen = batch * training.accumulate * world.size
        self.steps = training.steps_per_epoch or min(250, max(20, math.ceil(len(trained) / seen)))
        self.dtype = number_format(device, training.precision, plan)
        self.loss: Loss = loss_of(plan, training.loss, training.loss_settings)
        network = share_statistics(build_network(plan), world).to(device)
        self.carried = start.fill(network) if start else set()
        groups = groups_of(network, plan, start.tuning if start else Tuning(), self.carried)
        for term in self.terms:
            if hasattr(term, "attach"):
                term.attach(network)
        groups += [_group_of(term) for term in self.terms if hasattr(term, "parameters")]
        self.optimizer = optimizer_for(plan, training, start is not None)
        optimizer = OPTIMIZERS[self.optimizer](groups, training.rate, training.weight_decay)
        average = {k: v.detach().clone() for k, v in network.state_dict().items()}
        self.state = State(network, average, optimizer, terms=self.terms)
        self.state.facts = {
            "step": 0, "seconds": 0.0, "wait": 0.0, "change": 0.0, "loss": 0.0, "counted": 0,
            "history": [], "best": None, "stale": 0, "ended": "", **FRESH,
        }  # fmt: skip
        self.saved, self.free = time.monotonic(), None
        self.forward = torch.compile(network, dynamic=False) if training.compile else network

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

    @property
    def done(self) -> bool:
        """Whether the training is at its end: by its length, or since nothing gets better any more."""
        return self.progress >= 1 or bool(self.state.facts["ended"])

    def resume(self) -> None:
        """Take up the last checkpoint, if there is one; processes that train together begin alike."""
        if load_checkpoint(self.out / "checkpoint", self.state):
            step = self.state.facts["step"]
            log.info("resumed from epoch %d (step %d)", step // self.steps, step)
        self.world.make_alike(self.state.network.state_dict().values())
        self.world.make_alike(self.state.average.values())
        if self.world.told([self.state.facts["step"]]) != [self.state.facts["step"]]:
            raise MedsegError(
                "the processes that train together do not find the same checkpoint",
                mend="put the run folder where all machines see it",
            )

    def epochs(self, stop: threading.Event, bar: Any) -> Iterator[dict[str, float]]:
        """Train to the end; a row of the history for each epoch.

        Raises
        ------
        MedsegError
            Loss or gradient keep being no number, or memory runs out.
        """
        batches = self.sampler.stream(self.state.facts["step"], self.steps, self.training.accumulate)
        try:
            while not self.done:
                self._epoch(batches, stop, bar)
                yield self._closed()
        except (RuntimeError, MemoryError) as error:
            if not starved(error):
                raise
            raise out_of_memory(self.plan, self.training, self.device) from error
        finally:
            batches.close()

    def chosen(self) -> dict[str, Tensor]:
        """The weights to keep: those of the best look at the monitor cases, else the last."""
        return self.state.best or self._weights()

    def _epoch(self, batches: Iterator[Drawn], stop: threading.Event, bar: Any) -> None:
        """Steps up to the end of the epoch (or of the budget)."""
        facts = self.state.facts
        self.free = None
        for _ in range(facts["step"] % self.steps, self.steps):
            start = time.perf_counter()
            self._set_free()
            halt = self._step(batches, stop)
            facts["step"] += 1
            facts["seconds"] += time.perf_counter() - start
            facts["seconds"] = self.world.told([facts["seconds"]])[0]
            bar.update(int(1000 * self.progress) - bar.n)
            if halt:
                self._halted()
            if self.progress >= 1:
                break

    def _set_free(self) -> None:
        """Let the weights move whose time has come; modules are gone through only when these change."""
        groups = self.state.optimizer.param_groups
        free = [self.progress >= group["free_from"] for group in groups]
        if free != self.free:
            self.free = free
            set_free(self.state.network.train(), groups, self.progress)

    def _step(self, batches: Iterator[Drawn], stop: threading.Event) -> bool:
        """One step of the optimiser over as many batches as are added up; whether to stop after it."""
        facts, optimizer = self.state.facts, self.state.optimizer
        rate = rate_at(self.progress, self.training) * 0.5 ** facts["eased"]
        for group in optimizer.param_groups:
            group["lr"] = group["scale"] * rate
        torch.manual_seed((self.training.seed * 2**20 + facts["step"]) * self.world.size + self.world.rank)
        optimizer.zero_grad(set_to_none=True)
        loss = sum(self._pass(batches) for _ in range(self.training.accumulate))
        norm = self._gathered_gradients()
        bad = not (math.isfinite(loss) and math.isfinite(norm))
        loss, bad, halt = self.world.summed([loss / self.world.size, float(bad), float(stop.is_set())])
        if bad:
            pass_over(self.state, self.training, self.dtype, facts["step"] // self.steps + 1)
        else:
            optimizer.step()
            self._follow()
            went_well(facts, self.dtype)
            facts["loss"], facts["counted"] = facts["loss"] + loss, facts["counted"] + 1
        return bool(halt)

    def _halted(self) -> None:
        """Save and leave; an epoch that is just finished is closed, so that going on misses nothing of it."""
        if self.done or self.state.facts["step"] % self.steps == 0:
            self._closed()
        self._save()
        raise SystemExit(143)

    def _pass(self, batches: Iterator[Drawn]) -> float:
        """Forward and backward through one batch; its part of the step's loss."""
        start = time.perf_counter()
        drawn = next(batches)
        ready = time.perf_counter()
        image, target = self._changed(drawn)
        self.state.facts["wait"] += ready - start
        self.state.facts["change"] += time.perf_counter() - ready
        with autocast(self.device, self.dtype):
            logits = self.forward(image)
        loss, parts = self._loss(logits, target), self.training.accumulate
        moment = Moment(self.state.network, image, target, logits, self.progress, drawn)
        more = sum(term(moment) for term in self.terms)
        ((loss + more / self.world.size) * (self._scale / parts)).backward()
        return float((loss + more).detach()) / parts

    def _loss(self, logits: Any, target: Tensor) -> Tensor:
        """The loss over the batches of all processes: the same number in each."""
        if self.world.size == 1:
            return self.loss(logits, target)
        several = isinstance(logits, list)
        whole = [self.world.gathered(part.float()) for part in (logits if several else [logits])]
        everything: Any = whole if several else whole[0]
        return self.loss(everything, self.world.gathered(target))

    @property
    def _scale(self) -> float:
        """Factor on the loss, so that small gradients are numbers in float16."""
        return self.state.facts["scale"] if self.dtype == torch.float16 else 1.0

    def _gathered_gradients(self) -> float:
        """Gradients summed over the processes, clipped; their norm."""
        groups = self.state.optimizer.param_groups
        everything = [p for group in groups for p in group["params"]]
        self.world.add_gradients(everything)
        if self._scale != 1:
            for parameter in everything:
                if parameter.grad is not None:
                    parameter.grad.div_(self._scale)
        return float(nn.utils.clip_grad_norm_(self.state.network.parameters(), self.training.clip))

    def _changed(self, drawn: Drawn) -> tuple[Tensor, Tensor]:
        """Windows to augmented patches on the device, in the memory format convolutions like."""
        image = torch.as_tensor(drawn.image).to(self.device, non_blocking=True)
        target = torch.as_tensor(drawn.target).to(self.device, non_blocking=True)
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

    def _closed(self) -> dict[str, float]:
        """Close the epoch: look at the monitor cases when due, sum it up, save."""
        facts = self.state.facts
        epoch = math.ceil(facts["step"] / self.steps)
        row = {
            "epoch": epoch,
            "step": facts["step"],
            "progress": round(self.progress, 5),
            "loss": round(facts["loss"] / max(1, facts["counted"]), 6),
            "rate": rate_at(self.progress, self.training) * 0.5 ** facts["eased"],
            "wait_share": round(facts["wait"] / facts["seconds"], 4),
            "augment_share": round(facts["change"] / facts["seconds"], 4),
        }
        row |= {"bad_steps": facts["bad"]} if facts["bad"] else {}
        row |= self._look(epoch)
        facts["loss"], facts["counted"] = 0.0, 0
        facts["seconds"], ended = self.world.told([facts["seconds"], float(bool(facts["ended"]))])
        facts["ended"] = facts["ended"] or ("plateau" if ended else "")
        row["seconds"] = round(facts["seconds"], 2)
        self.history.append(row)
        if self.world.leads:
            write_text(self.out / "history.csv", history_csv(self.history))
            if self.done or time.monotonic() - self.saved > self.training.checkpoint_seconds:
                self._save()
        return row

    def _look(self, epoch: int) -> dict[str, float]:
        """Scores on the monitor cases when it is time; the best weights so far are kept."""
        facts = self.state.facts
        every = self.training.monitor_every
        before = self.history[-1]["progress"] if self.history else 0.0
        due = math.floor(self.progress / every + _MARGIN) > math.floor(before / every + _MARGIN)
        if not self.world.leads or not self.monitored or not (due or self.progress >= 1):
            return {}
        start = time.perf_counter()
        scores = self._judged()
        facts["seconds"] += time.perf_counter() - start
        score, best = scores.pop("score"), facts["best"]
        self._count_looks(score, best)
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

    def _count_looks(self, score: float, best: Mapping[str, Any] | None) -> None:
        """End the training when as many looks as it has patience brought nothing better."""
        facts, patience = self.state.facts, self.training.patience
        facts["stale"] = 0 if best is None or score > best["top"] else facts["stale"] + 1
        if patience and facts["stale"] >= patience and self.progress < 1:
            facts["ended"] = "plateau"
            log.info("no better look in %d: the training ends at %.0f %%", patience, 100 * self.progress)

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
        if not self.world.leads:
            return
        save_checkpoint(self.out / "checkpoint", self.state)
        self.saved = time.monotonic()


def _group_of(term: Any) -> dict[str, Any]:
    return {"params": list(term.parameters()), "scale": 1.0, "free_from": 0.0}


def _words(scores: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.3f}" for name, value in scores.items())
