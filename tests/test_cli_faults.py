"""Bad input at the command line: the case is named with evidence and mend, the others finish, exit code 3."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from medseg.cli import main
from medseg.imaging.grid import Grid
from medseg.imaging.image import Image, read_image, read_mask, write_image


def truncated(image: Path, label: Path) -> None:
    image.write_bytes(image.read_bytes()[: image.stat().st_size // 2])


def gone(image: Path, label: Path) -> None:
    image.unlink()


def another_shape(image: Path, label: Path) -> None:
    mask = read_mask(label)
    write_image(
        Image(
            mask.array[:, :-1], mask.grid.cropped((0, 0, 0), (mask.grid.shape[0] - 1, *mask.grid.shape[1:]))
        ),
        label,
    )


def moved(image: Path, label: Path) -> None:
    mask = read_mask(label)
    affine = mask.grid.affine.copy()
    affine[0, 3] -= 5
    write_image(Image(mask.array, Grid(mask.grid.shape, affine)), label)


def strange_value(image: Path, label: Path) -> None:
    mask = read_mask(label)
    array = mask.array.copy()
    array[0, 0, 0, :3] = 9
    write_image(mask.but(array), label)


def grey_label(image: Path, label: Path) -> None:
    mask = read_mask(label)
    write_image(mask.but(mask.array.astype(np.float32) * 0.4), label)


def stored_as_255(image: Path, label: Path) -> None:
    mask = read_mask(label)
    write_image(mask.but((mask.array > 0).astype(np.uint8) * 255), label)


def not_a_number(image: Path, label: Path) -> None:
    found = read_image(image)
    array = found.array.copy()
    array[0, 1, 2, 3] = np.nan
    write_image(found.but(array), image)


def constant(image: Path, label: Path) -> None:
    found = read_image(image)
    write_image(found.but(np.full_like(found.array, 7.0)), image)


def no_label(image: Path, label: Path) -> None:
    label.unlink()


FAULTS: dict[Callable[[Path, Path], None], tuple[str, ...]] = {
    truncated: ("read to its end",),
    gone: ("without an image",),
    another_shape: ("same grid", "shape"),
    moved: ("same grid", "affine"),
    strange_value: ("9", "voxel"),
    grey_label: ("not whole numbers", "voxels by value"),
    stored_as_255: ("255", "ingest.label_map"),
    not_a_number: ("not numbers", "1 of"),
    constant: ("7",),
    no_label: ("reference",),
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda f: f.__name__)
def test_one_bad_case_is_refused_by_name_and_the_others_are_taken(
    fault: Callable[[Path, Path], None], tiny_msd: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = Path(shutil.copytree(tiny_msd, tmp_path / "data"))
    (data / "dataset.json").unlink()  # found by its folders, as people's own images are
    image = sorted((data / "imagesTr").glob("*.nii.gz"))[2]
    case = image.name.removesuffix(".nii.gz")
    fault(image, data / "labelsTr" / image.name)
    words = ["audit", str(data), "--labels", "liver=1,spleen=2,lesion=3", "--run", str(tmp_path / "run")]
    assert main(words) == 3
    said = capsys.readouterr()
    message = said.out + said.err
    assert case in message
    assert "mend" in message
    assert all(word in message for word in FAULTS[fault]), message
    rows = list(csv.DictReader((tmp_path / "run/ingest.csv").read_text().splitlines()))
    status = {row["case"]: row["status"] for row in rows if row["case"]}
    assert status.pop(case) == "refused"
    assert set(status.values()) == {"taken"}
    assert len(status) == 7
    assert str(tmp_path) not in (tmp_path / "run/ingest.csv").read_text()


def test_the_real_defects_of_a_public_set_are_named(
    shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    code = main(["audit", str(shared_data / "hippocampus_dirty"), "--run", str(run), "--json"])
    told = json.loads(capsys.readouterr().out)
    assert code == 3
    named = {finding["case"] for finding in told["findings"] if finding["severity"] == "fix"}
    assert named == {"hippocampus_118", "hippocampus_281"}
    assert "hippocampus_156" in json.dumps(told)


def test_a_run_folder_in_use_says_by_whom(tiny_msd: Path, tmp_path: Path) -> None:
    hold = (
        "import sys, time\n"
        "from medseg.core.lock import lock_folder\n"
        "from pathlib import Path\n"
        f"lock_folder(Path({str(tmp_path)!r}))\n"
        "print('held', flush=True)\n"
        "time.sleep(60)\n"
    )
    holder = subprocess.Popen([sys.executable, "-c", hold], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        command = [sys.executable, "-m", "medseg.cli", "ingest", str(tiny_msd), "--run", str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert str(holder.pid) in done.stderr
        assert "--run" in done.stderr
    finally:
        holder.kill()
        holder.communicate()
