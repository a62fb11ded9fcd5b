"""Pulling from and pushing to a real archive by the command line."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pynetdicom", reason="pynetdicom is not installed (pip install 'medseg[pacs]')")

from medseg.cli import main
from medseg.core.spool import receipts
from medseg.imaging import dicom_query
from medseg.workflows.pacs_words import sort_words
from tests.pacs_server import Archive, free_port, orthanc

QUERY = ["PatientID=PHANTOM*", "Modality=CT"]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory, tiny_dicom: Path) -> Iterator[Archive]:
    """An archive with two patients."""
    with orthanc(tmp_path_factory.mktemp("orthanc")) as running:
        running.put(sorted(f for n in (1, 2) for f in (tiny_dicom / f"patient00{n}").rglob("*.dcm")))
        yield running


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    """Another one, to send to."""
    with orthanc(tmp_path_factory.mktemp("empty")) as running:
        yield running


def slices(tiny_dicom: Path, *patients: int) -> list[Path]:
    return sorted(f for n in patients for f in (tiny_dicom / f"patient00{n}" / "ct").glob("*.dcm"))


def summary(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("method", ["get", "move", "web"])
def test_what_is_pulled_is_what_the_archive_has_under_names_that_say_nothing(
    method: str, archive: Archive, tiny_dicom: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from pydicom import dcmread

    out = tmp_path / "out"
    words = ["pacs", "pull", *QUERY, str(out), *archive.words, f"pull.method={method}", "--json"]
    assert main(words) == 0
    rows = summary(capsys)["series"]
    came = {str(d.SOPInstanceUID): d for d in map(dcmread, out.rglob("*.dcm"))}
    wanted = {str(d.SOPInstanceUID): d for d in map(dcmread, slices(tiny_dicom, 1, 2))}
    assert set(came) == set(wanted)
    assert all(came[uid].PixelData == wanted[uid].PixelData for uid in wanted)
    assert all(came[uid].PatientID == wanted[uid].PatientID for uid in wanted)
    assert {row["status"] for row in rows} == {"pulled"}
    assert sum(row["objects"] for row in rows) == sum(row["expected"] for row in rows) == len(wanted)
    names = " ".join(str(p.relative_to(out)) for p in out.rglob("*"))
    assert "PHANTOM" not in names and not any(uid in names for uid in wanted)
    assert {p.name for p in out.iterdir() if p.name.startswith(".")} == {".lock"}

    before = {f: f.stat().st_mtime_ns for f in out.rglob("*.dcm")}
    gone = sorted(before)[0]
    gone.unlink()
    assert main(words) == 0
    assert sorted(row["status"] for row in summary(capsys)["series"]) == ["kept", "pulled"]
    after = {f: f.stat().st_mtime_ns for f in out.rglob("*.dcm")}
    assert set(after) == set(before)
    assert {f for f in before if before[f] != after[f]} == {gone}


def test_a_dry_run_fetches_nothing_and_names_nobody(
    archive: Archive, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["pacs", "pull", "PatientID=PHANTOM*", "--dry-run", *archive.words]) == 0
    said = capsys.readouterr().out
    assert "4 series of 2 studies match" in said and " CT " in said and " SEG" in said
    assert "PHANTOM" not in said and "Phantom" not in said and "2.25." not in said
    assert list(tmp_path.iterdir()) == []


def test_nothing_that_identifies_is_written_or_logged(
    archive: Archive, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    for method in ("get", "web"):
        words = [*archive.words, f"pull.method={method}", f"pull.max_object_mb={0.0001}"]
        assert main(["pacs", "pull", *QUERY, str(tmp_path / "out"), *words]) == 3
    said = capsys.readouterr()
    text = caplog.text + said.out.replace(str(tmp_path), "") + said.err
    assert "larger than allowed" in text
    assert not [word for word in ("PHANTOM", "Phantom", "2.25.", "Patient0") if word in text]


def test_fewer_objects_than_the_archive_counts_is_a_named_failure(
    archive: Archive, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = dicom_query.find_series

    def one_more(*given: Any) -> Any:
        first, *others = found(*given)
        return [replace(first, instances=(first.instances or 0) + 1), *others]

    monkeypatch.setattr(dicom_query, "find_series", one_more)
    assert main(["pacs", "pull", *QUERY, str(tmp_path), *archive.words, "pacs.tries=1", "--json"]) == 3
    told = summary(capsys)
    assert told["counts"] == {"failed": 1, "pulled": 1}
    (bad,) = [row for row in told["series"] if row["status"] == "failed"]
    assert (
        "fewer objects came" in bad["reason"] and f"{bad['objects']} of {bad['objects'] + 1}" in bad["reason"]
    )


def test_a_pull_stops_at_its_limit_and_goes_on_from_there(
    archive: Archive, tiny_dicom: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    size = sum(f.stat().st_size for f in slices(tiny_dicom, 1, 2))
    words = ["pacs", "pull", *QUERY, str(tmp_path), *archive.words]
    assert main([*words, f"pull.max_pull_gb={size * 0.7 / 2**30}"]) == 2
    assert "as much as it may" in capsys.readouterr().err
    there = len(list(tmp_path.rglob("*.dcm")))
    assert 0 < there < len(slices(tiny_dicom, 1, 2))
    assert main(words) == 0
    assert len(list(tmp_path.rglob("*.dcm"))) == len(slices(tiny_dicom, 1, 2))


@pytest.mark.parametrize("method", ["store", "web"])
def test_a_folder_is_pushed_once(
    method: str, empty: Archive, tiny_dicom: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty.clear()
    source = Path(shutil.copytree(tiny_dicom / "patient001", tmp_path / "src"))
    (source / "notes.txt").write_text("no DICOM")
    number = len(slices(tiny_dicom, 1)) + 1
    words = ["pacs", "push", str(source), *empty.words, f"push.method={method}", "--json"]
    words += ["--receipt", str(tmp_path / "receipt")]
    assert main(words) == 0
    told = summary(capsys)
    assert told["counts"] == {"sent": number} and told["not_dicom"] == 1
    assert len(empty.instances()) == number
    empty.clear()
    assert main(words) == 0
    assert summary(capsys)["counts"] == {"kept": number}
    assert empty.instances() == []
    with (tmp_path / "receipt").open("r+b") as torn:  # cut off in the middle of the last line
        torn.truncate((tmp_path / "receipt").stat().st_size - 5)
    assert main(words) == 0
    assert summary(capsys)["counts"] == {"kept": number - 1, "sent": 1}
    assert len(receipts(tmp_path / "receipt")) == number
    assert "2.25." not in (tmp_path / "receipt").read_text()


def test_what_the_archive_does_not_take_is_named_and_the_others_arrive(
    empty: Archive, tiny_dicom: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from pydicom import dcmread

    empty.clear()
    files = slices(tiny_dicom, 1)[:3]
    odd = dcmread(files[0])
    odd.SOPClassUID = odd.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.66.99"
    odd.save_as(tmp_path / "scan_7.dcm")
    words = [*map(str, files[1:]), str(tmp_path / "scan_7.dcm"), *empty.words]
    assert main(["pacs", "push", *words]) == 3
    said = capsys.readouterr().out
    assert "1 failed, 2 sent" in said and "scan_7.dcm" in said
    assert "the archive takes no objects of this class" in said
    assert len(empty.instances()) == 2


def test_echo_asks_both_doors(archive: Archive, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pacs", "echo", *archive.words]) == 0
    said = capsys.readouterr().out
    assert "C-ECHO answered" in said and "DICOMweb answered" in said


def test_an_archive_that_is_not_there_is_said_after_the_last_try(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["pacs.host=127.0.0.1", f"pacs.port={free_port()}", "pacs.tries=1"]
    assert main(["pacs", "pull", *QUERY, str(tmp_path / "out"), *words]) == 2
    said = capsys.readouterr().err
    assert "no association with the archive" in said and "no connection" in said and "PHANTOM" not in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["pull", "PatientID=1"], "one folder"),
        (["pull", "PatientID=1", "a", "b"], "one folder"),
        (["pull", "PatientId=1", "out"], "did you mean 'PatientID'"),
        (["pull", "out"], "whole archive"),
        (["push"], "needs files"),
        (["push", "nowhere"], "no such file"),
        (["push", "PatientID=1"], "only pull"),
        (["echo", "place"], "settings only"),
        (["echo"], "pacs.host"),
        (["listen"], "one model"),
        (["listen", "model"], "nobody may send"),
        (["echo", "pacs.prot=1"], "did you mean 'port'"),
        (["echo", "pacs.called_ae=' '"], "called_ae"),
    ],
)
def test_words_that_do_not_fit_say_what_would(
    words: list[str],
    says: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["pacs", *words]) == 2
    assert says in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_words_come_in_any_order(capsys: pytest.CaptureFixture[str]) -> None:
    from medseg.cli import _parsed, parser

    args = _parsed(parser(), ["pacs", "pull", "Modality=CT", "--quiet", "out", "--dry-run", "pacs.port=1"])
    words = sort_words(args.words)
    assert (words.query, words.overrides, words.places) == ({"Modality": "CT"}, ["pacs.port=1"], ["out"])
