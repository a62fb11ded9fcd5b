"""Stage ``encoder``: published weights, a plan for their network -> ``encoder/<name>/model``, untrained."""

from __future__ import annotations

from pathlib import Path

from medseg.core.stage import Artifact, stage
from medseg.data.plan import Plan
from medseg.learning.settings import Transfer


@stage(version=1, in_process=True, essential=True)
def encoder(item: Artifact, *, plan: Plan, transfer: Transfer, out: Path) -> None:
    """Write a model folder that holds the weights as they were carried; its head is fresh and says nothing.

    Parameters
    ----------
    item : Artifact
        A folder of the stage ``weights``.

    Raises
    ------
    MedsegError
        Less than the floor could be carried.
    """
    from medseg.core.version import __version__
    from medseg.learning.devices import seed_everything
    from medseg.learning.model import save_model
    from medseg.learning.networks import build_network
    from medseg.learning.transfer import start_of
    from medseg.learning.weights import saved_weights

    start = start_of(plan, saved_weights(item.path), transfer)
    seed_everything(0)
    network = build_network(plan)
    start.fill(network)
    about = {
        "name": out.name.removeprefix(".").removesuffix(".partial"),
        "version": __version__,
        "task": plan.task,
        "channels": list(plan.channels),
        "labels": [label.model_dump(mode="json") for label in plan.labels],
        "classes": list(plan.classes),
        "intended_use": "features of a frozen encoder; the head was never trained",
        "training_data": {},
        "start": dict(start.account),
    }
    save_model(out / "model", plan, network.state_dict(), about)
