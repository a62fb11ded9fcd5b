"""SEG and RTSTRUCT find their series, and what cannot be paired is named."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest

from medseg.cli import main
from medseg.core.errors import MedsegError
from medseg.data.cohort import Cohort, Ingesting
from medseg.data.pairing import labels_of, paired
from medseg.data.reading import take_in
from medseg.imaging.dicom_ct import Subject, write_ct_series
from medseg.imaging.dicom_in import find_dicom, series_of_files
from medseg.imaging.dicom_rtstruct import write_rtstruct
from medseg.imaging.dicom_seg import write_seg
from medseg.imaging.dicom_series import Series
from medseg.imaging.grid import Grid
from medseg.imaging.image import Image, read_image
from medseg.imaging.labels import Code, Label, checked, labels

SHAPE = (20, 18, 6)
LIVER = Code(value="10200004", meaning="Liver")
LABELS = checked([Label(value=1, name="Liver", type=LIVER, colour="#ff0000"), Label(value=2, name="tumour")])


def series_at(folder: Path, name: str, z: float = 0.0, patient: str = "P1") -> Series:
    """A CT series of its own; series of one patient share study and frame of reference."""
    affine = np.diag([-1.5, -1.5, 3.0, 1.0])
    affine[2, 3] = z
    noise = np.random.default_rng(1).integers(-100, 200, (1, *SHAPE)).astype(np.float32)
    subject = Subject(patient, "Doe^Jane", "F", 50, f"{name} {patient}")
    files = write_ct_series(Image(noise, Grid(SHAPE, affine)), subject, folder / name)
    for file in files:
        dataset = pydicom.dcmread(file)
        dataset.FrameOfReferenceUID = f"1.2.3.{sum(map(ord, patient))}"
        dataset.StudyInstanceUID = f"1.2.4.{sum(map(ord, patient))}"
        dataset.save_as(file)
    return series_of_files(files)


def mask(series: Series, *values: int) -> Image:
    """A box for each value, side by side."""
    array = np.zeros((1, *SHAPE), np.uint8)
    for value in values:
        array[0, 2 + 6 * value : 6 + 6 * value, 4:10, 1:4] = value
    return Image(array, series.grid)


def seg(series: Series, file: Path, *values: int) -> Path:
    own = tuple(label for label in LABELS if label.value in values)
    write_seg(mask(series, *values), own, series.files, file)
    return file


def rtstruct(series: Series, file: Path, *values: int) -> Path:
    own = tuple(label for label in LABELS if label.value in values)
    write_rtstruct(mask(series, *values), own, series, file)
    return file


def change(file: Path, edit: Callable[[pydicom.Dataset], None]) -> Path:
    dataset = pydicom.dcmread(file)
    edit(dataset)
    dataset.save_as(file)
    return file


def without_references(dataset: pydicom.Dataset) -> None:
    del dataset.ReferencedSeriesSequence
    for group in dataset.PerFrameFunctionalGroupsSequence:
        del group.DerivationImageSequence


def read(cohort: Cohort, **settings: object) -> list[Image]:
    taken = [take_in(c, cohort.channels, cohort.labels, Ingesting(**settings)) for c in cohort.cases]
    return [one.reference for one in taken if one.reference is not None]


@pytest.mark.parametrize("write", [seg, rtstruct])
def test_a_reference_finds_its_series_with_labels_terms_and_colours(tmp_path, write):
    series = series_at(tmp_path, "a")
    series_at(tmp_path, "b")  # of the same patient, frame and place
    write(series, tmp_path / "ref.dcm", 1, 2)
    cohort = Cohort.from_dicom(tmp_path)
    assert len(cohort) == 1
    source = cohort.cases[0].reference
    assert source is not None and source.kind == write.__name__
    first = cohort.labels[0]
    assert (first.value, first.name, first.colour) == (1, "Liver", "#ff0000")
    assert first.type.value == LIVER.value
    assert np.array_equal(read(cohort)[0].array, mask(series, 1, 2).array)
    assert [r.status for r in cohort.refused] == ["skipped"]
    assert "to which no reference refers" in cohort.refused[0].reason


def test_several_objects_with_different_labels_are_one_reference(tmp_path):
    series = series_at(tmp_path, "a")
    for write in (seg, rtstruct):
        for value in (1, 2):
            write(series, tmp_path / f"{write.__name__}{value}.dcm", value)
    cohort = Cohort.from_dicom(tmp_path)
    assert not cohort.cases
    assert "2 RTSTRUCT and 2 DICOM SEG" in cohort.refused[0].reason
    assert "cohort.reference=seg" in cohort.refused[0].reason
    for kind in ("seg", "rtstruct"):
        cohort = Cohort.from_dicom(tmp_path, reference=kind)
        assert cohort.cases[0].reference.kind == kind
        assert len(cohort.cases[0].reference.files) == 2
        assert np.array_equal(read(cohort)[0].array, mask(series, 1, 2).array)
        assert [r.status for r in cohort.refused] == ["skipped"] * 2
    alone = Cohort.from_dicom(tmp_path, reference="none")
    assert alone.cases[0].reference is None and not alone.refused
    with pytest.raises(MedsegError, match="no kind of reference 'nrrd'"):
        Cohort.from_dicom(tmp_path, reference="nrrd")


@pytest.mark.parametrize("write", [seg, rtstruct])
def test_two_objects_with_one_label_are_refused_unless_another_is_asked_for(tmp_path, write):
    series = series_at(tmp_path, "a")
    write(series, tmp_path / "1.dcm", 1)
    write(series, tmp_path / "2.dcm", 1)
    write(series, tmp_path / "3.dcm", 2)
    cohort = Cohort.from_dicom(tmp_path)
    assert not cohort.cases
    assert "hold the same label" in cohort.refused[0].reason
    asked = Cohort.from_dicom(tmp_path, labels="tumour=5")
    assert np.array_equal(read(asked)[0].array > 0, mask(series, 2).array > 0)
    assert int(read(asked)[0].array.max()) == 5


def test_without_references_the_place_decides(tmp_path):
    first, _ = series_at(tmp_path, "a"), series_at(tmp_path, "b", z=200)
    change(seg(first, tmp_path / "ref.dcm", 1), without_references)
    found = find_dicom(tmp_path)
    pairs = paired(found.references, found.series)
    own = [s for s in found.series if s.series_uid == first.series_uid]
    assert list(pairs.own) == [own[0].uid_hash]
    series_at(tmp_path, "c")
    found = find_dicom(tmp_path)
    pairs = paired(found.references, found.series)
    assert not pairs.own
    assert "names no series, and 2 of its patient" in pairs.rows[0].reason


def test_without_references_contours_find_their_slices(tmp_path):
    first, _ = series_at(tmp_path, "a"), series_at(tmp_path, "b", z=201)

    def bare(dataset: pydicom.Dataset) -> None:
        del dataset.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence
        for roi in dataset.ROIContourSequence:
            for contour in roi.ContourSequence:
                del contour.ContourImageSequence

    change(rtstruct(first, tmp_path / "ref.dcm", 1), bare)
    found = find_dicom(tmp_path)
    assert not found.references[0].names_images
    own = [s for s in found.series if s.series_uid == first.series_uid]
    assert list(paired(found.references, found.series).own) == [own[0].uid_hash]


def test_the_place_alone_does_not_pair_other_patients(tmp_path):
    first = series_at(tmp_path / "x", "a")
    change(seg(first, tmp_path / "ref.dcm", 1), without_references)
    for file in first.files:
        change(file, lambda d: setattr(d, "PatientID", "another"))
    cohort = Cohort.from_dicom(tmp_path)
    assert [r.status for r in cohort.refused] == ["skipped", "refused"]
    assert "whose image series is not here" in cohort.refused[1].reason


def test_of_several_volumes_in_a_series_the_one_whose_images_are_named_counts(tmp_path):
    first, second = series_at(tmp_path, "a"), series_at(tmp_path, "b")
    seg(first, tmp_path / "ref.dcm", 1)
    for file in second.files:
        change(file, lambda d: setattr(d, "SeriesInstanceUID", first.series_uid))
    for echo, series in enumerate((first, second), start=1):
        for file in series.files:
            change(file, lambda d, echo=echo: setattr(d, "EchoTime", 5.0 * echo))
    found = find_dicom(tmp_path)
    assert len(found.series) == 2
    assert all(found.references[0].belongs_to(s) for s in found.series)
    own = paired(found.references, found.series).own
    homes = [s for s in found.series if s.uid_hash in own]
    assert [set(s.files) for s in homes] == [set(first.files)]


def test_names_that_differ_in_case_are_one_label_and_terms_come_with_it(tmp_path):
    for number, name in enumerate(("Liver", "LIVER")):
        series = series_at(tmp_path, f"s{number}", patient=f"P{number}")
        file = seg(series, tmp_path / f"{number}.dcm", 1)
        change(file, lambda d, name=name: setattr(d.SegmentSequence[0], "SegmentLabel", name))
    found = find_dicom(tmp_path)
    assert len(labels_of(found.references, None)) == 1
    given = labels_of(found.references, labels(liver=3))
    assert (given[0].value, given[0].type.value) == (3, LIVER.value)
    assert len(read(Cohort.from_dicom(tmp_path))) == 2


def test_another_frame_of_reference_is_a_named_refusal(tmp_path):
    series = series_at(tmp_path, "a")
    change(seg(series, tmp_path / "ref.dcm", 1), lambda d: setattr(d, "FrameOfReferenceUID", "1.2.99"))
    cohort = Cohort.from_dicom(tmp_path)
    with pytest.raises(MedsegError, match="reference: the DICOM SEG belongs to another frame of reference"):
        read(cohort)


def overlapping(series: Series, file: Path) -> None:
    """Two regions drawn one over the other."""
    write_rtstruct(mask(series, 1, 2), LABELS, series, file)

    def over(dataset: pydicom.Dataset) -> None:
        dataset.ROIContourSequence[1].ContourSequence = dataset.ROIContourSequence[0].ContourSequence[:1]

    change(file, over)


def test_ingest_takes_contours_and_fractions_and_names_what_it_refuses(tmp_path, capsys):
    data = tmp_path / "data"
    good = series_at(data / "1", "ct", patient="P1")
    rtstruct(good, data / "1" / "rt.dcm", 1, 2)
    fraction = series_at(data / "2", "ct", patient="P2")
    fractional(fraction, data / "2" / "seg.dcm")
    over = series_at(data / "3", "ct", patient="P3")
    overlapping(over, data / "3" / "rt.dcm")
    other = series_at(data / "4", "ct", patient="P4")
    change(seg(other, data / "4" / "seg.dcm", 1), lambda d: setattr(d, "FrameOfReferenceUID", "1.2.99"))
    assert main(["ingest", str(data), "--run", str(tmp_path / "run"), "--quiet"]) == 3
    rows = {
        r["series"]: r for r in csv.DictReader((tmp_path / "run" / "ingest.csv").read_text().splitlines())
    }
    names = {s.series_uid: s.uid_hash for s in find_dicom(data).series}
    status = [rows[names[s.series_uid]]["status"] for s in (good, fraction, over, other)]
    assert status == ["taken", "taken", "refused", "refused"]
    assert "ROI 1 and ROI 2: 24 voxels" in rows[names[over.series_uid]]["reason"]
    assert "frame of reference" in rows[names[other.series_uid]]["reason"]
    stored = read_image(tmp_path / "run" / "ingest" / names[good.series_uid] / "reference.nii.gz")
    assert np.array_equal(stored.array, mask(good, 1, 2).array)
    folder = tmp_path / "run" / "ingest" / names[fraction.series_uid]
    assert np.array_equal(read_image(folder / "reference.nii.gz").array, mask(fraction, 1).array)
    assert any("fractional" in note for note in json.loads((folder / "source.json").read_text())["notes"])
    again = ["ingest", str(data), "--run", str(tmp_path / "again"), "--quiet", "ingest.overlap=last"]
    assert main([*again, "ingest.fraction=0.2"]) == 3
    assert (tmp_path / "again" / "ingest" / names[over.series_uid] / "reference.nii.gz").is_file()
    wider = read_image(tmp_path / "again" / "ingest" / names[fraction.series_uid] / "reference.nii.gz")
    assert int(wider.array.sum()) == SHAPE[0] * SHAPE[1] * SHAPE[2]
    capsys.readouterr()


def fractional(series: Series, file: Path) -> None:
    """A box at 0.8 in a whole picture at 0.3."""
    import highdicom as hd
    from pydicom.sr.codedict import codes

    stack = mask(series, 1).array[0].transpose(2, 1, 0)
    hd.seg.Segmentation(
        source_images=[pydicom.dcmread(p.file) for p in series.planes],
        pixel_array=np.where(stack > 0, 0.8, 0.3),
        segmentation_type="FRACTIONAL",
        fractional_type="PROBABILITY",
        segment_descriptions=[
            hd.seg.SegmentDescription(
                1, "Liver", codes.SCT.Organ, codes.SCT.Liver, hd.seg.SegmentAlgorithmTypeValues.MANUAL
            )
        ],
        series_instance_uid=hd.UID(),
        series_number=5,
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer="somebody",
        manufacturer_model_name="else",
        software_versions="1",
        device_serial_number="1",
    ).save_as(file)
