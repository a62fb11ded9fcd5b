"""Adaptation without target labels: closed forms, resume to the last bit, every method end to end."""

from __future__ import annotations

import math
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from small_patients import balls, small_plan
from torch import nn

from medseg.core.errors import MedsegError
from medseg.core.files import read_json, sha256_of
from medseg.imaging.image import Image
from medseg.learning.adapt import METHODS, Given, adapt_model
from medseg.learning.adapt_target import BlindCase, TargetStream, plain_patches
from medseg.learning.adversarial import AdversarialFeatures, AdversarialOutput, ramp, reverse_gradient
from medseg.learning.batch_statistics import restate, statistics_kept
from medseg.learning.fourier import Fourier, exchange_amplitudes, low_frequencies
from medseg.learning.inference import classify
from medseg.learning.job import Job, Moment
from medseg.learning.losses import IGNORED, find_loss, loss_of, soft_dice
from medseg.learning.model import Model
from medseg.learning.networks import build_network
from medseg.learning.pseudo import PseudoLabels, pseudo_case, sure_classes, sure_labels
from medseg.learning.sampling import PreparedCase
from medseg.learning.settings import Adaptation, Augmenting, Prediction, Training
from medseg.learning.training import train_model

CPU = torch.device("cpu")
SHORT = Training(epochs=2, steps_per_epoch=3, monitor=0.0, checkpoint_seconds=0)


@pytest.fixture(scope="module")
def model(cases, tmp_path_factory) -> Model:
    """A model that has learnt something."""
    out = tmp_path_factory.mktemp("source")
    train_model(
        cases,
        small_plan(),
        Training(epochs=4, steps_per_epoch=15, rate=1e-2),
        out=out,
        device=CPU,
        quiet=True,
    )
    return Model.load(out / "model", CPU)


@pytest.fixture(scope="module")
def target(cases, tmp_path_factory) -> list[PreparedCase]:
    """Cases of another site: darker, and bent; their references are not there."""
    root, made = tmp_path_factory.mktemp("target"), []
    for case in cases[:4]:
        folder = root / case.id
        folder.mkdir()
        image = np.asarray(case.image, np.float32)
        np.save(folder / "image.npy", (0.3 * image + 0.05 * image**3 - 1).astype(np.float16))
        (folder / "prepared.json").write_text((case.folder / "prepared.json").read_text())
        made.append(PreparedCase(case.id, folder))
    return made


# -- closed forms -------------------------------------------------------------------------------------


def test_the_gradient_comes_back_with_the_other_sign():
    x = torch.tensor([1.0, -2.0, 3.0], requires_grad=True)
    y = reverse_gradient(x, 0.5)
    assert torch.equal(y, x)
    (y * torch.tensor([1.0, 10.0, 100.0])).sum().backward()
    assert torch.equal(x.grad, torch.tensor([-0.5, -5.0, -50.0]))


def test_the_ramp_goes_from_nought_to_one():
    assert ramp(0.0) == 0.0
    assert ramp(1.0) == pytest.approx(1.0, abs=1e-4)
    assert ramp(0.1) == pytest.approx(math.tanh(0.5))


