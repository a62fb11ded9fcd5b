"""Ellipsoid patients: an abdomen with two organs and a lesion whose volumes are known in closed form.

A patient is drawn in RAS millimetres, then looked at by a scanner: a grid of any orientation and
spacing, partial volume at the edges, noise. The mask labels a voxel by what lies at its centre, so
that its volume is unbiased; the closed form is 4/3 pi abc. The lesion lies inside the liver with a
margin and is not counted as liver: closed-form liver = liver ellipsoid - lesion.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from medseg.imaging.grid import Grid
from medseg.imaging.image import Image
from medseg.imaging.labels import Code, Label, Labels

Size = Literal["normal", "tiny"]
Orientation = Literal["axial", "oblique", "sagittal"]
ORIENTATIONS: tuple[Orientation, ...] = ("axial", "oblique", "sagittal", "axial")
Array = NDArray[np.float64]

_ANATOMY = Code(value="123037004", meaning="Anatomical Structure")
_ABNORMAL = Code(value="49755003", meaning="Morphologically Altered Structure")

PHANTOM_LABELS: Labels = (
    Label(
        value=1,
        name="liver",
        category=_ANATOMY,
        type=Code(value="10200004", meaning="Liver"),
        colour="#b5651d",
    ),
    Label(
        value=2,
        name="spleen",
        category=_ANATOMY,
        type=Code(value="78961009", meaning="Spleen"),
        colour="#6a5acd",
    ),
    Label(
        value=3,
        name="lesion",
        category=_ABNORMAL,
        type=Code(value="52988006", meaning="Lesion"),
        colour="#f6ae2d",
    ),
)

_FIELD_MM = np.array([256.0, 200.0, 160.0])
_AIR_HU, _FAT_HU, _SOFT_HU = -1000.0, -90.0, 25.0


@dataclass(frozen=True)
class Ellipsoid:
    """An ellipsoid in RAS mm, turned about the superior axis by `turn` radians."""

    centre_mm: tuple[float, float, float]
    radii_mm: tuple[float, float, float]
    hu: float
    value: int = 0
    turn: float = 0.0

    @property
    def volume_ml(self) -> float:
        """4/3 pi abc, in ml."""
        return 4 / 3 * math.pi * math.prod(self.radii_mm) / 1000

    def depth_mm(self, points_mm: Array) -> Array:
        """Distance to the surface (first order), positive inside; ``[..., 3]`` -> ``[...]``."""
        c, s = math.cos(self.turn), math.sin(self.turn)
        local = (points_mm - np.array(self.centre_mm)) @ np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
        scaled = local / np.array(self.radii_mm)
        level = np.linalg.norm(scaled, axis=-1)
        slope = np.linalg.norm(scaled / np.array(self.radii_mm), axis=-1) / np.maximum(level, 1e-9)
        return (1 - level) / np.maximum(slope, 1e-9)


@dataclass(frozen=True)
class Phantom:
    """One drawn patient as one scanner saw it.

    Attributes
    ----------
    image : Image
        HU, float32 ``[1, I, J, K]``.
    mask : Image
        Label values of `PHANTOM_LABELS`, uint8, on the same grid.
    volumes_ml : mapping of str to float
        Closed-form volume of each label, by name.
    orientation : str
        How the slices lie.
    """

    image: Image
    mask: Image
    volumes_ml: Mapping[str, float]
    orientation: Orientation
    bodies: tuple[Ellipsoid, ...]


def draw_patient(seed: int, number: int = 0, size: Size = "normal", lesions: int = 1) -> Phantom:
    """Draw patient `number` of the population `seed`; the same two numbers give the same patient.

    Parameters
    ----------
    size : {"normal", "tiny"}
        ``normal``: about 64 x 50 x 27 voxels of 4 x 4 x 6 mm. ``tiny``: a tenth of them, for tests.
    lesions : int
        0 draws a patient without lesion, whose closed-form lesion volume is 0.
    """
    rng = np.random.default_rng([seed, number])
    bodies = (*_body(rng), *_organs(rng, lesions))
    orientation = ORIENTATIONS[number % len(ORIENTATIONS)]
    grid = _best_place(_scanner(rng, orientation, size), bodies, rng)
    image, mask = _scan(bodies, grid, rng)
    return Phantom(image, mask, closed_form_ml(bodies), orientation, bodies)


def labelled(bodies: tuple[Ellipsoid, ...], grid: Grid) -> Image:
    """The mask: each voxel has the label of the last body that holds its centre."""
    points = grid.to_mm(np.moveaxis(np.indices(grid.shape), 0, -1))
    mask = np.zeros(grid.shape, np.uint8)
    for body in bodies:
        if body.value:
            mask[body.depth_mm(points) >= 0] = body.value
    return Image(mask[None], grid)


def closed_form_ml(bodies: tuple[Ellipsoid, ...]) -> dict[str, float]:
    """Volume of each label in ml: its ellipsoid, less the lesion where that lies inside (the liver)."""
    volumes = {
        label.name: sum(b.volume_ml for b in bodies if b.value == label.value) for label in PHANTOM_LABELS
    }
    return volumes | {"liver": volumes["liver"] - volumes["lesion"]}


def _body(rng: np.random.Generator) -> tuple[Ellipsoid, ...]:
    """Table, fat, soft tissue, spine, bowel gas and a vessel: later ones lie over earlier ones."""
    wide, deep = rng.uniform(112, 120), rng.uniform(82, 90)
    gas = (rng.uniform(-15, 10), rng.uniform(35, 45), rng.uniform(-45, -25))
    return (
        Ellipsoid((0, -deep - 12, 0), (100, 6, 1e4), -300),
        Ellipsoid((0, 0, 0), (wide, deep, 1e4), _FAT_HU),
        Ellipsoid((0, 0, 0), (wide - 10, deep - 12, 1e4), _SOFT_HU),
        Ellipsoid((0, -50, 0), (16, 14, 1e4), rng.uniform(320, 420)),
        Ellipsoid((rng.uniform(4, 10), -28, 0), (9, 9, 1e4), rng.uniform(150, 180)),
        Ellipsoid(gas, (rng.uniform(10, 14), 9, 12), -800),
    )


def _organs(rng: np.random.Generator, lesions: int) -> tuple[Ellipsoid, ...]:
    def about(centre: tuple[float, ...], by_mm: float) -> tuple[float, float, float]:
        x, y, z = (c + rng.uniform(-by_mm, by_mm) for c in centre)
        return x, y, z

    radii = (rng.uniform(44, 50), rng.uniform(42, 50), rng.uniform(42, 52))
    liver = Ellipsoid(about((48, 4, 0), 5), radii, rng.uniform(100, 115), 1, rng.uniform(-0.25, 0.25))
    spleen = Ellipsoid(
        about((-62, -14, 0), 5), (rng.uniform(24, 29), rng.uniform(28, 34), rng.uniform(34, 42)),
        rng.uniform(135, 150), 2, rng.uniform(-0.3, 0.3),
    )  # fmt: skip
    return (liver, spleen, *(_lesion(rng, liver) for _ in range(lesions)))


def _lesion(rng: np.random.Generator, liver: Ellipsoid) -> Ellipsoid:
    """A dark ellipsoid wholly inside the liver: even its farthest point stays 6 mm under the surface."""
    radii = (rng.uniform(11, 15), rng.uniform(11, 15), rng.uniform(11, 15))
    direction = rng.normal(size=3)
    room = min(liver.radii_mm) - max(radii) - 6
    offset = direction / np.linalg.norm(direction) * room * rng.uniform(0.2, 1) ** (1 / 3)
    x, y, z = (float(c + o) for c, o in zip(liver.centre_mm, offset, strict=True))
    return Ellipsoid((x, y, z), radii, rng.uniform(40, 55), 3)


def _scanner(rng: np.random.Generator, orientation: Orientation, size: Size) -> Grid:
    """A grid centred near the origin that holds the organs, with spacing of its own."""
    factor = 1.0 if size == "normal" else 2.2
    fine = rng.uniform(3.6, 4.4) * factor
    coarse = rng.uniform(5.0, 6.5) * (factor if size == "normal" else 1.6)
    axes = _ORIENTED[orientation] if orientation != "oblique" else _oblique(rng)
    field = np.abs(_ORIENTED["sagittal" if orientation == "sagittal" else "axial"]).T @ _FIELD_MM
    spacing = np.array([fine, fine, coarse])
    shape = np.ceil(field / spacing).astype(int)
    affine = np.eye(4)
    affine[:3, :3] = axes * spacing
    affine[:3, 3] = rng.uniform(-3, 3, 3) - affine[:3, :3] @ ((shape - 1) / 2)
    return Grid((int(shape[0]), int(shape[1]), int(shape[2])), np.round(affine, 9))


_ORIENTED: dict[str, Array] = {
    # columns: direction in RAS of the array's axes I (along a row), J (down a column), K (normal)
    "axial": np.array([[-1.0, 0, 0], [0, -1.0, 0], [0, 0, 1.0]]),
    "sagittal": np.array([[0, 0, 1.0], [-1.0, 0, 0], [0, -1.0, 0]]),
}


def _oblique(rng: np.random.Generator) -> Array:
    """Axial slices, tipped by 6 to 12 degrees about two axes."""
    a, b = np.radians(rng.uniform(6, 12, 2)) * rng.choice([-1, 1], 2)
    about_x = np.array([[1, 0, 0], [0, math.cos(a), -math.sin(a)], [0, math.sin(a), math.cos(a)]])
    about_y = np.array([[math.cos(b), 0, math.sin(b)], [0, 1, 0], [-math.sin(b), 0, math.cos(b)]])
    return about_x @ about_y @ _ORIENTED["axial"]


def _scan(bodies: tuple[Ellipsoid, ...], grid: Grid, rng: np.random.Generator) -> tuple[Image, Image]:
    points = grid.to_mm(np.moveaxis(np.indices(grid.shape), 0, -1))
    blur_mm = float(np.mean(grid.spacing_mm))
    hu = np.full(grid.shape, _AIR_HU)
    for body in bodies:
        part = np.clip(0.5 + body.depth_mm(points) / blur_mm, 0, 1)
        hu += part * (body.hu - hu)
    hu += _texture(rng, grid.shape) + rng.normal(0, 10, grid.shape)
    image = np.clip(np.rint(hu), -1024, 3071).astype(np.float32)
    return Image(image[None], grid), labelled(bodies, grid)


def _best_place(grid: Grid, bodies: tuple[Ellipsoid, ...], rng: np.random.Generator, tries: int = 12) -> Grid:
    """The grid, shifted by parts of a voxel, on which voxel counts come nearest to the closed form.

    A lesion of 100 voxels is easily 5 % off by the accident of where the lattice falls; what a test
    measures should be the segmentation, not that accident.
    """
    closed = closed_form_ml(bodies)
    best, least = grid, math.inf
    for _ in range(tries):
        affine = grid.affine.copy()
        affine[:3, 3] += grid.affine[:3, :3] @ rng.uniform(-0.5, 0.5, 3)
        moved = Grid(grid.shape, np.round(affine, 9))
        error = _worst_error(labelled(bodies, moved), closed)
        if error < least:
            best, least = moved, error
        if least < 0.015:
            break
    return best


def _worst_error(mask: Image, closed: Mapping[str, float]) -> float:
    """The largest relative difference between counted and closed-form volume."""
    counts = np.bincount(mask.array.ravel(), minlength=len(PHANTOM_LABELS) + 1) * mask.grid.voxel_ml
    return max(
        (abs(counts[label.value] / closed[label.name] - 1) for label in PHANTOM_LABELS if closed[label.name]),
        default=0.0,
    )


def _texture(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """A slow shading of a few HU, as beam hardening leaves it."""
    total = np.zeros(shape)
    axes = np.meshgrid(*(np.linspace(0, math.pi, n) for n in shape), indexing="ij", sparse=True)
    for _ in range(4):
        waves, phase = rng.uniform(0.5, 2.0, 3), rng.uniform(0, 2 * math.pi)
        total = total + 3 * np.cos(sum(w * a for w, a in zip(waves, axes, strict=True)) + phase)
    return total
