"""Canaries: invented identities planted wherever an image can carry one come out nowhere.

Every byte of every file a run writes is searched (compressed ones unpacked), and all that is said on the
console. DICOM objects written back carry the patient by design: there the canary must be, and stay.
"""

from __future__ import annotations

import json
import shutil
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from medseg.cli import main
from medseg.core.files import files_below
from medseg.data.phantom import write_phantoms
from tests.conftest import QUICK

if TYPE_CHECKING:
    from pydicom import Dataset

NAME, NUMBER, BORN, SCANNED = "Zaunkoenig^Florentine", "KV48151623", "19431107", "20170923"
CANARIES = (
    *("zaunkoenig", "florentine", "kv48151623", "19431107", "1943-11-07", "1943.11.07", "20170923"),
    *("2017-09-23", "acc7712394", "rotkehlchen", "amselweg", "blaumeise", "steinkauz", "pirol", "wiedehopf"),
)
"""In lower case. The birds: institution, address, physician, texts, private and nested values, preamble."""

FREE_TEXT = (
    *("StudyDescription", "SeriesDescription", "ProtocolName", "PatientComments", "ImageComments"),
    *(
        "RequestedProcedureDescription",
        "AdditionalPatientHistory",
        "ContentDescription",
        "DerivationDescription",
    ),
    *("ContrastBolusAgent", "BodyPartExamined", "Manufacturer", "ManufacturerModelName"),
)
LABELS = "liver=1,spleen=2,lesion=3"
TRAIN = [*QUICK, "split.folds=1", "split.test=0.34", "scoring.tolerance_mm=3.0"]


def mark_dicom(file: Path, patient: int) -> None:
    """Plant canaries in every kind of place a DICOM file has."""
    from pydicom import Dataset, dcmread

    dataset = dcmread(file)
    dataset.preamble = b"wiedehopf".ljust(128, b"\0")
    dataset.PatientName, dataset.PatientID, dataset.PatientBirthDate = NAME, f"{NUMBER}{patient}", BORN
    dataset.OtherPatientNames, dataset.AccessionNumber, dataset.StudyID = NAME, "ACC7712394", "ACC7712394"
    dataset.InstitutionName, dataset.InstitutionAddress = "Klinik Rotkehlchen", "Amselweg 3"
    dataset.StationName, dataset.DeviceSerialNumber = "ROTKEHLCHEN", "Rotkehlchen 1"
    dataset.ReferringPhysicianName = dataset.OperatorsName = dataset.PhysiciansOfRecord = "Blaumeise^Otto"
    dataset.StudyDate = dataset.SeriesDate = dataset.AcquisitionDate = dataset.ContentDate = SCANNED
    for keyword in FREE_TEXT:
        setattr(
            dataset, keyword, f"Steinkauz {keyword}"[:60] if keyword != "BodyPartExamined" else "STEINKAUZ"
        )
    dataset.private_block(0x0009, "PIROL INC", create=True).add_new(0x01, "LO", f"Pirol {NAME}")
    nested, inner = Dataset(), Dataset()
    inner.PatientName = nested.RequestedProcedureDescription = "Pirol^Nested"
    nested.RequestAttributesSequence = [inner]
    dataset.RequestAttributesSequence = [nested]
    mark_overlay(dataset)
    dataset.save_as(file, enforce_file_format=False)


def mark_overlay(dataset: Dataset) -> None:
    dataset.add_new(0x60000022, "LO", "Steinkauz overlay")
    dataset.add_new(0x60004000, "LT", "Steinkauz comment")


def mark_nifti(file: Path, to: Path) -> None:
    """The same image with canaries in every text its header has, under a canary's name."""
    from nibabel.loadsave import load, save
    from nibabel.nifti1 import Nifti1Extension, Nifti1Image

    image: Any = load(file)
    header = image.header
    for field, text in (
        ("descrip", NAME),
        ("aux_file", "Zaunkoenig"),
        ("db_name", "Florentine"),
        ("intent_name", "Zaunkoenig"),
    ):
        header[field] = text.encode()
    header.extensions.append(Nifti1Extension("comment", f"{NAME} {BORN} Steinkauz".encode()))
    to.parent.mkdir(parents=True, exist_ok=True)
    save(Nifti1Image(image.dataobj[...], image.affine, header), to)


