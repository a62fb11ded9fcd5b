"""Augmentation: identity when switched off, one geometry for image and reference, reproducible."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from medseg.learning.augment import augment, centre_patch
from medseg.learning.settings import Augmenting

OFF = Augmenting(rotation_deg=0, scale=0, shift=0, contrast=0, brightness=0, noise=0, field=0)
PATCH, WINDOW, MM = (8, 6, 4), (12, 10, 8), (1.0, 1.0, 2.0)


def _batch(n: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return (
        torch.randn(n, 1, *WINDOW, generator=generator),
        torch.randint(0, 3, (n, *WINDOW), generator=generator, dtype=torch.uint8),
    )


def _seeds(n: int = 2) -> np.ndarray:
    return np.arange(n, dtype=np.int64) + 11


def test_switched_off_it_is_the_middle_of_the_window():
    image, target = _batch()
    out, labels = augment(image, target, PATCH, MM, _seeds(), OFF)
    torch.testing.assert_close(out, centre_patch(image, PATCH), atol=1e-5, rtol=1e-5)
    assert torch.equal(labels, centre_patch(target[:, None], PATCH)[:, 0].long())


def test_a_mirror_turns_one_axis_round():
    image, target = _batch(16)
    out, labels = augment(image, target, PATCH, MM, _seeds(16), OFF.but(mirror=(1,)))
    middle, middle_labels = centre_patch(image, PATCH), centre_patch(target[:, None], PATCH)[:, 0].long()
    plain = [bool(torch.allclose(a, b, atol=1e-4)) for a, b in zip(out, middle, strict=True)]
    turned = [bool(torch.allclose(a, b.flip(2), atol=1e-4)) for a, b in zip(out, middle, strict=True)]
    assert any(plain)
    assert any(turned)
    assert all(p != t for p, t in zip(plain, turned, strict=True))
    for was, a, b in zip(turned, labels, middle_labels, strict=True):
        assert torch.equal(a, b.flip(1) if was else b)


@pytest.mark.parametrize("settings", [Augmenting(), Augmenting(mirror=(0, 1, 2), elastic=1.5, gamma=0.4)])
def test_what_is_drawn_depends_on_the_seed_of_the_window_alone(settings):
    image, target = _batch(3)
    together, labels = augment(image, target, PATCH, MM, _seeds(3), settings)
    alone, label = augment(image[1:2], target[1:2], PATCH, MM, _seeds(3)[1:2], settings)
    torch.testing.assert_close(together[1:2], alone, atol=1e-6, rtol=1e-6)
    assert torch.equal(labels[1:2], label)


def test_image_and_reference_move_together():
    mask = torch.zeros(4, *WINDOW, dtype=torch.uint8)
    mask[:, 3:9, 3:8, 2:6] = 1
    settings = OFF.but(rotation_deg=30, scale=0.2, shift=0.1)
    out, labels = augment(mask[:, None].float(), mask, PATCH, MM, _seeds(4), settings)
    assert ((out[:, 0] > 0.5) == (labels == 1)).float().mean() > 0.97


def test_lengths_in_mm_survive_a_turn_on_an_anisotropic_grid():
    window, patch, mm = (40, 40, 20), (32, 32, 16), (1.0, 1.0, 2.0)
    at = torch.stack(torch.meshgrid(*(torch.arange(n) - (n - 1) / 2 for n in window), indexing="ij"), -1)
    ball = ((at * torch.tensor(mm)).norm(dim=-1) < 10).to(torch.uint8)[None].repeat(6, 1, 1, 1)
    _, labels = augment(ball[:, None].float(), ball, patch, mm, _seeds(6), OFF.but(rotation_deg=45))
    same = centre_patch(ball[:, None], patch)[:, 0]
    overlap = (labels * same).sum() * 2 / (labels.sum() + same.sum())
    assert overlap > 0.94


def test_flat_patches_turn_in_their_plane():
    image = torch.randn(2, 1, 12, 12, 1)
    target = torch.zeros(2, 12, 12, 1, dtype=torch.uint8)
    out, labels = augment(image, target, (8, 8, 1), (1, 1, 5), _seeds(), Augmenting())
    assert out.shape == (2, 1, 8, 8, 1)
    assert labels.shape == (2, 8, 8, 1)
    same, _ = augment(image, target, (8, 8, 1), (1, 1, 5), _seeds(), OFF)
    torch.testing.assert_close(same, centre_patch(image, (8, 8, 1)), atol=1e-5, rtol=1e-5)


def test_classes_pass_through():
    image, _ = _batch()
    _, classes = augment(image, torch.tensor([1, 0]), PATCH, MM, _seeds(), Augmenting())
    assert classes.tolist() == [1, 0]
    assert classes.dtype == torch.int64


def test_grey_values_change_within_what_was_asked():
    image, target = torch.ones(8, 1, *WINDOW), torch.zeros(8, *WINDOW, dtype=torch.uint8)
    out, _ = augment(image, target, PATCH, MM, _seeds(8), OFF.but(contrast=0.2, brightness=0.1))
    means = out.mean(dim=(1, 2, 3, 4))
    assert (means - 1).abs().max() <= 0.3 + 1e-5
    assert means.std() > 0.02


def test_elastic_displacements_are_smooth_and_of_the_size_asked():
    patch, window = (32, 32, 16), (40, 40, 20)
    at = torch.stack(torch.meshgrid(*(torch.arange(n).float() for n in window), indexing="ij"))
    image, target = at[None].repeat(4, 1, 1, 1, 1), torch.zeros(4, *window, dtype=torch.uint8)
    out, _ = augment(image, target, patch, (1, 1, 2), _seeds(4), OFF.but(elastic=1.0))
    moved = out - centre_patch(image, patch)
    assert 0.3 < moved[:, 0].std() < 1.2
    assert moved[:, 2].std() < 0.75 * moved[:, 0].std()
    assert (moved[:, 0, 1:] - moved[:, 0, :-1]).abs().max() < 0.8


def test_gamma_bends_the_grey_scale_and_keeps_its_ends():
    image, target = _batch(4)
    out, _ = augment(image, target, PATCH, MM, _seeds(4), OFF.but(gamma=0.5))
    plain = centre_patch(image, PATCH)
    for a, b in zip(out, plain, strict=True):
        assert torch.isclose(a.min(), b.min(), atol=1e-4)
        assert torch.isclose(a.max(), b.max(), atol=1e-4)
        order = b.ravel().argsort()
        assert (a.ravel()[order].diff() >= -1e-4).all()
        assert not torch.allclose(a, b, atol=1e-3)
