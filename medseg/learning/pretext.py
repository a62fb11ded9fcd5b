"""Weights without labels: the plan's own network learns to restore images that were hidden and made noisy.

The whole U-Net is trained; its encoder is handed on (`Pretext.parts`). The head, which gives image values
here, always stays behind.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from medseg.core.errors import MedsegError
from medseg.core.files import sha256_of
from medseg.core.progress import meter
from medseg.core.values import digest
from medseg.data.plan import Plan
from medseg.imaging.labels import labels
from medseg.learning.augment import augment
from medseg.learning.devices import autocast, channels_last, keep_memory, number_format, seed_everything
from medseg.learning.networks import build_network
from medseg.learning.optimizers import adamw
from medseg.learning.parts import places
from medseg.learning.sampling import PreparedCase, cut, window_of
from medseg.learning.schedule import rate_at
from medseg.learning.settings import Pretext, Training
from medseg.learning.weights import TENSORS, Weights, save_weights

log = logging.getLogger("medseg")

_SEEN = 0.1
"""Weight of what was not hidden."""


def pretrain(
    cases: Sequence[PreparedCase],
    plan: Plan,
    pretext: Pretext,
    *,
    out: Path,
    device: torch.device,
    quiet: bool = False,
) -> Path:
    """Train the plan's network on images alone and write what `transfer.source` takes into `out`.

    Parameters
    ----------
    cases : sequence of PreparedCase
        Their references are not looked at and may be absent.

    Raises
    ------
    MedsegError
        No case, or a plan that is not one of segmentation (its network gives no image), or of a cascade.
    """
    if not cases:
        raise MedsegError("there is no image to train on")
    if plan.task != "segmentation":
        raise MedsegError(
            "images are restored by networks of segmentation", mend="take a plan of segmentation"
        )
    if plan.cascade is not None:
        raise MedsegError(
            "the second network of a cascade needs what the first one says, which has learnt from labels",
            mend="plan.cascade=null",
        )
    keep_memory()
    seed_everything(pretext.seed)
    network = build_network(restoring(plan)).to(device).train()
    loss = _restore(network, cases, plan, pretext, device, quiet)
    where = places(network.state_dict(), plan.network)
    kept = {n: t.detach().cpu() for n, t in network.state_dict().items() if where[n].part in pretext.parts}
    facts = {
        "network": plan.network,
        "network_arguments": plan.network_arguments,
        "dimensions": plan.dimensions,
        "channels": list(plan.channels),
        "task": plan.task,
        "notes": [
            f"restoring {len(cases)} images, last mean loss {loss:.4f}",
            f"settings {digest(pretext)[:12]}",
        ],
    }
    save_weights(out, Weights(kept, "pretext", "", facts))
    save_weights(out, Weights(kept, "pretext", sha256_of(out / TENSORS), facts))
    return out


def restoring(plan: Plan) -> Plan:
    """The plan with an output for each channel instead of each label."""
    spare = {f"channel{n}": n for n in range(1, len(plan.channels))}
    return plan.but(labels=labels(**spare), classes=(), ignore=None)


def spoiled(image: Tensor, pretext: Pretext, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Patches with noise and hidden blocks, and where they are hidden ``[B, 1, I, J, K]``."""
    sides = [1 if n == 1 else pretext.block for n in image.shape[2:]]
    coarse = [-(-n // side) for n, side in zip(image.shape[2:], sides, strict=True)]
    hidden = torch.from_numpy(rng.random((len(image), 1, *coarse)) < pretext.hidden)
    for axis, side in enumerate(sides, start=2):
        hidden = hidden.repeat_interleave(side, dim=axis)
    i, j, k = image.shape[2:]
    hidden = hidden[..., :i, :j, :k].to(image.device)
    noise = torch.from_numpy(rng.normal(0, 1, image.shape).astype(np.float32)).to(image.device)
    return torch.where(hidden, noise, image + pretext.noise * noise), hidden


def _restore(
    network: nn.Module,
    cases: Sequence[PreparedCase],
    plan: Plan,
    pretext: Pretext,
    device: torch.device,
    quiet: bool,
) -> float:
    """Train to the end; the mean loss of the last steps."""
    dtype = number_format(device, "auto", plan)
    optimizer = adamw([{"params": list(network.parameters())}], pretext.rate, weight_decay=1e-2)
    schedule, losses = Training(rate=pretext.rate), []
    with meter("pretext", total=1000, unit="‰", quiet=quiet) as bar:
        for step, progress in _progress(pretext):
            rng = np.random.default_rng([pretext.seed, step])
            image = _patches(cases, plan, pretext, rng, device)
            given, hidden = spoiled(image, pretext, rng)
            for group in optimizer.param_groups:
                group["lr"] = rate_at(progress, schedule)
            with autocast(device, dtype):
                found = network(given.contiguous(memory_format=channels_last(3)))
            loss = _difference(found[0] if isinstance(found, list) else found, image, hidden)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            losses.append(float(loss.detach()))
            bar.update(int(1000 * progress) - bar.n)
    return float(np.mean(losses[-50:]))


def _progress(pretext: Pretext) -> Iterator[tuple[int, float]]:
    """Each step and the share of the training done before it, by steps or by time."""
    start, step = time.perf_counter(), 0
    steps = None if pretext.budget_minutes else pretext.steps or 1000
    while True:
        spent = (time.perf_counter() - start) / (60 * (pretext.budget_minutes or 1))
        progress = step / steps if steps else spent
        if progress >= 1:
            return
        yield step, progress
        step += 1


def _patches(
    cases: Sequence[PreparedCase],
    plan: Plan,
    pretext: Pretext,
    rng: np.random.Generator,
    device: torch.device,
) -> Tensor:
    """Patches from anywhere in any image, turned and scaled."""
    drawn = []
    for _ in range(pretext.batch or plan.batch):
        case = cases[int(rng.integers(len(cases)))]
        room = [
            (min(p / 2, n / 2), max(n - p / 2, n / 2))
            for p, n in zip(plan.patch, case.image.shape[1:], strict=True)
        ]
        drawn.append(
            cut(case.image, [float(rng.uniform(low, high)) for low, high in room], window_of(plan.patch))
        )
    image = torch.from_numpy(np.stack(drawn)).to(device)
    seeds = rng.integers(2**62, size=len(image))
    nothing = torch.zeros(len(image), dtype=torch.long, device=device)
    return augment(image, nothing, plan.patch, plan.spacing_mm, seeds, pretext.augment)[0]


def _difference(found: Tensor, image: Tensor, hidden: Tensor) -> Tensor:
    """Mean absolute difference, mostly where the image was hidden."""
    apart = functional.l1_loss(found.float(), image, reduction="none").mean(1, keepdim=True)
    weight = torch.where(hidden, 1.0, _SEEN)
    return (apart * weight).sum() / weight.sum()
