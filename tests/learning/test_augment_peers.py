"""Augmentation beside MONAI's transforms: the same parameters have the same effect."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from medseg.learning.augment import (
    _affine,
    _bends,
    _curved,
    _field,
    _grey,
    along_axes,
    augment,
    blurring,
    coarsening,
    sample,
    sampling_grid,
)
from medseg.learning.settings import Augmenting

SHAPE, MM = (14, 12, 10), (1.0, 1.0, 2.0)
STILL = Augmenting(rotation_deg=0, scale=0, shift=0, contrast=0, brightness=0, noise=0, field=0)


def _image(shape=SHAPE) -> torch.Tensor:
    rough = np.random.default_rng(0).standard_normal(shape)
    return torch.from_numpy(ndimage.gaussian_filter(rough, 1.2).astype(np.float32))[None]


def _rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("seed", range(3))
def test_the_fused_geometry_is_monai_s_affine(seed):
    from monai.transforms.spatial.array import Affine

    settings = Augmenting(rotation_deg=25, scale=0.2, shift=0.1, mirror=(0, 1, 2))
    map_ = _affine(_rng(seed), SHAPE, MM, settings)
    ours = sample(_image()[None], sampling_grid(map_[None], SHAPE, SHAPE), "bilinear")[0]
    matrix = np.vstack([map_, [0, 0, 0, 1]])
    theirs = Affine(affine=matrix, mode="bilinear", padding_mode="border", image_only=True)(_image())
    torch.testing.assert_close(ours, torch.as_tensor(theirs), atol=2e-4, rtol=1e-4)


def test_a_mirrored_patch_is_monai_s_flip():
    from monai.transforms.spatial.array import Flip

    map_ = np.concatenate([np.diag([-1.0, 1, -1]), np.zeros((3, 1))], axis=1)
    ours = sample(_image()[None], sampling_grid(map_[None], SHAPE, SHAPE), "bilinear")[0]
    torch.testing.assert_close(ours, torch.as_tensor(Flip((0, 2))(_image())), atol=1e-4, rtol=1e-4)


def test_elastic_displacements_move_what_scipy_moves():
    settings = STILL.but(elastic=1.5)
    grid = sampling_grid(_affine(_rng(), SHAPE, MM, STILL)[None], SHAPE, SHAPE)
    bends = _bends([_rng(5)], SHAPE, MM, _image()[None], settings)
    ours = sample(_image()[None], grid + bends, "bilinear")[0, 0]
    at = np.stack(np.meshgrid(*(np.arange(n) for n in SHAPE), indexing="ij")).astype(float)
    moved = bends[0].flip(-1).permute(3, 0, 1, 2).double().numpy() * np.array(SHAPE).reshape(3, 1, 1, 1) / 2
    theirs = ndimage.map_coordinates(_image()[0].numpy(), at + moved, order=1, mode="nearest")
    np.testing.assert_allclose(ours.numpy(), theirs, atol=2e-4)
    assert np.abs(moved).max() > 0.5


@pytest.mark.parametrize("power", [0.6, 1.8])
def test_gamma_is_monai_s_adjust_contrast(power):
    from monai.transforms.intensity.array import AdjustContrast

    ours = _curved(_image()[None], torch.full((1, 1, 1, 1, 1), power))[0]
    torch.testing.assert_close(ours, torch.as_tensor(AdjustContrast(power)(_image())), atol=1e-4, rtol=1e-4)


def test_contrast_and_brightness_are_monai_s_scale_and_shift():
    from monai.transforms.intensity.array import ScaleIntensity, ShiftIntensity

    settings = STILL.but(contrast=0.3, brightness=0.2)
    ours = _grey(_image()[None], [_rng(3)], settings)[0]
    again = _rng(3)  # the draws, in their order
    gain, offset = again.uniform(0.7, 1.3, 1)[0], again.uniform(-0.2, 0.2, 1)[0]
    scaled = ScaleIntensity(minv=None, maxv=None, factor=gain - 1)(_image())
    torch.testing.assert_close(ours, torch.as_tensor(ShiftIntensity(offset)(scaled)), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("sd", [0.7, 1.5])
def test_blur_is_monai_s_gaussian_away_from_the_edge(sd):
    from monai.transforms.intensity.array import GaussianSmooth

    image = _image((32, 30, 28))
    ours = along_axes(image[None], [[blurring(n, sd) for n in image.shape[1:]]])[0]
    theirs = torch.as_tensor(GaussianSmooth(sd, approx="sampled")(image))
    inner = (slice(None), *[slice(9, -9)] * 3)
    torch.testing.assert_close(ours[inner], theirs[inner], atol=2e-3, rtol=1e-3)
    assert blurring(20, 2.0).sum(1) == pytest.approx(1.0)


@pytest.mark.parametrize("kept", [0.5, 0.7])
def test_lost_resolution_is_monai_s_simulation_of_it(kept):
    from monai.transforms.spatial.array import RandSimulateLowResolution

    image = _image((20, 16, 12))
    ours = along_axes(image[None], [[coarsening(n, kept) for n in image.shape[1:]]])[0]
    lossy = RandSimulateLowResolution(prob=1.0, zoom_range=(kept, kept), align_corners=False)
    torch.testing.assert_close(ours, torch.as_tensor(lossy(image)), atol=1e-4, rtol=1e-4)


def test_noise_has_the_strength_that_was_drawn():
    flat = torch.zeros(40, 1, 12, 12, 12)
    out = _grey(flat, [_rng(n) for n in range(40)], STILL.but(noise=0.4))
    sds = out.std(dim=(1, 2, 3, 4))
    assert 0 < sds.min() < 0.1 < 0.3 < sds.max() < 0.42
    assert out.mean().abs() < 0.005


def test_a_bias_field_is_a_slow_factor():
    field = _field([_rng(n) for n in range(8)], torch.zeros(8, 1, 32, 32, 24))
    assert 0.5 < field.std() < 1.1
    assert (field.diff(dim=2).abs().max() / field.abs().max()) < 0.25
    ones = torch.ones(4, 1, 16, 16, 16)
    out = _grey(ones, [_rng(n) for n in range(4)], STILL.but(field=0.1))
    plain = 1 + 0.1 * _field([_drawn_past(n) for n in range(4)], ones)
    torch.testing.assert_close(out, plain, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("part", ["rotation_deg", "scale", "shift"])
def test_each_part_of_the_geometry_is_monai_s_of_the_same_size(part):
    from monai.transforms.spatial.array import Affine

    shape = (14, 12, 1)
    map_ = _affine(
        _rng(4), shape, MM, STILL.but(**{part: {"rotation_deg": 40, "scale": 0.4, "shift": 0.3}[part]})
    )
    again = _rng(4)  # the draws, in their order
    angle, scale = again.uniform(-1, 1, 3)[2], again.uniform(-1, 1)
    again.random(3)
    shift = again.uniform(-1, 1, 3)[:2] * 0.3 * shape[:2]
    sizes = {
        "rotation_deg": {"rotate_params": np.radians(40) * angle},
        "scale": {"scale_params": (1.4**scale,) * 2},
        "shift": {"translate_params": tuple(shift)},
    }
    theirs = Affine(**sizes[part], mode="bilinear", padding_mode="border", image_only=True)(
        _image(shape)[..., 0]
    )
    ours = sample(_image(shape)[None], sampling_grid(map_[None], shape, shape), "bilinear")[0, ..., 0]
    torch.testing.assert_close(ours, torch.as_tensor(theirs), atol=2e-4, rtol=1e-4)


def test_bends_are_those_of_monai_s_resampling_of_a_displaced_grid():
    from monai.transforms.spatial.array import Resample
    from monai.transforms.utils import create_grid

    grid = sampling_grid(_affine(_rng(), SHAPE, MM, STILL)[None], SHAPE, SHAPE)
    bends = _bends([_rng(5)], SHAPE, MM, _image()[None], STILL.but(elastic=1.5))
    ours = sample(_image()[None], grid + bends, "bilinear")[0]
    moved = torch.as_tensor(create_grid(SHAPE)).float()
    moved[:3] += bends[0].flip(-1).permute(3, 0, 1, 2) * torch.tensor(SHAPE).view(3, 1, 1, 1) / 2
    theirs = Resample(mode="bilinear", padding_mode="border")(_image(), grid=moved)
    torch.testing.assert_close(ours, torch.as_tensor(theirs), atol=2e-4, rtol=1e-4)


def test_noise_is_distributed_as_monai_s():
    from monai.transforms.intensity.array import RandGaussianNoise

    flat = torch.zeros(300, 1, 8, 8, 8)
    ours = _grey(flat, [_rng(n) for n in range(300)], STILL.but(noise=0.4)).flatten()
    noise = RandGaussianNoise(prob=1.0, std=0.4).set_random_state(0)
    theirs = torch.stack([torch.as_tensor(noise(image)) for image in flat]).flatten()
    levels = torch.tensor([0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99])
    torch.testing.assert_close(ours.quantile(levels), theirs.quantile(levels), atol=0.02, rtol=0.08)


def test_a_bias_field_is_nearly_one_of_monai_s():
    from monai.transforms.intensity.array import RandBiasField

    shape, theirs = (16, 14, 12), RandBiasField(degree=6, prob=1.0)
    basis = [theirs._generate_random_field(shape, 6, np.eye(84)[n]).ravel() for n in range(84)]
    factors = _grey(torch.ones(6, 1, *shape), [_rng(n) for n in range(6)], STILL.but(field=0.1))
    for factor in factors:
        log = factor[0].log().numpy().ravel()
        theirs._coeff = np.linalg.lstsq(np.stack(basis, 1), log, rcond=None)[0].tolist()
        same = torch.as_tensor(theirs(torch.ones(1, *shape), randomize=False))
        left = (same - factor).std() / factor.std()
        assert left < 0.7, "noise would leave 0.98"


def _drawn_past(seed: int) -> np.random.Generator:
    """A generator after the draws that come before the field's."""
    rng = _rng(seed)
    for _ in range(3):
        rng.uniform(0, 1, 1)
    return rng


def test_blur_and_coarseness_come_to_one_patch_in_four_and_depend_on_its_seed_alone():
    image = _image((20, 16, 12))[None].repeat(64, 1, 1, 1, 1)
    target = torch.zeros(64, 20, 16, 12, dtype=torch.uint8)
    seeds = np.arange(64)
    settings = STILL.but(blur=1.5)
    out, _ = augment(image, target, (16, 12, 8), (1, 1, 1), seeds, settings)
    plain, _ = augment(image, target, (16, 12, 8), (1, 1, 1), seeds, STILL)
    changed = [not torch.allclose(a, b, atol=1e-5) for a, b in zip(out, plain, strict=True)]
    assert 6 <= sum(changed) <= 26
    alone, _ = augment(
        image[:1], target[:1], (16, 12, 8), (1, 1, 1), seeds[5:6], settings.but(low_resolution=0.5)
    )
    among, _ = augment(image, target, (16, 12, 8), (1, 1, 1), seeds, settings.but(low_resolution=0.5))
    torch.testing.assert_close(alone[0], among[5])
