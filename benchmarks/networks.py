"""Parameters and seconds a training step of every segmentation network and loss, on one plan.

    python -m benchmarks.networks [--patch 40,56,40] [--batch 2] [--steps 3] [--threads 2]

A step is forward, loss, backward and optimiser on noise of the plan's shape; the first is not timed, the
median of the others counts. Losses are timed alone, forward and backward, on the logits of two labels.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable

import torch

from medseg.data.plan import Intensity, Plan
from medseg.data.rules import UNETS, levels, widths
from medseg.data.rules_networks import arguments_of
from medseg.imaging.labels import labels
from medseg.learning.devices import autocast, channels_last, keep_memory, number_format
from medseg.learning.losses import LOSSES, loss_of
from medseg.learning.networks import build_network
from medseg.learning.pace import clocks, shortest

NAMES = (
    "unet", "attention_unet", "unetpp", "residual_unet", "dynunet", "segresnet", "mednext", "monai_unet",
    "unetr", "swinunetr",
)  # fmt: skip
CPU = torch.device("cpu")


def plan_of(name: str, patch: tuple[int, int, int], width: int = 16) -> Plan:
    """A plan for two labels at 1 mm, the network's arguments as the rules give them."""
    strides, kernels = levels(patch, (1.0, 1.0, 1.0))
    ours = {"widths": widths(width, len(strides)), "strides": strides, "kernels": kernels}
    arguments = ours if name in UNETS else arguments_of(name, patch, "cpu", strides, kernels)[0]
    return Plan(
        channels=("MR",), labels=labels(head=1, body=2), spacing_mm=(1, 1, 1), patch=patch, batch=2,
        intensity={"MR": Intensity(name="zscore")}, network=name, network_arguments=arguments,
    )  # fmt: skip


def seconds(step: Callable[[], None], steps: int) -> float:
    """Median seconds of a step, of a machine with nothing else to do; one before them is not timed."""
    found = []
    for n in range(steps + 1):
        before = clocks()
        step()
        found += [shortest(before, clocks(), CPU)] if n else []
    return statistics.median(found)


def network_seconds(plan: Plan, batch: int, steps: int) -> tuple[int, float]:
    """Parameters, and seconds a step with the plan's own loss."""
    network = build_network(plan).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=True)
    loss, dtype = loss_of(plan), number_format(CPU, "auto", plan)
    image = torch.randn(batch, 1, *plan.patch).contiguous(memory_format=channels_last(3))
    target = torch.randint(0, 3, (batch, *plan.patch))

    def step() -> None:
        with autocast(CPU, dtype):
            logits = network(image)
        optimizer.zero_grad(set_to_none=True)
        loss(logits, target).backward()
        optimizer.step()

    return sum(p.numel() for p in network.parameters()), seconds(step, steps)


def loss_seconds(name: str, plan: Plan, batch: int, steps: int) -> float:
    """Seconds of a loss, there and back, on logits of two labels shaped like balls."""
    at = torch.stack(torch.meshgrid(*[torch.linspace(-1, 1, n) for n in plan.patch], indexing="ij"))
    ball = (at.square().sum(0) < 0.3).long() + (at.square().sum(0) < 0.1).long()
    target = ball.expand(batch, *plan.patch)
    logits = torch.randn(batch, 3, *plan.patch, requires_grad=True)
    loss = loss_of(plan, name)
    return seconds(lambda: loss(logits, target).backward(), steps)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--patch", default="40,56,40")
    for name, value in (("--batch", 2), ("--steps", 3), ("--threads", 2)):
        parser.add_argument(name, type=int, default=value)
    given = parser.parse_args()
    keep_memory()
    torch.set_num_threads(given.threads)
    i, j, k = (int(n) for n in given.patch.split(","))
    print("network          parameters  s/step")
    for name in NAMES:
        count, taken = network_seconds(plan_of(name, (i, j, k)), given.batch, given.steps)
        print(f"{name:16} {count / 1e6:8.2f} M  {taken:6.2f}", flush=True)
    print("\nloss             ms")
    for name in LOSSES:
        taken = loss_seconds(name, plan_of("unet", (i, j, k)), given.batch, given.steps)
        print(f"{name:16} {1000 * taken:5.0f}", flush=True)


if __name__ == "__main__":
    main()
