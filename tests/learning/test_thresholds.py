"""Thresholds: what a label needs, and what each would change, told from one pass."""

from __future__ import annotations

import numpy as np
import pytest

from medseg.imaging.grid import Grid
from medseg.imaging.image import Image
from medseg.imaging.labels import Label, labels
from medseg.learning.inference import class_indices, label_map
from medseg.learning.thresholds import dice_of, overlaps

ORGANS = labels(liver=1, lesion=4)
FINE = Grid.from_spacing((12, 10, 8), (1.0, 1.0, 1.0))
COARSE = Grid.from_spacing((6, 5, 4), (2.0, 2.0, 2.0))


def soft(grid: Grid, seed: int = 0) -> np.ndarray:
    drawn = np.exp(np.random.default_rng(seed).normal(size=(3, *grid.shape)))
    return (drawn / drawn.sum(0)).astype(np.float32)


@pytest.mark.parametrize("t", [0.3, 0.5, 0.7])
def test_of_a_single_label_it_is_the_probability_from_which_it_is_taken(t):
    chance = np.array([0.1, 0.29, 0.31, 0.49, 0.51, 0.69, 0.71], np.float32)
    found = class_indices(np.stack([1 - chance, chance]), labels(liver=3), {3: t})
    assert (found == (chance > t)).all()


def test_of_several_labels_the_largest_odds_decide():
    chances = np.array([[0.4], [0.35], [0.25]], np.float32)
    assert class_indices(chances, ORGANS).item() == 0
    assert class_indices(chances, ORGANS, {4: 0.3}).item() == 2
    assert class_indices(chances, ORGANS, {1: 0.4, 4: 0.45}).item() == 1


def test_a_region_is_there_from_its_threshold_on():
    both = (Label(name="whole", value=1, region=(1, 2)), Label(name="core", value=2, region=(2,)))
    chances = np.array([[0.8, 0.8], [0.45, 0.35]], np.float32)
    assert class_indices(chances, both).tolist() == [1, 1]
    assert class_indices(chances, both, {2: 0.4}).tolist() == [2, 1]


@pytest.mark.parametrize("grids", [(FINE,), (COARSE,), (FINE, COARSE)])
def test_overlaps_are_those_of_the_masks_themselves(grids):
    parts = [(soft(grid, n), grid) for n, grid in enumerate(grids)]
    truth = np.random.default_rng(9).choice([0, 1, 4, 7, 200], size=(1, *FINE.shape)).astype(np.uint8)
    tried = {"plain": {}, "one": {4: 0.3}, "both": {1: 0.7, 4: 0.2}}
    found = overlaps(parts, Image(truth, FINE), ORGANS, tried, ignore=200)
    known = truth[0] != 200
    for name, thresholds in tried.items():
        mask = label_map(parts, FINE, ORGANS, thresholds)[known]
        dices = [2 * ((mask == v) & (truth[0][known] == v)).sum() for v in (1, 4)]
        sizes = [(mask == v).sum() + (truth[0][known] == v).sum() for v in (1, 4)]
        assert dice_of(found[name]) == pytest.approx([d / n for d, n in zip(dices, sizes, strict=True)])
        assert found[name].sum() == known.sum()


def test_dice_of_what_neither_has_is_perfect():
    assert dice_of(np.array([[5, 0, 0], [0, 3, 0], [0, 0, 0]])) == [1.0, 1.0]
    assert dice_of(np.array([[5, 0, 1], [3, 0, 0], [0, 0, 0]])) == [0.0, 0.0]
