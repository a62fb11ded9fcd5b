"""Training: it learns, it resumes to the last bit, it stops rather than write nonsense."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from small_patients import balls, small_plan

from medseg.core.errors import MedsegError
from medseg.core.files import sha256_of
from medseg.learning.model import Model
from medseg.learning.monitor import set_aside
from medseg.learning.schedule import rate_at
from medseg.learning.settings import Training
from medseg.learning.training import train_model

CPU = torch.device("cpu")
SHORT = Training(checkpoint_seconds=0, epochs=3, steps_per_epoch=4, monitor=0.2, monitor_every=0.3)


def _train(cases, out: Path, training: Training = SHORT, **more) -> Path:
    return train_model(cases, more.pop("plan", small_plan()), training, out=out, device=CPU, **more)


def _history(out: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((out / "history.csv").read_text().splitlines()))


class Watcher:
    """An observer that remembers, or fails."""

    def __init__(self, fail: bool = False) -> None:
        self.seen: list = []
        self.fail = fail

    def _note(self, *what) -> None:
        self.seen.append(what)
        if self.fail:
            raise RuntimeError("the tracking server is on fire")

    def on_start(self, info) -> None:
        self._note("start", info)

    def on_epoch(self, epoch, values) -> None:
        self._note("epoch", epoch, values)

    def on_end(self, folder, figures) -> None:
        self._note("end", folder, figures)


@pytest.fixture(scope="module")
def trained(cases, tmp_path_factory) -> Path:
    """A model that has learnt its balls."""
    out = tmp_path_factory.mktemp("trained")
    _train(cases, out, Training(epochs=12, steps_per_epoch=20, monitor=0.2, rate=1e-2))
    return out


def test_it_learns_what_is_to_be_seen_and_segments_an_unseen_image(trained):
    image, mask = balls(100)
    found = Model.load(trained / "model", "cpu").segment(image)
    assert found.grid is image.grid
    assert found.array.dtype == np.uint8
    for value in (1, 2):
        a, b = found.array == value, mask.array == value
        assert 2 * (a & b).sum() / (a.sum() + b.sum()) > 0.9


def test_the_history_tells_every_epoch(trained):
    rows = _history(trained)
    assert [int(r["epoch"]) for r in rows] == list(range(1, 13))
    assert float(rows[-1]["loss"]) < float(rows[0]["loss"]) / 2
    assert rows[-1]["monitor_dice"]
    assert float(rows[-1]["progress"]) == 1
    assert {"rate", "seconds", "wait_share", "step"} <= set(rows[0])
    assert (trained / "history.png").stat().st_size > 2000


def test_nothing_is_left_but_the_model_and_its_history(trained):
    assert sorted(p.name for p in trained.iterdir()) == ["history.csv", "history.png", "model"]
    assert sorted(p.name for p in (trained / "model").iterdir()) == [
        "card.json", "plan.json", "weights.safetensors",
    ]  # fmt: skip


def test_the_card_says_what_it_was_trained_on(trained):
    card = json.loads((trained / "model" / "card.json").read_text())
    assert card["training_data"]["cases"] == 8
    assert card["training_data"]["monitor_cases"] == 2
    assert card["monitor"]["dice"] > 0.8
    assert card["intended_use"] == ""
    assert [label["name"] for label in card["labels"]] == ["large", "small"]


def test_the_same_seed_gives_the_same_bytes(cases, tmp_path):
    folders = [_train(cases, tmp_path / name) for name in "ab"]
    for name in ("weights.safetensors", "plan.json", "card.json"):
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()


def test_another_seed_gives_other_weights(cases, tmp_path):
    a, b = _train(cases, tmp_path / "a"), _train(cases, tmp_path / "b", SHORT.but(seed=1))
    assert sha256_of(a / "weights.safetensors") != sha256_of(b / "weights.safetensors")


_KILLED = """
import os, sys, torch
sys.path.insert(0, {here!r})
from pathlib import Path
from small_patients import small_plan
from medseg.learning import training as tr
from medseg.learning.sampling import PreparedCase
from medseg.learning.settings import Training
torch.set_num_threads(1)
class Killer:
    def on_start(self, info): pass
    def on_end(self, *a): pass
    def on_epoch(self, epoch, values):
        if epoch == {epoch}: os.kill(os.getpid(), {signal})
cases = [PreparedCase(Path(p).name, Path(p)) for p in {cases!r}]
tr.train_model(cases, small_plan(), Training.model_validate_json({training!r}), out=Path({out!r}),
               device=torch.device("cpu"), observers=[Killer()])
