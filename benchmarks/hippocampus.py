"""Dice over time on MSD hippocampus: the whole command, from images to report, on this machine.

    python -m benchmarks.hippocampus [DATA] [3d|2d] [key=value ...]

Prints wall minutes, processor minutes and peak memory of the whole command, Dice on the test part with its
interval, and the curve of the monitor Dice over training seconds.
"""

from __future__ import annotations

import csv
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
DATA = PROJECT.parent / "shared" / "data" / "hippocampus"


def main(words: list[str]) -> int:
    """Train once and print what came of it."""
    data = next((w for w in words if Path(w).is_dir()), str(DATA))
    kind = "2d" if "2d" in words else "3d"
    if not Path(data).is_dir():
        print("no data: give the folder of MSD Task04 ('medseg fetch msd-hippocampus data')")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "runs" / "hippocampus"
        recipe = PROJECT / "configs" / "segmentation" / f"hippocampus_{kind}.yaml"
        overrides = [f"cohort.root={data}", *(w for w in words if "=" in w)]
        command = [sys.executable, "-m", "medseg.cli", "train", str(recipe), *overrides, "--run", str(run)]
        start = time.perf_counter()
        done = subprocess.run(command, check=False)
        _tell(kind, run, time.perf_counter() - start)
        return done.returncode


def _tell(kind: str, run: Path, wall: float) -> None:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = used.ru_utime + used.ru_stime
    python, torch = platform.python_version(), version("torch")
    print(f"\nhippocampus {kind}, {os.cpu_count()} cores, Python {python}, torch {torch}")
    print(
        f"wall {wall / 60:.2f} min, processor {processor / 60:.2f} min, peak {used.ru_maxrss / 2**20:.2f} GiB"
    )
    summary = json.loads((run / "summary.json").read_text())
    cells = {k: v["dice"] for k, v in summary["labels"].items()} | {
        "mean": summary["mean_over_labels"]["dice"]
    }
    for label, cell in cells.items():
        low, high = cell["mean_ci"]
        print(f"Dice {label:<10} {cell['mean']:.4f} [{low:.4f}, {high:.4f}]")
    print("training seconds, loss, monitor Dice")
    for file in sorted((run / "train").glob("*/history.csv")):
        print(file.parent.name)
        for row in csv.DictReader(file.read_text().splitlines()):
            seconds, loss, dice = (float(row.get(k) or "nan") for k in ("seconds", "loss", "monitor_dice"))
            if dice == dice:
                print(f"{seconds:8.1f} {loss:8.4f} {dice:8.4f}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
