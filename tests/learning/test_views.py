"""Views of an image: how many, how far they turn, and that their answers come back to where they belong."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_patients import small_plan
from torch import Tensor

from medseg.learning.settings import Prediction
from medseg.learning.views import seen_anew, views

PLAN = small_plan(patch=(24, 24, 24), spacing_mm=(1.0, 1.0, 1.0))
BOTH = Prediction(turn_deg=10, zoom=0.1)


@pytest.mark.parametrize(
    ("patch", "count"), [((16, 16, 16), 8), ((16, 16, 1), 4)], ids=["three axes", "one plane"]
)
def test_views_turn_to_both_sides_and_come_nearer_and_farther(patch: tuple[int, ...], count: int) -> None:
    found = views(patch, (1.0, 1.0, 1.0), BOTH)
    assert len(found) == count
    volumes = sorted(np.linalg.det(linear) for linear in found)
    power = 3 if patch[2] > 1 else 2
    assert volumes[0] == pytest.approx(1.1**-power) and volumes[-1] == pytest.approx(1.1**power)
    assert volumes[1:-1] == pytest.approx([1.0] * (count - 2))
    assert views(patch, (1.0, 1.0, 1.0), Prediction()) == []


def test_a_turn_out_of_a_finer_plane_is_as_small_as_the_slices_are_thick() -> None:
    mm = np.array([1.0, 1.0, 4.0])
    found = views((32, 32, 8), (1.0, 1.0, 4.0), Prediction(turn_deg=12))
    in_mm = [linear * mm[:, None] / mm[None, :] for linear in found]
    degrees = [np.degrees(np.arccos((np.trace(one) - 1) / 2)) for one in in_mm]
    assert degrees == pytest.approx([3, 3, 3, 3, 12, 12])


def test_an_answer_that_follows_the_image_comes_back_to_its_place() -> None:
    at = torch.stack(torch.meshgrid(*[torch.arange(24.0)] * 3, indexing="ij"))
    away = at - torch.tensor([10.0, 13.0, 12.0]).view(3, 1, 1, 1)
    blob = torch.exp(-((away / 8) ** 2).sum(0))[None, None]
    inner = (..., *[slice(4, -4)] * 3)
    follows = seen_anew(lambda x: x, PLAN, BOTH)(blob.clone())
    assert torch.allclose(follows[inner], blob[inner], atol=0.03)
    strays = seen_anew(lambda x: x.roll(6, 2), PLAN, BOTH)(blob.clone())
    assert not torch.allclose(strays[inner], blob[inner], atol=0.2)


def test_classes_are_averaged_over_all_views() -> None:
    seen: list[Tensor] = []

    def classes(x: Tensor) -> Tensor:
        seen.append(x)
        return torch.full((len(x), 2), float(len(seen)))

    answer = seen_anew(classes, PLAN, BOTH)(torch.rand(2, 1, 8, 8, 8))
    assert len(seen) == 9
    assert torch.equal(answer, torch.full((2, 2), 5.0))


def test_settings_are_changed_only_where_something_was_set() -> None:
    judged = Prediction(turn_deg=8, overlap=0.25)
    assert judged.changed(None) == judged.changed(Prediction()) == judged
    assert judged.changed(Prediction(turn_deg=0)) == Prediction(overlap=0.25)
