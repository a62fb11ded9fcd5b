"""Where a model looked: maps on the image's own grid, each checked against chance."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from medseg.core.errors import MedsegError
from medseg.core.values import nearest
from medseg.data.plan import Plan
from medseg.imaging.grid import Grid
from medseg.imaging.image import Image
from medseg.learning.cascade import refuse_cascade
from medseg.learning.explain_check import ALIKE, alike, block_ids, block_means, drawn_anew, faithfulness
from medseg.learning.explain_maps import (
    Map,
    Question,
    answers,
    displacement,
    layer_of,
    occluded,
    raw_map,
)
from medseg.learning.explain_view import View, class_view_of, on_source, sides_mm, spread, view_of
from medseg.learning.joint import NAME as JOINT
from medseg.learning.joint import ClassAlone
from medseg.learning.model import Model, Models
from medseg.learning.settings import Explaining

SHARE = 8
"""A cover of an occlusion map is this part of the view's longest side, unless its mm are given."""


@dataclass(frozen=True, eq=False)
class Explanation:
    """A map of what speaks for a target, float32 0..1 on the image's own grid, and what is known of it."""

    target: str
    map: Image
    facts: Mapping[str, Any]

    @property
    def file(self) -> str:
        """``gradcam_<target>.nii.gz``."""
        method = str(self.facts["method"]).replace("+", "p")
        return f"{method}_{re.sub('[^A-Za-z0-9._-]', '_', self.target)}.nii.gz"


def explain(
    models: Model | Models,
    image: Image,
    settings: Explaining | None = None,
    *,
    region: Image | None = None,
    mask: Image | None = None,
) -> list[Explanation]:
    """Maps of what a model's answer rests on, a map for each target.

    Parameters
    ----------
    models : Model or Models
        Several are asked together: the mean of their maps, and of their probabilities.
    image : Image
        As for `Models.classify` or `Models.segment`.
    settings : Explaining, optional
    region : Image, optional
        Segmentation: the label map whose voxels are asked about, on the image's grid; by default what
        the models segment.
    mask : Image, optional
        Where the plan looks at the foreground of a mask.

    Returns
    -------
    list of Explanation
        One for each target; for labels that are nowhere in `region` there is none. Of joint models the
        labels come first, then classes.

    Raises
    ------
    MedsegError
        A target or a layer that the model does not have.
    CaseError
        The image cannot be prepared.
    """
    chosen = settings or Explaining()
    several = models if isinstance(models, Models) else Models((models,))
    refuse_cascade(several.plan, "an explanation")
    if len(several.configurations) > 1:
        raise MedsegError("models of several configurations are not explained together", mend="explain one")
    if several.task == "segmentation" and region is None:
        region = several.segment(image)
    asked = _Asked(several, image, chosen, region, mask)
    return [_explained(asked, target) for target in _targets(asked)]


@dataclass(frozen=True, eq=False)
class _Asked:
    """What is the same for every target of a case."""

    models: Models
    image: Image
    settings: Explaining
    region: Image | None
    mask: Image | None

    @property
    def plan(self) -> Plan:
        return self.models.plan

    def view(self, target: _Target) -> View:
        fill, index = self.settings.fill, target.index
        if not target.is_class:
            first = self.models.plan.outputs - len(self.models.plan.labels)
            return view_of(self.models, self.image, index + first, fill, self.region, self.mask)
        if self.region is not None:
            return class_view_of(self.models, self.image, index, fill, self.region)
        return view_of(self.models, self.image, index, fill, None, self.mask)


@dataclass(frozen=True)
class _Target:
    """A class or a label by its place in the plan."""

    name: str
    index: int
    is_class: bool


def _targets(asked: _Asked) -> list[_Target]:
    """The labels or classes (of joint models both) to explain, in the plan's order."""
    plan, wanted = asked.plan, asked.settings.targets
    labels, classes = _labels(plan), _classes(plan)
    known = list(dict.fromkeys(target.name for target in (*labels, *classes)))
    for name in wanted:
        if name not in known:
            guess = nearest(name, known)
            raise MedsegError(
                f"the model knows no '{name}'",
                evidence=f"it knows {', '.join(known)}",
                mend=f"did you mean '{guess}'?" if guess else "leave explain.targets out",
            )
    there = set() if asked.region is None else set(np.unique(asked.region.array).tolist())
    labels = [target for target in labels if plan.labels[target.index].value in there]
    if wanted:
        return [target for target in (*labels, *classes) if target.name in wanted]
    return [*labels, *_predicted(asked, classes)]


def _labels(plan: Plan) -> list[_Target]:
    named = () if plan.task == "classification" else plan.labels
    return [_Target(label.name, n, is_class=False) for n, label in enumerate(named)]


def _classes(plan: Plan) -> list[_Target]:
    named = plan.classes if plan.task == "classification" or plan.network == JOINT else ()
    return [_Target(name, n, is_class=True) for n, name in enumerate(named)]