def zipped(folder: Path, file: Path) -> Path:
    with zipfile.ZipFile(file, "w") as archive:
        for path in files_below(folder):
            archive.write(path, path.relative_to(folder))
    return file


@pytest.fixture(scope="module")
def dicom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven patients under canary names, one with a slice lost and one cut off, with junk, in a zip."""
    root = tmp_path_factory.mktemp("archive")
    write_phantoms(root / "plain", 7, seed=6, format="dicom", size="tiny")
    (root / "plain" / "truth.json").unlink(missing_ok=True)
    for number, patient in enumerate(sorted((root / "plain").glob("patient*"))):
        for file in files_below(patient):
            mark_dicom(file, number)
            kind = "Steinkauz_seg" if file.name == "seg.dcm" else f"{NAME}_{file.stem}"
            home = root / "in" / f"{NUMBER} {NAME} {BORN}" / f"{SCANNED}_{number}"
            home.mkdir(parents=True, exist_ok=True)
            shutil.move(file, home / f"{kind}.dcm")
    first, second = sorted((root / "in").rglob("*_0002.dcm"))[:2]
    third = second.with_name(second.name.replace("_0002", "_0004"))
    first.unlink()
    third.write_bytes(third.read_bytes()[:-200])
    (root / "in" / f"{NAME}.txt").write_text(NAME)
    return zipped(root / "in", root / f"{NAME}_{BORN}.zip")


@pytest.fixture(scope="module")
def nifti(tiny_msd: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight patients as NIfTI under canary names, one damaged, one without a reference, in a zip."""
    root = tmp_path_factory.mktemp("nifti") / f"Study of {NAME}"
    names = [f"Zaunkoenig_{'abcdefgh'[n]}_{BORN}" for n in range(7)] + [f"patient_{NUMBER}_{SCANNED}"]
    for name, image in zip(names, sorted((tiny_msd / "imagesTr").glob("*.nii.gz")), strict=True):
        mark_nifti(image, root / "images" / f"{name}.nii.gz")
        mark_nifti(tiny_msd / "labelsTr" / image.name, root / "labels" / f"{name}.nii.gz")
    damaged = root / "images" / f"{names[0]}.nii.gz"
    damaged.write_bytes(damaged.read_bytes()[:3000])
    (root / "labels" / f"{names[1]}.nii.gz").unlink()
    (root / "images" / f"{NAME}.docx").write_text(NAME)
    return zipped(root, root.parent / f"{NAME}.zip")


def canaries_in(content: bytes) -> list[str]:
    """Canaries in bytes, whether written in UTF-8 or UTF-16."""
    low = content.lower()
    return [c for c in CANARIES if c.encode() in low or c.encode("utf-16-le") in low]


def unpacked(content: bytes) -> bytes:
    """What a gzip file holds, as far as it goes."""
    return zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(content)


def found_in(folder: Path, leave_out: Callable[[Path], bool] = lambda _: False) -> dict[str, list[str]]:
    """Files below a folder whose name or content holds a canary; gzip is looked into."""
    found = {}
    for file in files_below(folder):
        place = file.relative_to(folder)
        content = file.read_bytes()
        inside = unpacked(content) if content[:2] == b"\x1f\x8b" else b""
        here = canaries_in(str(place).encode()) + ([] if leave_out(file) else canaries_in(content + inside))
        if here:
            found[str(place)] = here
    return found


def is_dicom_object(file: Path) -> bool:
    return file.suffix == ".dcm"


