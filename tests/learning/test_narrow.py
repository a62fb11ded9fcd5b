"""bfloat16 on a CPU: only for networks that are computed rightly in it."""

from __future__ import annotations

import pytest
import torch
from small_patients import small_plan
from test_classifiers import SMALL, class_plan

from medseg.learning import devices
from medseg.learning.devices import number_format
from medseg.learning.narrow import FASTER, convolutions, narrow_enough
from medseg.learning.networks import build_network

HALVED = {"depth": 10, "widen_factor": 0.125, "conv1_t_stride": 2}


def test_the_inputs_of_all_convolutions_are_known():
    plan = class_plan("resnet", (64, 64, 1), **HALVED)
    before = torch.random.get_rng_state()
    found = [sides for _, sides in convolutions(plan)]
    assert found[0] == (64, 64) and min(found) == (2, 2)
    assert torch.equal(before, torch.random.get_rng_state())


def test_inputs_narrower_than_their_kernel_keep_float32():
    assert narrow_enough(class_plan("resnet", (64, 64, 1), **HALVED))
    assert not narrow_enough(class_plan("resnet", (32, 32, 1), **HALVED))  # ends in single pixels
    assert not narrow_enough(class_plan("resnet", (32, 32, 32), **HALVED))
    assert narrow_enough(class_plan("slices_lstm", (64, 64, 4), **SMALL["slices_lstm"]))
    assert narrow_enough(small_plan((16, 16, 8)))
    assert not narrow_enough(small_plan((4, 16, 16)))
    assert not narrow_enough(class_plan("efficientnet", (64, 64, 1)))
    assert not narrow_enough(small_plan(network="medseg.learning.networks:unet"))


def test_the_format_is_bfloat16_where_it_is_faster_and_right(monkeypatch):
    monkeypatch.setattr(devices, "_multiplies_bfloat16", lambda: True)
    cpu, plan = torch.device("cpu"), small_plan((16, 16, 8))
    assert number_format(cpu, "auto", plan) == torch.bfloat16
    assert number_format(cpu, "auto", small_plan((4, 16, 16))) == torch.float32
    assert number_format(cpu, "bfloat16", small_plan((4, 16, 16))) == torch.bfloat16  # as told
    monkeypatch.setattr(devices, "_multiplies_bfloat16", lambda: False)
    assert number_format(cpu, "auto", plan) == torch.float32


def slopes(network: torch.nn.Module, x: torch.Tensor, narrow: bool) -> torch.Tensor:
    """All gradients of a step, one after another."""
    network.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=narrow):
        found = network(x)
    found.float().square().mean().backward()
    return torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])


@pytest.mark.parametrize("name", [n for n in FASTER if "unet" not in n])
def test_gradients_in_bfloat16_are_those_of_float32(name):
    """Without batch statistics of a few values, which magnify any rounding."""
    torch.manual_seed(0)
    plan = class_plan(name, (64, 64, 4 if name.startswith("slices") else 1), **SMALL[name])
    assert narrow_enough(plan)
    network = build_network(plan).eval()
    x = torch.randn(2, 1, *plan.patch)
    wide, narrow = slopes(network, x, narrow=False), slopes(network, x, narrow=True)
    assert torch.isfinite(narrow).all()
    assert torch.nn.functional.cosine_similarity(wide, narrow, dim=0) > 0.98
