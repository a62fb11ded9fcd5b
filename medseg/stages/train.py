"""Stage ``train``: prepared cases of one fold -> ``train/<fold>/model``, ``history.csv``."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medseg.core.errors import MedsegError
from medseg.core.stage import Artifact, stage
from medseg.core.values import digest
from medseg.data.cohort import Fold
from medseg.data.plan import Plan
from medseg.learning.settings import Training, Transfer

PRETRAINED = "pretrained weights"
FIRST_NETWORK = "first network"
"""The parts of an item that are no case: a folder of the ``weights`` stage, and the model folder of the
network that answers first in a cascade, which is put into the model folder."""


@stage(version=1, ignore=("device", "tracking"), in_process=True, essential=True)
def train(
    item: Mapping[str, Any],
    *,
    plan: Plan,
    training: Training,
    transfer: Transfer | None = None,
    device: str = "auto",
    tracking: Any = None,
    out: Path,
) -> None:
    """Train one model.

    Parameters
    ----------
    item : mapping
        ``{"fold": Fold, "<case id>": prepared Artifact, ...}``; the fold's training cases and no other.
        With ``"pretrained weights"``, a folder of the weights stage, the training begins from these.
    transfer : Transfer, optional
        Which of the pretrained weights are carried, and how they are tuned.
    tracking : Tracking or None
        Where MLflow keeps the run.

    Raises
    ------
    MedsegError
        A case of the fold's held-out part was handed in, there is none to train on, or less of the
        pretrained weights fits the plan's network than `transfer` asks for.
    """
    from medseg.learning.devices import pick_device
    from medseg.learning.model import FIRST
    from medseg.learning.sampling import PreparedCase
    from medseg.learning.tracking import observer
    from medseg.learning.training import train_model

    fold: Fold = item["fold"]
    apart = ("fold", PRETRAINED, FIRST_NETWORK)
    given: dict[str, Artifact] = {name: a for name, a in item.items() if name not in apart}
    _check_held_out(fold, given)
    name = out.name.removeprefix(".").removesuffix(".partial")
    train_model(
        [PreparedCase(case, given[case].path) for case in sorted(given)],
        plan,
        training,
        out=out,
        device=pick_device(device),
        observers=[observer(tracking, name, out.parent.parent)],
        name=name,
        data_digest=digest({case: a.digest for case, a in given.items()}),
        start=_start(item.get(PRETRAINED), plan, transfer or Transfer()),
    )
    if FIRST_NETWORK in item:
        shutil.copytree(item[FIRST_NETWORK].path, out / "model" / FIRST, dirs_exist_ok=True)


def _start(pretrained: Artifact | None, plan: Plan, transfer: Transfer) -> Any:
    """Where the training begins; None for fresh weights."""
    if pretrained is None:
        return None
    from medseg.learning.transfer import start_of
    from medseg.learning.weights import saved_weights

    return start_of(plan, saved_weights(pretrained.path), transfer)


def _check_held_out(fold: Fold, given: Mapping[str, Artifact]) -> None:
    strange = sorted(set(given) - set(fold.train))
    if strange:
        raise MedsegError(
            "cases were handed to the training that are not in its training part",
            evidence=", ".join(strange[:5]),
        )
