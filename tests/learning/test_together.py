"""Several processes train one model: with two, the same numbers as one with the double batch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from small_patients import small_plan

from medseg.core.errors import MedsegError
from medseg.learning.settings import Training
from medseg.learning.together import SharedBatchNorm, World, share_statistics
from medseg.learning.training import train_model

TWICE = Training(
    checkpoint_seconds=0, epochs=3, steps_per_epoch=3, monitor=0.2, monitor_every=0.3, batch=4,
    accumulate=2, rate=1e-2, precision="float32",
)  # fmt: skip

_PROCESS = """
import json, os, sys
sys.path.insert(0, {here!r})
from pathlib import Path
import torch
torch.set_num_threads(1)
from small_patients import small_plan
from medseg.core.errors import MedsegError
from medseg.core.ranks import ranks_of
from medseg.learning import together
from medseg.learning.sampling import PreparedCase
from medseg.learning.settings import Training
from medseg.learning.training import train_along, train_model

cases = [PreparedCase(Path(p).name, Path(p)) for p in {cases!r}]
training = Training.model_validate_json({training!r})
out = Path({out!r})

class Stopper:
    def on_start(self, info): pass
    def on_end(self, *a): pass
    def on_epoch(self, epoch, values):
        if epoch == 1: os.kill(os.getpid(), 15)

ours = together.join(ranks_of())
if not ours.leads:
    try:
        together.follow(train_along)
    except SystemExit:  # the notice below reaches all; here they go on at once, as if started again
        together.follow(train_along)
    sys.exit(0)
go = lambda name, **more: train_model(
    cases, small_plan(network_arguments=more.pop("network", small_plan().network_arguments)),
    more.pop("training", training), out=out / name, device=torch.device("cpu"), **more)
go("plain")
levels = dict(small_plan().network_arguments)
go("deep", network={{**levels, "widths": [4, 4, 8], "strides": [*levels["strides"], [2, 2, 2]],
                   "kernels": [[3, 3, 3]] * 3, "norm": "instance", "supervised": 1}})
try:
    go("nan", training=training.but(loss="test_together:no_number"))
except MedsegError as error:
    (out / "nan.txt").write_text(str(error))
try:
    go("cut", observers=[Stopper()])
except SystemExit:
    (out / "cut.txt").write_text(" ".join(sorted(p.name for p in (out / "cut").iterdir())))
    ours.broken = False
    go("cut")
