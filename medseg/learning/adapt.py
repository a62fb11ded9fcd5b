"""Domain adaptation without target labels: a model and images of another site -> a new model folder.

Each method is a function of `Given` that leaves ``out/model``. The card of the new model says what was
done, to which model, on how many images.
"""

from __future__ import annotations

import copy
import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from medseg.core.errors import MedsegError
from medseg.core.registry import look_up
from medseg.data.harmonise import KNOTS, named
from medseg.data.plan import Intensity, Plan
from medseg.learning.adapt_target import TargetStream, blind, plain_patches
from medseg.learning.batch_statistics import restate
from medseg.learning.job import Start, Term
from medseg.learning.losses import loss_of
from medseg.learning.model import Model, save_model
from medseg.learning.pseudo import PseudoLabels, pseudo_case
from medseg.learning.quantiles import cut_away, quantiles_by_channel
from medseg.learning.sampling import PreparedCase
from medseg.learning.settings import Adaptation
from medseg.learning.training import train_model

log = logging.getLogger("medseg")

SEALS = ("weights_sha256", "plan_digest")


@dataclass(frozen=True)
class Given:
    """What a method works with. Labels of `target`, should there be any, are never looked at."""

    model: Model
    source: Sequence[PreparedCase]
    target: Sequence[PreparedCase]
    settings: Adaptation
    out: Path
    quiet: bool = False

    @property
    def plan(self) -> Plan:
        """Of the model: source and target are prepared by it."""
        return self.model.plan


def adapt_model(method: str, given: Given) -> Path:
    """Carry out one method; the model folder it leaves.

    Raises
    ------
    MedsegError
        An unknown method, no target case, or a method that needs source cases and has none.
    """
    function = look_up(METHODS, method, "adaptation method")
    if not given.target:
        raise MedsegError("there is no image of the target to adapt to", mend="look in ingest.csv why")
    if method in NEED_SOURCE and not given.source:
        raise MedsegError(
            f"{method} needs the cases the model was trained on",
            mend="give the run folder of its training (--source), or take adabn or self_training",
        )
    function(given)
    return given.out / "model"


def histogram(given: Given) -> None:
    """Input harmonisation: grey values get the mean quantiles of the source, stored in the plan."""
    found = source_quantiles(given)
    rules = {
        name: Intensity(name="matched", settings=named(np.array(values), cut_away(given.plan, name)))
        for name, values in found.items()
    }
    plan = given.plan.but(intensity=given.plan.intensity | rules)
    _save(given, given.out / "model", given.model.network, plan, {})


def adabn(given: Given) -> None:
    """Batch statistics of the target in the place of the source's; every weight stays."""
    _restated(given, copy.deepcopy(given.model.network), given.out / "model", given.model.about)


def fourier(given: Given) -> None:
    """Train on, also on source patches with the coarse amplitudes of target patches."""
    from medseg.learning.fourier import Fourier

    settings = given.settings
    loss = loss_of(given.plan, settings.training.loss, settings.training.loss_settings)
    _trained(given, Fourier(_stream(given), loss, settings.share, settings.weight or 1.0))


def adversarial_features(given: Given) -> None:
    """Train on against an opponent who tells source from target by the encoder's features."""
    from medseg.learning.adversarial import AdversarialFeatures

    _trained(given, AdversarialFeatures(given.plan, _stream(given), given.settings.weight or 0.1))


def adversarial_output(given: Given) -> None:
    """Train on against an opponent who tells source from target by the soft masks."""
    from medseg.learning.adversarial import AdversarialOutput

    _trained(given, AdversarialOutput(given.plan, _stream(given), given.settings.weight or 0.1))


def self_training(given: Given) -> None:
    """Train on, on source cases (where they are at hand) and on what the model is sure of in the target."""
    teacher, settings = given.model, given.settings
    for number in range(1, settings.rounds + 1):
        out = given.out / f"round{number}"
        if not (out / "model" / "card.json").is_file():
            _taught(given, teacher, _pseudo_cases(given, teacher, out / "pseudo"), out)
        teacher = Model.load(out / "model", given.model.device)
        if given.source and settings.restate and _has_statistics(teacher.network):
            restate(
                teacher.network, plain_patches(given.target, given.plan, settings.windows), teacher.device
            )
    _save(given, given.out / "model", teacher.network, given.plan, teacher.about)
    for number in range(1, settings.rounds + 1):
        shutil.rmtree(given.out / f"round{number}" / "pseudo", ignore_errors=True)


