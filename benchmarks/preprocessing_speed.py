"""From 200 NIfTI cases to arrays that training reads: nnU-Net's preprocessing and ours, in turns.

    python -m benchmarks.preprocessing_speed PEER_PYTHON [DATA] [rounds=3]

Wall time of one command with two processes, from the same raw files: nnUNetv2_plan_and_preprocess of its
configuration 3d_fullres (fingerprint, plan, preprocessing), and ours (reading and checking each case,
fingerprint, plan, preparation). Then the voxels of some cases are held against each other.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks.peers import in_turns, machine, nnunet, nnunet_home, wall, words

COMPARED = 10
OURS = """
import sys
import medseg as ms
from medseg.workflows.journey import prepare_all
if __name__ == "__main__":
    run = ms.Run(sys.argv[2], workers=2, quiet=True)
    raw = ms.ingest_all(run, ms.Cohort.from_msd(sys.argv[1]))
    channel = raw.cohort.channels[0]
    plan = ms.make_plan(run, raw, spacing_mm=(1, 1, 1), intensity={channel: {"name": "zscore"}})
    assert len(prepare_all(run, raw, plan)) == len(raw)
"""


def main(given: list[str]) -> int:
    """Measure, then compare."""
    found = words(given, "preprocessing_speed")
    if found is None:
        return 0
    rounds = next((int(w.removeprefix("rounds=")) for w in given if w.startswith("rounds=")), 3)
    with TemporaryDirectory() as folder:
        return _measure(*found, Path(folder), rounds)


def _measure(peer: str, data: Path, work: Path, rounds: int) -> int:
    theirs, ours, script = work / "nnunet", work / "ours", work / "ours.py"
    script.write_text(OURS)
    nnunet(peer, theirs, "data", str(data))
    command = str(Path(peer).with_name("nnUNetv2_plan_and_preprocess"))

    def their_side() -> float:
        shutil.rmtree(theirs / "preprocessed", ignore_errors=True)
        return wall([command, "-d", "4", "-c", "3d_fullres", "-np", "2"], nnunet_home(theirs))

    def our_side() -> float:
        shutil.rmtree(ours, ignore_errors=True)
        return wall([sys.executable, str(script), str(data), str(ours)], os.environ)

    print(f"{machine()}; nnU-Net {nnunet(peer, theirs, 'versions')}")
    taken = in_turns(rounds, {"nnU-Net": their_side, "medseg": our_side})
    print(f"nnU-Net {taken['nnU-Net']:.1f} s, medseg {taken['medseg']:.1f} s: "
          f"{taken['medseg'] / taken['nnU-Net']:.2f} of nnU-Net's")  # fmt: skip
    _compare(peer, theirs, ours, work)
    return 0


def _compare(peer: str, theirs: Path, ours: Path, work: Path) -> None:
    """Largest and mean difference of the normalised voxels; share of labels that agree."""
    cases = sorted(p.name for p in (ours / "prepare").iterdir() if not p.name.startswith("."))[:COMPARED]
    nnunet(peer, theirs, "dump", ",".join(cases), str(work))
    largest, mean, same = [], [], []
    for case in cases:
        a = np.load(work / f"{case}_image.npy")[0].transpose(2, 1, 0)
        b = np.load(ours / "prepare" / case / "image.npy")[0].astype(np.float32)
        b, labels = _laid_alike(a, b, np.load(ours / "prepare" / case / "reference.npy"))
        largest.append(float(np.abs(a - b).max()))
        mean.append(float(np.abs(a - b).mean()))
        same.append(float((np.load(work / f"{case}_labels.npy")[0].transpose(2, 1, 0) == labels).mean()))
    print(f"{len(cases)} cases: largest difference {max(largest):.4f} sd, mean {np.mean(mean):.5f} sd, "
          f"labels equal in {min(same):.4%} of the voxels at least")  # fmt: skip


def _laid_alike(a: np.ndarray, b: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Our axes run to the right, to the front and up; the file's may run the other way."""
    turns = [axes for n in range(8) if (axes := [i for i in range(3) if n >> i & 1]) is not None]
    best = min(turns, key=lambda axes: float(np.abs(a - np.flip(b, axes)).mean()))
    return np.flip(b, best), np.flip(labels, best)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
