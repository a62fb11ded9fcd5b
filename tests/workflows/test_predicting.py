"""Use of a model: masks on the source grid, DICOM SEG, one bad case among good ones."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from medseg.cli import main
from medseg.core.errors import MedsegError
from medseg.imaging.dicom_out import DicomOutput
from medseg.imaging.image import read_image, read_mask
from medseg.learning.model import open_models
from medseg.workflows.predicting import predict
from tests.imaging.derived import changed, moved


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


def test_every_format_is_written_on_request_and_agrees(
    tiny_run: Path, tiny_dicom: Path, tmp_path: Path
) -> None:
    from medseg.imaging.dicom_in import find_series
    from medseg.imaging.dicom_rtstruct_in import read_rtstruct
    from medseg.imaging.dicom_seg_in import read_seg

    study = tiny_dicom / "patient001" / "ct"
    formats = ["sr", "rtstruct", "seg", "nifti"]
    done = predict(tiny_run, study, tmp_path / "out", formats=formats, quiet=True)
    assert done.exit_code == 0, done.text
    (row,) = done.summary["cases"]
    case = row["case"]
    names = [f"{case}{end}" for end in (".nii.gz", ".rtstruct.dcm", ".seg.dcm", ".sr.dcm")]
    assert sorted(row["files"]) == names
    assert sorted(f.name for f in (tmp_path / "out").iterdir() if f.is_file() and f.name[0] != ".") == [
        *names, "report.json",
    ]  # fmt: skip
    ((series,), _), mask = find_series(study), read_mask(tmp_path / "out" / names[0])
    labels = open_models(tiny_run).labels
    assert (read_seg(tmp_path / "out" / names[2], series, labels=labels).array == mask.array).all()
    assert (read_rtstruct(tmp_path / "out" / names[1], series, labels=labels).array == mask.array).all()
    assert _volumes(tmp_path / "out" / names[3]) == pytest.approx(row["volumes_ml"], abs=1e-4)


def _volumes(report: Path) -> dict[str, float]:
    """Volumes in an SR by tracking identifier."""
    import highdicom as hd

    groups = hd.sr.srread(report).content.get_volumetric_roi_measurement_groups()
    return {g.tracking_identifier.removeprefix("medseg "): g.get_measurements()[0].value for g in groups}


def test_identity_stands_in_the_dicom_files_alone(tiny_run: Path, tiny_dicom: Path, tmp_path: Path) -> None:
    study = tiny_dicom / "patient001" / "ct"
    predict(tiny_run, study, tmp_path / "out", formats=["nifti", "seg", "rtstruct", "sr"], quiet=True)
    files = [file for file in (tmp_path / "out").rglob("*") if file.is_file()]
    assert len(files) >= 6  # four results, the report, the marker of the case
    assert {file.suffix for file in files if b"PHANTOM-" in _unpacked(file)} == {".dcm"}


def _unpacked(file: Path) -> bytes:
    return gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()


def test_a_new_format_is_made_and_the_same_are_kept(tiny_run: Path, tiny_dicom: Path, tmp_path: Path) -> None:
    study = tiny_dicom / "patient001" / "ct"

    def counts(*formats: str, **more: Any) -> dict[str, int]:
        return predict(tiny_run, study, tmp_path, formats=formats, quiet=True, **more).summary["counts"]

    assert counts("seg") == {"predicted": 1}
    assert counts("seg", "rtstruct") == {"predicted": 1}
    assert counts("rtstruct", "seg") == {"kept": 1}
    assert counts("rtstruct", "seg", output=DicomOutput(holes="inner")) == {"predicted": 1}
    next(tmp_path.glob("*.rtstruct.dcm")).unlink()
    assert counts("rtstruct", "seg", output=DicomOutput(holes="inner")) == {"predicted": 1}


def test_a_source_that_nothing_can_refer_to_gives_its_mask_and_fails_by_name(
    tiny_run: Path, tiny_dicom: Path, tmp_path: Path
) -> None:
    files = changed(
        sorted((tiny_dicom / "patient001" / "ct").iterdir()), tmp_path / "ct", FrameOfReferenceUID=""
    )
    done = predict(tiny_run, files[0].parent, tmp_path / "out", formats=["nifti", "seg", "sr"], quiet=True)
    assert done.exit_code == 3
    (row,) = done.summary["cases"]
    assert row["status"] == "failed"
    assert row["reason"].startswith(
        "no seg, sr: no DICOM SEG or SR can refer to this series: it lacks Frame of"
    )
    assert list(row["files"]) == [f"{row['case']}.nii.gz"]
    assert list((tmp_path / "out").glob("*.dcm")) == []
    again = predict(tiny_run, files[0].parent, tmp_path / "out", formats=["nifti", "seg", "sr"], quiet=True)
    assert again.summary["counts"] == {"failed": 1}


def test_the_command_line_takes_formats_and_settings(
    tiny_run: Path, tiny_dicom: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = sorted((tiny_dicom / "patient001" / "ct").iterdir())
    tilted = moved(files, tmp_path / "ct", [(0, 0.9 * n, 0) for n in range(len(files))])
    call = [
        "predict",
        str(tiny_run),
        str(tilted[0].parent),
        str(tmp_path / "out"),
        "--format",
        "nifti,seg,rtstruct,sr",
    ]
    common = ["--device", "cpu", "--json", "--quiet"]
    grids = {}
    for tilt in ("resample", "shear"):
        assert main([*call, f"dicom.tilt={tilt}", *common]) == 0
        (row,) = json.loads(capsys.readouterr().out)["cases"]
        assert len(row["files"]) == 4
        assert ("brought back onto the source slices" in row.get("remark", "")) == (tilt == "resample")
        grids[tilt] = read_mask(tmp_path / "out" / f"{row['case']}.nii.gz").grid
    assert not grids["resample"].matches(grids["shear"])
    assert main([*call, "dicom.tilt=refuse", *common]) == 2
    assert "tilted" in capsys.readouterr().err
    assert main([*call, "dicom.tild=refuse", *common]) == 2


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