def test_an_exchange_keeps_the_phase_and_takes_the_amplitude():
    rng = torch.Generator().manual_seed(0)
    mine, theirs = (torch.randn(2, 1, 8, 9, 6, generator=rng) for _ in range(2))
    made = exchange_amplitudes(mine, theirs, 0.4)
    axes = (2, 3, 4)
    before, other, after = (torch.fft.fftn(x, dim=axes) for x in (mine, theirs, made))
    low = low_frequencies((8, 9, 6), 0.4)
    assert 1 < low.sum() < low.numel()
    amplitude = torch.where(low, other.abs(), before.abs())
    torch.testing.assert_close(after.abs(), amplitude, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(torch.polar(after.abs(), before.angle()), after, atol=1e-4, rtol=1e-4)


def test_an_exchange_with_oneself_changes_nothing_and_the_smallest_gives_the_mean():
    rng = torch.Generator().manual_seed(1)
    mine = torch.randn(1, 1, 8, 8, 8, generator=rng) + 3
    torch.testing.assert_close(exchange_amplitudes(mine, mine, 1.0), mine, atol=1e-4, rtol=1e-4)
    made = exchange_amplitudes(mine, mine + 2, 1e-6)
    torch.testing.assert_close(made, mine + 2, atol=1e-4, rtol=1e-4)


class _Layer(nn.Module):
    """A linear layer and its normalisation, twice."""

    def __init__(self) -> None:
        super().__init__()
        self.second = nn.BatchNorm3d(2)
        self.linear, self.first, self.mix = nn.Conv3d(1, 3, 1), nn.BatchNorm3d(3), nn.Conv3d(3, 2, 1)

    def forward(self, x):
        return self.second(self.mix(self.first(self.linear(x)).relu()))


def test_statistics_are_exactly_those_of_the_target():
    torch.manual_seed(0)
    network = _Layer()
    rng = torch.Generator().manual_seed(2)
    images = [torch.randn(n, 1, 4, 5, 6, generator=rng) * n + n for n in (1, 2, 3)]
    assert restate(network, images, CPU) == 2
    with torch.no_grad():
        values = torch.cat([network.linear(x) for x in images]).transpose(0, 1).flatten(1)
        torch.testing.assert_close(network.first.running_mean, values.mean(1))
        torch.testing.assert_close(network.first.running_var, values.var(1, correction=0))
        network.eval()
        out = torch.cat([network(x) for x in images]).transpose(0, 1).flatten(1)
    torch.testing.assert_close(out.mean(1), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(out.var(1, correction=0), torch.ones(2), atol=1e-3, rtol=0)


def test_statistics_depend_neither_on_batches_nor_on_order():
    rng = torch.Generator().manual_seed(3)
    images = torch.randn(6, 1, 4, 4, 4, generator=rng)
    found = []
    for parts in ([images], [images[4:], images[:4]]):
        torch.manual_seed(0)
        network = _Layer()
        restate(network, parts, CPU)
        found.append(network.second.running_mean)
    torch.testing.assert_close(found[0], found[1])


def test_a_network_without_batch_statistics_is_told():
    plan = small_plan()
    plan = plan.but(network_arguments={**plan.network_arguments, "norm": "instance"})
    with pytest.raises(MedsegError, match="batch statistics"):
        restate(build_network(plan), [torch.zeros(1, 1, *plan.patch)], CPU)


def test_within_the_block_running_statistics_do_not_move_by_a_bit():
    network = _Layer().train()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    image = torch.randn(2, 1, 4, 4, 4)
    with statistics_kept(network):
        inside = network(image)
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    torch.testing.assert_close(network(image), inside)
    assert not torch.equal(network.first.running_mean, before["first.running_mean"])


def test_ignored_voxels_count_for_nothing():
    rng = torch.Generator().manual_seed(4)
    logits = torch.randn(2, 3, 4, 4, 4, generator=rng, requires_grad=True)
    target = torch.randint(0, 3, (2, 4, 4, 4), generator=rng)
    hidden = target.clone()
    hidden[:, :2] = IGNORED
    for name in ("dice_ce", "dice", "focal", "tversky"):
        found = find_loss(name, "segmentation")(logits, hidden)
        (slope,) = torch.autograd.grad(found, logits)
        assert (slope[:, :, :2] == 0).all(), name
        assert (slope[:, :, 2:] != 0).any(), name
    kept = soft_dice(logits[:, :, 2:], target[:, 2:])
    torch.testing.assert_close(find_loss("dice", "segmentation")(logits, hidden), kept, atol=1e-4, rtol=1e-4)
    ce = nn.functional.cross_entropy(logits[:, :, 2:], target[:, 2:]) / 2
    torch.testing.assert_close(find_loss("cross_entropy", "segmentation")(logits, hidden), ce)


def test_only_what_is_sure_becomes_a_label():
    soft = np.array([[0.95, 0.5, 0.05], [0.05, 0.5, 0.95]], np.float32).reshape(2, 3, 1, 1)
    assert sure_labels(soft, 0.9).ravel().tolist() == [0, IGNORED, 1]
    assert sure_classes(np.array([0.05, 0.95]), 0.9, several=False) == [1]
    assert sure_classes(np.array([0.15, 0.85]), 0.9, several=False) is None
    assert sure_classes(np.array([0.95, 0.02, 0.97]), 0.9, several=True) == [0, 2]
    assert sure_classes(np.array([0.95, 0.5, 0.97]), 0.9, several=True) is None


# -- the target ---------------------------------------------------------------------------------------


def test_labels_of_the_target_are_not_seen_even_where_they_are(cases):
    case = BlindCase(cases[0].id, cases[0].folder)
    assert (case.reference == IGNORED).all()
    assert len(case.foreground) == 0
    assert case.info["class_indices"] is None


def test_the_stream_goes_on_where_a_checkpoint_left_it(target):
    def stream() -> TargetStream:
        return TargetStream(target, small_plan(), 2, 0, Augmenting())

    first, second = stream(), stream()
    drawn = [first.next(CPU) for _ in range(5)]
    second.count += 3
    assert torch.equal(second.next(CPU), drawn[3])
    assert not torch.equal(drawn[0], drawn[1])


def test_patches_of_the_target_are_as_they_are(target):
    patches = plain_patches(target, small_plan(), 5)
    assert [tuple(p.shape) for p in patches] == [(2, 1, 16, 16, 8)] * 3
    values = np.concatenate([np.asarray(c.image, np.float32).ravel() for c in target])
    assert np.isin(torch.cat(patches).numpy().ravel(), values).all()


# -- terms in the loop --------------------------------------------------------------------------------


def _term(kind: str, target, cases):
    plan = small_plan()
    stream = TargetStream(target, plan, 2, 0, Augmenting())
    if kind == "fourier":
        return Fourier(stream, loss_of(plan), 0.2, 1.0)
    if kind == "pseudo":
        stream = TargetStream(cases, plan, 2, 0, Augmenting(), pseudo=True)
        return PseudoLabels(stream, loss_of(plan), 1.0)
    return {"features": AdversarialFeatures, "output": AdversarialOutput}[kind](plan, stream, 0.1)


@pytest.mark.parametrize("kind", ["fourier", "features", "output", "pseudo"])
def test_a_training_with_a_term_resumes_to_the_last_bit(kind, cases, target, tmp_path, monkeypatch):
    def train(name):
        terms = [_term(kind, target, cases)]
        train_model(cases, small_plan(), SHORT, out=tmp_path / name, device=CPU, terms=terms, quiet=True)

    train("a")
    epoch, seen = Job._epoch, []

    def cut_off(job, batches, stop, bar):
        if len(seen) == 1:
            stop.set()
        seen.append(1)
        return epoch(job, batches, stop, bar)

    monkeypatch.setattr(Job, "_epoch", cut_off)
    with pytest.raises(SystemExit):
        train("b")
    monkeypatch.undo()
    train("b")
    name = "model/weights.safetensors"
    assert sha256_of(tmp_path / "a" / name) == sha256_of(tmp_path / "b" / name)


@pytest.mark.parametrize("kind", ["features", "output"])
def test_the_opponent_learns_and_the_network_is_moved_against_it(kind, cases, target, tmp_path):
    job = Job(list(cases), [], small_plan(), SHORT, CPU, tmp_path, terms=[_term(kind, target, cases)])
    term = job.terms[0]
    before = [p.detach().clone() for p in term.opponent.parameters()]
    running = job.state.network.state_dict()
    running = {k: v.clone() for k, v in running.items() if "num_batches" in k}
    job.state.network.train()
    job.state.facts["step"] = 3  # at the very start the opponent moves the network by nothing
    job._step(iter([job.sampler.draw(0, 0)]), threading.Event())
    assert any(not torch.equal(a, b) for a, b in zip(before, term.opponent.parameters(), strict=True))
    after = job.state.network.state_dict()
    assert all(after[k] == v + 1 for k, v in running.items())  # the target's forward pass left no trace


SHAPES = {
    "flat": small_plan((16, 16, 1)),
    "supervised": small_plan(
        network_arguments={
            "widths": [4, 8, 8], "strides": [[1, 1, 1], [2, 2, 2], [2, 2, 2]], "kernels": [[3, 3, 3]] * 3,
            "supervised": 1,
        }
    ),
    "classes": small_plan(
        task="classification", labels=(), classes=("a", "b", "c"), network="resnet",
        network_arguments={"widen_factor": 0.25},
    ),
}  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", [AdversarialFeatures, AdversarialOutput])
def test_opponents_of_every_shape_hand_gradients_to_network_and_opponent(kind, shape, target):
    plan = SHAPES[shape]
    network = build_network(plan).train()
    term = kind(plan, TargetStream(target, plan, 2, 0, Augmenting()), 0.1)
    term.attach(network)
    image = torch.randn(2, 1, *plan.patch, generator=torch.Generator().manual_seed(0))
    drawn = TargetStream(target, plan, 2, 0, Augmenting()).sampler.draw(0, 0)
    moment = Moment(network, image, torch.zeros(2), network(image), 0.5, drawn)
    term(moment).backward()
    for module in (network, term.opponent):
        grads = [p.grad for p in module.parameters() if p.grad is not None]
        assert grads
        assert all(torch.isfinite(g).all() for g in grads)
        assert any((g != 0).any() for g in grads)


# -- every method end to end --------------------------------------------------------------------------


@pytest.mark.parametrize("method", list(METHODS))
def test_each_method_gives_a_model_that_says_what_was_done(method, model, cases, target, tmp_path):
    settings = Adaptation(method=method, training=SHORT, windows=4, confidence=0.6)
    folder = adapt_model(method, Given(model, cases, target, settings, tmp_path, quiet=True))
    made = Model.load(folder, CPU)
    image, _ = balls(50)
    found = made.segment(Image(image.array * 0.3 - 40, image.grid))
    assert set(np.unique(found.array)) <= {0, 1, 2}
    card = read_json(folder / "card.json")
    done = card["adaptations"][-1]
    assert (done["method"], done["source_cases"], done["target_cases"]) == (method, 10, 4)
    assert done["of"]["weights_sha256"] == model.about["weights_sha256"]
    same = card["weights_sha256"] == model.about["weights_sha256"]
    assert same == (method == "histogram")


def test_matched_input_needs_no_source_in_use_and_undoes_the_change(model, target, tmp_path):
    settings = Adaptation(method="histogram")
    folder = adapt_model("histogram", Given(model, [], target, settings, tmp_path))
    made = Model.load(folder, CPU)
    image, _ = balls(60)
    other = image.but(np.exp(image.array / 60).astype(np.float32))
    a, b = made.segment(image).array, made.segment(other).array
    assert (a == b).mean() > 0.98
    assert (model.segment(other).array == a).mean() < (a == b).mean()


def test_statistics_alone_leave_every_weight(model, target, tmp_path):
    folder = adapt_model("adabn", Given(model, [], target, Adaptation(method="adabn"), tmp_path))
    before, after = model.network.state_dict(), Model.load(folder, CPU).network.state_dict()
    moved = {k for k in before if not torch.equal(before[k], after[k])}
    assert moved == {k for k in before if k.endswith(("running_mean", "running_var"))}


def test_a_method_that_needs_the_source_says_so(model, target, tmp_path):
    with pytest.raises(MedsegError, match="needs the cases"):
        adapt_model("fourier", Given(model, [], target, Adaptation(method="fourier"), tmp_path))


def test_a_teacher_that_is_sure_of_nothing_is_told(model, target, tmp_path):
    settings = Adaptation(method="self_training", training=SHORT, confidence=0.999999)
    with pytest.raises(MedsegError, match="sure of nothing"):
        adapt_model("self_training", Given(model, [], target, settings, tmp_path))


def test_an_unknown_method_is_told_with_the_nearest(model, target, tmp_path: Path):
    with pytest.raises(MedsegError, match="adabm"):
        adapt_model("adabm", Given(model, [], target, Adaptation(), tmp_path))


def test_a_class_the_teacher_is_sure_of_becomes_the_cases_own(target, tmp_path):
    plan = SHAPES["classes"]
    torch.manual_seed(0)
    teacher = Model(plan, build_network(plan).eval(), {}, CPU)
    sure = pseudo_case(teacher, target[0], 0.3, tmp_path / "sure")
    assert sure is not None
    image = np.asarray(target[0].image, np.float32)
    found = classify(teacher.network, plan, image, Prediction(), CPU)
    assert sure.info["class_indices"] == [int(found.argmax())]
    assert pseudo_case(teacher, target[0], 0.99999, tmp_path / "unsure") is None
