"""A report of CT-size cases: how long it takes and how large it is.

``python -m benchmarks.report_size [cases]``: phantoms of 512 x 512 x 120 voxels with noise like a CT's, three
organs (one of them missed, leaking or cut off in some cases), written as NIfTI; then the drawing of the page
(reading included) is timed, and the page is weighed. The scoring before it is not part of the time.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from medseg.evaluation.evaluate import find_images
from medseg.evaluation.folders import find_masks
from medseg.evaluation.pairs import Row
from medseg.evaluation.report.context import ReportContext
from medseg.evaluation.report.gallery import draw_overlays
from medseg.evaluation.report.page import render_report
from medseg.evaluation.summary import summarise
from medseg.imaging.grid import Grid
from medseg.imaging.image import Image, write_image
from medseg.imaging.labels import labels

SHAPE, SPACING = (512, 512, 120), (0.78, 0.78, 2.5)
ORGANS = labels(liver=1, spleen=2, lesion=3)
PLACES = ((0.35, 0.5, 0.55, 95.0), (0.68, 0.55, 0.6, 48.0), (0.3, 0.45, 0.5, 14.0))
"""Centre as a share of the field of view, and radius in mm."""
WHERE = ("image", "reference", "prediction")


def phantom(seed: int) -> tuple[Image, Image, Image]:
    """Image, reference, and a prediction that is a little off; every tenth is badly off."""
    rng = np.random.default_rng(seed)
    grid = Grid.from_spacing(SHAPE, SPACING)
    axes = [np.arange(n, dtype=np.float32) * mm for n, mm in zip(SHAPE, SPACING, strict=True)]
    reference, predicted = (np.zeros(SHAPE, np.uint8) for _ in range(2))
    for label, (*centre, radius) in zip(ORGANS, PLACES, strict=True):
        at = np.array(centre) * [n * mm for n, mm in zip(SHAPE, SPACING, strict=True)] + rng.normal(0, 8, 3)
        _ball(reference, axes, at, radius, label.value)
        if seed % 10 != 3 or label.name != "lesion":
            _ball(predicted, axes, at + rng.normal(0, 2 + 8 * (seed % 10 == 5), 3), radius, label.value)
    if seed % 10 == 7:
        _ball(predicted, axes, np.array([60.0, 60.0, 60.0]), 12, 1)
    grey = rng.normal(0, 25, SHAPE).astype(np.float32) + 60 + 40 * (reference == 1) + 20 * (reference == 2)
    arrays = (np.round(grey).astype(np.int16), reference, predicted)
    image, truth, guess = (Image(array[None], grid) for array in arrays)
    return image, truth, guess


def _ball(mask: np.ndarray, axes: list[np.ndarray], at: np.ndarray, radius: float, value: int) -> None:
    inside = [np.abs(axis - centre) <= radius for axis, centre in zip(axes, at, strict=True)]
    box = tuple(slice(int(x.argmax()), len(x) - int(x[::-1].argmax())) for x in inside)
    i, j, k = np.ix_(*((axis[s] - c) ** 2 for axis, s, c in zip(axes, box, at, strict=True)))
    mask[box][i + j + k <= radius**2] = value


def _rows(case: str, seed: int) -> list[Row]:
    """Plausible numbers: the page draws them as any others."""
    rng = np.random.default_rng([seed, 1])
    found = []
    for label in ORGANS:
        base = {"case": case, "patient": case, "label": label.name, "status": "ok"}
        volume = float(rng.uniform(20, 1500))
        values = {"dice": rng.beta(30, 3), "nsd": rng.beta(20, 3), "hd95": rng.gamma(2, 3)}
        values |= {"volume_ref": volume, "volume_pred": volume * rng.normal(1, 0.05)}
        values |= {"volume_error": 100 * (values["volume_pred"] / volume - 1)}
        units = {"hd95": "mm", "volume_ref": "ml", "volume_pred": "ml", "volume_error": "%"}
        found += [
            base | {"metric": m, "value": float(v), "unit": units.get(m, "")} for m, v in values.items()
        ]
    return found


def main(cases: int = 50) -> None:
    """Write the phantoms, draw the report, print time, size and peak memory."""
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        for seed in range(cases):
            for name, image in zip(WHERE, phantom(seed), strict=True):
                write_image(image, root / name / f"ct{seed:03}.nii.gz")
        rows = [row for seed in range(cases) for row in _rows(f"ct{seed:03}", seed)]
        images = find_images(root / "image")
        sides = [find_masks(root / name) for name in WHERE[1:]]
        begun, busy = time.perf_counter(), time.process_time()
        overlays = draw_overlays({c: (images[c], sides[0][c], sides[1][c]) for c in images}, rows, ORGANS)
        drawn = time.perf_counter()
        context = ReportContext("Benchmark", rows, summarise(rows), ORGANS, overlays=tuple(overlays))
        page = render_report(context, root / "report")
        ended, busy = time.perf_counter(), time.process_time() - busy
        size = page.stat().st_size / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{cases} cases of {' x '.join(map(str, SHAPE))} voxels, {len(ORGANS)} labels")
    print(f"pictures and tags {drawn - begun:.1f} s, statistics and page {ended - drawn:.1f} s")
    print(f"processor {busy:.1f} s")
    print(f"{size:.1f} MB, peak memory {peak:.2f} GB")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
