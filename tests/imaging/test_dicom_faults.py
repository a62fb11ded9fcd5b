"""One real series, spoilt in one way at a time: the right volume still, or a refusal that names the fault."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom import Dataset

from medseg.imaging.dicom_in import find_series, read_series
from medseg.imaging.image import canonical, read_image

Spoil = Callable[[list[Dataset]], None]


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("MEDSEG_KEY", "for tests")


@pytest.fixture
def case(shared_data) -> Path:
    """Ten sagittal slices with a reference."""
    return shared_data / "dicom_cases" / "mr_decubitus_left"


def spoilt(case: Path, folder: Path, spoil: Spoil) -> Path:
    """The series again, altered; images that `spoil` appends or takes away are written or not."""
    datasets = [pydicom.dcmread(file) for file in sorted((case / "dicom").iterdir())]
    datasets.sort(key=lambda d: float(d.ImagePositionPatient[0]))
    spoil(datasets)
    folder.mkdir()
    for number, dataset in enumerate(datasets):
        dataset.save_as(folder / f"{number:02d}")
    return folder


def each(**changes) -> Spoil:
    def spoil(datasets: list[Dataset]) -> None:
        for dataset in datasets:
            change(dataset, **changes)

    return spoil


def one(number: int, **changes) -> Spoil:
    return lambda datasets: change(datasets[number], **changes)


def extra(number: int, **changes) -> Spoil:
    """One image more: a copy of another with these changes."""

    def spoil(datasets: list[Dataset]) -> None:
        datasets.append(pydicom.dcmread(datasets[number].filename))
        change(datasets[-1], **changes)

    return spoil


def change(dataset: Dataset, **changes) -> None:
    for keyword, value in changes.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value(dataset) if callable(value) else value)


def moved(axis: int, mm: float) -> Callable[[Dataset], list[float]]:
    return lambda d: [float(v) + mm * (i == axis) for i, v in enumerate(d.ImagePositionPatient)]


def other_picture(dataset: Dataset) -> bytes:
    return bytes(np.roll(np.frombuffer(dataset.PixelData, "<u2"), 999).tobytes())


def turned(degrees: float) -> Callable[[Dataset], list[float]]:
    """Rows and columns turned about the z axis."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))

    def turn(dataset: Dataset) -> list[float]:
        v = np.reshape([float(x) for x in dataset.ImageOrientationPatient], (2, 3))
        return [round(float(x), 8) for x in (v @ np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])).ravel()]

    return turn


def scrambled(datasets: list[Dataset]) -> None:
    for dataset, number in zip(datasets, np.random.default_rng(0).permutation(len(datasets)), strict=True):
        dataset.InstanceNumber = int(number)


def comma(datasets: list[Dataset]) -> None:
    for dataset in datasets:
        dataset["PixelSpacing"]._value = None
        element = pydicom.DataElement("PixelSpacing", "LO", "1,0156\\1,0156")
        dataset["PixelSpacing"] = pydicom.DataElement(0x00280030, "LO", element.value)


RIGHT: dict[str, Spoil] = {
    "untouched": lambda datasets: None,
    "InstanceNumber scrambled": scrambled,
    "InstanceNumber absent": each(InstanceNumber=None),
    "InstanceNumber all the same": each(InstanceNumber=3),
    "SliceLocation wrong": each(SliceLocation=lambda d: "7"),
    "SliceThickness and SpacingBetweenSlices wrong": each(SliceThickness="77", SpacingBetweenSlices="55"),
    "series UID empty": each(SeriesInstanceUID=""),
    "all UIDs empty": each(
        SeriesInstanceUID="", StudyInstanceUID="", SOPInstanceUID="", FrameOfReferenceUID=""
    ),
    "frame of reference absent": each(FrameOfReferenceUID=None),
    "an exact copy": extra(4),
    "an exact copy under another UID": extra(4, SOPInstanceUID="1.2.3.4"),
    "an exact copy with another number": extra(4, SOPInstanceUID="1.2.3.4", InstanceNumber=99),
    "two image types": one(4, ImageType=["ORIGINAL", "PRIMARY", "M", "ADD"]),
    "one derived image in its place": one(4, ImageType=["DERIVED", "SECONDARY", "M", "ND"]),
    "a derived image beside": extra(
        4, ImageType=["DERIVED", "SECONDARY", "MIP"], SOPInstanceUID="1.2.3.4", PixelData=other_picture
    ),
    "a localizer of another plane": extra(
        4, SOPInstanceUID="1.2.3.4", ImageOrientationPatient=[1, 0, 0, 0, 1, 0], PixelData=other_picture
    ),
    "jitter of a position": one(4, ImagePositionPatient=moved(0, 0.009)),
    "times and acquisitions of each slice": lambda datasets: [
        change(d, AcquisitionNumber=n, AcquisitionTime=f"10{n:04d}", TriggerTime=str(n))
        for n, d in enumerate(datasets)
    ] and None,
}  # fmt: skip

