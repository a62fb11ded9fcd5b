"""A training begun from carried weights: what is carried, what stands still, what is told of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from small_patients import small_plan

from medseg.core.errors import MedsegError
from medseg.imaging.labels import labels
from medseg.learning.model import Model
from medseg.learning.networks import build_network
from medseg.learning.parts import places
from medseg.learning.settings import Training, Transfer, Tuning
from medseg.learning.training import train_model
from medseg.learning.transfer import fit, start_of
from medseg.learning.weights import Weights, load_weights

SHORT = Training(checkpoint_seconds=0, epochs=2, steps_per_epoch=3, monitor=0, average=0)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def source(cases, tmp_path_factory) -> Path:
    """A model that has learnt its balls."""
    out = tmp_path_factory.mktemp("source")
    training = Training(epochs=8, steps_per_epoch=20, monitor=0, rate=1e-2)
    train_model(cases, small_plan(), training, out=out, device=CPU, quiet=True)
    return out / "model"


def _state(plan=None, names=None, seed: int = 0) -> Weights:
    torch.manual_seed(seed)
    network = build_network(plan or small_plan())
    return Weights(dict(network.state_dict()), "state", "ab" * 32, {"outputs": names} if names else {})


def _trained(cases, out: Path, transfer: Transfer, weights: Weights, plan=None, training=SHORT) -> Model:
    plan = plan or small_plan()
    start = start_of(plan, weights, transfer)
    train_model(cases, plan, training, out=out, device=CPU, start=start, quiet=True)
    return Model.load(out / "model", "cpu")


def test_the_training_begins_where_the_other_ended(cases, source, tmp_path):
    """Its first epoch is already better than the first of one that begins from fresh weights."""
    losses = {}
    for name, start in (
        ("carried", start_of(small_plan(), load_weights(source), Transfer())), ("fresh", None)
    ):  # fmt: skip
        out = tmp_path / name
        train_model(cases, small_plan(), SHORT, out=out, device=CPU, start=start, quiet=True)
        losses[name] = float((out / "history.csv").read_text().splitlines()[1].split(",")[3])
    assert losses["carried"] < 0.5 * losses["fresh"]


def test_the_card_holds_the_account(cases, source, tmp_path):
    weights = load_weights(source)
    _trained(cases, tmp_path, Transfer(source="hf:a/b/c", sha256="0" * 64, licence="CC BY 4.0"), weights)
    told = json.loads((tmp_path / "model" / "card.json").read_text())["start"]
    network = build_network(small_plan())
    where = places([n for n, _ in network.named_parameters()], "unet")
    for part, tally in told["parts"].items():
        count = sum(p.numel() for n, p in network.named_parameters() if where[n].part == part)
        assert tally == {"exact": count, "adapted": 0, "left": 0}
    assert told["share"] == 1
    assert told["sha256"] == weights.sha256
    assert told["licence"] == "CC BY 4.0"
    assert told["origin"] == "hf:a/b/c"


def test_observers_are_told_the_numbers_and_a_tracking_server_may_be(cases, source, tmp_path):
    from medseg.learning.disclosure import parameters

    told = []

    class Watch:
        def on_start(self, info):
            told.append(parameters(info))

        def on_epoch(self, *_): ...
        def on_end(self, *_): ...

    start = start_of(small_plan(), load_weights(source), Transfer(licence="MIT"))
    train_model(
        cases, small_plan(), SHORT, out=tmp_path, device=CPU, start=start, observers=[Watch()], quiet=True
    )
    assert told[0]["start.share"] == "1.0"
    assert int(told[0]["start.parts.encoder.exact"]) > 0
    assert told[0]["start.licence"] == "MIT"
    assert told[0]["start.format"] == "medseg"


def test_a_path_of_this_machine_is_not_told():
    told = fit(
        build_network(small_plan()), small_plan(), _state(), Transfer(source="/home/x/Muster_Hans/w.pt")
    )
    assert "Muster" not in told.account.model_dump_json()


def test_a_frozen_encoder_does_not_move_nor_do_its_running_means(cases, tmp_path):
    weights = _state()
    after = _trained(cases, tmp_path, Transfer(mode="frozen"), weights).network.state_dict()
    where = places(after, "unet")
    still = {n for n in after if torch.equal(after[n], weights.tensors[n])}
    encoder = {n for n in after if where[n].part in ("stem", "encoder")}
    assert any(n.endswith("running_mean") for n in encoder)
    assert encoder <= still
    assert not {n for n in after if n.endswith("weight") and n not in encoder} & still


def test_while_the_head_warms_up_only_new_weights_move(cases, tmp_path):
    weights = _state()
    tuned = Transfer(parts=("stem", "encoder", "decoder"), tuning=Tuning(head_warm_up=0.9))
    after = _trained(cases, tmp_path, tuned, weights).network.state_dict()
    moved = {
        n
        for n, _ in build_network(small_plan()).named_parameters()
        if not torch.equal(after[n], weights.tensors[n])
    }
    assert moved
    assert all(n.startswith("head.") for n in moved)


def test_layers_are_freed_from_the_head_down(cases, tmp_path):
    """At the middle of the training the half next to the head moves, the stem does not yet."""
    weights = _state()
    half = SHORT.but(epochs=4, steps_per_epoch=1)
    tuned = Transfer(tuning=Tuning(unfreeze=0.99))
    after = _trained(cases, tmp_path, tuned, weights, training=half).network.state_dict()
    where = places(after, "unet")
    moved = {n for n in after if n.endswith("weight") and not torch.equal(after[n], weights.tensors[n])}
    assert {where[n].part for n in moved} >= {"head", "decoder"}
    assert not any(where[n].part == "stem" for n in moved)


def test_deeper_layers_move_more_with_layer_wise_decay(cases, tmp_path):
    weights = _state()
    tuned = Transfer(tuning=Tuning(layer_decay=0.1))
    after = _trained(cases, tmp_path, tuned, weights).network.state_dict()
    moved = {
        part: (after[n] - weights.tensors[n]).abs().mean() / weights.tensors[n].abs().mean()
        for part, n in (("stem", "encoder.levels.0.0.0.weight"), ("decoder", "decoder.levels.0.0.0.weight"))
    }
    assert 0 < moved["stem"] < 0.1 * moved["decoder"]


def test_parts_not_asked_for_stay_fresh():
    plan, weights = small_plan(), _state(seed=5)
    done = fit(build_network(plan), plan, weights, Transfer(parts=("encoder",)))
    assert {places([n], "unet")[n].part for n in done.values} == {"encoder"}
    assert {r.said for r in done.account.left} == {"not asked for"}


def test_a_head_of_other_classes_keeps_the_rows_it_knows_and_counts_as_new():
    plan = small_plan().but(labels=labels(small=1, huge=2))
    weights = _state(names=["background", "large", "small"])
    torch.manual_seed(9)
    network = build_network(plan)
    fresh = network.state_dict()["head.0.weight"].clone()
    done = fit(network, plan, weights, Transfer())
    head = done.values["head.0.weight"]
    assert torch.equal(head[0], weights.tensors["head.0.weight"][0])
    assert torch.equal(head[1], weights.tensors["head.0.weight"][2])
    assert torch.equal(head[2], fresh[2])
    assert "head.0.weight" not in done.carried
    assert "encoder.levels.0.0.0.weight" in done.carried


def test_another_number_of_outputs_is_a_new_head():
    plan = small_plan().but(labels=labels(large=1))
    done = fit(build_network(plan), plan, _state(), Transfer())
    assert [r.said for r in done.account.left] == ["new head: 3 outputs before, 2 now"]
    assert done.account.share == 1


def test_under_the_floor_it_stops_and_says_which_prefix_would_do():
    named = Weights({f"module.backbone.{k}": v for k, v in _state().tensors.items()}, "state", "ab" * 32)
    with pytest.raises(MedsegError) as caught:
        start_of(small_plan(), named, Transfer())
    assert "0.0 % of the parameters of stem and encoder" in str(caught.value)
    assert "did you mean transfer.prefix: {'module.backbone.': ''}?" in str(caught.value)


def test_under_the_floor_it_says_which_network_the_weights_are_for(source):
    wide = {"widths": [6, 12], "strides": [[1] * 3, [2] * 3], "kernels": [[3] * 3] * 2}
    with pytest.raises(MedsegError, match=r"the weights are for plan\.network=unet with .*widths=\[4, 8\]"):
        start_of(small_plan(network_arguments=wide), load_weights(source), Transfer())


def test_a_lower_floor_lets_little_through_but_never_nothing():
    weights = _state()
    few = Weights(
        {"encoder.levels.0.0.0.weight": weights.tensors["encoder.levels.0.0.0.weight"]}, "state", "0"
    )
    with pytest.raises(MedsegError, match="the floor is 50 %"):
        start_of(small_plan(), few, Transfer())
    start_of(small_plan(), few, Transfer(floor=0.01))
    with pytest.raises(MedsegError, match="0 % always stops"):
        start_of(small_plan(), Weights({}, "state", "0"), Transfer(floor=0))


def test_a_look_at_the_weights_changes_no_random_number():
    weights = _state()
    before = torch.get_rng_state()
    start_of(small_plan(), weights, Transfer())
    assert torch.equal(torch.get_rng_state(), before)


def test_a_killed_and_resumed_training_begins_from_the_same(cases, source, tmp_path):
    """Resumed from its checkpoint, a tuned training ends with the bits of one that was not cut off."""
    tuned = Transfer(tuning=Tuning(layer_decay=0.5, unfreeze=0.5))
    straight = _trained(cases, tmp_path / "a", tuned, load_weights(source))

    class Stop:
        def on_start(self, info): ...
        def on_end(self, *_): ...
        def on_epoch(self, epoch, values):
            raise KeyboardInterrupt

    start = start_of(small_plan(), load_weights(source), tuned)
    with pytest.raises(KeyboardInterrupt):
        train_model(
            cases, small_plan(), SHORT, out=tmp_path / "b", device=CPU, start=start, observers=[Stop()],
            quiet=True,
        )  # fmt: skip
    resumed = _trained(cases, tmp_path / "b", tuned, load_weights(source))
    for name, tensor in straight.network.state_dict().items():
        assert torch.equal(tensor, resumed.network.state_dict()[name]), name


def test_regions_have_no_background_among_their_outputs():
    """The rows of a head of regions go by their own names, one place earlier than those of labels."""
    from medseg.imaging.labels import Label

    regions = (Label(value=1, name="whole", region=(1, 2)), Label(value=2, name="core"))
    plan = small_plan().but(labels=regions)
    torch.manual_seed(3)
    state = {k: v.clone() for k, v in build_network(plan.but(labels=regions[::-1])).state_dict().items()}
    weights = Weights(state, "state", "ab" * 32, {"outputs": ["core", "whole"]})
    done = fit(build_network(plan), plan, weights, Transfer())
    assert torch.equal(done.values["head.0.weight"], state["head.0.weight"][[1, 0]])
