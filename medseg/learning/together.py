"""Several processes train one model: each takes its share of every batch, and they take every step together.

The process of rank 0 leads: it carries out the whole recipe, alone writes to disk and to MLflow, and
calls the others in whenever there is a network to train. These wait and do nothing else (`follow`).
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed, nn

from medseg.core.errors import MedsegError
from medseg.core.ranks import Ranks

log = logging.getLogger("medseg")

_PATIENCE = timedelta(days=7)
"""How long the others wait for the leader, who may have a whole archive to read first."""


@dataclass
class World:
    """The processes that train together, seen from one of them; of a single one by default."""

    rank: int = 0
    size: int = 1
    broken: bool = False
    """The processes are no longer at the same step: nothing can be exchanged any more."""

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def told(self, values: list[float]) -> list[float]:
        """The leader's values, in every process."""
        if self.size == 1:
            return values
        said = torch.tensor(values, dtype=torch.float64)
        distributed.broadcast(said, 0)
        return said.tolist()

    def summed(self, values: list[float]) -> list[float]:
        """Values added up over the processes: the same to the last bit in each of them."""
        if self.size == 1:
            return values
        total = torch.tensor(values, dtype=torch.float64)
        distributed.all_reduce(total)
        return total.tolist()

    def gathered(self, part: Tensor) -> Tensor:
        """The parts of all processes along the first axis; only the own part hands its gradient back.

        A loss of the gathered batch is then the same number everywhere, and the gradients of the processes
        add up to its gradient, whatever the loss is.
        """
        if self.size == 1:
            return part
        plain = part.detach().contiguous()
        parts = [torch.empty_like(plain) for _ in range(self.size)]
        distributed.all_gather(parts, plain)
        parts[self.rank] = part
        return torch.cat(parts)

    def add_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Gradients become their sum over the processes; a weight that none of them used keeps none."""
        free = [p for p in parameters if p.requires_grad]
        if self.size == 1 or not free:
            return
        parts = [(torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1) for p in free]
        used = torch.tensor([float(p.grad is not None) for p in free]).to(parts[0])
        flat = torch.cat([*parts, used])
        distributed.all_reduce(flat)
        *totals, used = flat.split([*(p.numel() for p in free), len(free)])
        for parameter, total, by in zip(free, totals, used.tolist(), strict=True):
            if parameter.grad is not None:
                parameter.grad.copy_(total.view(parameter.shape))
            elif by:
                parameter.grad = total.view(parameter.shape).clone()

    def make_alike(self, tensors: Iterable[Tensor]) -> None:
        """The leader's values in these tensors."""
        if self.size == 1:
            return
        for tensor in tensors:
            plain = tensor.detach().contiguous()
            distributed.broadcast(plain, 0)
            tensor.detach().copy_(plain)


ALONE = World()
_worlds: list[World] = []


def world() -> World:
    """The processes this one trains with; itself alone where it never joined any."""
    return _worlds[-1] if _worlds else ALONE


def join(ranks: Ranks) -> World:
    """Meet the other processes (gloo between CPUs, NCCL between GPUs).

    Raises
    ------
    MedsegError
        There are fewer GPUs than processes on this machine.
    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if gpus and ranks.local >= gpus:
        raise MedsegError(
            "there are more processes than GPUs on this machine",
            evidence=f"{gpus} GPUs, this would be process {ranks.local + 1}",
            mend=f"start no more than {gpus} processes a machine (torchrun --nproc_per_node={gpus})",
        )
    if gpus:
        torch.cuda.set_device(ranks.local)
    os.environ.update(MASTER_ADDR=ranks.host, MASTER_PORT=str(ranks.port))
    backend = "cpu:gloo,cuda:nccl" if gpus else "gloo"
    distributed.init_process_group(backend, rank=ranks.rank, world_size=ranks.size, timeout=_PATIENCE)
    _worlds.append(World(ranks.rank, ranks.size))
    return world()


def leave() -> None:
    """The leader lets the others go."""
    if not _worlds:
        return
    ours = _worlds.pop()
    if ours.leads and not ours.broken:
        _send(None)
    if not ours.broken:
        distributed.destroy_process_group()


def call_in(message: dict[str, Any]) -> None:
    """The leader's word to those who wait in `follow`: what is to be trained."""
    if world().broken:
        raise MedsegError(
            "the processes that train together have lost one another",
            mend="run the same command again: it goes on from the last checkpoint",
        )
    if world().size > 1:
        _send(message)


def follow(work: Callable[[dict[str, Any]], None]) -> None:
    """Wait for the leader and do `work` with each of its messages, until it lets go."""
    while (message := _receive()) is not None:
        try:
            work(message)
        except MedsegError as error:  # the leader comes to the same end, and tells it
            log.debug("rank %d: %s", world().rank, error)
            if not getattr(error, "agreed", False):
                raise
    leave()


def share_statistics(network: nn.Module, ours: World) -> nn.Module:
    """Batch norms that take mean and variance over the batches of all processes, names unchanged."""
    if ours.size == 1:
        return network
    for name, child in list(network.named_children()):
        if isinstance(child, nn.modules.batchnorm._BatchNorm) and not isinstance(child, SharedBatchNorm):
            setattr(network, name, _shared(child, ours))
        else:
            share_statistics(child, ours)
    return network


class SharedBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch norm over the equal shares of all processes, on any device (torch's own wants CUDA)."""

    ours: World = ALONE

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        axes = (0, *range(2, input.ndim))
        var, mean = torch.var_mean(input.float(), dim=axes, correction=0)
        mean, square = _Summed.apply(torch.stack([mean, var + mean.square()])) / self.ours.size  # type: ignore[operator]
        var = (square - mean.square()).clamp(min=0)
        self._remember(mean.detach(), var.detach(), self.ours.size * input.numel() // input.shape[1])
        gain = torch.rsqrt(var + self.eps) * self.weight
        shape = (1, -1, *[1] * (input.ndim - 2))
        offset = (self.bias - mean * gain).view(shape)
        return torch.addcmul(offset, input, gain.view(shape)).to(input.dtype)

    def _check_input_dim(self, input: Tensor) -> None:
        """Any number of axes."""

    def _remember(self, mean: Tensor, var: Tensor, count: int) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean, self.momentum or 0.1)
        self.running_var.lerp_(var * count / max(1, count - 1), self.momentum or 0.1)


class _Summed(torch.autograd.Function):
    """Sum over the processes; so is its gradient."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        total = gradient.contiguous().clone()
        distributed.all_reduce(total)
        return total


def _shared(norm: nn.modules.batchnorm._BatchNorm, ours: World) -> SharedBatchNorm:
    made = SharedBatchNorm(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
    made.ours = ours
    for name, value in (*norm.named_parameters(), *norm.named_buffers()):
        setattr(made, name, value)
    return made.train(norm.training)


def _send(message: dict[str, Any] | None) -> None:
    said = torch.frombuffer(bytearray(json.dumps(message).encode()), dtype=torch.uint8)
    distributed.broadcast(torch.tensor([said.numel()]), 0)
    distributed.broadcast(said, 0)


def _receive() -> dict[str, Any] | None:
    size = torch.zeros(1, dtype=torch.int64)
    distributed.broadcast(size, 0)
    said = torch.empty(int(size), dtype=torch.uint8)
    distributed.broadcast(said, 0)
    return json.loads(bytes(said.numpy()))
