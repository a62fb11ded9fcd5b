"""Model: a folder of weights, plan and card; callable on an image. No pickle anywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from medseg.core.errors import MedsegError
from medseg.core.files import read_json, sha256_of, write_json, written_whole
from medseg.core.values import digest, validated
from medseg.data.plan import Plan
from medseg.data.prepare import prepare
from medseg.imaging.grid import Grid
from medseg.imaging.image import Image
from medseg.imaging.labels import Labels
from medseg.imaging.masks import Postprocessing
from medseg.learning.cascade import first_answer
from medseg.learning.checkpoint import alone
from medseg.learning.devices import keep_memory, pick_device
from medseg.learning.inference import Part, Thresholds, class_indices, label_map, probabilities
from medseg.learning.joint import NAME as JOINT
from medseg.learning.networks import build_network
from medseg.learning.settings import Prediction

WEIGHTS, PLAN, CARD = "weights.safetensors", "plan.json", "card.json"
FINAL = "final.json"
"""What a recipe ends in: its models (each in a folder beside it), mask steps and settings of prediction."""
FIRST = "first"
"""Sub-folder of a cascade's model folder: the coarse network that answers first."""


@dataclass(frozen=True, eq=False)
class Model:
    """A trained network with the plan it was trained by.

    Examples
    --------
    >>> mask = Model.load("runs/x/train/fold0/model").segment(image)   # doctest: +SKIP
    """

    plan: Plan
    network: nn.Module
    about: Mapping[str, Any]
    device: torch.device
    first: Model | None = None
    """Of a cascade: the coarse network that answers first."""

    @classmethod
    def load(cls, folder: str | Path, device: str | torch.device = "auto") -> Model:
        """Open a model folder; nothing in it is executed.

        Raises
        ------
        MedsegError
            A file is missing or damaged, the weights are not the ones the card was written for, or
            they are not safetensors (pickled checkpoints are refused: opening one runs its code).
        """
        folder = Path(folder)
        plan, about = _read_plan(folder), _read_card(folder)
        weights = _read_weights(folder, about)
        where = device if isinstance(device, torch.device) else pick_device(device)
        keep_memory()
        network = build_network(plan)
        _fill(network, weights)
        first = None if plan.cascade is None else cls.load(folder / FIRST, where)
        return cls(plan, network.to(where).eval(), about, where, first)

    @property
    def labels(self) -> Labels:
        """What the values of a mask mean."""
        return self.plan.labels

    def segment(self, image: Image, prediction: Prediction | None = None) -> Image:
        """Label values on the image's own grid, in its own axis order: uint8 (uint16) ``[1, I, J, K]``."""
        return Models((self,)).segment(image, prediction)

    def classify(
        self, image: Image, prediction: Prediction | None = None, mask: Image | None = None
    ) -> dict[str, float]:
        """Probability of each class of the plan; see `Models.classify`."""
        return Models((self,)).classify(image, prediction, mask)

    def probabilities(
        self, image: Image, prediction: Prediction | None = None
    ) -> tuple[NDArray[np.float32], Grid]:
        """Class probabilities ``[L, I, J, K]`` on the prepared grid, and that grid.

        Background comes first; models of regions have no background.
        """
        return Models((self,)).parts(image, prediction)[0]

    def answered_first(self, image: Image, prepared: Image, settings: Prediction) -> NDArray[np.float32]:
        """What the network is given: the prepared image, and behind it what a first network says."""
        if self.first is None:
            return prepared.array
        found, there = self.first.probabilities(image, settings)
        return np.concatenate([prepared.array, first_answer(found, there, prepared.grid, self.labels)])

    def class_probabilities(
        self, image: Image, prediction: Prediction | None = None, mask: Image | None = None
    ) -> NDArray[np.float32]:
        """Probabilities ``[classes]`` of an image; `mask` where the plan looks at a mask's foreground."""
        from medseg.learning.inference import classify
        from medseg.learning.joint import classify_segmented

        array, settings = prepare(image, self.plan.preparation(), mask).array, prediction or Prediction()
        if self.task == "classification":
            return classify(self.network, self.plan, array, settings, self.device)
        found = probabilities(self.network, self.plan, array, settings, self.device)
        found = class_indices(found, self.labels) > 0
        return classify_segmented(self.network, self.plan, array, found, self.device)

    @property
    def task(self) -> str:
        """``segmentation`` or ``classification``."""
        return self.plan.task


