"""What turns gradients into steps, by name: ``(parameter groups, rate, weight decay) -> optimiser``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import AdamW, Optimizer

from medseg.data.plan import Plan
from medseg.data.rules import UNETS
from medseg.learning.settings import Training

Groups = Sequence[dict[str, Any]]

_LEAST_CHANNELS = 4
"""Kernels with fewer channels on either side have too few directions to be made orthogonal."""
_MOMENTUM = 0.95
_REACH = 7.0
"""Rate of the kernels, in rates of AdamW: one setting serves both."""
_ROUNDS = ((3.4445, -4.7750, 2.0315),) * 5
"""Coefficients of Newton and Schulz's iteration as Jordan tuned them: steep near 0, and after five rounds
within 0.3 of 1."""


def adamw(groups: Groups, rate: float, weight_decay: float) -> Optimizer:
    """Adam with decoupled weight decay."""
    return AdamW(groups, lr=rate, weight_decay=weight_decay, fused=True)


class Muon(Optimizer):
    """Convolution kernels move along their momentum made orthogonal, all else by AdamW.

    A kernel ``[O, I, ...]`` is taken as a matrix ``[O, I ...]``; the singular values of its step all become
    about 1, so that rare directions are learnt as fast as frequent ones.

    References
    ----------
    Jordan K. et al., Muon: an optimizer for hidden layers in neural networks, 2024.
    """

    def __init__(self, groups: Groups, rate: float, weight_decay: float) -> None:
        super().__init__(groups, {"lr": rate, "weight_decay": weight_decay})
        rest = [g | {"params": [p for p in g["params"] if not _kernel(p)]} for g in self.param_groups]
        self.rest = AdamW(rest, lr=rate, weight_decay=weight_decay, fused=True)
        self.rest.state = self.state  # one state: what a checkpoint keeps is whole

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One step with the gradients that are there."""
        for group, other in zip(self.param_groups, self.rest.param_groups, strict=True):
            other["lr"] = group["lr"]
            for parameter in group["params"]:
                if _kernel(parameter) and parameter.grad is not None:
                    self._move(parameter, parameter.grad, group["lr"], group["weight_decay"])
        self.rest.step()

    def _move(self, parameter: Tensor, gradient: Tensor, rate: float, decay: float) -> None:
        state = self.state[parameter]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
        mean = state["momentum"].lerp_(gradient, 1 - _MOMENTUM)
        ahead = gradient.lerp(mean, _MOMENTUM)
        along = orthogonal(ahead.reshape(len(ahead), -1)).reshape(ahead.shape)
        parameter.mul_(1 - rate * decay).add_(along, alpha=-_REACH * rate)


def orthogonal(matrix: Tensor) -> Tensor:
    """The nearest matrix with orthogonal rows (or columns, where these are fewer), about.

    Parameters
    ----------
    matrix : Tensor
        ``[n, m]``; zeros give zeros.

    Returns
    -------
    Tensor
        ``[n, m]``: the same singular vectors, singular values from 0.7 to 1.2 where they were not tiny.

    Notes
    -----
    Every round multiplies by a polynomial of the matrix times its transpose. These commute, so the rounds are
    carried out on the small square of the shorter side and applied to the matrix once.
    """
    if matrix.shape[0] > matrix.shape[1]:
        return orthogonal(matrix.T).T
    unit = matrix / (matrix.norm() + 1e-12)
    square = unit @ unit.T
    whole = one = torch.eye(len(square), dtype=square.dtype, device=square.device)
    for a, b, c in _ROUNDS:
        factor = a * one + b * square + c * square @ square
        whole, square = factor @ whole, factor @ square @ factor
    return whole @ unit


def optimizer_for(plan: Plan, training: Training, carried: bool) -> str:
    """The optimiser's name: as set, or muon where it was measured to pay.

    Parameters
    ----------
    carried : bool
        Whether the training begins from weights that were trained before: steps of a fixed length would
        leave them behind.
    """
    if training.optimizer != "auto":
        return training.optimizer
    measured = plan.network in UNETS and plan.task == "segmentation" and not plan.classes
    return "muon" if measured and not carried else "adamw"


OPTIMIZERS: Mapping[str, Callable[[Groups, float, float], Optimizer]] = {"adamw": adamw, "muon": Muon}


def _kernel(parameter: Tensor) -> bool:
    return parameter.ndim > 2 and min(parameter.shape[:2]) >= _LEAST_CHANNELS