"""


def _run_killed(cases, out: Path, training: Training, epoch: int, how: int) -> subprocess.CompletedProcess:
    code = _KILLED.format(
        here=str(Path(__file__).parent), epoch=epoch, signal=how, cases=[str(c.folder) for c in cases],
        training=training.model_dump_json(), out=str(out),
    )  # fmt: skip
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_killed_and_started_again_it_ends_with_the_same_bits(cases, tmp_path, caplog, how):
    straight = _train(cases, tmp_path / "straight")
    done = _run_killed(cases, tmp_path / "cut", SHORT, 2, how)
    assert done.returncode == (-9 if how == signal.SIGKILL else 143), done.stderr[-2000:]
    caplog.set_level("INFO", logger="medseg")
    resumed = _train(cases, tmp_path / "cut")
    assert "resumed from epoch" in caplog.text
    for name in ("weights.safetensors", "card.json"):
        assert (straight / name).read_bytes() == (resumed / name).read_bytes()
    rows = _history(tmp_path / "cut")
    assert [int(r["epoch"]) for r in rows] == [1, 2, 3]


def test_a_damaged_checkpoint_is_passed_over(cases, tmp_path, caplog):
    _run_killed(cases, tmp_path, SHORT, 2, signal.SIGKILL)
    newest = max((tmp_path / "checkpoint").glob("0*.safetensors"))
    newest.write_bytes(newest.read_bytes()[:-10])
    caplog.set_level("INFO", logger="medseg")
    _train(cases, tmp_path)
    assert "cannot be used" in caplog.text
    assert "resumed from epoch 1" in caplog.text


def test_two_checkpoints_stay_at_most(cases, tmp_path):
    kept = []

    class Counter(Watcher):
        def on_epoch(self, epoch, values):
            kept.append(len(list((tmp_path / "checkpoint").glob("0*.json"))))

    _train(cases, tmp_path, SHORT.but(epochs=5), observers=[Counter()])
    assert max(kept) == 2


def _nothing_but_nan(logits, target):
    return logits.sum() * float("nan")


def test_a_loss_that_is_no_number_stops_the_training_with_advice(cases, tmp_path):
    training = SHORT.but(loss=f"{__name__}:_nothing_but_nan")
    with pytest.raises(MedsegError, match=r"not a number.*\n.*\n.*training\.rate"):
        _train(cases, tmp_path, training)
    assert not (tmp_path / "model").exists()


def test_observers_are_told_and_cannot_stop_it(cases, tmp_path, caplog):
    good, bad = Watcher(), Watcher(fail=True)
    folder = _train(cases, tmp_path, observers=[bad, good], data_digest="abc")
    assert [event[0] for event in good.seen] == ["start", *["epoch"] * 3, "end"]
    assert good.seen[0][1]["data_digest"] == "abc"
    assert {"loss", "rate"} <= set(good.seen[1][2])
    assert good.seen[-1][1] == folder
    assert all(isinstance(v, int | float) for v in good.seen[1][2].values())
    assert len(bad.seen) == 5
    assert "an observer failed" in caplog.text


def test_a_budget_ends_the_training_in_time_at_the_schedule_s_end(cases, tmp_path):
    start = time.monotonic()
    _train(cases, tmp_path, Training(budget_minutes=0.05, steps_per_epoch=10, monitor=0.2))
    rows = _history(tmp_path)
    assert float(rows[-1]["progress"]) > 0.9
    assert float(rows[-1]["rate"]) < 2e-4
    assert 2.9 < float(rows[-1]["seconds"]) < 6
    assert time.monotonic() - start < 20


def test_without_running_mean_or_monitor_the_last_weights_are_kept(cases, tmp_path):
    folder = _train(cases, tmp_path, SHORT.but(average=0, monitor=0))
    card = json.loads((folder / "card.json").read_text())
    assert card["chosen_epoch"] is None
    assert card["monitor"] == {}


def test_the_monitor_takes_whole_patients_from_the_training_part(cases):
    train, monitor = set_aside(cases, 0.2, small_plan(), 0)
    assert len(monitor) == 2
    assert not {c.patient for c in train} & {c.patient for c in monitor}
    assert {c.id for c in train} | {c.id for c in monitor} == {c.id for c in cases}
    assert set_aside(cases[:6], 0.2, small_plan(), 0) == (cases[:6], [])


def test_no_case_is_an_error(tmp_path):
    with pytest.raises(MedsegError, match="no case to train on"):
        _train([], tmp_path)


def test_the_rate_rises_and_falls():
    training = Training(epochs=1, rate=1.0, warm_up=0.1)
    rates = [rate_at(p / 100, training) for p in range(101)]
    assert rates[0] < 0.02
    assert max(rates) > 0.97
    assert rates[-1] < 1e-6
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_epochs_and_budget_together_are_refused():
    with pytest.raises(MedsegError, match="not both"):
        SHORT.but(budget_minutes=3)


def test_a_2d_plan_trains_on_the_same_prepared_cases(cases, tmp_path):
    plan = small_plan((16, 16, 1))
    _train(cases, tmp_path, Training(epochs=8, steps_per_epoch=20, monitor=0.2, rate=1e-2), plan=plan)
    image, mask = balls(101)
    found = Model.load(tmp_path / "model", "cpu").segment(image).array == 1
    assert 2 * (found & (mask.array == 1)).sum() / (found.sum() + (mask.array == 1).sum()) > 0.85


def test_instance_norm_and_deep_supervision_train_too(cases, tmp_path):
    arguments = {
        "widths": [4, 8, 8], "strides": [[1] * 3, [2] * 3, [2] * 3], "kernels": [[3] * 3] * 3,
        "norm": "instance", "supervised": 1,
    }  # fmt: skip
    _train(cases, tmp_path, SHORT, plan=small_plan(network_arguments=arguments))
    Model.load(tmp_path / "model", "cpu").segment(balls(1)[0])
