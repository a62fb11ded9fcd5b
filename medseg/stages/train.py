"""Stage ``train``: prepared cases of one fold -> ``train/<fold>/model``, ``history.csv``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medseg.core.errors import MedsegError
from medseg.core.stage import Artifact, stage
from medseg.core.values import digest
from medseg.data.cohort import Fold
from medseg.data.plan import Plan
from medseg.learning.settings import Training


@stage(version=1, ignore=("device", "tracking"), in_process=True)
def train(
    item: Mapping[str, Any],
    *,
    plan: Plan,
    training: Training,
    device: str = "auto",
    tracking: Any = None,
    out: Path,
) -> None:
    """Train one model.

    Parameters
    ----------
    item : mapping
        ``{"fold": Fold, "<case id>": prepared Artifact, ...}``; the fold's training cases and no other.
    tracking : Tracking or None
        Where MLflow keeps the run.

    Raises
    ------
    MedsegError
        A case of the fold's held-out part was handed in, or there is none to train on.
    """
    from medseg.learning.devices import pick_device
    from medseg.learning.sampling import PreparedCase
    from medseg.learning.tracking import observer
    from medseg.learning.training import train_model

    fold: Fold = item["fold"]
    given: dict[str, Artifact] = {name: a for name, a in item.items() if name != "fold"}
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
    )


def _check_held_out(fold: Fold, given: Mapping[str, Artifact]) -> None:
    strange = sorted(set(given) - set(fold.train))
    if strange:
        raise MedsegError(
            "cases were handed to the training that are not in its training part",
            evidence=", ".join(strange[:5]),
        )