@dataclass(frozen=True, eq=False)
class Models:
    """One or several models used as one: the mean of their probabilities."""

    members: tuple[Model, ...]
    postprocessing: Postprocessing = field(default_factory=Postprocessing)
    """Thresholds and mask steps that were chosen with them."""
    prediction: Prediction = field(default_factory=Prediction)
    """How they looked at images when they were judged; every call may ask for something else."""

    @property
    def plan(self) -> Plan:
        """The plan of the first; all have the same channels, labels and spacing."""
        return self.members[0].plan

    @property
    def task(self) -> str:
        """``segmentation`` or ``classification``."""
        return self.plan.task

    @property
    def classifies(self) -> bool:
        """Whether they tell a class: classifiers, and joint models beside their mask."""
        return self.task == "classification" or self.plan.network == JOINT

    @property
    def channels(self) -> tuple[str, ...]:
        """Channels an image must have, in this order."""
        return self.plan.channels

    @property
    def labels(self) -> Labels:
        """What the values of a mask mean."""
        return self.plan.labels

    @cached_property
    def digest(self) -> str:
        """sha256 over the members' weights and plans."""
        networks = [one for m in self.members for one in (m, m.first) if one is not None]
        return digest([[m.about["weights_sha256"], m.about["plan_digest"]] for m in networks])

    def card(self) -> dict[str, Any]:
        """What to say about them in a report: names, versions, digests."""
        keep = ("name", "version", "weights_sha256", "plan_digest")
        return {"digest": self.digest, "models": [{k: m.about[k] for k in keep} for m in self.members]}

    def segment(
        self, image: Image, prediction: Prediction | None = None, thresholds: Thresholds | None = None
    ) -> Image:
        """Label values on the image's own grid, in its own axis order.

        Thresholds are by default those that were chosen with the models; mask steps are not carried out.
        """
        chosen = self.postprocessing.thresholds if thresholds is None else thresholds
        return image.but(label_map(self.parts(image, prediction), image.grid, self.labels, chosen))

    def classify(
        self, image: Image, prediction: Prediction | None = None, mask: Image | None = None
    ) -> dict[str, float]:
        """Probability of each class. They add up to 1, unless the plan says that a case may have several.

        `mask` is needed, on the image's grid, where the plan looks at the foreground of a mask.

        Raises
        ------
        MedsegError
            The models know masks only.
        """
        if not self.classifies:
            raise MedsegError("the model gives masks and no classes", mend="use segment, or a joint model")
        how = prediction or self.prediction
        mean = np.mean([m.class_probabilities(image, how, mask) for m in self.members], axis=0)
        return {name: float(p) for name, p in zip(self.plan.classes, mean, strict=True)}

    def parts(self, image: Image, prediction: Prediction | None = None) -> list[Part]:
        """Class probabilities ``[L, I, J, K]`` and their grid, for each configuration among the members.

        Members of one plan are averaged window by window: they take no more memory than one of them.
        """
        settings = prediction or self.prediction
        return [_part(group, image, settings) for group in self.configurations]

    @cached_property
    def configurations(self) -> list[list[Model]]:
        """The members by their plans, in the order they come."""
        found: dict[str, list[Model]] = {}
        for member in self.members:
            found.setdefault(digest(member.plan.but(fingerprint={})), []).append(member)
        return list(found.values())


def _part(group: Sequence[Model], image: Image, settings: Prediction) -> Part:
    """The mean probabilities of models of one plan, on the grid it prepares."""
    plan, device = group[0].plan, group[0].device
    prepared = prepare(image, plan.preparation())
    if plan.cascade is None:
        networks = [member.network for member in group]
        return probabilities(networks, plan, prepared.array, settings, device), prepared.grid
    total = np.zeros((), np.float32)
    for member in group:  # each is given another first answer
        given = member.answered_first(image, prepared, settings)
        total = total + probabilities(member.network, plan, given, settings, device)
    return total / np.float32(len(group)), prepared.grid


def open_models(folder: Models | str | Path | Sequence[str | Path], device: str = "auto") -> Models:
    """Models from a model folder, a fold folder (``train/fold0``), or a run folder (all its folds).

    Models that are open already are given back as they are.

    Raises
    ------
    MedsegError
        There is no model there.
    """
    if isinstance(folder, Models):
        return folder
    given = [folder] if isinstance(folder, str | Path) else list(folder)
    place = Path(given[0]) if len(given) == 1 else None
    found = [part for one in given for part in model_folders(Path(one))]
    if not found:
        raise MedsegError(
            "there is no model in this folder",
            file=", ".join(str(g) for g in given),
            mend=f"give a folder that holds {WEIGHTS}, {PLAN} and {CARD}, or a run folder",
        )
    members = tuple(Model.load(part, device) for part in found)
    _check_alike(members)
    return Models(members, *chosen_with(place)) if place else Models(members)