together.leave()
"""


def no_number(logits, target):
    """A loss that never is a number."""
    return logits.sum() * float("nan")


def _both(cases, out: Path, training: Training, port: int) -> list[tuple[int, str]]:
    """Run the script above in two processes, as torchrun would; exit codes and what they said."""
    code = _PROCESS.format(
        here=str(Path(__file__).parent), cases=[str(c.folder) for c in cases], out=str(out),
        training=training.model_dump_json(),
    )  # fmt: skip
    here = str(Path(__file__).parent)
    base = {**os.environ, "WORLD_SIZE": "2", "MASTER_PORT": str(port), "PYTHONPATH": here}
    made = [
        subprocess.Popen(
            [sys.executable, "-c", code], stderr=subprocess.PIPE, text=True,
            env={**base, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in (0, 1)
    ]  # fmt: skip
    said = [process.communicate(timeout=300)[1] for process in made]
    return [(process.returncode, text) for process, text in zip(made, said, strict=True)]


@pytest.fixture(scope="module")
def together(cases, tmp_path_factory, free_port) -> Path:
    """What two processes trained, with batches of two each; the last training stopped and taken up again."""
    out = tmp_path_factory.mktemp("together")
    ends = _both(cases, out, TWICE.but(batch=2), free_port())
    assert [code for code, _ in ends] == [0, 0], ends
    return out


@pytest.fixture(scope="module")
def free_port():
    """A port nobody listens on."""
    import socket

    def find() -> int:
        with socket.socket() as asked:
            asked.bind(("127.0.0.1", 0))
            return asked.getsockname()[1]

    return find


def _deep() -> dict:
    levels = dict(small_plan().network_arguments)
    strides = [*levels["strides"], [2, 2, 2]]
    return {"widths": [4, 4, 8], "strides": strides, "kernels": [[3, 3, 3]] * 3, "norm": "instance",
            "supervised": 1}  # fmt: skip


@pytest.mark.parametrize("name", ["plain", "deep"])
def test_two_processes_give_what_one_gives_with_the_double_batch(cases, together, tmp_path, name):
    plan = small_plan() if name == "plain" else small_plan(network_arguments=_deep())
    train_model(cases, plan, TWICE, out=tmp_path, device=torch.device("cpu"))
    one, two = ((folder / "history.csv").read_text().splitlines() for folder in (tmp_path, together / name))
    column = one[0].split(",").index("loss")
    losses = [[float(line.split(",")[column]) for line in text[1:]] for text in (one, two)]
    assert len(losses[0]) == 3
    assert losses[0] == pytest.approx(losses[1], rel=2e-3)
    alone = load_file(tmp_path / "model" / "weights.safetensors")
    shared = load_file(together / name / "model" / "weights.safetensors")
    assert alone.keys() == shared.keys()
    for key, value in alone.items():
        torch.testing.assert_close(value.float(), shared[key].float(), rtol=0.05, atol=5e-3)


def test_the_leader_alone_writes_and_says_how_many_there_were(together):
    assert json.loads((together / "plain" / "model" / "card.json").read_text())["processes"] == 2
    assert sorted(p.name for p in (together / "plain").iterdir()) == ["history.csv", "history.png", "model"]


def test_a_common_end_is_told_once_and_the_next_training_goes_on(together):
    assert "not a number" in (together / "nan.txt").read_text()


def test_a_notice_to_one_stops_all_of_them_with_a_checkpoint(together):
    left = (together / "cut.txt").read_text().split()
    assert "checkpoint" in left
    assert "model" not in left


def test_stopped_and_taken_up_again_they_end_with_the_same_bits(together):
    straight, cut = (load_file(together / n / "model" / "weights.safetensors") for n in ("plain", "cut"))
    assert all(torch.equal(straight[k], cut[k]) for k in straight)


def test_alone_nothing_is_exchanged():
    alone = World()
    part = torch.ones(2, requires_grad=True)
    assert alone.gathered(part) is part
    assert alone.summed([1.0]) == alone.told([1.0]) == [1.0]
    network = torch.nn.Sequential(torch.nn.BatchNorm3d(2))
    assert type(share_statistics(network, alone)[0]) is torch.nn.BatchNorm3d


def test_a_weight_that_one_process_did_not_use_moves_alike_and_one_that_none_used_stays(monkeypatch):
    def weights(*used: float | None) -> list[torch.nn.Parameter]:
        made = [torch.nn.Parameter(torch.zeros(2, 3)) for _ in used]
        for parameter, value in zip(made, used, strict=True):
            parameter.grad = None if value is None else torch.full((2, 3), value)
        made[-1].requires_grad_(False)
        return made

    sent: list[torch.Tensor] = []
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda flat: sent.append(flat.clone()))
    sides = weights(1.0, None, None, None), weights(2.0, 5.0, None, None)
    for side in sides:
        World(0, 2).add_gradients(side)
    assert sent[0].shape == sent[1].shape
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda flat: flat.copy_(sent[0] + sent[1]))
    for side in weights(1.0, None, None, None), weights(2.0, 5.0, None, None):
        World(0, 2).add_gradients(side)
        found = [None if p.grad is None else set(p.grad.ravel().tolist()) for p in side]
        assert found == [{3.0}, {5.0}, None, None]


def test_a_shared_norm_of_one_process_is_the_plain_one(monkeypatch):
    torch.manual_seed(0)
    plain = torch.nn.Sequential(torch.nn.BatchNorm3d(3), torch.nn.BatchNorm1d(3)).train()
    network = torch.nn.Sequential(torch.nn.BatchNorm3d(3), torch.nn.BatchNorm1d(3))
    share_statistics(network, World(0, 2))
    assert all(isinstance(layer, SharedBatchNorm) for layer in network)
    for layer in network:
        layer.ours = World()
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda values: None)
    for a, b, shape in zip(plain, network, [(4, 3, 5, 4, 2), (6, 3)], strict=True):
        x = torch.randn(shape)
        xa, xb = x.clone().requires_grad_(), x.clone().requires_grad_()
        ya, yb = a(xa), b(xb)
        (ya**3).sum().backward()
        (yb**3).sum().backward()
        torch.testing.assert_close(ya, yb, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(xa.grad, xb.grad, atol=1e-4, rtol=1e-4)
        for (name, buffer), other in zip(a.named_buffers(), b.buffers(), strict=True):
            torch.testing.assert_close(buffer, other, msg=name)
        torch.testing.assert_close(a.eval()(x), b.eval()(x))


def test_processes_that_lost_one_another_begin_nothing_new(monkeypatch):
    from medseg.learning import together

    monkeypatch.setattr(together, "_worlds", [World(0, 2, broken=True)])
    with pytest.raises(MedsegError, match="lost one another"):
        together.call_in({})
