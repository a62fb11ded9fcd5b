"""Embeddings of a frozen encoder: where they are taken, and that nothing in the network moves."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_patients import small_plan

from medseg.core.errors import MedsegError
from medseg.learning.features import embedding, tapped
from medseg.learning.networks import build_network
from medseg.learning.probe import linear_probe, nearest_neighbours

CPU = torch.device("cpu")
LEVELS = {"strides": [[1, 1, 1], [2, 2, 2], [2, 2, 2]]}
NETWORKS = [
    ("unet", small_plan().network_arguments, 8),
    ("segresnet", {"init_filters": 8, "blocks_down": [1, 1], "blocks_up": [1]}, 16),
    ("dynunet", LEVELS | {"filters": [4, 8, 16]}, 16),
    ("monai_unet", {"channels": [4, 8, 16], "strides": [2, 2], "num_res_units": 1}, 16),
    ("resnet", {"widen_factor": 0.25}, 128),
]


def _plan(name: str, arguments: dict):
    if name == "resnet":
        return small_plan(
            task="classification", classes=("a", "b"), labels=(), network=name, network_arguments=arguments
        )
    return small_plan(network=name, network_arguments=arguments)


@pytest.mark.parametrize(("name", "arguments", "count"), NETWORKS, ids=[n for n, *_ in NETWORKS])
def test_the_last_stage_is_averaged_and_nothing_moves(name, arguments, count):
    plan = _plan(name, arguments)
    torch.manual_seed(0)
    network = build_network(plan).train()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    array = np.random.default_rng(0).normal(0, 1, (1, 30, 20, 9)).astype(np.float32)
    found = embedding(network, plan, array, CPU, batch=2)
    assert found.shape == (count,)
    assert found.dtype == np.float32
    for key, value in network.state_dict().items():
        assert torch.equal(value, before[key]), key
    np.testing.assert_allclose(embedding(network, plan, array, CPU, batch=5), found, rtol=1e-4, atol=1e-6)


def test_an_embedding_is_the_mean_of_the_encoders_output():
    plan = small_plan()
    network = build_network(plan).eval()
    array = np.random.default_rng(1).normal(0, 1, (1, *plan.patch)).astype(np.float32)
    with torch.no_grad():
        by_hand = network.encoder(torch.from_numpy(array)[None])[-1].mean((0, 2, 3, 4)).numpy()
    np.testing.assert_allclose(embedding(network, plan, array, CPU), by_hand, rtol=1e-5, atol=1e-6)


def test_every_slice_of_a_flat_plan_counts():
    plan = small_plan((16, 16, 1))
    network = build_network(plan)
    array = np.random.default_rng(2).normal(0, 1, (1, 16, 16, 3)).astype(np.float32)
    each = [embedding(network, plan, array[..., k : k + 1], CPU) for k in range(3)]
    np.testing.assert_allclose(
        embedding(network, plan, array, CPU), np.mean(each, axis=0), rtol=1e-4, atol=1e-6
    )


def test_a_tap_is_closed_again():
    plan = small_plan()
    network = build_network(plan).eval()
    image = torch.zeros(1, 1, *plan.patch)
    with tapped(network, plan) as seen:
        network(image)
        first = seen.last
    network(image + 1)
    assert seen.last is first


def test_a_network_without_known_end_is_refused():
    with (
        pytest.raises(MedsegError, match="encoder"),
        tapped(torch.nn.Conv3d(1, 2, 1), small_plan(network="x:y")),
    ):
        pass


def _clouds(n: int = 30):
    rng = np.random.default_rng(0)
    truth = np.arange(n) % 3
    x = rng.normal(0, 1, (n, 6))
    x[np.arange(n), truth] += 8
    return x, np.eye(3, dtype=bool)[truth], [f"p{i // 2}" for i in range(n)]


@pytest.mark.parametrize("probe", [linear_probe, nearest_neighbours])
def test_a_probe_tells_what_is_to_be_told(probe):
    x, truth, patients = _clouds()
    found = probe(x[:24], truth[:24], patients[:24], several=False)(x[24:])
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-6)
    assert (found.argmax(1) == truth[24:].argmax(1)).all()


@pytest.mark.parametrize("probe", [linear_probe, nearest_neighbours])
def test_several_classes_are_asked_for_one_by_one(probe):
    x, truth, patients = _clouds()
    truth = truth | np.roll(truth, 1, axis=1)
    truth[:, 2] = True
    found = probe(x[:24], truth[:24], patients[:24], several=True)(x[24:])
    assert (found[:, 2] == 1).all()
    assert ((found >= 0.5) == truth[24:]).all()


def test_one_class_alone_is_nothing_to_learn_from():
    x, truth, patients = _clouds()
    with pytest.raises(MedsegError, match="two classes"):
        linear_probe(x[::3], truth[::3], patients[::3], several=False)


def test_neighbours_go_by_the_angle():
    x = np.array([[1.0, 0], [2, 0.1], [0, 5], [0.1, 1]])
    truth = np.array([[True, False], [True, False], [False, True], [False, True]])
    found = nearest_neighbours(x, truth, list("abcd"), several=False)(np.array([[100.0, 1.0]]))
    assert found[0, 0] > 0.9
