"""Parts, depths and rates: what stands still stands still to the last bit."""

from __future__ import annotations

import pytest
import torch
from small_patients import small_plan

from medseg.core.errors import MedsegError
from medseg.learning.job import Start
from medseg.learning.model import Model
from medseg.learning.networks import NETWORKS, build_network
from medseg.learning.parts import RULES, places
from medseg.learning.settings import Training, Tuning
from medseg.learning.training import train_model
from medseg.learning.tuning import NEVER, groups_of, set_free

SHORT = Training(checkpoint_seconds=0, epochs=2, steps_per_epoch=3, monitor=0, average=0)


def test_every_part_of_our_network_is_known_and_deeper_towards_the_head():
    names = [name for name, _ in build_network(small_plan()).named_parameters()]
    where = places(names, "unet")
    assert {place.part for place in where.values()} == {"stem", "encoder", "decoder", "head"}
    assert where["encoder.levels.0.0.0.weight"].depth == 0
    assert where["head.0.weight"].depth == max(place.depth for place in where.values())
    encoder = [where[n].depth for n in names if n.startswith("encoder.levels.1")]
    decoder = [where[n].depth for n in names if n.startswith("decoder")]
    assert max(encoder) < min(decoder)


def test_rules_name_networks_that_there_are_or_will_be():
    assert {"unet", "resnet", "densenet", "segresnet", "dynunet"} <= set(RULES) & set(NETWORKS)


def test_a_network_without_rules_has_a_head_by_its_name():
    where = places(["trunk.weight", "classifier.weight"], "mine")
    assert [place.part for place in where.values()] == ["encoder", "head"]


def test_rates_fall_with_the_distance_from_the_head():
    plan = small_plan()
    network = build_network(plan)
    everything = {name for name, _ in network.named_parameters()}
    groups = groups_of(network, plan, Tuning(layer_decay=0.5), everything)
    scales = sorted({group["scale"] for group in groups}, reverse=True)
    assert scales[0] == 1.0 and scales[1] == 0.5
    assert sum(len(g["params"]) for g in groups) == len(everything)


def test_new_weights_move_at_once_and_carried_ones_wait():
    plan = small_plan()
    network = build_network(plan)
    carried = {n for n, _ in network.named_parameters() if not n.startswith("head")}
    groups = groups_of(network, plan, Tuning(head_warm_up=0.2, unfreeze=0.5), carried)
    releases = {group["free_from"] for group in groups}
    assert 0.0 in releases and max(releases) == 0.5 and sorted(releases)[1] == 0.2
    set_free(network.train(), groups, 0.1)
    free = {n for n, p in network.named_parameters() if p.requires_grad}
    assert free == carried ^ {n for n, _ in network.named_parameters()}
    set_free(network.train(), groups, 0.6)
    assert all(p.requires_grad for p in network.parameters())


@pytest.mark.parametrize("part", ["stem", "encoder", "decoder"])
def test_a_frozen_part_does_not_move_by_a_bit(cases, tmp_path, part):
    """Weights and the running statistics of its norms."""
    plan = small_plan()
    torch.manual_seed(0)
    first = {k: v.clone() for k, v in build_network(plan).state_dict().items()}

    def fill(network: torch.nn.Module) -> set[str]:
        network.load_state_dict(first)
        return {name for name, _ in network.named_parameters()}

    train_model(
        cases, plan, SHORT, out=tmp_path, device=torch.device("cpu"),
        start=Start(fill, Tuning(frozen=(part,))), quiet=True,
    )  # fmt: skip
    after = Model.load(tmp_path / "model", "cpu").network.state_dict()
    where = places(first, "unet")
    still = {n for n in first if torch.equal(first[n], after[n])}
    assert {n for n, place in where.items() if place.part == part} <= still
    assert not {n for n, place in where.items() if place.part == "head"} & still


def test_never_is_after_the_end():
    assert NEVER > 1


def test_where_nothing_is_new_there_is_nothing_to_warm_up():
    plan = small_plan()
    network = build_network(plan)
    everything = {name for name, _ in network.named_parameters()}
    groups = groups_of(network, plan, Tuning(head_warm_up=0.3, unfreeze=0.5), everything)
    set_free(network.train(), groups, 0.0)
    free = {n for n, p in network.named_parameters() if p.requires_grad}
    assert {n for n in everything if n.startswith("head")} <= free
    assert not {n for n in everything if n.startswith("encoder")} & free


def test_a_network_frozen_from_end_to_end_is_refused():
    plan = small_plan()
    network = build_network(plan)
    names = {n for n, _ in network.named_parameters() if not n.startswith("head")}
    network.head = torch.nn.ModuleList()
    with pytest.raises(MedsegError, match="nothing is left to train"):
        groups_of(network, plan, Tuning(frozen=("stem", "encoder", "decoder")), names)


def test_weights_are_let_free_in_the_middle_of_an_epoch(cases, tmp_path):
    """One epoch of eight steps: the encoder stands still for half of it, and then moves."""
    plan = small_plan()
    seen: list[bool] = []

    def fill(network: torch.nn.Module) -> set[str]:
        network.register_forward_hook(
            lambda module, *_: seen.append(next(module.encoder.parameters()).requires_grad)
        )
        return {name for name, _ in network.named_parameters() if not name.startswith("head")}

    training = SHORT.but(epochs=1, steps_per_epoch=8, monitor=0.0)
    train_model(
        cases, plan, training, out=tmp_path, device=torch.device("cpu"),
        start=Start(fill, Tuning(head_warm_up=0.5)), quiet=True,
    )  # fmt: skip
    assert seen[:8] == [False] * 4 + [True] * 4
