"""What the benchmarks beside other toolkits share: calling the peer in its own environment, taking times."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[1]
HIPPOCAMPUS = PROJECT.parent / "shared" / "data" / "hippocampus"
NO_PEER = (
    "no peer: give the Python of an environment with nnU-Net, for example\n"
    "  python -m venv nnunet && nnunet/bin/pip install torch==2.13.0 nnunetv2\n"
    "  python -m benchmarks.{name} nnunet/bin/python [DATA]"
)


def words(given: Sequence[str], name: str) -> tuple[str, Path] | None:
    """The peer's Python and the data folder; says what is missing and gives None."""
    peer = next((w for w in given if "python" in Path(w).name), "")
    data = next((Path(w) for w in given if Path(w).is_dir()), HIPPOCAMPUS)
    if not Path(peer).is_file():
        print(NO_PEER.format(name=name))
        return None
    if not data.is_dir():
        print("no data: give the folder of MSD Task04 ('medseg fetch msd-hippocampus data')")
        return None
    return peer, data


def nnunet(peer: str, folder: Path, *arguments: str) -> dict[str, Any]:
    """One call of `benchmarks/peer_nnunet.py` by the peer's Python; its result."""
    script = str(PROJECT / "benchmarks" / "peer_nnunet.py")
    done = subprocess.run(
        [peer, script, *arguments], env=nnunet_home(folder), capture_output=True, text=True, check=False
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if not lines:
        raise SystemExit(f"nnU-Net failed at {arguments[0]}:\n{done.stderr[-2000:]}")
    return json.loads(lines[-1].removeprefix("RESULT "))


def nnunet_home(folder: Path) -> dict[str, str]:
    """The environment with nnU-Net's folders below `folder`."""
    places = {f"nnUNet_{n}": folder / n for n in ("raw", "preprocessed", "results")}
    for place in places.values():
        place.mkdir(parents=True, exist_ok=True)
    return {**os.environ, **{name: str(place) for name, place in places.items()}}


def wall(command: Sequence[str], environment: Mapping[str, str]) -> float:
    """Seconds of one command; stops the benchmark when it fails."""
    start = time.perf_counter()
    done = subprocess.run(command, env=dict(environment), capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{Path(command[0]).name} failed:\n{done.stderr[-2000:]}")
    return time.perf_counter() - start


def in_turns(rounds: int, sides: Mapping[str, Callable[[], float]]) -> dict[str, float]:
    """Each side in turn, `rounds` times; the median of each."""
    taken: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds):
        for name, side in sides.items():
            taken[name].append(side())
            print(f"round {number + 1} {name:<28} {taken[name][-1]:8.3f} s", flush=True)
    return {name: statistics.median(found) for name, found in taken.items()}


def machine() -> str:
    """Where it was measured, with what."""
    load = os.getloadavg()[0]
    return (
        f"{os.cpu_count()} cores, load {load:.1f}, {sys.platform}, Python {platform.python_version()}, "
        f"torch {version('torch')}, medseg {version('medseg')}"
    )
