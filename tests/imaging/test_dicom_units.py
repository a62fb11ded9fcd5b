"""What PET and Philips values mean is told in numbers, worked out by hand here, and never applied."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom import Dataset

from medseg.imaging.dicom_ct import Subject, write_ct_series
from medseg.imaging.dicom_in import find_series, read_series
from medseg.imaging.dicom_units import suv_factor, value_notes
from medseg.imaging.grid import Grid
from medseg.imaging.image import Image

PET = "1.2.840.10008.5.1.4.1.1.128"


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("MEDSEG_KEY", "for tests")


def pet(**changes) -> Dataset:
    """70 kg, 370 MBq of fluorine-18 injected an hour before the scan; None deletes an element."""
    dataset, tracer = Dataset(), Dataset()
    dataset.Modality, dataset.Units, dataset.DecayCorrection = "PT", "BQML", "START"
    dataset.CorrectedImage, dataset.PatientWeight = ["ATTN", "DECY", "SCAT"], 70
    dataset.SeriesDate = dataset.AcquisitionDate = "20200102"
    dataset.SeriesTime, dataset.AcquisitionTime = "110000", "110000.5"
    tracer.RadionuclideTotalDose, tracer.RadionuclideHalfLife = 370e6, 6586.2
    tracer.RadiopharmaceuticalStartTime = "100000.00"
    dataset.RadiopharmaceuticalInformationSequence = [tracer]
    for keyword, value in changes.items():
        place = tracer if keyword.startswith("Radio") else dataset
        if value is None:
            delattr(place, keyword)
        else:
            setattr(place, keyword, value)
    return dataset


AN_HOUR_LATER = 70_000 / (370e6 * 0.5 ** (3600 / 6586.2))


@pytest.mark.parametrize(
    ("changes", "factor"),
    [
        ({}, AN_HOUR_LATER),
        ({"DecayCorrection": "ADMIN"}, 70_000 / 370e6),
        ({"RadiopharmaceuticalStartDateTime": "20200102100000.000000+0100"}, AN_HOUR_LATER),
        (
            {"SeriesTime": "003000", "AcquisitionTime": "003000", "RadiopharmaceuticalStartTime": "233000"},
            AN_HOUR_LATER,
        ),
        ({"Units": "GML"}, 1.0),
        ({"CorrectedImage": None}, AN_HOUR_LATER),
    ],
    ids=["start", "injection", "with date", "over midnight", "SUV already", "corrections not said"],
)
def test_the_suv_factor_is_weight_over_the_activity_left(changes, factor):
    assert suv_factor(pet(**changes))[0] == pytest.approx(factor, rel=1e-9)


@pytest.mark.parametrize(
    "changes",
    [
        {"PatientWeight": None},
        {"PatientWeight": 0},
        {"DecayCorrection": "NONE"},
        {"DecayCorrection": None},
        {"RadionuclideTotalDose": None},
        {"RadionuclideHalfLife": None},
        {"RadiopharmaceuticalStartTime": None},
        {"RadiopharmaceuticalStartDateTime": "20200102120000"},  # after the scan
        {"RadiopharmaceuticalStartDateTime": "20191231100000"},  # two days before
        {"SeriesTime": "120000"},  # a series made after its acquisition
        {"CorrectedImage": ["DECY"]},
        {"Units": "CNTS"},
        {"Units": "PROPCPS"},
        {"Units": "GML", "SUVType": "LBM"},
    ],
    ids=str,
)
def test_without_all_it_needs_there_is_no_factor_but_a_reason(changes):
    factor, why = suv_factor(pet(**changes))
    assert factor is None
    assert why.startswith("no SUV factor: ")


def test_the_private_factor_of_philips_counts_for_counts():
    dataset = pet(Units="CNTS")
    dataset.add_new(0x70530010, "LO", "Philips PET Private Group")
    dataset.add_new(0x70531000, "DS", "0.000387")
    assert suv_factor(dataset) == (0.000387, "Philips private SUV scale")
    dataset[0x70530010].value = "Somebody else"
    assert suv_factor(dataset)[0] is None


@pytest.fixture
def pet_folder(tmp_path) -> Path:
    values = np.random.default_rng(0).uniform(0, 900, (1, 8, 6, 4)).round().astype(np.float32)
    folder = tmp_path / "pet"
    write_ct_series(
        Image(values, Grid.from_spacing((8, 6, 4), (1, 1, 2))), Subject("7", "Q^A", "F", 40, "s"), folder
    )
    for number, file in enumerate(sorted(folder.iterdir())):
        dataset = pydicom.dcmread(file)
        dataset.update(pet())
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = pydicom.uid.UID(PET)
        dataset.RescaleSlope, dataset.RescaleIntercept = str(0.5 + number / 8), "0"
        dataset.save_as(file)
    return folder


def test_a_pet_series_notes_units_and_factor_and_keeps_its_values(pet_folder):
    series, _ = find_series(pet_folder)
    assert (series[0].modality, len(series)) == ("PT", 1)
    assert series[0].notes == (
        "PET values in Bq/ml",
        f"SUV factor {AN_HOUR_LATER:.6g} per stored unit "
        "(body weight, decay corrected to the start of the series), not applied",
    )
    image = read_series(series[0])
    by_place = sorted(pet_folder.iterdir(), key=lambda f: float(pydicom.dcmread(f).ImagePositionPatient[2]))
    for number, file in enumerate(by_place):
        dataset = pydicom.dcmread(file)
        expected = dataset.pixel_array.T * np.float64(dataset.RescaleSlope)
        assert np.array_equal(image.array[0, :, :, number], expected.astype(np.float32))
    said = " ".join(series[0].notes)
    assert not any(secret in said for secret in ("70", "370", "2020", "1100"))


@pytest.mark.parametrize("implicit", [False, True])
def test_the_private_scale_of_philips_mr_is_noted(tmp_path, implicit):
    dataset = Dataset()
    dataset.Modality, dataset.file_meta = "MR", pydicom.dataset.FileMetaDataset()
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = pydicom.uid.MRImageStorage
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.UID("1.2.840.10008.1.2" + ("" if implicit else ".1"))
    dataset.add_new(0x20050010, "LO", "Philips MR Imaging DD 001")
    dataset.add_new(0x2005100D, "FL", 0.0)
    dataset.add_new(0x2005100E, "FL", 0.0078125)
    pydicom.dcmwrite(
        tmp_path / "a.dcm", dataset, implicit_vr=implicit, little_endian=True, enforce_file_format=True
    )
    assert value_notes(tmp_path / "a.dcm") == (
        "Philips private scale: slope 0.0078125, intercept 0, not applied",
    )


def test_a_real_world_value_mapping_is_noted(shared_data):
    series, _ = find_series(shared_data / "dicom" / "ct_enhanced_2frame")
    assert "a Real World Value Mapping stands in the header, not applied" in series[0].notes


def test_a_file_that_is_none_has_no_notes(tmp_path):
    (tmp_path / "a").write_bytes(b"\xff" * 500)
    assert value_notes(tmp_path / "a") == ()
