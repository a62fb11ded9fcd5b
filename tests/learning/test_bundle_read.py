"""Bundles of others: what is understood without running code, what is refused, what is computed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from medseg.core.errors import MedsegError
from medseg.imaging.grid import Grid
from medseg.imaging.image import Image, write_image
from medseg.learning.bundle_read import Reader
from medseg.learning.bundle_use import open_bundle

NETWORK = {
    "_target_": "UNet", "spatial_dims": 3, "in_channels": 1, "out_channels": 2, "channels": [4, 8],
    "strides": [2], "num_res_units": 0,
}  # fmt: skip
CONFIG = {
    "imports": ["$import os"],
    "key": "image",
    "network_def": NETWORK,
    "network": "$@network_def.to(@device)",
    "preprocessing": {
        "_target_": "Compose",
        "transforms": [
            {"_target_": "LoadImaged", "keys": "@key"},
            {"_target_": "EnsureChannelFirstd", "keys": "image"},
            {"_target_": "Orientationd", "keys": "image", "axcodes": "RAS"},
            {"_target_": "ScaleIntensityd", "keys": "image"},
        ],
    },
    "inferer": {"_target_": "SlidingWindowInferer", "roi_size": [16, 16, 16], "overlap": 0.25},
    "postprocessing": {
        "_target_": "monai.transforms.Compose",
        "transforms": [
            {"_target_": "Activationsd", "keys": "pred", "softmax": True},
            {"_target_": "Invertd", "keys": "pred", "transform": "@preprocessing", "orig_keys": "image"},
            {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
            {"_target_": "SaveImaged", "keys": "pred", "output_dir": "$os.getcwd()"},
        ],
    },
}


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    from monai.networks.nets.unet import UNet

    folder = tmp_path / "bundle"
    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    (folder / "configs" / "inference.json").write_text(json.dumps(CONFIG))
    torch.manual_seed(0)
    network = UNet(3, 1, 2, (4, 8), (2,), num_res_units=0)
    torch.save({"model": network.state_dict()}, folder / "models" / "model.pt")
    return folder


@pytest.mark.filterwarnings("ignore")
def test_a_bundle_gives_what_its_network_gives_on_the_image_s_own_grid(bundle: Path, tmp_path: Path) -> None:
    affine = np.diag([-1.0, 1, 2, 1])
    array = np.random.default_rng(0).normal(size=(1, 16, 16, 16)).astype(np.float32)
    image = Image(array, Grid((16, 16, 16), affine))
    write_image(image, tmp_path / "image.nii.gz")
    opened = open_bundle(bundle, "cpu")
    mask = opened.segment([tmp_path / "image.nii.gz"], image)
    scaled = (array - array.min()) / (array.max() - array.min())
    with torch.inference_mode():
        wanted = opened.network(torch.from_numpy(np.ascontiguousarray(scaled[:, ::-1]))[None])[0].argmax(0)
    assert mask.grid.matches(image.grid)
    assert np.array_equal(mask.array[0], wanted.numpy()[::-1])


@pytest.mark.parametrize(
    ("raw", "wanted"),
    [
        ("$@a * 2 + 1", 7), ("$[@a, -1]", [3, -1]), ("@list#1", 20), ("$torch.float32", torch.float32),
        ("$@root + '/x'", "r/x"), ("$not True", False),
    ],
)  # fmt: skip
def test_plain_expressions_are_computed(raw: str, wanted: object) -> None:
    assert Reader({"a": 3, "list": [10, 20], "root": "r", "x": raw}).section("x") == wanted


@pytest.mark.parametrize(
    "raw",
    [
        "$__import__('os').system('true')", "$open('x').read()", "$(lambda: 1)()", "$@a.__class__",
        "%other.json",
        "$[x for x in (1, 2)]", "$torch.hub", {"_target_": "os.system", "command": "true"},
        {"_target_": "Lambdad", "keys": "image", "func": "$lambda x: x"}, {"_target_": "scripts.net.Net"},
        {"_target_": "monai.apps.utils.download_url", "url": "u"}, {"_target_": "UNet", "_mode_": "debug"},
        {"_target_": "monai.transforms.io.array.os.system"},
    ],
)  # fmt: skip
def test_code_is_refused_with_its_place(raw: object) -> None:
    with pytest.raises(MedsegError, match="would run code") as seen:
        Reader({"a": 3, "x": [raw]}).section("x")
    assert "x#0" in str(seen.value)


def test_a_circle_and_a_gap_are_named() -> None:
    with pytest.raises(MedsegError, match="refers to itself"):
        Reader({"a": "@b", "b": "@a"}).section("a")
    with pytest.raises(MedsegError, match="has no 'c'"):
        Reader({"a": "@c"}).section("a")


def test_weights_that_would_run_code_or_do_not_fit_are_refused(bundle: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return print, ("run",)

    weights = bundle / "models" / "model.pt"
    torch.save({"other": torch.zeros(1)}, weights)
    with pytest.raises(MedsegError, match="do not fit"):
        open_bundle(bundle, "cpu")
    torch.save(Evil(), weights)
    with pytest.raises(MedsegError, match="without running code"):
        open_bundle(bundle, "cpu")
    weights.unlink()
    (bundle / "models" / "model.ts").write_bytes(b"x")
    with pytest.raises(MedsegError, match="trust=true"):
        open_bundle(bundle, "cpu")
