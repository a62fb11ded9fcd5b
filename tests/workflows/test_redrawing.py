"""`medseg report`: the same table gives the same page, byte by byte, and no other table does."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from medseg.cli import main
from medseg.core.errors import MedsegError
from medseg.evaluation.report.kept import KEPT
from medseg.workflows.redrawing import redraw


@pytest.fixture(scope="module")
def evaluated(tiny_msd: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An evaluation with pictures, and a mask that cannot be read."""
    folder = tmp_path_factory.mktemp("evaluated")
    shutil.copytree(tiny_msd / "labelsTr", folder / "pred")
    files = sorted((folder / "pred").glob("*.nii.gz"))
    shutil.copy(files[0], files[1])
    files[2].write_bytes(files[2].read_bytes()[:100])
    words = [str(folder / "pred"), str(tiny_msd / "labelsTr"), str(folder / "out")]
    assert main(["evaluate", *words, "--images", str(tiny_msd / "imagesTr"), "repeats=100", "--quiet"]) == 3
    return folder / "out"


def drawn_again(folder: Path, page: str) -> tuple[bytes, bytes]:
    """The page before, and after it was deleted and drawn again."""
    before = (folder / page).read_bytes()
    (folder / page).unlink()
    assert main(["report", str(folder), "--quiet"]) == 0
    return before, (folder / page).read_bytes()


def test_an_evaluation_is_drawn_again_to_the_byte(evaluated: Path) -> None:
    before, after = drawn_again(evaluated, "report/index.html")
    assert before == after
    assert b"data:image" in after


def test_a_validation_is_drawn_again_to_the_byte(tiny_msd: Path, tmp_path: Path) -> None:
    words = [str(tiny_msd / "labelsTr"), str(tiny_msd), "--run", str(tmp_path), "scoring.repeats=100"]
    assert main(["validate", *words, "--quiet"]) == 0
    before, after = drawn_again(tmp_path, "report/index.html")
    assert before == after
    assert b"CLAIM 2024" in after


def test_a_comparison_is_made_again_to_the_byte(evaluated: Path, tmp_path: Path) -> None:
    shutil.copytree(evaluated, tmp_path / "b")
    words = [str(evaluated), str(tmp_path / "b"), str(tmp_path / "out"), "margins.dice=0.02", "repeats=100"]
    assert main(["compare", *words, "--quiet"]) == 0
    told = (tmp_path / "out" / "compare.json").read_bytes()
    before, after = drawn_again(tmp_path / "out", "index.html")
    assert before == after
    assert (tmp_path / "out" / "compare.json").read_bytes() == told


def test_another_table_is_refused(evaluated: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(evaluated, tmp_path / "copy"))
    table = copy / "scores.csv"
    table.write_text("".join(table.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(MedsegError, match="not the one the report was made from"):
        redraw(copy)


def test_what_cannot_be_drawn_again_is_said(evaluated: Path, tmp_path: Path) -> None:
    with pytest.raises(MedsegError, match="no report here"):
        redraw(tmp_path)
    copy = Path(shutil.copytree(evaluated, tmp_path / "copy"))
    (copy / "report" / KEPT).write_bytes(b"damaged")
    with pytest.raises(MedsegError, match="cannot be read"):
        redraw(copy)