def save_model(folder: Path, plan: Plan, weights: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Write a model folder: equal content gives equal bytes.

    `about` becomes the card, with the digest of plan and weights added.
    """
    write_json(folder / PLAN, plan.model_dump(mode="json"))
    plain = dict(sorted(alone(weights).items()))
    with written_whole(folder / WEIGHTS) as beside:
        save_file(plain, beside)
    sealed = {"weights_sha256": sha256_of(folder / WEIGHTS), "plan_digest": digest(plan)}
    write_json(folder / CARD, {**about, **sealed})


def model_folders(folder: Path) -> list[Path]:
    """The model folders that `folder` stands for: itself, a fold's, or those of a run; empty if none.

    Of a run they are those its recipe ended in (`FINAL`), else all it has trained.
    """
    if final := _final(folder):
        return final
    for found in ([folder], *(sorted(folder.glob(p)) for p in ("model", "fold*/model", "train/*/model"))):
        there = [part for part in found if (part / WEIGHTS).is_file()]
        if there:
            return there
    return [folder] if (folder / PLAN).is_file() or (folder / CARD).is_file() else []


def _check_alike(members: Sequence[Model]) -> None:
    for name in ("task", "channels", "labels", "classes"):
        if any(getattr(m.plan, name) != getattr(members[0].plan, name) for m in members):
            raise MedsegError(f"the models of an ensemble must have the same {name}")


def chosen_with(folder: Path) -> tuple[Postprocessing, Prediction]:
    """Mask steps and settings of prediction that go with the models of a folder; the usual ones elsewhere."""
    for place in (folder, folder / "final" / "model"):
        if (place / FINAL).is_file():
            told = read_json(place / FINAL)
            how = validated(Prediction, told.get("prediction", {}))
            return validated(Postprocessing, told["postprocessing"]), how
    return Postprocessing(), Prediction()


def _final(folder: Path) -> list[Path]:
    """The models a recipe ended in: of a run folder those it trained, where they lie there unchanged."""
    for place in (folder, folder / "final" / "model"):
        if (place / FINAL).is_file():
            told = read_json(place / FINAL)["models"]
            return [_same(place / name, folder / at, place == folder) for name, at in told.items()]
    return []


def _same(copy: Path, trained: Path, carried: bool) -> Path:
    """The folder a model was trained in, unless it is gone or holds other weights now; else its copy."""
    if carried or not (trained / CARD).is_file():
        return copy
    one, other = (read_json(place / CARD).get("weights_sha256") for place in (copy, trained))
    return trained if one == other else copy


def _read_plan(folder: Path) -> Plan:
    return validated(Plan, _json(folder / PLAN))


def _read_card(folder: Path) -> dict[str, Any]:
    card = _json(folder / CARD)
    if not {"weights_sha256", "plan_digest"} <= set(card):
        raise MedsegError("the model card lacks the digest of weights or plan", file=str(folder / CARD))
    return card


def _json(file: Path) -> dict[str, Any]:
    try:
        return dict(read_json(file))
    except (OSError, ValueError) as error:
        raise MedsegError(
            f"the model folder has no readable {file.name}",
            file=str(file),
            evidence=type(error).__name__,
            mend="copy the whole model folder again",
        ) from error


def _read_weights(folder: Path, card: Mapping[str, Any]) -> dict[str, Tensor]:
    file = folder / WEIGHTS
    if not file.is_file():
        others = sorted(p.name for p in folder.glob("*") if p.suffix in (".pt", ".pth", ".pkl", ".ckpt"))
        raise MedsegError(
            f"the model folder has no {WEIGHTS}",
            file=str(folder),
            evidence=f"pickled files are not opened: {', '.join(others)}" if others else None,
            mend="give a folder written by medseg",
        )
    if sha256_of(file) != card["weights_sha256"]:
        raise MedsegError(
            "the weights are not the ones the model card was written for",
            file=str(file),
            evidence=f"sha256 {sha256_of(file)[:12]}..., the card says {str(card['weights_sha256'])[:12]}...",
            mend="copy the whole model folder again",
        )
    try:
        return load_file(file)
    except SafetensorError as error:
        raise MedsegError("the weights are not safetensors", file=str(file), evidence=str(error)) from error


def _fill(network: nn.Module, weights: Mapping[str, Tensor]) -> None:
    known = network.state_dict()
    wrong = sorted(set(known) ^ set(weights))
    wrong += [n for n in known if n in weights and known[n].shape != weights[n].shape]
    if wrong:
        raise MedsegError("the weights do not fit the plan's network", evidence=", ".join(wrong[:5]))
    network.load_state_dict(dict(weights))
