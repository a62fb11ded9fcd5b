"""Volumes as sequences of slices."""

from __future__ import annotations

import torch
from test_classifiers import SMALL, class_plan

from medseg.learning.networks import build_network
from medseg.learning.sequence import places


def test_slices_are_spread_over_the_stack():
    assert places(16, 16) == list(range(16))
    assert places(32, 4) == [4, 12, 20, 28]
    assert len(set(places(17, 16))) == 16


def test_attention_does_not_mind_the_order_of_slices_and_the_lstm_does():
    x = torch.randn(2, 1, 32, 32, 4)
    for name, same in (("slices_attention", True), ("slices_lstm", False)):
        torch.manual_seed(0)
        network = build_network(class_plan(name, (32, 32, 4), **SMALL[name])).eval()
        with torch.no_grad():
            a, b = network(x), network(x[..., [2, 0, 3, 1]])
        assert torch.allclose(a, b, atol=1e-5) == same


def test_one_flat_encoder_serves_all_slices():
    network = build_network(class_plan("slices_lstm", (32, 32, 8), **SMALL["slices_lstm"]))
    weights = [p for p in network.encoder.parameters() if p.ndim > 1]
    assert weights and all(p.ndim == 4 for p in weights)
    assert all(p.is_contiguous(memory_format=torch.channels_last) for p in weights)


def test_the_weights_of_the_slices_add_up_to_one():
    torch.manual_seed(0)
    network = build_network(class_plan("slices_attention", (32, 32, 4), **SMALL["slices_attention"])).eval()
    plane = torch.randn(1, 1, 32, 32, 1)
    with torch.no_grad():
        once, often = (network(plane.expand(-1, -1, -1, -1, n)) for n in (1, 4))
    assert torch.allclose(once, often, atol=1e-5)