def _taught(given: Given, teacher: Model, learnt: Sequence[PreparedCase], out: Path) -> None:
    """One round; source and target in batches of their own, because each has its own statistics."""
    if not given.source:
        _train(given, teacher, learnt, out, ())
        return
    training = given.settings.training
    loss = loss_of(given.plan, training.loss, training.loss_settings)
    term = PseudoLabels(_stream(given, learnt), loss, given.settings.weight or 1.0)
    _train(given, teacher, given.source, out, [term])


METHODS: Mapping[str, Callable[[Given], None]] = {
    "histogram": histogram,
    "adabn": adabn,
    "fourier": fourier,
    "adversarial_features": adversarial_features,
    "adversarial_output": adversarial_output,
    "self_training": self_training,
}
NEED_SOURCE = ("fourier", "adversarial_features", "adversarial_output")


def source_quantiles(given: Given) -> dict[str, list[float]]:
    """From the model's card, else from the source cases."""
    stored = given.model.about.get("training_data", {}).get("quantiles")
    if stored and all(len(stored.get(name, ())) == KNOTS for name in given.plan.channels):
        return {name: list(stored[name]) for name in given.plan.channels}
    if not given.source:
        raise MedsegError(
            "the model's card does not say what the grey values of its source were",
            mend="give the run folder of its training (--source)",
        )
    return quantiles_by_channel(given.source, given.plan)


def _stream(given: Given, learnt: Sequence[PreparedCase] = ()) -> TargetStream:
    """Patches of the target, or of cases of it that have pseudo-labels."""
    training = given.settings.training
    batch = training.batch or given.plan.batch
    return TargetStream(
        learnt or given.target, given.plan, batch, training.seed, training.augment, pseudo=bool(learnt)
    )


def _trained(given: Given, term: Term) -> None:
    """Train on with a term; at the end batch statistics of the target, when asked for."""
    out = given.out / "trained"
    folder = out / "model"
    if not (folder / "card.json").is_file():
        _train(given, given.model, given.source, out, [term])
    made = Model.load(folder, given.model.device)
    if given.settings.restate and _has_statistics(made.network):
        _restated(given, made.network, given.out / "model", made.about)
    else:
        _save(given, given.out / "model", made.network, given.plan, made.about)


def _train(
    given: Given, teacher: Model, cases: Sequence[PreparedCase], out: Path, terms: Sequence[Term]
) -> None:
    weights = {name: value.detach().clone() for name, value in teacher.network.state_dict().items()}

    def fill(network: nn.Module) -> set[str]:
        network.load_state_dict(weights)
        return {name for name, _ in network.named_parameters()}

    train_model(
        cases, given.plan, given.settings.training, out=out, device=given.model.device,
        name=f"adapt {given.settings.method}", start=Start(fill), terms=terms, quiet=given.quiet,
    )  # fmt: skip


def _pseudo_cases(given: Given, teacher: Model, folder: Path) -> list[PreparedCase]:
    made = [
        pseudo_case(teacher, case, given.settings.confidence, folder / f"target{n:05d}")
        for n, case in enumerate(blind(given.target))
    ]
    sure = [case for case in made if case is not None]
    log.info("self-training: the teacher is sure of something in %d of %d cases", len(sure), len(made))
    if not sure:
        raise MedsegError(
            "the model is sure of nothing in the target: there is nothing to teach itself with",
            evidence=f"no label reaches {given.settings.confidence:g} in any of {len(made)} cases",
            mend="harmonise first (histogram+self_training, adabn+self_training), or lower "
            "adaptation.confidence",
        )
    return sure


def _restated(given: Given, network: nn.Module, folder: Path, about: Mapping[str, Any]) -> None:
    patches = plain_patches(given.target, given.plan, given.settings.windows)
    layers = restate(network, patches, given.model.device)
    seen = sum(len(batch) for batch in patches)
    _save(given, folder, network, given.plan, about, restated={"layers": layers, "patches": seen})


def _save(
    given: Given, folder: Path, network: nn.Module, plan: Plan, about: Mapping[str, Any], **more: Any
) -> None:
    """A model folder whose card is the model's own, with what was done to it."""
    before = given.model.about
    card = {k: v for k, v in (about or before).items() if k not in SEALS}
    # figures of the source model's training stay beside: they were measured before the adaptation
    done = {
        "method": given.settings.method,
        "of": {k: before[k] for k in SEALS},
        "settings": given.settings.model_dump(mode="json"),
        "source_cases": len(given.source),
        "target_cases": len(given.target),
        **more,
    }
    kept = {k: before[k] for k in ("name", "training_data", "intended_use") if k in before}
    card |= kept | {"adaptations": [*before.get("adaptations", []), done]}
    save_model(folder, plan, network.state_dict(), card)


def _has_statistics(network: nn.Module) -> bool:
    return any(
        isinstance(m, torch.nn.modules.batchnorm._BatchNorm) and m.running_mean is not None
        for m in network.modules()
    )