def _predicted(asked: _Asked, classes: Sequence[_Target]) -> list[_Target]:
    """The most probable class; where a case may have several, all that are more likely than not."""
    if not classes:
        return []
    view = asked.view(classes[0])
    found = {target: _answer(replace(view, questions=_about(view, target.index))) for target in classes}
    likely = [target for target, p in found.items() if p >= 0.5] if asked.plan.multilabel else []
    return likely or [max(found, key=lambda target: found[target])]


def _explained(asked: _Asked, target: _Target) -> Explanation:
    settings, view = asked.settings, asked.view(target)
    layers = _layers(view, settings)
    found, raws = _map(view, settings, layers)
    sides = sides_mm(view.grid)
    check = faithfulness(view.questions, found, sides, settings)
    drawn = _drawn_maps(asked, view, layers, found)
    facts = {
        "target": target.name,
        "of": "class" if target.is_class else "label",
        "method": settings.method,
        "layer": layers[0] if layers else None,
        "map_shape": list(raws[0].shape),
        "raw_max": round(float(np.mean([raw.max() for raw in raws])), 9),
        "probability": round(_answer(view), 6),
        "window": {"shape": list(view.grid.shape), "spacing_mm": [round(s, 6) for s in view.grid.spacing_mm]},
        "region_share": view.share,
        "networks": len(view.questions),
        "faithfulness": check,
        "weights_drawn_anew": drawn,
        "warnings": _warnings(check, drawn),
    }
    return Explanation(target.name, on_source(found, view.grid, asked.image), facts)


def _about(view: View, target: int) -> tuple[Question, ...]:
    return tuple(replace(question, target=target) for question in view.questions)


def _answer(view: View) -> float:
    return float(answers(view.questions, np.zeros((1, *view.grid.shape), bool))[0])


def _layers(view: View, settings: Explaining) -> list[str]:
    if settings.method == "occlusion":
        return []
    return [layer_of(question, settings.layer) for question in view.questions]


def _map(view: View, settings: Explaining, layers: Sequence[str]) -> tuple[Map, list[Map]]:
    """The map on the window, 0..1, and what it was made from: a raw map a network, or one for all."""
    if settings.method == "occlusion":
        sides = _cover(view.grid, settings.window_mm)
        raw = occluded(view.questions, sides, settings.overlap, settings.batch)
        return _unit(raw), [raw]
    raws, found = [], np.zeros(view.grid.shape, np.float32)
    for question, layer in zip(view.questions, layers, strict=True):
        raws.append(raw_map(question, settings.method, layer))
        found += _unit(spread(raws[-1], view.grid, displacement(question, layer)))
    return _unit(found), raws


def _unit(array: Map) -> Map:
    """Divided by its largest value, so that the strongest evidence is 1; all 0 stays 0."""
    top = float(array.max())
    return (array / np.float32(top)) if top > 0 else array


def _cover(grid: Grid, window_mm: float | None) -> list[int]:
    """Sides of an occlusion box in voxels: as many mm along each axis as whole voxels allow."""
    mm = window_mm or max(sides_mm(grid)) / SHARE
    return [min(n, max(1, round(mm / s))) for n, s in zip(grid.shape, grid.spacing_mm, strict=True)]


def _drawn_maps(asked: _Asked, view: View, layers: Sequence[str], found: Map) -> dict[str, float | None]:
    """Rank correlation of the map with those of networks whose weights were drawn anew, step by step."""
    settings, member = asked.settings, asked.models.members[0]
    ids = block_ids(found.shape, sides_mm(view.grid), settings.blocks)
    told: dict[str, float | None] = {}
    of_class = isinstance(view.questions[0].network, ClassAlone)
    for name, drawn in _steps(member, settings):
        network = ClassAlone(drawn) if of_class else drawn
        other = replace(view, questions=(replace(view.questions[0], network=network),))
        again, _ = _map(other, settings, layers[:1])
        told[name] = alike(block_means(found, ids), block_means(again, ids))
    return told


def _steps(member: Model, settings: Explaining) -> Iterator[tuple[str, torch.nn.Module]]:
    """An occlusion map costs as much as all the rest: of it only the first and the last step are made."""
    for name, network in drawn_anew(member.network, member.plan, settings.seed).items():
        if settings.method != "occlusion" or name != "upper half":
            yield name, network.to(member.device)


def _warnings(check: Mapping[str, Any], drawn: Mapping[str, float | None]) -> list[str]:
    """What speaks against trusting the map, a sentence each."""
    found = [] if check["faithful"] else [f"not better than random: {check['reason']}"]
    worst = drawn.get("everything")
    if worst is not None and worst >= ALIKE:
        found.append(
            f"the map stays much the same (rank correlation {worst:.2f}) when all weights are drawn anew: "
            "it shows the image more than the model"
        )
    return found
