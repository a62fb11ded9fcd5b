"""The loop's choices: gradients added up, schedules, plateau, bad steps, number formats, memory."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from small_patients import small_plan
from test_training import _KILLED, CPU

from medseg.core.errors import MedsegError
from medseg.learning import devices, job
from medseg.learning.job import Job
from medseg.learning.mending import out_of_memory, starved
from medseg.learning.sampling import Sampler
from medseg.learning.schedule import rate_at
from medseg.learning.settings import Training
from medseg.learning.training import train_model

SHORT = Training(
    checkpoint_seconds=0, epochs=3, steps_per_epoch=4, monitor=0.2, monitor_every=0.3, precision="float32"
)
INSTANCE = {**small_plan().network_arguments, "norm": "instance"}


def _job(cases, out: Path, training: Training = SHORT, **changes) -> Job:
    torch.manual_seed(0)
    out.mkdir(exist_ok=True)
    return Job(list(cases), [], small_plan(**changes), training.but(monitor=0.0), CPU, out)


def _run(made: Job, epochs: int | None = None) -> list[dict[str, float]]:
    bar: Any = SimpleNamespace(n=0, update=lambda _: None)
    rows = made.epochs(threading.Event(), bar)
    return list(rows) if epochs is None else [next(rows) for _ in range(epochs)]


def _history(out: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((out / "history.csv").read_text().splitlines()))


def _weights(made: Job) -> torch.Tensor:
    return torch.cat([p.detach().reshape(-1) for p in made.state.network.parameters()])


def _cross_entropy(logits, target):
    return torch.nn.functional.cross_entropy(logits.float(), target)


def test_gradients_added_up_over_two_batches_are_those_of_a_double_batch(cases, tmp_path):
    mean = SHORT.but(loss=f"{__name__}:_cross_entropy")
    whole = _job(cases, tmp_path / "a", mean.but(batch=4), network_arguments=INSTANCE)
    parts = _job(cases, tmp_path / "b", mean.but(batch=2, accumulate=2), network_arguments=INSTANCE)
    first, second = _run(whole, 2), _run(parts, 2)
    assert [r["loss"] for r in first] == pytest.approx([r["loss"] for r in second], rel=1e-4)
    torch.testing.assert_close(_weights(whole), _weights(parts), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(("schedule", "half"), [("cosine", 0.5), ("poly", 0.5**0.9), ("constant", 1.0)])
def test_a_schedule_has_its_share_of_the_rate_left_at_half_time(schedule, half):
    training = Training(rate=2.0, warm_up=0.1, schedule=schedule)
    assert rate_at(0.5, training) == pytest.approx(2 * half)
    assert rate_at(0.05, training) < rate_at(0.1, training) + 1e-9
    assert rate_at(1.0, training) == pytest.approx(2.0 if schedule == "constant" else 0.0, abs=1e-9)


def test_a_plateau_ends_the_training_and_the_card_says_so(cases, tmp_path, monkeypatch, caplog):
    scores = iter([0.5, 0.7, 0.6, 0.7, 0.9, 0.9])
    monkeypatch.setattr(job, "look", lambda *_: {"score": (s := next(scores)), "dice": s})
    caplog.set_level("INFO", logger="medseg")
    training = SHORT.but(epochs=10, steps_per_epoch=1, monitor_every=0.1, patience=2)
    folder = train_model(cases, small_plan(), training, out=tmp_path, device=CPU)
    assert len(_history(tmp_path)) == 4
    assert "no better look in 2" in caplog.text
    assert '"ended": "plateau"' in (folder / "card.json").read_text()


class _Bad:
    """A loss that is not a number at the calls named."""

    def __init__(self, calls: set[int]) -> None:
        self.calls, self.count = calls, 0

    def __call__(self, logits, target):
        self.count += 1
        factor = float("nan") if self.count in self.calls else 1.0
        return _cross_entropy(logits, target) * factor


@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_a_bad_step_is_passed_over_and_leaves_no_trace_in_the_weights(cases, tmp_path, norm):
    made = _job(cases, tmp_path, network_arguments={**INSTANCE, "norm": norm})
    made.loss = _Bad({2})
    bar: Any = SimpleNamespace(n=0, update=lambda _: None)
    batches = made.sampler.stream(0, made.steps)
    made.state.network.train()
    made._step(batches, threading.Event())
    before = _weights(made)
    made._step(batches, threading.Event())
    assert torch.equal(before, _weights(made))
    made._step(batches, threading.Event())
    assert not torch.equal(before, _weights(made))
    assert all(torch.isfinite(v).all() for v in made.state.average.values())
    assert made.state.facts["bad"] == 1
    batches.close()
    assert bar.n == 0


def test_spoilt_running_statistics_come_back(cases, tmp_path):
    made = _job(cases, tmp_path)
    poison = torch.full((2, 1, 20, 20, 10), float("nan"))
    draw = made.sampler.draw
    made.sampler.draw = lambda e, s: (
        draw(e, s)
        if s != 1
        else SimpleNamespace(image=poison, target=draw(e, s).target, seeds=draw(e, s).seeds, classes=None)
    )  # type: ignore[method-assign]
    _run(made, 1)
    assert made.state.facts["bad"] == 1
    for tensors in (made.state.network.state_dict(), made.state.average):
        assert all(torch.isfinite(v).all() for v in tensors.values())


def test_three_in_a_row_bring_back_the_averaged_weights_at_half_the_rate(cases, tmp_path, caplog):
    made = _job(cases, tmp_path, SHORT.but(steps_per_epoch=6))
    made.loss = _Bad({3, 4, 5})
    row = _run(made, 1)[0]
    assert "back to the averaged weights, at 0.5 of the rate" in caplog.text
    assert row["bad_steps"] == 3
    assert row["rate"] == pytest.approx(0.5 * rate_at(made.progress, SHORT))
    assert np.isfinite(row["loss"])


def test_too_many_bad_steps_end_the_training(cases, tmp_path):
    made = _job(cases, tmp_path, SHORT.but(bad_steps=2))
    made.loss = _Bad({2, 3, 4})
    with pytest.raises(MedsegError, match=r"not a number.*\n.*3 bad steps"):
        _run(made)


def test_in_float16_the_loss_is_scaled_and_a_step_too_large_halves_the_factor(cases, tmp_path, monkeypatch):
    made = _job(cases, tmp_path)
    made.dtype = torch.float16
    monkeypatch.setattr(job, "autocast", lambda device, dtype: devices.autocast(device, torch.float32))
    plain = _job(cases, tmp_path / "plain")
    made.state.facts["scale"] = 2.0**10
    first, second = _run(made, 1)[0], _run(plain, 1)[0]
    assert first["loss"] == pytest.approx(second["loss"], rel=1e-4)
    made.loss = _Bad({1})
    _run(made, 1)
    assert made.state.facts["scale"] == 2.0**9
    assert made.state.facts["bad"] == 0
    assert made.state.facts["scaled_well"] == 3


def test_bfloat16_training_stays_close_to_float32(cases, tmp_path):
    losses = [
        [r["loss"] for r in _run(_job(cases, tmp_path / form, SHORT.but(precision=form)))]
        for form in ("float32", "bfloat16")
    ]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)


def test_memory_that_runs_out_brings_advice(cases, tmp_path):
    made = _job(cases, tmp_path)

    def full(*_):
        raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")

    made.loss = full
    with pytest.raises(
        MedsegError, match=r"does not fit into the memory of the machine(.|\n)*training.batch=1"
    ):
        _run(made)
    assert starved(torch.OutOfMemoryError("CUDA out of memory")) and starved(MemoryError())
    assert not starved(RuntimeError("shapes differ"))


def test_with_a_batch_of_one_a_smaller_patch_is_advised_that_the_strides_divide():
    text = str(out_of_memory(small_plan((32, 32, 16)), Training(batch=1), torch.device("cuda")))
    assert "plan.patch=[26,26,12]" in text
    assert "the GPU" in text


def test_other_errors_pass_as_they_are(cases, tmp_path):
    made = _job(cases, tmp_path)

    def wrong(*_):
        raise RuntimeError("shapes differ")

    made.loss = wrong
    with pytest.raises(RuntimeError, match="shapes differ"):
        _run(made)


def test_compile_is_used_for_the_steps_where_it_is_asked_for(cases, tmp_path, monkeypatch):
    seen = []

    def compiled(network, dynamic):
        def call(x):
            seen.append((tuple(x.shape), dynamic))
            return network(x)

        return call

    monkeypatch.setattr(torch, "compile", compiled)
    made = _job(cases, tmp_path, SHORT.but(compile=True))
    _run(made, 2)
    assert set(seen) == {((2, 1, 16, 16, 8), False)}
    assert len(seen) == 8


@pytest.mark.parametrize("task", ["segmentation", "classification"])
def test_cases_held_on_the_device_give_the_same_windows(cases, task, monkeypatch):
    plan = small_plan((8, 8, 4))
    if task == "classification":
        plan = plan.but(task=task, labels=(), classes=("a", "b"), network="resnet", network_arguments={})
        for case in cases:
            monkeypatch.setitem(case.info, "class_indices", [1])
    mapped, held = Sampler(cases, plan, 3, 0.5, 1), Sampler(cases, plan, 3, 0.5, 1, hold=CPU)
    for step in range(4):
        a, b = mapped.draw(0, step), held.draw(0, step)
        np.testing.assert_array_equal(a.image, b.image.numpy())
        np.testing.assert_array_equal(a.target, np.asarray(b.target))
        assert (a.seeds == b.seeds).all()


def test_held_or_mapped_the_weights_are_the_same(cases, tmp_path):
    one, two = (_job(cases, tmp_path / str(held), SHORT.but(resident=held)) for held in (False, True))
    assert two.sampler.held
    assert not one.sampler.held
    _run(one, 1)
    _run(two, 1)
    assert torch.equal(_weights(one), _weights(two))


def test_cases_are_held_where_there_is_room(monkeypatch):
    case = SimpleNamespace(nbytes=100)
    gpu = torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1000, 2000))
    assert devices.resident([case] * 3, gpu, None)
    assert not devices.resident([case] * 4, gpu, None)
    assert not devices.resident([case], CPU, None)
    assert devices.resident([case] * 9, CPU, True)


def test_labels_are_chosen_by_their_weights(cases):
    plan = small_plan((8, 8, 4))
    heavy = plan.but(sampling=plan.sampling.but(label_weights=(0.0, 1.0)))
    drawn = Sampler(cases, heavy, 8, 1.0, 0).draw(0, 0)
    i, j, k = (n // 2 for n in drawn.target.shape[1:])
    near = drawn.target[:, i - 2 : i + 2, j - 2 : j + 2, k - 2 : k + 2]
    assert (near == 2).any(axis=(1, 2, 3)).all()
    gone = plan.but(sampling=plan.sampling.but(label_weights=(0.0, 0.0)))
    even = Sampler(cases, plan, 8, 1.0, 0).draw(0, 0)
    np.testing.assert_array_equal(Sampler(cases, gone, 8, 1.0, 0).draw(0, 0).image, even.image)


def test_the_parts_of_a_batch_are_together_the_whole(cases):
    plan = small_plan((8, 8, 4))
    whole = Sampler(cases, plan, 4, 0.5, 3).draw(1, 2)
    parts = [Sampler(cases, plan, 2, 0.5, 3, (n, 2)).draw(1, 2) for n in range(2)]
    np.testing.assert_array_equal(whole.image, np.concatenate([p.image for p in parts]))
    np.testing.assert_array_equal(whole.seeds, np.concatenate([p.seeds for p in parts]))


def test_a_batch_of_one_has_its_share_of_foreground_in_turns(cases, monkeypatch):
    wanted = []
    sampler = Sampler(cases, small_plan((8, 8, 4)), 1, 0.25, 0)
    centre = sampler._centre
    monkeypatch.setattr(
        sampler, "_centre", lambda c, r, wants: (wanted.append(wants), centre(c, r, wants))[1]
    )
    for step in range(12):
        sampler.draw(0, step)
    assert wanted == [True, False, False, False] * 3


def test_a_stream_goes_over_the_ends_of_epochs(cases):
    sampler = Sampler(cases, small_plan((8, 8, 4)), 2, 0.5, 0)
    stream = sampler.stream(1, 2, batches=2)
    for at in [(0, 2), (0, 3), (1, 0), (1, 1), (1, 2)]:
        np.testing.assert_array_equal(next(stream).image, sampler.draw(*at).image)
    stream.close()


def test_cut_off_at_any_moment_it_ends_with_the_same_bits(cases, tmp_path):
    """Gradients added up, running mean, patience; killed between the two batches of a step."""
    training = SHORT.but(accumulate=2, patience=9, epochs=4, steps_per_epoch=3)
    straight = train_model(cases, small_plan(), training, out=tmp_path / "straight", device=CPU)
    code = _KILLED.format(
        here=str(Path(__file__).parent), epoch=99, signal=9, cases=[str(c.folder) for c in cases],
        training=training.model_dump_json(), out=str(tmp_path / "cut"),
    )  # fmt: skip
    hook = (
        "from medseg.learning.job import Job\nbefore = Job._pass\ncount = [0]\n"
        "def passing(self, batches):\n    count[0] += 1\n"
        "    if count[0] == 17: os.kill(os.getpid(), 9)\n"
        "    return before(self, batches)\nJob._pass = passing\n"
    )
    done = subprocess.run([sys.executable, "-c", code.replace("class Killer", hook + "class Killer")],
                          capture_output=True, text=True, check=False, env=dict(os.environ))  # fmt: skip
    assert done.returncode == -9, done.stderr[-2000:]
    assert (tmp_path / "cut" / "checkpoint").is_dir()
    resumed = train_model(cases, small_plan(), training, out=tmp_path / "cut", device=CPU)
    a, b = (load_file(folder / "weights.safetensors") for folder in (straight, resumed))
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert (straight / "card.json").read_bytes() == (resumed / "card.json").read_bytes()
    drop = {"seconds", "wait_share", "augment_share"}
    rows = [
        [{k: v for k, v in r.items() if k not in drop} for r in _history(tmp_path / n)]
        for n in ("straight", "cut")
    ]
    assert rows[0] == rows[1]


def test_a_notice_at_the_last_step_of_an_epoch_closes_it(cases, tmp_path):
    made = _job(cases, tmp_path)
    stop = threading.Event()
    bar: Any = SimpleNamespace(n=0, update=lambda _: stop.set() if made.state.facts["step"] == 3 else None)
    with pytest.raises(SystemExit):
        list(made.epochs(stop, bar))
    assert made.state.facts["step"] == 4
    assert [row["epoch"] for row in made.history] == [1]
    again = _job(cases, tmp_path)
    again.resume()
    assert again.history == made.history