WRONG: dict[str, tuple[Spoil, str]] = {
    "one odd orientation": (one(4, ImageOrientationPatient=turned(5)), "missing|changes within the stack"),
    "one odd orientation at the end": (one(9, ImageOrientationPatient=turned(5)), "changes within the stack"),
    "two odd orientations at the end": (
        lambda datasets: [change(d, ImageOrientationPatient=turned(1)) for d in datasets[8:]] and None,
        "changes within the stack",
    ),
    "one other spacing": (one(9, PixelSpacing=[2, 2]), "changes within the stack"),
    "one other matrix": (one(9, Rows=128, Columns=512), "changes within the stack"),
    "a missing slice": (lambda datasets: datasets.pop(4) and None, r"1 slice\(s\) missing"),
    "a slice moved along": (one(4, ImagePositionPatient=moved(0, 1.5)), "unevenly spaced"),
    "a slice moved sideways": (one(4, ImagePositionPatient=moved(1, 1.5)), "sideways of its neighbours"),
    "another picture at one position": (
        extra(4, SOPInstanceUID="1.2.3.4", PixelData=other_picture), "different images lie at one position"
    ),
    "another picture at one position, later": (
        extra(
            4, SOPInstanceUID="1.2.3.4", PixelData=other_picture, InstanceNumber=99, AcquisitionTime="235959",
            ContentTime="235959", AcquisitionNumber=9,
        ),
        "different images lie at one position",
    ),
    "another picture under one UID": (extra(4, PixelData=other_picture), "same instance UID"),
    "cosines not orthogonal": (
        each(ImageOrientationPatient=[0, 0.9, -0.1, 0, 0.1, -0.9]), "not two orthogonal directions"
    ),
    "a decimal comma": (comma, "not 2 readable numbers"),
    "zero spacing": (each(PixelSpacing=[0, 0]), "not positive"),
    "negative spacing in one": (one(4, PixelSpacing=[-1, 1]), "not positive"),
    "spacing absent": (each(PixelSpacing=None), "PixelSpacing .* is absent"),
    "position absent in one": (one(4, ImagePositionPatient=None), "ImagePositionPatient is absent"),
    "orientation absent": (each(ImageOrientationPatient=None), "ImageOrientationPatient is absent"),
    "all at one position": (
        each(
            ImagePositionPatient=[0, 0, 0], AcquisitionTime="120000", ContentTime="120000",
            AcquisitionNumber=1, TriggerTime="0",
        ),
        "10 images lie at each position",
    ),
    "two patients": (one(4, PatientID="somebody"), "2 patients"),
    "two frames of reference": (one(4, FrameOfReferenceUID="1.2.3"), "2 frames of reference"),
    "more rows than pixels": (one(4, Rows=4000), "cannot be used|cut off"),
}  # fmt: skip


@pytest.mark.parametrize("name", RIGHT)
def test_what_does_not_matter_leaves_the_volume_right(case, tmp_path, name):
    folder = spoilt(case, tmp_path / "dicom", RIGHT[name])
    found, left_out = find_series(folder)
    assert [thing for thing in left_out if thing.status == "refused"] == []
    assert len(found) == 1
    ours, theirs = canonical(read_series(found[0])), canonical(read_image(case / "reference.nii.gz"))
    assert ours.grid.shape == theirs.grid.shape
    assert np.abs(ours.grid.affine - theirs.grid.affine).max() < 1e-2
    assert np.abs(ours.array - theirs.array).max() < 1e-3


@pytest.mark.parametrize("name", WRONG)
def test_what_matters_is_refused_by_name(case, tmp_path, name):
    spoil, words = WRONG[name]
    found, left_out = find_series(spoilt(case, tmp_path / "dicom", spoil))
    refused = [thing.reason for thing in left_out if thing.status == "refused"]
    assert found == []
    assert refused
    assert any(re.search(words, reason) for reason in refused), refused


def test_a_derived_image_and_a_mixture_are_told(case, tmp_path):
    found, _ = find_series(spoilt(case, tmp_path / "a", RIGHT["one derived image in its place"]))
    assert "1 of 10 images are derived from others" in found[0].notes
    _, left_out = find_series(spoilt(case, tmp_path / "b", RIGHT["a derived image beside"]))
    assert [t.reason for t in left_out] == ["a single image of another kind than its series"]


def test_the_id_of_a_volume_depends_on_nothing_but_its_images(case, tmp_path):
    first = find_series(case / "dicom")[0][0]
    spoilt(case, tmp_path / "a", RIGHT["InstanceNumber scrambled"])
    for number, file in enumerate(sorted((tmp_path / "a").iterdir(), reverse=True)):
        shutil.move(file, tmp_path / "a" / f"x{number}.dcm")
    assert find_series(tmp_path / "a")[0][0].uid_hash == first.uid_hash
    other = spoilt(case, tmp_path / "b", each(SOPInstanceUID=lambda d: f"1.2.{d.InstanceNumber}"))
    assert find_series(other)[0][0].uid_hash != first.uid_hash


def test_blank_slices_of_a_time_series_are_no_copies(shared_data, tmp_path):
    folder = tmp_path / "fmri"
    shutil.copytree(shared_data / "dicom" / "mr_ge_fmri_4d" / "series", folder)
    for file in folder.iterdir():
        dataset = pydicom.dcmread(file)
        if float(dataset.ImagePositionPatient[2]) < -17:
            dataset.PixelData = bytes(len(dataset.PixelData))
            dataset.save_as(file)
    found, left_out = find_series(folder)
    assert len(found) == 10
    assert left_out == []
