"""Settings of training: one length, members that share it."""

from __future__ import annotations

import pytest

from medseg.core.errors import MedsegError
from medseg.core.values import digest, validated
from medseg.learning.settings import Training


def test_members_share_the_budget_and_have_seeds_of_their_own() -> None:
    whole = Training(budget_minutes=9, seed=4)
    parts = [whole.of_member(n, 3) for n in range(3)]
    assert sum(p.budget_minutes or 0 for p in parts) == 9
    assert [p.seed for p in parts] == [4, 5, 6]


def test_members_have_the_epochs_they_were_asked_for() -> None:
    assert Training(epochs=3, members=3).of_member(2, 3).epochs == 3


def test_epochs_and_budget_together_are_refused() -> None:
    with pytest.raises(MedsegError, match="Training"):
        validated(Training, {"epochs": 3, "budget_minutes": 1})


def test_how_often_a_checkpoint_is_written_changes_no_key() -> None:
    assert digest(Training(checkpoint_seconds=0)) == digest(Training())


def test_planning_is_told_which_hardware_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from medseg.workflows.settings import TrainSettings

    assert TrainSettings().choices("cpu")["device"] == "cpu"
    monkeypatch.setattr("medseg.learning.devices.pick_device", lambda name: torch.device("cuda"))
    assert TrainSettings().choices("auto")["device"] == "gpu"
    assert TrainSettings(plan={"device": "cpu"}).choices("auto")["device"] == "cpu"
