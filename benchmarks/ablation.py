"""What a change of the training brings, on the training cases of a run: its test part is never looked at.

    python -m benchmarks.ablation RUN [minutes=5] [without=24] [seeds=1] [NAME:key=value,key=value ...]

Part of the subjects whose cases are prepared in RUN (a folder of ``medseg train``) is left out and judged.
One network is trained on the others as the run's plan says, and one for each named change of the training's
settings (``strong:augment.rotation_deg=25,augment.gamma=0.3``). Lengths are processor minutes of one thread,
so that other work on the machine does not matter. Differences are paired by subject, with intervals.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import yaml

from benchmarks.peers import machine

AS_IT_IS = "as it is"


def main(given: list[str]) -> int:
    """Train and judge each arm, then compare it with the first."""
    place = next((Path(word) for word in given if Path(word).is_dir()), None)
    if place is None or not (place / "prepare").is_dir():
        print("no run: give the folder of a finished 'medseg train' of a segmentation")
        return 0
    told = dict(word.split("=", 1) for word in given if "=" in word and ":" not in word)
    arms = {AS_IT_IS: {}} | {n: _settings(s) for n, _, s in (w.partition(":") for w in given if ":" in w)}
    print(f"{machine()}; {told.get('minutes', '5')} processor minutes a network", flush=True)
    found = {name: _scores(place, changes, told) for name, changes in arms.items()}
    for name, scores in found.items():
        print(f"{name:<20} Dice {np.mean(list(scores.values())):.4f}{_less(scores, found[AS_IT_IS])}")
    return 0


def _settings(said: str) -> dict[str, Any]:
    """``a.b=1,c=2`` -> nested settings."""
    out: dict[str, Any] = {}
    for part in said.split(","):
        name, _, value = part.partition("=")
        *path, last = name.split(".")
        inner = out
        for step in path:
            inner = inner.setdefault(step, {})
        inner[last] = yaml.safe_load(value)
    return out


def _scores(place: Path, changes: Mapping[str, Any], told: Mapping[str, str]) -> dict[tuple[str, str], float]:
    """Mean Dice over labels of each case left out, by (subject, case); the mean over seeds."""
    runs = [_trained(place, {**changes, "seed": seed}, told) for seed in range(int(told.get("seeds", "1")))]
    return {case: float(np.mean([run[case] for run in runs])) for case in runs[0]}


def _trained(
    place: Path, changes: Mapping[str, Any], told: Mapping[str, str]
) -> dict[tuple[str, str], float]:
    import torch

    from medseg.core.values import validated
    from medseg.data.plan import Plan
    from medseg.learning import job
    from medseg.learning.model import Model
    from medseg.learning.settings import Training
    from medseg.learning.training import train_model

    torch.set_num_threads(1)
    # the loop's clock in processor time: a namespace in the place of the module is no type it knows
    job.time = SimpleNamespace(perf_counter=time.process_time, monotonic=time.monotonic)  # type: ignore
    plan = validated(Plan, yaml.safe_load((place / "plan.yaml").read_text()))
    trained, judged = _parts(place, int(told.get("without", "24")))
    usual = {"budget_minutes": float(told.get("minutes", "5")), "monitor": 0.0}
    training = validated(Training, {**usual, **changes})
    with tempfile.TemporaryDirectory() as folder:
        device = torch.device("cpu")
        model = train_model(trained, plan, training, out=Path(folder), device=device, name=str(dict(changes)))
        network = Model.load(model, "cpu").network.eval()
        return {(case.patient, case.id): _dice(network, plan, case) for case in judged}


def _parts(place: Path, without: int) -> tuple[list[Any], list[Any]]:
    """Cases trained on, and those of subjects left out (drawn once, for all arms alike)."""
    from medseg.learning.sampling import PreparedCase

    folders = sorted(file.parent for file in (place / "prepare").glob("*/prepared.json"))
    cases = [PreparedCase(folder.name, folder) for folder in folders]
    subjects = sorted({case.patient for case in cases})
    out = {subjects[n] for n in np.random.default_rng(7).permutation(len(subjects))[:without]}
    return [c for c in cases if c.patient not in out], [c for c in cases if c.patient in out]


def _dice(network: Any, plan: Any, case: Any) -> float:
    from medseg.learning.monitor import dice_of

    return dice_of(network, plan, [case], next(network.parameters()).device)["dice"]


def _less(scores: Mapping[tuple[str, str], float], usual: Mapping[tuple[str, str], float]) -> str:
    """The difference to the usual, with its 95 % interval over subjects."""
    from medseg.evaluation.paired import paired_difference

    subjects = [subject for subject, _ in scores]
    if scores is usual:
        return f"   ({len(scores)} cases of {len(set(subjects))} subjects)"
    first, second = np.array([usual[case] for case in scores]), np.array(list(scores.values()))
    found = paired_difference(first, second, subjects)
    return f"   less '{AS_IT_IS}' {found.mean:+.4f} [{found.interval.low:+.4f}, {found.interval.high:+.4f}]"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
