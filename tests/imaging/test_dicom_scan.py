"""Headers read quickly are those of the general parser; every file of a folder is accounted for."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest

from medseg.core.errors import MedsegError
from medseg.imaging import dicom_header, dicom_scan
from medseg.imaging.dicom_ct import Subject, write_ct_series
from medseg.imaging.dicom_header import Header, read_header, tolerant
from medseg.imaging.dicom_in import find_dicom, find_series
from medseg.imaging.dicom_quick import glance, wanted
from medseg.imaging.dicom_scan import headers_of, is_index, scan
from medseg.imaging.grid import Grid
from medseg.imaging.image import Image


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("MEDSEG_KEY", "for tests")


@pytest.fixture
def series_folder(tmp_path) -> Path:
    values = np.random.default_rng(0).normal(0, 300, (1, 8, 6, 4)).astype(np.float32)
    image = Image(values, Grid.from_spacing((8, 6, 4), (1, 1, 2)))
    write_ct_series(image, Subject("1", "A^B", "F", 40, "seed"), tmp_path / "ct")
    return tmp_path / "ct"


def slow_header(file: Path) -> Header | None:
    """The header by the general parser alone."""
    with tolerant():
        syntax = dicom_header.syntax_of(file)
        tags = dicom_header._ALL_TAGS
        dataset = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=tags, force=True)
        return dicom_header._header(file, dataset, syntax)


def quick_header(file: Path) -> Header | None:
    found = glance(file, wanted(dicom_header._ALL_TAGS))
    return None if found is None else dicom_header._header(file, found, found.syntax)


def compared(files: list[Path]) -> int:
    """How many files both ways read, having asserted that they say the same (NaN included)."""
    quick = {file: quick_header(file) for file in files}
    both = {file: header for file, header in quick.items() if header is not None}
    for file, header in both.items():
        assert shown(header) == shown(slow_header(file)), file.name
    return len(both)


def shown(header: Header | None) -> str:
    """Everything in it, identifiers too."""
    assert header is not None
    planes = [vars(plane) for plane in header.planes]
    return repr({k: v for k, v in vars(header).items() if k != "planes"}) + repr(planes)


def test_a_glance_at_any_real_file_says_what_the_parser_says(shared_data):
    files = [f for root in ("dicom", "dicom_cases") for f in (shared_data / root).rglob("*") if f.is_file()]
    assert compared(sorted(files)[::3]) > 100


def test_a_glance_at_the_parsers_own_test_files_says_what_it_says():
    folder = Path(pydicom.__file__).parent / "data" / "test_files"
    assert compared([f for f in sorted(folder.rglob("*")) if f.is_file()]) > 50


@pytest.mark.parametrize(
    ("charset", "name"),
    [
        (None, "Doe^Jane"),
        ("ISO_IR 100", "Müller^Zoë"),
        ("ISO_IR 192", "Ωmega^Ødegård"),
        ("ISO_IR 144", "Люкceмбypг"),
    ],
)
@pytest.mark.parametrize("implicit", [False, True])
def test_names_in_any_alphabet_give_the_same_patient(series_folder, charset, name, implicit):
    file = sorted(series_folder.iterdir())[0]
    dataset = pydicom.dcmread(file)
    dataset.SpecificCharacterSet, dataset.PatientName, dataset.PatientID = charset, name, ""
    syntax = pydicom.uid.ImplicitVRLittleEndian if implicit else pydicom.uid.ExplicitVRLittleEndian
    dataset.file_meta.TransferSyntaxUID = syntax
    fresh = pydicom.Dataset(dataset)
    fresh.file_meta = dataset.file_meta
    pydicom.dcmwrite(file, fresh, implicit_vr=implicit, little_endian=True, enforce_file_format=True)
    header = read_header(file)
    assert header is not None
    assert name in header.patient
    assert shown(header) == shown(slow_header(file))
    assert (quick_header(file) is None) == (charset == "ISO_IR 144")  # left to the parser


def test_a_sequence_of_undefined_length_is_passed_over_whatever_it_holds(series_folder):
    file = sorted(series_folder.iterdir())[0]
    dataset = pydicom.dcmread(file)
    inner = pydicom.Dataset()
    inner.Rows, inner.SeriesInstanceUID, inner.ImageComments = 7, "1.2.3", "\ufffd" * 3
    inner.ReferencedImageSequence = [pydicom.Dataset(), pydicom.Dataset()]
    inner["ReferencedImageSequence"].is_undefined_length = True
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.ReferencedImageSequence = [inner, inner]
    dataset["ReferencedImageSequence"].is_undefined_length = True
    for item in dataset.ReferencedImageSequence:
        item.is_undefined_length_sequence_item = True
    dataset.save_as(file)
    header = quick_header(file)
    assert header is not None
    assert (header.rows, header.series_uid) == (6, dataset.SeriesInstanceUID)
    assert shown(header) == shown(slow_header(file))


def test_many_files_are_read_in_threads_in_their_order(series_folder, monkeypatch):
    files = sorted(series_folder.iterdir()) * 60
    one_by_one = [read_header(file) for file in files]
    assert len(files) >= dicom_scan._FEW
    assert headers_of(files) == one_by_one
    monkeypatch.setattr(dicom_scan.os, "cpu_count", lambda: 16)
    assert headers_of(files[::-1]) == one_by_one[::-1]


def test_threads_leave_the_parsers_settings_as_they_were(series_folder):
    import warnings

    before = (pydicom.config.settings.reading_validation_mode, list(warnings.filters))
    file = sorted(series_folder.iterdir())[0]
    raw = file.read_bytes()
    for number in range(300):  # without preamble: all of them go to the general parser
        (series_folder / f"x{number}").write_bytes(raw[raw.find(b"\x08\x00\x05\x00") :])
    assert sum(h is not None for h in headers_of(sorted(series_folder.iterdir()))) == 304
    assert (pydicom.config.settings.reading_validation_mode, list(warnings.filters)) == before


@pytest.mark.parametrize("quiet", [True, False])
def test_the_bar_counts_the_files_unless_quiet(series_folder, monkeypatch, quiet):
    bars = []
    real = dicom_scan.meter

    def spied(what, **options):
        bars.append((options["total"], options["quiet"]))
        return real(what, **options)

    monkeypatch.setattr(dicom_scan, "meter", spied)
    monkeypatch.setattr(dicom_scan, "_FEW", 2)
    find_series(series_folder, quiet=quiet)
    assert bars == [(4, quiet)]


def test_every_file_is_counted_as_what_it_is(series_folder):
    (series_folder / "notes.txt").write_text("a text")
    (series_folder / ".hidden").write_bytes(b"\0" * 300)
    (series_folder / "empty").touch()
    (series_folder / "cut").write_bytes(sorted(series_folder.glob("*.dcm"))[0].read_bytes()[:150])
    found = scan(series_folder)
    assert (len(found.headers), len(found.damaged), len(found.junk), found.empty) == (4, 1, 3, 1)
    _, left_out = find_series(series_folder)
    rows = {(thing.status, thing.count): thing.reason for thing in left_out}
    assert rows["refused", 1] == "1 DICOM file(s) are damaged: the header cannot be read"
    assert rows["skipped", 3] == "3 file(s) are not DICOM or not readable (1 of them empty)"


def test_links_in_a_circle_and_files_that_cannot_be_read_do_not_stop_it(series_folder):
    (series_folder / "round").symlink_to(series_folder)
    (series_folder / "self").symlink_to("self")
    (series_folder / "nowhere").symlink_to("/nonexistent/file")
    locked = series_folder / "locked.dcm"
    shutil.copy(sorted(series_folder.glob("*.dcm"))[0], locked)
    locked.chmod(0)
    os.mkfifo(series_folder / "pipe")
    found = scan(series_folder)
    assert len(found.headers) == 4 + (os.geteuid() == 0)  # root may read all
    series, _ = find_series(series_folder)
    assert len(series[0].planes) == 4


def test_a_link_to_a_file_is_a_file(series_folder, tmp_path):
    farm = tmp_path / "farm"
    farm.mkdir()
    for file in series_folder.iterdir():
        (farm / file.name).symlink_to(file)
    assert len(find_series(farm)[0][0].planes) == 4


def test_a_dicomdir_means_its_folder_and_tells_what_is_missing(shared_data, tmp_path):
    folder = tmp_path / "disc"
    shutil.copytree(shared_data / "dicom" / "dicomdir_multi_patient", folder)
    index = folder / "DICOMDIR"
    assert is_index(index)
    whole = find_dicom(index)
    assert len(whole.series) == len(find_dicom(folder).series) > 3
    assert "DICOMDIR: an index of the folder" in [thing.reason for thing in whole.left_out]
    images = [
        f for f in sorted(folder.rglob("*")) if f.is_file() and (read_header(f) or f).__class__ is Header
    ]
    for file in images[:5]:
        file.unlink()
    reasons = [thing.reason for thing in find_dicom(index).left_out]
    assert "DICOMDIR lists 5 images that are not here" in reasons


def test_letters_of_listed_names_may_be_small_or_capital(shared_data, tmp_path):
    folder = tmp_path / "disc"
    shutil.copytree(shared_data / "dicom" / "dicomdir_multi_patient", folder)
    for place in [p for p in folder.rglob("*") if p.is_dir() and p.name != p.name.lower()]:
        place.rename(place.with_name(place.name.lower()))
    assert [index.missing for index in scan(folder).indexes] == [0]


def test_a_damaged_dicomdir_hides_nothing(shared_data, tmp_path):
    folder = tmp_path / "disc"
    shutil.copytree(shared_data / "dicom" / "dicomdir_multi_patient", folder)
    index = folder / "DICOMDIR"
    before = len(scan(folder).headers)
    index.write_bytes(index.read_bytes()[:3000])
    assert len(scan(index).headers) == before


def test_a_folder_of_damaged_files_says_so(tmp_path):
    (tmp_path / "one.dcm").write_bytes(bytes(128) + b"DICM" + b"\xff" * 40)
    with pytest.raises(MedsegError, match="no DICOM file found") as caught:
        find_series(tmp_path)
    assert caught.value.evidence == "1 file(s) looked at, 1 of them damaged DICOM"
