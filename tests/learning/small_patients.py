"""Small patients for the tests of learning: a large bright ball and a small dark one in noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from medseg.core.files import write_json
from medseg.data.plan import Intensity, Plan
from medseg.imaging.grid import Grid
from medseg.imaging.image import Image, write_image
from medseg.imaging.labels import labels

SPACING = (1.5, 1.5, 3.0)


def balls(seed: int, shape: tuple[int, int, int] = (20, 24, 12)) -> tuple[Image, Image]:
    """Image and reference (1 the large ball, 2 the small one inside the other half)."""
    rng = np.random.default_rng(seed)
    grid = Grid.from_spacing(shape, SPACING)
    at = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), -1) * np.array(SPACING)
    size = np.array(shape) * np.array(SPACING)
    first = size * [0.5, 0.3, 0.5] + rng.uniform(-2, 2, 3)
    second = size * [0.5, 0.75, 0.5] + rng.uniform(-2, 2, 3)
    mask = np.zeros(shape, np.uint8)
    mask[np.linalg.norm(at - first, axis=-1) < 8] = 1
    mask[np.linalg.norm(at - second, axis=-1) < 5] = 2
    grey = np.array([0.0, 100.0, -100.0])[mask] + rng.normal(0, 20, shape)
    return Image(grey[None].astype(np.float32), grid), Image(mask[None], grid)


def small_plan(patch: tuple[int, int, int] = (16, 16, 8), **changes: object) -> Plan:
    """A plan one trains in seconds."""
    flat = patch[2] == 1
    step = [2, 2, 1] if flat else [2, 2, 2]
    kernel = [3, 3, 1] if flat else [3, 3, 3]
    plan = Plan(
        channels=("MR",),
        labels=labels(large=1, small=2),
        spacing_mm=SPACING,
        patch=patch,
        batch=8 if flat else 2,
        intensity={"MR": Intensity(name="zscore")},
        network="unet",
        network_arguments={"widths": [4, 8], "strides": [[1, 1, 1], step], "kernels": [kernel, kernel]},
    )
    return plan.but(**changes)


def ingested(folder: Path, seed: int, case: str, patient: str, image: Image, mask: Image | None = None,
             label_class: str | None = None) -> Path:  # fmt: skip
    """Write what the ingest stage would."""
    folder.mkdir(parents=True)
    write_image(image, folder / "image.nii.gz")
    if mask is not None:
        write_image(mask, folder / "reference.nii.gz")
    source = {"case": case, "patient": patient, "channels": ["MR"], "groups": {}, "label_class": label_class}
    write_json(folder / "source.json", source)
    return folder
