"""Archives: taken when plain, refused whole when hostile."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from medseg.core.errors import MedsegError
from medseg.core.values import identity_of
from medseg.data import unpack as module
from medseg.data.cohort import Cohort
from medseg.data.unpack import unpack


def zipped(folder: Path, archive: Path) -> Path:
    with zipfile.ZipFile(archive, "w") as packed:
        for file in sorted(folder.rglob("*")):
            packed.write(file, file.relative_to(folder))
    return archive


def test_a_zip_of_dicom_is_a_cohort_like_its_folder(tiny_dicom: Path, tmp_path: Path) -> None:
    archive = zipped(tiny_dicom, tmp_path / "study.zip")
    assert identity_of(Cohort.open(archive).cases) == identity_of(Cohort.open(tiny_dicom).cases)


def test_a_zip_of_nifti_is_a_cohort_with_the_same_bytes(tiny_msd: Path, tmp_path: Path) -> None:
    packed = Cohort.open(zipped(tiny_msd, tmp_path / "set.zip"))
    loose = Cohort.open(tiny_msd)
    assert [c.images["CT"].sha256 for c in packed.cases] == [c.images["CT"].sha256 for c in loose.cases]


@pytest.mark.parametrize("name", ["../out.txt", "/abs.txt", "a/../../out.txt", "a\\..\\out.txt"])
def test_a_zip_that_leads_out_is_refused_before_anything_is_written(name: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as packed:
        packed.writestr("good.txt", "good")
        packed.writestr(zipfile.ZipInfo(name), "bad")
    with pytest.raises(MedsegError, match="leads out of its folder"):
        unpack(tmp_path / "x.zip", tmp_path / "inner" / "into", quiet=True)
    assert not [f for f in tmp_path.rglob("*") if f.is_file() and f.name != "x.zip"]


def test_a_link_in_a_zip_is_refused(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("link")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as packed:
        packed.writestr(link, "/etc/passwd")
    with pytest.raises(MedsegError, match="a link or a device"):
        unpack(tmp_path / "x.zip", tmp_path / "into", quiet=True)


def test_a_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SLACK_BYTES", 1000)
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("zeros", bytes(10**6))
    with pytest.raises(MedsegError, match="grows beyond bound"):
        unpack(tmp_path / "x.zip", tmp_path / "into", quiet=True)


def test_a_damaged_archive_is_named(tmp_path: Path) -> None:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as tar:
        info = tarfile.TarInfo("a")
        info.size = 4
        tar.addfile(info, io.BytesIO(b"data"))
    (tmp_path / "x.tar.gz").write_bytes(data.getvalue()[:-20])
    with pytest.raises(MedsegError, match="cannot be unpacked"):
        unpack(tmp_path / "x.tar.gz", tmp_path / "into", quiet=True)
