"""500 spoilt files end in a volume, a refusal or an error of ours: no crash, no hang, no flood of memory."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest

from medseg.imaging.dicom_ct import Subject, write_ct_series
from medseg.imaging.grid import Grid
from medseg.imaging.image import Image
from tests.imaging import dicom_mutants

SEED, MUTANTS, CHILDREN = 2026, 504, 2

REAL = {  # name of the base: folder, the file to spoil, and sound ones beside it
    "enhanced": ("dicom_cases/mr_enhanced/dicom", 0, ()),
    "enhanced_siemens": ("dicom/mr_siemens_enhanced_4d/series", "6_1.dcm", ("6_2.dcm",)),
    "implicit": ("dicom/edge_cases", "MR_small_implicit.dcm", ()),
    "j2k": ("dicom/ct_siemens_j2k_with_seg/series", 0, (1,)),
    "jpeg_lossless": ("dicom_cases/mr_jpeg_lossless/dicom", 0, (1,)),
    "mosaic": ("dicom/mr_siemens_mosaic_sag/series", 0, ()),
    "radiograph": ("dicom/cr_monochrome1", "RG3_J2KR.dcm", ()),
    "rle": ("dicom/edge_cases", "MR_small_RLE.dcm", ()),
    "rtstruct": ("dicom/rtstruct_phantom/series", "rt.dcm", ("ct_1.dcm", "ct_2.dcm")),
    "seg": ("dicom/seg_liver_ct3/seg", "liver.dcm", ("../ct/01.dcm", "../ct/02.dcm", "../ct/03.dcm")),
}


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for each kind of sound file: drawn ones always, real ones where they are at hand."""
    from tests.conftest import SHARED

    folder = tmp_path_factory.mktemp("bases")
    for name, syntax in (
        ("ct", None),
        ("deflated", "1.2.840.10008.1.2.1.99"),
        ("jpeg_ls", "1.2.840.10008.1.2.4.80"),
    ):
        _drawn(folder / name, syntax)
    for name, (place, victim, others) in REAL.items() if SHARED.is_dir() else ():
        _copied(folder / name, SHARED / place, victim, others)
    return folder


def _drawn(folder: Path, syntax: str | None) -> None:
    values = np.random.default_rng(0).normal(0, 300, (1, 40, 36, 3)).astype(np.float32)
    write_ct_series(
        Image(values, Grid.from_spacing((40, 36, 3), (1, 1, 2))), Subject("1", "A", "F", 40, "s"), folder
    )
    for file in folder.iterdir():
        dataset = pydicom.dcmread(file)
        if syntax and pydicom.uid.UID(syntax).is_encapsulated:
            dataset.compress(syntax, generate_instance_uid=False)
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.UID(syntax or dataset.file_meta.TransferSyntaxUID)
        dataset.save_as(file)
    (folder / "0002.dcm").rename(folder / "victim.dcm")


def _copied(folder: Path, source: Path, victim: str | int, others: tuple[str | int, ...]) -> None:
    files = sorted(p for p in source.rglob("*") if p.is_file() and p.suffix not in (".json", ".gz"))
    folder.mkdir()

    def named(which: str | int) -> Path:
        return files[which] if isinstance(which, int) else source / which

    shutil.copy(named(victim), folder / "victim.dcm")
    for number, other in enumerate(others):
        shutil.copy(named(other), folder / f"sound{number}.dcm")


def children(bases: Path) -> Iterator[subprocess.Popen[str]]:
    quiet = {**os.environ, "MEDSEG_KEY": "for tests", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    share = MUTANTS // CHILDREN
    for number in range(CHILDREN):
        words = [str(SEED), str(number * share), str((number + 1) * share)]
        yield subprocess.Popen(
            [sys.executable, dicom_mutants.__file__, bases, *words],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=quiet,
        )  # fmt: skip


def test_every_spoilt_file_ends_in_a_volume_or_a_named_refusal(bases):
    lines: list[str] = []
    for child in list(children(bases)):
        said, errors = child.communicate(timeout=300)
        lines += said.splitlines()
        last = lines[-1] if lines else "none"
        assert child.returncode == 0, (
            f"mutant: {[x for x in lines if 'FAILED' in x] or last}\n{errors[-3000:]}"
        )
    ends = Counter("volume" if line.split(": ")[1][0] in "123456789" else "refused" for line in lines)
    assert len(lines) == MUTANTS
    assert ends["refused"] > 100 and ends["volume"] > 50, ends


def test_mutants_are_the_same_on_every_day(bases):
    raw = (bases / "ct" / "victim.dcm").read_bytes()
    made = [dicom_mutants.mutant(raw, number, SEED) for number in range(18)]
    assert made == [dicom_mutants.mutant(raw, number, SEED) for number in range(18)]
    assert sum(spoilt != raw for _, spoilt in made) >= 16
