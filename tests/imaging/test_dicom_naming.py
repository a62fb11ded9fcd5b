"""Names typed by people become labels only where no word of the patient stands in them."""

from __future__ import annotations

import pytest
from pydicom import Dataset

from medseg.imaging.dicom_naming import plain_name, safe_name, values_of, without_identity
from medseg.imaging.labels import labels


@pytest.fixture
def dataset() -> Dataset:
    said = Dataset()
    said.PatientName, said.PatientID, said.InstitutionName = "Muster^Kim^Head", "HX-4711-B", "St. Anna"
    return said


@pytest.mark.parametrize(
    "text", ["liver of Muster", "MUSTERs liver", "gtv kim", "HX_4711", "anna", "Liver 4711"]
)
def test_words_of_the_patient_and_the_hospital_are_found(dataset, text):
    assert not without_identity(text, dataset)
    assert safe_name(text, dataset, "ROI 3") == "ROI 3"


@pytest.mark.parametrize("text", ["liver", "left head of femur", "Kimura space", "GTVp 60 Gy", "St", "B"])
def test_other_words_stay(dataset, text):
    assert safe_name(text, dataset, "ROI 3") == text


def test_names_are_cut_and_matched_without_case_and_blanks(dataset):
    assert len(safe_name("x" * 80, dataset, "")) == 64
    assert plain_name(" Left_kidney") == plain_name("LEFT KIDNEY")
    found = values_of(
        {1: "Left Kidney", 2: "of Muster", 3: "spine"}, labels(left_kidney=4, ROI_2=5), dataset, "ROI"
    )
    assert found == {1: 4, 2: 5, 3: None}
    assert values_of({7: "x"}, None, dataset, "ROI") == {7: 7}