def heard(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> str:
    said = capsys.readouterr()
    return said.out + said.err + caplog.text


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in; results and the tracking store go there and nowhere else."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("MEDSEG_SHOW_PATHS", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_search_sees_what_it_looks_for(dicom: Path, nifti: Path, tmp_path: Path) -> None:
    for number, archive in enumerate((dicom, nifti)):
        with zipfile.ZipFile(archive) as packed:
            packed.extractall(tmp_path / str(number))
    seen = {c for n in (0, 1) for some in found_in(tmp_path / str(n)).values() for c in some}
    assert seen == set(CANARIES) - {"1943-11-07", "1943.11.07", "2017-09-23"}
    (tmp_path / "x.csv").write_bytes("Born 1943-11-07, Pirol".encode("utf-16-le"))
    assert found_in(tmp_path, lambda f: f.name != "x.csv")["x.csv"] == ["1943-11-07", "pirol"]


def test_no_canary_leaves_a_dicom_archive_through_a_training(
    dicom: Path, place: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    recipe = place / "recipe.yaml"
    recipe.write_text("name: birds\nexport: [seg]\ningest: {dates: shifted}\n")
    labels = [f"cohort.labels.{pair}" for pair in LABELS.split(",")]
    words = ["train", str(recipe), f"cohort.root={dicom}", *labels, *TRAIN, "--device", "cpu"]
    assert main([*words, "--run", str(place / "runs/birds")]) == 3, "two series are refused"
    said = heard(capsys, caplog)
    assert "missing in the stack" in said and "cut off" in said
    run = place / "runs/birds"
    assert (run / "report/index.html").is_file() and (place / "runs/mlflow.db").is_file()
    assert len(list(run.glob("ingest/*/source.json"))) == 5
    assert all("study_day" in json.loads(f.read_text()) for f in run.glob("ingest/*/source.json"))
    written = [f for f in files_below(place) if is_dicom_object(f)]
    assert written and all("zaunkoenig" in canaries_in(f.read_bytes()) for f in written), "identity goes back"
    assert all(f.parent.parent == run / "export" for f in written)
    assert found_in(place, is_dicom_object) == {}
    assert canaries_in(said.encode()) == []


def test_no_canary_leaves_nifti_files_through_a_training(
    nifti: Path, place: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    recipe = place / "recipe.yaml"
    recipe.write_text("name: birds\n")
    labels = [f"cohort.labels.{pair}" for pair in LABELS.split(",")]
    words = ["train", str(recipe), f"cohort.root={nifti}", *labels, *TRAIN, "--device", "cpu"]
    assert main([*words, "--run", str(place / "runs/birds")]) == 3, "two cases are refused"
    said = heard(capsys, caplog)
    assert "read to its end" in said and "an image without a reference" in said
    assert len(list(place.glob("runs/birds/ingest/*/source.json"))) == 6
    assert (place / "runs/birds/report/index.html").is_file() and (place / "runs/mlflow.db").is_file()
    assert found_in(place) == {}
    assert canaries_in(said.encode()) == []


@pytest.mark.parametrize("verb", ["ingest", "audit", "dry"])
@pytest.mark.parametrize("source", ["dicom", "nifti"])
def test_no_canary_leaves_through_the_other_verbs(
    verb: str, source: str, dicom: Path, nifti: Path, place: Path,
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    archive = {"dicom": dicom, "nifti": nifti}[source]
    words = ["ingest", "--dry-run", "--json"] if verb == "dry" else [verb, "--json"]
    seen_in_headers = (verb, source) != ("dry", "nifti")
    assert main([*words, str(archive), "--labels", LABELS]) == (3 if seen_in_headers else 0)
    assert found_in(place) == {}
    assert canaries_in(heard(capsys, caplog).encode()) == []
    assert (place / "runs" / "cohort").is_dir() == (verb != "dry"), "a run is not named after a person"


def test_no_canary_leaves_through_a_prediction(
    dicom: Path, tiny_run: Path, place: Path,
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    words = ["predict", str(tiny_run), str(dicom), str(place / "out"), "--format", "nifti,seg,rtstruct,sr"]
    assert main([*words, "--device", "cpu"]) == 3, "two series are refused"
    assert len(list((place / "out").glob("*.nii.gz"))) == 5
    assert all("zaunkoenig" in canaries_in(f.read_bytes()) for f in (place / "out").glob("*.dcm"))
    assert found_in(place, is_dicom_object) == {}
    assert canaries_in(heard(capsys, caplog).encode()) == []


def test_no_canary_is_told_when_nothing_can_be_read(
    place: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    folder = place / NAME
    folder.mkdir()
    (folder / f"{NAME}.txt").write_text(NAME)
    assert main(["ingest", str(folder), "--run", str(place / "run")]) == 2
    assert main(["ingest", str(place / f"{NAME}.nii.gz"), "--run", str(place / "run")]) == 2
    (folder / f"{NAME}.zip").write_bytes(b"PK no zip")
    assert main(["ingest", str(folder / f"{NAME}.zip"), "--run", str(place / "run")]) == 2
    said = heard(capsys, caplog)
    assert said.count("mend:") >= 3
    assert canaries_in(said.encode()) == []
