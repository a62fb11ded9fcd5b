"""Seconds per training iteration of nnU-Net's own network, in nnU-Net's loop and in ours, in turns.

    python -m benchmarks.training_speed PEER_PYTHON [DATA] [--work DIR] [rounds=3]

Same network (PlainConvUNet of the 3d_fullres plan: widths, kernels, strides, instance norm, deep supervision;
as many parameters but for the biases in front of a norm), same patch, same batch, same cases. Loading and
augmentation are part of an iteration on both sides; ours has every change switched on that nnU-Net makes.
Seconds on the clock, and of the processor (nnU-Net's without those of its loading processes), which
say more on a machine that has other work to do.
"""

from __future__ import annotations

import statistics
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

from benchmarks.peers import in_turns, machine, nnunet, nnunet_home, wall, words

FIRST, ITERATIONS = 2, 5
"""Iterations of a round that are not counted, and that are."""
CHANGES = {
    "rotation_deg": 30, "scale": 0.3, "mirror": (0, 1, 2), "contrast": 0.25, "brightness": 0.1,
    "noise": 0.1, "field": 0.0, "gamma": 0.4, "blur": 1.0, "low_resolution": 0.5,
}  # fmt: skip


def main(given: list[str]) -> int:
    """Prepare both sides, then measure."""
    found = words(given, "training_speed")
    if found is None:
        return 0
    with TemporaryDirectory() as folder:
        work = Path(given[given.index("--work") + 1]) if "--work" in given else Path(folder)
        rounds = next((int(w.removeprefix("rounds=")) for w in given if w.startswith("rounds=")), 3)
        return _measure(*found, work, rounds)


def _measure(peer: str, data: Path, work: Path, rounds: int) -> int:
    theirs = work / "nnunet"
    if not list((theirs / "preprocessed").glob("*/*3d_fullres/*")):
        nnunet(peer, theirs, "data", str(data))
        command = str(Path(peer).with_name("nnUNetv2_plan_and_preprocess"))
        wall([command, "-d", "4", "-c", "3d_fullres", "-np", "2"], nnunet_home(theirs))
    told = nnunet(peer, theirs, "iterate", "1")
    cases, plan = _ours(data, work, told)
    jobs = {form: _job(cases, plan, form, work / form) for form in ("float32", "auto")}
    print(f"{machine()}; nnU-Net {nnunet(peer, theirs, 'versions')}")
    print(f"patch {told['patch']}, batch {told['batch']}, {told['parameters']:,} parameters there, "
          f"{_count(jobs['auto']):,} here; number format of 'auto': {jobs['auto'].dtype}")  # fmt: skip
    busy: dict[str, list[float]] = {}

    def noted(name: str, seconds: list[float], processor: list[float]) -> float:
        busy.setdefault(name, []).append(statistics.median(processor[FIRST:]))
        return statistics.median(seconds[FIRST:])

    def their_side() -> float:
        found = nnunet(peer, theirs, "iterate", str(FIRST + ITERATIONS))
        return noted("nnU-Net", found["seconds"], found["processor"])

    taken = in_turns(rounds, {
        "nnU-Net": their_side,
        "medseg, float32": lambda: noted("medseg, float32", *_seconds(jobs["float32"])),
        "medseg, as it comes": lambda: noted("medseg, as it comes", *_seconds(jobs["auto"])),
    })  # fmt: skip
    processor = {name: statistics.median(found) for name, found in busy.items()}
    for name, seconds in taken.items():
        print(f"{name:<20} {seconds:7.3f} s an iteration, {seconds / taken['nnU-Net']:.2f} of nnU-Net's; "
              f"processor {processor[name]:.3f} s, {processor[name] / processor['nnU-Net']:.2f}")  # fmt: skip
    facts = jobs["auto"].state.facts
    print(f"of ours: waiting for data {facts['wait'] / facts['seconds']:.2%}, "
          f"augmentation {facts['change'] / facts['seconds']:.2%}")  # fmt: skip
    return 0


def _ours(data: Path, work: Path, told: Mapping[str, Any]) -> tuple[list[Any], Any]:
    """The prepared cases, and the peer's plan as one of ours."""
    import medseg as ms
    from medseg.learning.sampling import PreparedCase
    from medseg.workflows.journey import prepare_all

    run = ms.Run(work / "ours", quiet=True)
    raw = ms.ingest_all(run, ms.Cohort.from_msd(data))
    network = told["network"]
    arguments = {
        "widths": network["features_per_stage"], "kernels": network["kernel_sizes"],
        "strides": network["strides"], "norm": "instance", "supervised": network["n_stages"] - 2,
    }  # fmt: skip
    plan = ms.make_plan(run, raw).but(
        patch=tuple(told["patch"]), batch=told["batch"], network="unet", network_arguments=arguments
    )
    prepared = prepare_all(run, raw, plan)
    return [PreparedCase(case, artifact.path) for case, artifact in prepared.items()], plan


def _job(cases: list[Any], plan: Any, precision: Any, out: Path) -> Any:
    import torch

    from medseg.learning.devices import keep_memory
    from medseg.learning.job import Job
    from medseg.learning.settings import Augmenting, Training

    keep_memory()
    training = Training(
        epochs=10_000, steps_per_epoch=1, monitor=0.0, checkpoint_seconds=1e9, precision=precision,
        foreground=0.33, augment=Augmenting(**CHANGES),
    )  # fmt: skip
    out.mkdir(parents=True, exist_ok=True)
    return Job(cases, [], plan, training, torch.device("cpu"), out)


def _seconds(job: Any) -> tuple[list[float], list[float]]:
    """Seconds of each iteration, on the clock and of the processor."""
    bar: Any = SimpleNamespace(n=0, update=lambda _: None)
    rows, taken, busy = job.epochs(threading.Event(), bar), [], []
    for _ in range(FIRST + ITERATIONS):
        start, work = time.perf_counter(), time.process_time()
        next(rows)
        taken.append(time.perf_counter() - start)
        busy.append(time.process_time() - work)
    rows.close()
    return taken, busy


def _count(job: Any) -> int:
    return sum(p.numel() for p in job.state.network.parameters())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
