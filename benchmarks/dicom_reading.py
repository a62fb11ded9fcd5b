"""Reading DICOM beside its peers: a CT series in three transfer syntaxes, and the headers of 10,000 files.

    python -m benchmarks.dicom_reading [--slices 300] [--files 10000] [--repeats 3]

The series is drawn, written and compressed into a temporary folder. Tools run in turn, each in a process of
its own, once to warm up and then `repeats` times; the median counts. A tool that is not installed is named
and left out. Prints tables for RESULTS.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

PER_SERIES = 250
JPEG_LS, JPEG_2000 = "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.90"
Command = Callable[[Path, Path], list[str]]
"""What to run, from a source and the file to write."""

SERIES = {"uncompressed": None, "JPEG-LS": JPEG_LS, "JPEG 2000": JPEG_2000}


@dataclass(frozen=True)
class Run:
    """What one run took: wall and processor seconds (children included), peak MB of the process itself."""

    wall: float
    cpu: float
    peak_mb: float


# what the tools do, each in a process of its own ----------------------------------------------------------


def medseg(source: str, out: str) -> None:
    """Find, read and write as ingest does."""
    from medseg.imaging.dicom_in import find_series, read_series
    from medseg.imaging.image import write_image

    for series in find_series(source)[0]:
        write_image(read_series(series), out)


def medseg_memory(source: str, out: str) -> None:
    """Find and read into memory; the times of the second call go to `out`."""
    from medseg.imaging.dicom_in import find_series, read_series

    _second_call(lambda: [read_series(series) for series in find_series(source)[0]], out)


def sitk(source: str, out: str) -> None:
    """The series reader of SimpleITK, as its documentation shows it."""
    import SimpleITK

    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(source))
    SimpleITK.WriteImage(reader.Execute(), out, useCompression=out.endswith(".gz"))


def sitk_memory(source: str, out: str) -> None:
    """The same, into memory."""
    import SimpleITK

    def read() -> object:
        reader = SimpleITK.ImageSeriesReader()
        reader.SetFileNames(reader.GetGDCMSeriesFileNames(source))
        return reader.Execute()

    _second_call(read, out)


def d2n(source: str, out: str) -> None:
    """dicom2nifti, without turning the volume."""
    from dicom2nifti import dicom_series_to_nifti

    dicom_series_to_nifti(source, out, reorient_nifti=False)


def medseg_headers(source: str, out: str) -> None:
    """Every header of a folder, grouped and judged."""
    from medseg.imaging.dicom_in import find_dicom

    _second_call(lambda: find_dicom(source), out)


def pydicom_headers(source: str, out: str) -> None:
    """Every header of a folder by pydicom, one after the other."""
    from pydicom import dcmread

    files = [p for p in Path(source).rglob("*") if p.is_file()]
    _second_call(lambda: [dcmread(file, stop_before_pixels=True).get("Rows") for file in files], out)


def sitk_headers(source: str, out: str) -> None:
    """The series of every folder by SimpleITK (GDCM)."""
    import SimpleITK

    folders = sorted({str(p.parent) for p in Path(source).rglob("*") if p.is_file()})

    def look() -> list[int]:
        reader = SimpleITK.ImageSeriesReader()
        ids = [(f, one) for f in folders for one in reader.GetGDCMSeriesIDs(f)]
        return [len(reader.GetGDCMSeriesFileNames(folder, one)) for folder, one in ids]

    _second_call(look, out)


def _second_call(work: Callable[[], object], out: str) -> None:
    work()
    start, cpu = time.perf_counter(), os.times()
    work()
    spent = [b - a for a, b in zip(cpu, os.times(), strict=True)]
    Path(out).write_text(json.dumps([time.perf_counter() - start, sum(spent[:4])]))


# measuring ------------------------------------------------------------------------------------------------


def own(name: str) -> Command:
    """The command that runs a function of this file in a fresh interpreter."""
    return lambda source, out: [
        sys.executable,
        "-m",
        "benchmarks.dicom_reading",
        "--do",
        name,
        str(source),
        str(out),
    ]


def dcm2niix(packed: str) -> Command:
    """dcm2niix writing one NIfTI: ``n`` as it is, ``y`` by pigz (where it is installed), ``i`` by itself."""
    return lambda source, out: [
        "dcm2niix", "-z", packed, "-b", "n", "-f", out.name.split(".")[0], "-o", str(out.parent), str(source),
    ]  # fmt: skip


def measured(command: list[str], out: Path) -> Run:
    """One run, from start to end of the process; a tool that tells its own time is believed."""
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as child:
        errors = child.stderr.read() if child.stderr else b""
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    wall = time.perf_counter() - start
    if child.returncode or not any(out.parent.iterdir()):
        raise RuntimeError(errors.decode(errors="replace").strip().splitlines()[-1:] or "nothing was written")
    cpu = usage.ru_utime + usage.ru_stime
    if out.suffix == ".json" and out.exists():
        wall, cpu = json.loads(out.read_text())
    return Run(wall, cpu, usage.ru_maxrss / 1024)


def in_turn(tools: dict[str, Command], source: Path, name: str, repeats: int) -> dict[str, Run | str]:
    """Median of each tool, all tools once before any is run again; a failure in words."""
    runs: dict[str, list[Run]] = {tool: [] for tool in tools}
    failed: dict[str, str] = {}
    for turn in range(repeats + 1):
        for tool, command in tools.items():
            if tool in failed:
                continue
            with tempfile.TemporaryDirectory() as folder:
                out = Path(folder, name)
                try:
                    run = measured(command(source, out), out)
                except RuntimeError as error:
                    failed[tool] = str(error.args[0])[:60]
                    continue
            runs[tool] += [run] if turn else []
    return {tool: failed.get(tool) or _median(some) for tool, some in runs.items()}


def _median(runs: list[Run]) -> Run:
    return Run(*(statistics.median(values) for values in zip(*(vars(r).values() for r in runs), strict=True)))


# phantoms -------------------------------------------------------------------------------------------------


def draw(folder: str, shape: str) -> None:
    """A CT series of ``SIZExSLICES``: smooth, with noise of 15 HU."""
    size, slices = map(int, shape.split("x"))
    i, j, k = np.ogrid[:size, :size, :slices]
    smooth = 500 * np.sin(i / 40) + 300 * np.cos(j / 50) + 2.0 * (k - slices / 2)
    noise = np.random.default_rng(0).normal(0, 15, smooth.shape)
    _write((smooth + noise).astype(np.float32), (0.7, 0.7, 1.0), "bench", Path(folder))


def many(folder: str, files: str) -> None:
    """So many small CT images in series of their own."""
    for number in range(int(files) // PER_SERIES):
        values = np.zeros((16, 16, PER_SERIES), np.float32)
        _write(values, (1, 1, 2), f"bench {number}", Path(folder, str(number)))


def _write(values: NDArray[np.float32], spacing: tuple[float, float, float], seed: str, folder: Path) -> None:
    from medseg.imaging.dicom_ct import Subject, write_ct_series
    from medseg.imaging.grid import Grid
    from medseg.imaging.image import Image

    image = Image(values[None], Grid.from_spacing(values.shape, spacing))
    write_ct_series(image, Subject(seed, "Phantom", "F", 40, seed), folder)


def compressed(source: str, job: str) -> None:
    """The same series in another transfer syntax: ``SYNTAX:FOLDER``."""
    import pydicom

    syntax, folder = job.split(":")
    Path(folder).mkdir()
    for file in Path(source).iterdir():
        dataset = pydicom.dcmread(file)
        dataset.compress(syntax, generate_instance_uid=False)
        dataset.save_as(Path(folder, file.name))


def made(what: str, *words: object) -> None:
    """Draw in a process of its own: this one stays small, for its size would count as that of each tool."""
    command = [sys.executable, "-m", "benchmarks.dicom_reading", "--do", what, *map(str, words)]
    subprocess.run(command, check=True)


# tables ---------------------------------------------------------------------------------------------------


def main() -> None:
    """Draw, run and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--slices", type=int, default=300)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--do", nargs=3, metavar=("WHAT", "SOURCE", "OUT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.do:
        globals()[options.do[0]](*options.do[1:])
        return
    os.environ.setdefault("MEDSEG_KEY", "benchmark")
    with tempfile.TemporaryDirectory(prefix="medseg-bench-") as place:
        _series_table(Path(place), options)
        _headers_table(Path(place), options)
    print(
        f"\nPython {platform.python_version()}, {_versions()}, {os.cpu_count()} cores, {platform.machine()}"
    )


def _series_table(place: Path, options: argparse.Namespace) -> None:
    plain = place / "uncompressed"
    made("draw", plain, f"{options.size}x{options.slices}")
    print(
        f"{options.slices} slices of {options.size} x {options.size}, seconds (processor seconds; peak MB)\n"
    )
    print("| series | result | medseg | dcm2niix | medseg / dcm2niix | SimpleITK | dicom2nifti |")
    print("|---|---|---|---|---|---|---|")
    for name, syntax in SERIES.items():
        source = place / name
        if syntax:
            made("compressed", plain, f"{syntax}:{source}")
        for result, file, tools in _columns():
            runs = in_turn(tools, source, file, options.repeats)
            print(f"| {name} | {result} | {_row(runs)} |", flush=True)


def _columns() -> list[tuple[str, str, dict[str, Command]]]:
    """For each kind of result the file a tool writes and the tools that can."""
    packed = "y" if shutil.which("pigz") else "i"
    memory = {
        "medseg": own("medseg_memory"),
        "dcm2niix": dcm2niix("n"),
        "SimpleITK": own("sitk_memory"),
    }
    plain = {"medseg": own("medseg"), "dcm2niix": dcm2niix("n"), "SimpleITK": own("sitk")}
    zipped = {"medseg": own("medseg"), "dcm2niix": dcm2niix(packed), "SimpleITK": own("sitk")}
    zipped["dicom2nifti"] = own("d2n")
    columns = [
        ("in memory (dcm2niix: .nii)", "a.json", memory),
        (".nii, whole process", "a.nii", plain),
        (f".nii.gz, whole process (dcm2niix -z {packed})", "a.nii.gz", zipped),
    ]
    return [
        (result, file, {t: c for t, c in tools.items() if not absent(t)}) for result, file, tools in columns
    ]


def _headers_table(place: Path, options: argparse.Namespace) -> None:
    made("many", place / "many", options.files)
    tools = {
        "medseg": own("medseg_headers"),
        "pydicom": own("pydicom_headers"),
        "SimpleITK": own("sitk_headers"),
    }
    there = {tool: command for tool, command in tools.items() if not absent(tool)}
    runs = in_turn(there, place / "many", "a.json", options.repeats)
    series = options.files // PER_SERIES
    print(f"\nHeaders of {options.files} files in {series} series, grouped (pydicom: read only)\n")
    print(f"| {' | '.join(there)} |\n|{'---|' * len(there)}\n| {' | '.join(_cell(runs[t]) for t in there)} |")


def _row(runs: dict[str, Run | str]) -> str:
    ours, theirs = runs["medseg"], runs.get("dcm2niix", "")
    ratio = f"{ours.wall / theirs.wall:.2f}" if isinstance(ours, Run) and isinstance(theirs, Run) else "-"
    cells = [_cell(runs.get(tool, "-")) for tool in ("medseg", "dcm2niix", "SimpleITK", "dicom2nifti")]
    return " | ".join([*cells[:2], ratio, *cells[2:]])


def _cell(run: Run | str) -> str:
    return run if isinstance(run, str) else f"{run.wall:.2f} ({run.cpu:.2f}; {run.peak_mb:.0f})"


def absent(tool: str) -> bool:
    """Whether a tool is not installed."""
    return find_spec(tool) is None if tool != "dcm2niix" else shutil.which(tool) is None


def _versions() -> str:
    said = []
    if shutil.which("dcm2niix"):
        told = subprocess.run(["dcm2niix", "--version"], capture_output=True, text=True, check=False).stdout
        said.append(f"dcm2niix {told.split()[-1]}")
    for package in ("medseg", "pydicom", "SimpleITK", "dicom2nifti"):
        said += [f"{package} {version(package)}"] if find_spec(package) else []
    lacking = [tool for tool in ("dcm2niix", "SimpleITK", "dicom2nifti") if absent(tool)]
    return ", ".join(said) + (f" (not installed: {', '.join(lacking)})" if lacking else "")


if __name__ == "__main__":
    main()
