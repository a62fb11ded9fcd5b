"""Classifiers of whole images: shapes in 2-D and 3-D, and that each learns what a phantom shows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from small_patients import SPACING, small_plan
from torch import nn
from torch.nn import functional

from medseg.core.errors import MedsegError
from medseg.core.files import write_json
from medseg.data.plan import Plan
from medseg.imaging.grid import Grid
from medseg.imaging.image import Image
from medseg.learning.model import Model
from medseg.learning.networks import build_network
from medseg.learning.sampling import PreparedCase
from medseg.learning.settings import Training
from medseg.learning.training import train_model

SMALL: dict[str, dict] = {
    "resnet": {"depth": 10, "widen_factor": 0.125},
    "densenet": {"growth_rate": 4, "block_config": [1, 1, 1, 1], "init_features": 8},
    "efficientnet": {"variant": "b0"},
    "senet": {"layers": [1, 1, 1, 1], "inplanes": 64},
    "vit": {"hidden_size": 48, "num_layers": 2},
    "slices_lstm": {"widen_factor": 0.125, "slices": 4, "hidden": 16},
    "slices_attention": {"widen_factor": 0.125, "slices": 4, "hidden": 16},
}


def class_plan(name: str, patch=(32, 32, 32), classes=("a", "b", "c"), **arguments) -> Plan:
    return small_plan(
        patch, task="classification", labels=(), classes=classes, network=name, network_arguments=arguments
    )


def spots(n: int, patch: tuple[int, int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise with a bright bar along the first or the second axis: the class."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, 1, *patch, generator=generator) * 0.3
    kind = torch.arange(n) % 2
    middle = patch[0] // 2
    x[kind == 0, :, middle - 3 : middle + 3, :, :] += 2
    x[kind == 1, :, :, middle - 3 : middle + 3, :] += 2
    return x, kind


def learned(network: nn.Module, x: torch.Tensor, kind: torch.Tensor, steps: int = 30) -> float:
    """Share of right answers on images not trained on."""
    torch.manual_seed(0)
    optimizer = torch.optim.AdamW(network.train().parameters(), lr=2e-3)
    half = len(x) // 2
    for _ in range(steps):
        optimizer.zero_grad()
        functional.cross_entropy(network(x[:half]), kind[:half]).backward()
        optimizer.step()
    with torch.no_grad():  # statistics of the batch: too few steps for running ones
        found = network(x[half:]).argmax(1)
    return float((found == kind[half:]).float().mean())


@pytest.mark.parametrize("patch", [(32, 32, 32), (32, 32, 1)], ids=["3d", "2d"])
@pytest.mark.parametrize("name", SMALL)
def test_a_classifier_gives_a_logit_for_each_class(name, patch):
    network = build_network(class_plan(name, patch, **SMALL[name])).eval()
    assert network(torch.zeros(2, 1, *patch)).shape == (2, 3)


@pytest.mark.parametrize("patch", [(32, 32, 8), (32, 32, 1)], ids=["3d", "2d"])
@pytest.mark.parametrize("name", SMALL)
def test_a_classifier_learns_which_way_a_bar_lies(name, patch):
    torch.manual_seed(1)
    if patch[2] > 1 and name in ("senet", "densenet", "efficientnet"):
        patch = (32, 32, 32)  # they halve their maps five times
    network = build_network(class_plan(name, patch, classes=("a", "b"), **SMALL[name]))
    assert learned(network, *spots(12, patch), steps=30 if patch[2] < 32 else 12) >= 0.8


def test_a_depth_that_does_not_exist_is_refused():
    with pytest.raises(MedsegError, match="10, 18"):
        build_network(class_plan("resnet", depth=12))


def test_a_transformer_takes_patches_that_divide_the_image():
    plan = class_plan("vit", (48, 40, 24), hidden_size=48, num_layers=1)
    network = build_network(plan).eval()
    assert network(torch.zeros(1, 1, 48, 40, 24)).shape == (1, 3)
    assert network.network.patch_embedding.n_patches == 8**3


def prepared(folder: Path, patch: tuple[int, int, int], n: int = 4) -> list[PreparedCase]:
    """Noise with a class, as the prepare stage leaves it."""
    made = []
    for i in range(n):
        place = folder / f"c{i}"
        place.mkdir(parents=True)
        np.save(place / "image.npy", np.random.default_rng(i).normal(size=(1, *patch)).astype(np.float32))
        write_json(place / "prepared.json", {"case": f"c{i}", "patient": f"p{i}", "class_indices": [i % 3]})
        made.append(PreparedCase(f"c{i}", place))
    return made


@pytest.mark.parametrize("patch", [(32, 32, 32), (32, 32, 1)], ids=["3d", "2d"])
@pytest.mark.parametrize("name", SMALL)
def test_a_classifier_is_trained_saved_opened_and_asked(name, patch, tmp_path):
    plan = class_plan(name, patch, **SMALL[name]).but(batch=2)
    training = Training(epochs=1, steps_per_epoch=1, monitor=0)
    cases = prepared(tmp_path / "prepare", patch)
    folder = train_model(cases, plan, training, out=tmp_path, device=torch.device("cpu"), quiet=True)
    image = Image(np.asarray(cases[0].image), Grid.from_spacing(patch, SPACING))
    said = Model.load(folder, "cpu").classify(image)
    assert set(said) == {"a", "b", "c"} and sum(said.values()) == pytest.approx(1, abs=1e-5)
    assert Model.load(folder, "cpu").classify(image) == said
