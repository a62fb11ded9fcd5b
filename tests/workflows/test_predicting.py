"""Use of a model: masks on the source grid, DICOM SEG, one bad case among good ones."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from medseg.core.errors import MedsegError
from medseg.imaging.image import read_image, read_mask
from medseg.workflows.predicting import predict


def test_masks_lie_on_the_grid_of_their_image(tiny_run: Path, tiny_msd: Path, tmp_path: Path) -> None:
    done = predict(tiny_run, tiny_msd / "imagesTr", tmp_path / "out", quiet=True)
    assert done.exit_code == 0
    for file in (tiny_msd / "imagesTr").glob("*.nii.gz"):
        mask = read_mask(tmp_path / "out" / file.name)
        assert mask.grid.matches(read_image(file).grid)
        assert set(map(int, mask.array.ravel())) <= {0, 1, 2, 3}


def test_a_dicom_study_gives_seg_on_the_planes_of_its_series(
    tiny_run: Path, tiny_dicom: Path, tmp_path: Path
) -> None:
    from medseg.imaging.dicom_in import find_series, read_series
    from medseg.imaging.dicom_seg_in import read_seg

    study = tiny_dicom / "patient001" / "ct"
    done = predict(tiny_run, study, tmp_path / "out", formats=["nifti", "seg"], quiet=True)
    assert done.exit_code == 0, done.text
    (row,) = done.summary["cases"]
    (series,), _ = find_series(study)
    grid = read_series(series).grid
    seg = read_seg(tmp_path / "out" / f"{row['case']}.seg.dcm", grid)
    mask = read_mask(tmp_path / "out" / f"{row['case']}.nii.gz")
    assert mask.grid.matches(grid)
    assert (seg.array == mask.array).all()


def test_what_was_predicted_before_is_kept(tiny_run: Path, tiny_msd: Path, tmp_path: Path) -> None:
    image = next((tiny_msd / "imagesTr").glob("*.nii.gz"))
    first = predict(tiny_run, image, tmp_path, quiet=True)
    before = (tmp_path / image.name).stat().st_mtime_ns
    again = predict(tiny_run, image, tmp_path, quiet=True)
    assert first.summary["counts"] == {"predicted": 1}
    assert again.summary["counts"] == {"kept": 1}
    assert (tmp_path / image.name).stat().st_mtime_ns == before
    (tmp_path / image.name).write_bytes(b"damaged")
    assert predict(tiny_run, image, tmp_path, quiet=True).summary["counts"] == {"predicted": 1}


def test_one_truncated_case_is_named_and_the_others_finish(
    tiny_run: Path, tiny_msd: Path, tmp_path: Path
) -> None:
    src = Path(shutil.copytree(tiny_msd / "imagesTr", tmp_path / "src"))
    files = sorted(src.glob("*.nii.gz"))
    files[1].write_bytes(files[1].read_bytes()[:2000])
    done = predict(tiny_run, src, tmp_path / "out", quiet=True)
    assert done.exit_code == 3
    assert done.summary["counts"] == {"failed": 1, "predicted": len(files) - 1}
    assert files[1].name.removesuffix(".nii.gz") in done.text
    assert not (tmp_path / "out" / files[1].name).exists()
    report = (tmp_path / "out" / "report.json").read_text()
    assert str(tmp_path) not in report
    assert json.loads(report)["counts"] == done.summary["counts"]


def test_seg_of_a_nifti_source_is_refused_with_the_reason(
    tiny_run: Path, tiny_msd: Path, tmp_path: Path
) -> None:
    image = next((tiny_msd / "imagesTr").glob("*.nii.gz"))
    done = predict(tiny_run, image, tmp_path, formats=["seg"], quiet=True)
    assert done.exit_code == 3
    assert "needs the DICOM series" in done.text


@pytest.mark.parametrize(
    ("src", "formats", "says"),
    [
        ("nowhere", ["nifti"], "not there"),
        ("empty", ["nifti"], "empty"),
        ("", ["png"], "unknown output format"),
    ],
)
def test_usage_errors_say_what_to_do(
    src: str, formats: list[str], says: str, tiny_run: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(MedsegError, match=says):
        predict(tiny_run, tmp_path / src, tmp_path / "out", formats=formats, quiet=True)


def test_a_folder_without_model_is_named(tiny_msd: Path, tmp_path: Path) -> None:
    with pytest.raises(MedsegError, match="no model"):
        predict(tmp_path, tiny_msd / "imagesTr", tmp_path / "out", quiet=True)
