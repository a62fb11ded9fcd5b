"""Optimisers: orthogonal steps have the singular values they should, and all of a state can be kept."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from small_patients import small_plan
from torch import nn

from medseg.learning.checkpoint import State, load_checkpoint, save_checkpoint
from medseg.learning.optimizers import OPTIMIZERS, Muon, optimizer_for, orthogonal
from medseg.learning.settings import Training


@pytest.mark.parametrize("shape", [(8, 40), (40, 8), (16, 16)])
def test_singular_values_become_about_one_and_the_vectors_stay(shape: tuple[int, int]) -> None:
    u, _, v = torch.linalg.svd(torch.randn(shape, generator=torch.manual_seed(0)), full_matrices=False)
    matrix = u @ torch.diag(torch.linspace(0.05, 3.0, min(shape))) @ v
    found = u.T @ orthogonal(matrix) @ v.T
    assert torch.allclose(found, torch.diag(found.diag()), atol=1e-3)
    assert found.diag().min() > 0.6 and found.diag().max() < 1.3


def test_the_short_cut_is_the_iteration_it_stands_for() -> None:
    matrix = torch.randn(6, 30, generator=torch.manual_seed(1))
    x = matrix / matrix.norm()
    for _ in range(5):
        square = x @ x.T
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    assert torch.allclose(orthogonal(matrix), x, atol=1e-4)
    assert torch.equal(orthogonal(torch.zeros(3, 5)), torch.zeros(3, 5))


def test_a_kernel_moves_by_its_rate_whatever_the_size_of_its_gradient() -> None:
    steps = []
    for size in (1e-4, 1e3):
        network = nn.Conv3d(8, 8, 3, bias=False)
        before = network.weight.detach().clone()
        made = OPTIMIZERS["muon"]([{"params": list(network.parameters())}], 1e-3, 0.0)
        network.weight.grad = size * torch.randn(before.shape, generator=torch.manual_seed(2))
        made.step()
        steps.append(network.weight.detach() - before)
    assert torch.allclose(*steps, atol=1e-6)
    assert steps[0].reshape(8, -1).norm(2) == pytest.approx(7e-3 * 8**0.5, rel=0.2)


def test_norms_biases_and_thin_kernels_move_as_with_adamw() -> None:
    def network() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv3d(1, 4, 3), nn.BatchNorm3d(4), nn.Conv3d(4, 2, 1))

    made = {}
    for name, build in OPTIMIZERS.items():
        net = network()
        optimizer = build([{"params": list(net.parameters())}], 1e-2, 0.1)
        for n in range(3):
            for p in net.parameters():
                p.grad = torch.full_like(p, 0.1 * (n + 1))
            optimizer.step()
        made[name] = [p.detach() for p in net.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(made["adamw"], made["muon"], strict=True))


def test_rate_and_state_are_shared_by_both_halves() -> None:
    kernel, bias = nn.Parameter(torch.ones(4, 4, 3, 3, 3)), nn.Parameter(torch.ones(4))
    optimizer = Muon([{"params": [kernel, bias]}], 1e-2, 0.0)
    kernel.grad, bias.grad = torch.ones_like(kernel), torch.ones_like(bias)
    optimizer.step()
    assert set(optimizer.state[kernel]) == {"momentum"}
    assert {"exp_avg", "exp_avg_sq", "step"} <= set(optimizer.state[bias])
    still = bias.detach().clone()
    optimizer.param_groups[0]["lr"] = 0.0
    optimizer.step()
    assert torch.equal(bias, still)


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_a_checkpoint_holds_all_that_the_next_step_depends_on(name: str, tmp_path: Path) -> None:
    def fresh(seed: int) -> State:
        torch.manual_seed(seed)
        network = nn.Sequential(nn.Conv3d(1, 4, 3), nn.BatchNorm3d(4), nn.Conv3d(4, 4, 3))
        made = OPTIMIZERS[name]([{"params": list(network.parameters())}], 1e-2, 0.1)
        return State(network, {}, made, facts={"step": 0})

    def step(state: State, seed: int) -> None:
        drawn = torch.manual_seed(seed)
        for p in state.network.parameters():
            p.grad = torch.randn(p.shape, generator=drawn)
        state.optimizer.step()

    one, other = fresh(0), fresh(1)
    step(one, 5)
    save_checkpoint(tmp_path, one)
    assert load_checkpoint(tmp_path, other)
    for state in (one, other):
        step(state, 6)
    pairs = zip(one.network.parameters(), other.network.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_masks_by_our_networks_from_fresh_weights_are_learnt_with_muon() -> None:
    auto, plan = Training(), small_plan()
    assert optimizer_for(plan, auto, carried=False) == "muon"
    assert optimizer_for(plan, auto, carried=True) == "adamw"
    assert optimizer_for(plan.but(network="segresnet"), auto, carried=False) == "adamw"
    assert optimizer_for(plan.but(network="joint_unet", classes=("a", "b")), auto, carried=False) == "adamw"
    assert optimizer_for(plan, Training(optimizer="adamw"), carried=False) == "adamw"
    assert optimizer_for(plan, Training(optimizer="muon"), carried=True) == "muon"
