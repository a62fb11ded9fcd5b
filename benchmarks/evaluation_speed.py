"""How long a whole evaluation takes: 260 hippocampus-size cases, every metric, 2,000 bootstraps, the report.

    python -m benchmarks.evaluation_speed [--cases 260] [--workers 2]

Real references from the shared hippocampus set, used again until there are enough; the predictions are moved
by a voxel and shaved. Timed as a user would run it: ``medseg evaluate`` in a process of its own, start to
finish. Prints a line for RESULTS.md.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

METRICS = (
    "dice,iou,hd,hd95,assd,masd,nsd,volume_pred,volume_ref,volume_error,volume_difference,"
    "lesion_sensitivity,lesion_precision,lesion_f1,pq,sq,lesions_ref,lesions_pred,lesions_found"
)


def make_cases(data: Path, out: Path, n: int) -> None:
    """Write `n` references and predictions below `out`."""
    from scipy import ndimage

    from medseg.imaging.image import read_mask, write_image

    files = sorted((data / "hippocampus" / "labelsTr").glob("*.nii.gz"))
    for i in range(n):
        reference = read_mask(files[i % len(files)])
        array = reference.array[0]
        shaved = np.where(ndimage.binary_erosion(array > 0), array, 0)
        moved = np.roll(shaved, 1 + i // len(files), axis=i % 3).astype(np.uint8)
        write_image(reference, out / "ref" / f"case{i:04d}.nii.gz")
        write_image(reference.but(moved[None]), out / "pred" / f"case{i:04d}.nii.gz")


def main() -> None:
    """Make the cases, evaluate them once, and print the line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--cases", type=int, default=260)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make_cases(options.data, root, options.cases)
        words = [str(root / name) for name in ("pred", "ref", "out")]
        words += ["--labels", "anterior=1,posterior=2,whole=1+2", f"metrics=[{METRICS}]", "repeats=2000"]
        call = [
            sys.executable,
            "-m",
            "medseg",
            "evaluate",
            *words,
            "--workers",
            str(options.workers),
            "--quiet",
        ]
        start = time.perf_counter()
        subprocess.run(call, check=True, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - start
        page = (root / "out" / "report" / "index.html").stat().st_size / 1e6
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(
        f"| {options.cases} cases, 3 structures, {len(METRICS.split(','))} metrics, 2,000 bootstraps, report "
        f"({page:.1f} MB) | {seconds:.1f} s | {used.ru_utime + used.ru_stime:.1f} CPU s | "
        f"{used.ru_maxrss / 1024:.0f} MB | {options.workers} processes |"
    )


if __name__ == "__main__":
    main()
