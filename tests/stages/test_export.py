"""Export writes the mask as DICOM SEG on the source series, and says why where it cannot."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest

from medseg.core.errors import CaseError
from medseg.core.stage import Artifact, artifact_of, info_of
from medseg.data.cohort import Case, Source
from medseg.data.phantom import PHANTOM_LABELS, draw_patient, write_phantoms
from medseg.imaging.dicom_seg import read_seg
from medseg.imaging.image import canonical, write_image
from medseg.stages.export import export
from tests.imaging.derived import changed


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("MEDSEG_KEY", "for tests")


@pytest.fixture
def case(tmp_path) -> Case:
    write_phantoms(tmp_path / "data", 2, size="tiny")
    files = tuple(str(f) for f in sorted((tmp_path / "data" / "patient002" / "ct").iterdir()))
    return Case(id="abc", patient="p", images={"CT": Source(kind="dicom", files=files, sha256="0")})


@pytest.fixture
def predicted(tmp_path) -> Artifact:
    write_image(canonical(draw_patient(0, 1, "tiny").mask), tmp_path / "predict" / "mask.nii.gz")
    return artifact_of(tmp_path / "predict")


def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def test_the_mask_comes_back_from_the_seg_voxel_for_voxel(predicted, case, tmp_path):
    folder = out(tmp_path)
    export((predicted, case), labels=PHANTOM_LABELS, out=folder)
    assert [f.name for f in folder.iterdir()] == ["abc.seg.dcm"]
    mask = draw_patient(0, 1, "tiny").mask
    back = read_seg(folder / "abc.seg.dcm", mask.grid, labels=PHANTOM_LABELS)
    assert np.array_equal(back.array, mask.array)
    source = pydicom.dcmread(case.images["CT"].files[0])
    assert pydicom.dcmread(folder / "abc.seg.dcm").StudyInstanceUID == source.StudyInstanceUID


def test_contours_and_a_report_go_with_it_on_request(predicted, case, tmp_path):
    folder = out(tmp_path)
    export((predicted, case), labels=PHANTOM_LABELS, formats=("rtstruct", "sr"), out=folder)
    names = sorted(f.name for f in folder.iterdir())
    assert names == ["abc.rtstruct.dcm", "abc.seg.dcm", "abc.sr.dcm"]  # a report needs its segments
    assert {pydicom.dcmread(f).Modality for f in folder.iterdir()} == {"RTSTRUCT", "SEG", "SR"}


def test_a_series_that_nothing_can_refer_to_names_the_case(predicted, case, tmp_path):
    files = changed([Path(f) for f in case.images["CT"].files], tmp_path / "nameless", FrameOfReferenceUID="")
    source = case.images["CT"].but(files=tuple(map(str, files)))
    with pytest.raises(CaseError, match="case abc: no DICOM SEG or RTSTRUCT can refer to this series"):
        export(
            (predicted, case.but(images={"CT": source})),
            labels=PHANTOM_LABELS, formats=("seg", "rtstruct"), out=out(tmp_path),
        )  # fmt: skip


def test_a_case_that_is_no_dicom_is_refused_with_the_reason(predicted, case, tmp_path):
    nifti = case.but(images={"CT": Source(kind="nifti", files=("x.nii.gz",), sha256="0")})
    with pytest.raises(CaseError, match=r"(?s)case abc.*came as nifti") as caught:
        export((predicted, nifti), labels=PHANTOM_LABELS, out=out(tmp_path))
    assert "ingest" in (caught.value.mend or "")


def test_files_that_are_gone_are_counted_and_not_named_in_public(predicted, case, tmp_path):
    first = Path(case.images["CT"].files[0])
    first.unlink()
    with pytest.raises(CaseError, match=r"1 of \d+ files are gone") as caught:
        export((predicted, case), labels=PHANTOM_LABELS, out=out(tmp_path))
    assert caught.value.file == str(first)
    assert str(first) not in caught.value.public()


def test_a_mask_of_another_patient_is_refused_and_names_the_case(case, tmp_path):
    write_image(draw_patient(0, 0, "tiny").mask, tmp_path / "other" / "mask.nii.gz")
    folder = out(tmp_path)
    with pytest.raises(CaseError, match="case abc: the mask"):
        export((artifact_of(tmp_path / "other"), case), labels=PHANTOM_LABELS, out=folder)
    assert list(folder.iterdir()) == []


def test_it_is_declared_as_a_stage():
    assert info_of(export).name == "export"
