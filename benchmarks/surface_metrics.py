"""Surface metrics beside MONAI: HD95, HD, ASSD and NSD of the same masks, in one run.

    python benchmarks/surface_metrics.py [--data ../shared/data] [--repeats 3]

Each tool works in a process of its own (so that its peak memory is its own), first call discarded, median of
the repeats. MONAI is called as users call it: one function a metric. Prints a table for RESULTS.md.
"""

from __future__ import annotations

import argparse
import platform
import resource
import statistics
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

TOLERANCE_MM = 2.0
Case = tuple[NDArray[np.uint8], NDArray[np.uint8], tuple[float, float, float]]


def big_ellipsoids() -> list[Case]:
    """Two labels of 256 x 256 x 256, spacing 1 x 1 x 1.5 mm, the prediction moved and swollen."""
    at = np.indices((256, 256, 256), dtype=np.float32)
    masks = []
    for shift, swell in ((0, 1.0), (3, 1.03)):
        mask = np.zeros(at.shape[1:], np.uint8)
        for value, (centre, radii) in enumerate(
            (((100, 120, 128), (60, 45, 70)), ((190, 150, 110), (25, 30, 40))), 1
        ):
            inside = sum(((at[a] - centre[a] - shift) / (radii[a] * swell)) ** 2 for a in range(3)) <= 1
            mask[inside] = value
        masks.append(mask)
    return [(masks[1], masks[0], (1.0, 1.0, 1.5))]


def hippocampi(data: Path, n: int = 40) -> list[Case]:
    """Real masks, the prediction made by moving the reference a voxel and shaving it."""
    from scipy import ndimage

    from medseg.imaging.image import read_mask

    cases = []
    for file in sorted((data / "hippocampus" / "labelsTr").glob("*.nii.gz"))[:n]:
        reference = read_mask(file)
        array = reference.array[0]
        shaved = np.where(ndimage.binary_erosion(array > 0), array, 0)
        cases.append((np.roll(shaved, 1, 1).astype(np.uint8), array, reference.grid.spacing_mm))
    return cases


def ours(cases: list[Case]) -> list[float]:
    """All four metrics of every label by medseg."""
    from medseg.evaluation.pairs import score_pair
    from medseg.evaluation.policy import Scoring
    from medseg.imaging.grid import Grid
    from medseg.imaging.image import Image
    from medseg.imaging.labels import labels

    scoring = Scoring(metrics=("hd95", "hd", "assd", "nsd"), tolerance_mm=TOLERANCE_MM)
    values: list[float] = []
    for mask, reference, spacing in cases:
        grid = Grid.from_spacing(mask.shape, spacing)
        rows = score_pair(
            Image(mask[None], grid), Image(reference[None], grid), labels(a=1, b=2), scoring, "c"
        )
        values += [row["value"] for row in rows]
    return values


def monais(cases: list[Case]) -> list[float]:
    """The same by MONAI, a call a metric, both labels at once."""
    import torch
    from monai.metrics import (
        compute_average_surface_distance,
        compute_hausdorff_distance,
        compute_surface_dice,
    )

    values: list[float] = []
    for mask, reference, spacing in cases:
        seen = [
            torch.stack([torch.as_tensor(m == v) for v in (0, 1, 2)])[None].float() for m in (mask, reference)
        ]
        how = {"spacing": list(spacing)}
        found = [
            compute_hausdorff_distance(*seen, percentile=95, **how)[0],
            compute_hausdorff_distance(*seen, **how)[0],
            compute_average_surface_distance(*seen, symmetric=True, **how)[0],
            compute_surface_dice(*seen, [TOLERANCE_MM] * 2, use_subvoxels=True, **how)[0],
        ]
        values += [float(metric[label]) for label in (0, 1) for metric in found]
    return values


def timed(
    tool: Callable[[list[Case]], list[float]], cases: list[Case], repeats: int
) -> tuple[float, float, float, list[float]]:
    """Median wall and CPU seconds, peak MB of the process, values."""
    warnings.simplefilter("ignore")
    values = tool(cases)
    wall, cpu = [], []
    for _ in range(repeats):
        start, start_cpu = time.perf_counter(), time.process_time()
        tool(cases)
        wall.append(time.perf_counter() - start)
        cpu.append(time.process_time() - start_cpu)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return statistics.median(wall), statistics.median(cpu), peak, values


def main() -> None:
    """Run both tools on both sets and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    sets = {"2 labels, 256^3": big_ellipsoids()}
    if (options.data / "hippocampus").is_dir():
        sets["40 hippocampi"] = hippocampi(options.data)
    packages = ", ".join(f"{p} {version(p)}" for p in ("monai", "torch", "scipy", "numpy"))
    print(f"Python {platform.python_version()}, {packages}, {platform.machine()}\n")
    print(
        "| masks | medseg s (CPU s) | MONAI s (CPU s) | ratio | medseg MB | MONAI MB | largest difference |"
    )
    print("|---|---|---|---|---|---|---|")
    for name, cases in sets.items():
        results = []
        for tool in (ours, monais):
            with get_context("spawn").Pool(1) as pool:
                results.append(pool.apply(timed, (tool, cases, options.repeats)))
        (a, a_cpu, a_mb, mine), (b, b_cpu, b_mb, theirs) = results
        apart = max(abs(x - y) for x, y in zip(mine, theirs, strict=True))
        times = f"{a:.2f} ({a_cpu:.2f}) | {b:.2f} ({b_cpu:.2f}) | {b / a:.1f} ({b_cpu / a_cpu:.1f})"
        print(f"| {name} | {times} | {a_mb:.0f} | {b_mb:.0f} | {apart:.1e} |")


if __name__ == "__main__":
    main()
