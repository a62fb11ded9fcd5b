"""A cascade: what the second network is given, and that both travel in one folder."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_patients import balls, small_plan
from torch import nn

from medseg.core.errors import MedsegError
from medseg.data.plan import Cascade
from medseg.imaging.grid import Grid
from medseg.imaging.labels import labels, named_labels
from medseg.learning.cascade import (
    DROPPED,
    SHIFTED,
    Second,
    distrusted,
    first_answer,
    one_hot,
    refuse_cascade,
)
from medseg.learning.model import Model, open_models, save_model
from medseg.learning.networks import build_network

LOW = Cascade(spacing_mm=(3.0, 3.0, 3.0), patch=(8, 8, 8))


class Echo(nn.Module):
    """Gives back what it is given."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def test_an_answer_is_one_channel_for_each_label():
    hot = one_hot(np.array([[[0, 1, 2]]]), labels(a=1, b=2))
    np.testing.assert_array_equal(hot[:, 0, 0], [[0, 1, 0], [0, 0, 1]])


def test_an_answer_of_regions_is_one_channel_for_each_and_they_overlap():
    regions = named_labels({"whole": [1, 2, 4], "core": [1, 4], "lit": [4]})
    assert [r.name for r in regions] == ["core", "whole", "lit"]
    hot = one_hot(np.array([[[0, 1, 2, 3]]]), regions)[:, 0, 0]
    np.testing.assert_array_equal(hot, [[0, 1, 0, 1], [0, 1, 1, 1], [0, 0, 0, 1]])
    grid = Grid.from_spacing((1, 1, 3), (1, 1, 1))
    found = np.array([[0.4, 0.7, 0.1], [0.9, 0.5, 0.2], [0.3, 0.1, 0.6]], np.float32).reshape(3, 1, 1, 3)
    out = first_answer(found, grid, grid, regions)[:, 0, 0]
    said = "what contradicts itself (lit, but not whole) is decided as it is in a mask"
    np.testing.assert_array_equal(out, [[0, 1, 1], [1, 1, 1], [0, 0, 1]], said)


def test_an_answer_on_another_grid_covers_the_same_place():
    coarse, fine = Grid.from_spacing((4, 4, 4), (2, 2, 2)), Grid.from_spacing((8, 8, 8), (1, 1, 1))
    found = np.zeros((2, 4, 4, 4), np.float32)
    found[1, 2:], found[0, :2] = 1.0, 1.0
    out = first_answer(found, coarse, fine, labels(organ=1))
    assert out.shape == (1, 8, 8, 8)
    assert (out[0, :3] == 0).all() and (out[0, 4:] == 1).all()


def test_the_first_answer_is_made_sharp_again_and_the_image_left_alone():
    x = torch.rand(2, 3, 4, 4, 4)
    out = Second(Echo(), 1, 2).eval()(x)
    torch.testing.assert_close(out[:, :1], x[:, :1])
    torch.testing.assert_close(out[:, 1:], (x[:, 1:] > 0.5).float())


def test_an_image_alone_has_an_empty_first_answer():
    x = torch.rand(2, 1, 4, 4, 4)
    out = Second(Echo(), 1, 2).eval()(x)
    assert out.shape[1] == 3 and not out[:, 1:].any()


def test_in_training_some_answers_are_dropped_and_some_moved():
    torch.manual_seed(0)
    first = torch.zeros(400, 1, 16, 16, 16)
    first[:, :, 4:9, 4:9, 4:9] = 1
    out = distrusted(first)
    sums = out.sum(dim=(1, 2, 3, 4))
    assert set(sums.tolist()) == {0.0, 125.0}
    assert float((sums == 0).float().mean()) == pytest.approx(DROPPED, abs=0.06)
    moved = ((out != first).flatten(1).any(1) & (sums > 0)).float().mean()
    assert float(moved) == pytest.approx(SHIFTED, abs=0.08)


@pytest.mark.parametrize("named", [{"large": 1, "small": 2}, {"both": [1, 2], "small": [2]}])
def test_both_networks_travel_in_one_folder_and_answer_together(tmp_path, named):
    plan = small_plan(cascade=LOW, labels=named_labels(named))
    low = small_plan(spacing_mm=LOW.spacing_mm, patch=LOW.patch, labels=plan.labels)
    for folder, of in ((tmp_path / "m", plan), (tmp_path / "m" / "first", low)):
        save_model(folder, of, build_network(of).state_dict(), {"name": "m", "version": "0"})
    models = open_models(tmp_path / "m", "cpu")
    image, _ = balls(0)
    assert models.segment(image).grid.matches(image.grid)
    alone = models.digest
    torch.manual_seed(9)
    save_model(tmp_path / "m" / "first", low, build_network(low).state_dict(), {"name": "m", "version": "0"})
    assert open_models(tmp_path / "m", "cpu").digest != alone


def test_a_cascade_without_its_first_network_is_refused(tmp_path):
    plan = small_plan(cascade=LOW)
    save_model(tmp_path / "m", plan, build_network(plan).state_dict(), {"name": "m", "version": "0"})
    with pytest.raises(MedsegError, match="no readable plan"):
        Model.load(tmp_path / "m", "cpu")
    with pytest.raises(MedsegError, match="does not know cascades"):
        refuse_cascade(plan, "this")
