"""What is taken, passed over and refused of pictures, and which option lets it in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from medseg.imaging.dicom_header import Header, read_header
from medseg.imaging.dicom_policy import DEFAULT, DicomPolicy
from medseg.imaging.dicom_verdict import is_picture, modality_of, remarks, verdict
from tests.pictures import ROWS, STORAGE, write_picture

TEXT, CAPTURE = DicomPolicy(burned_in="take"), DicomPolicy(secondary="take")
BOTH = DicomPolicy(burned_in="take", secondary="take")


def header_of(tmp_path: Path, kind: str = "DX", pixels: np.ndarray = ROWS, **elements: Any) -> Header:
    header = read_header(write_picture(tmp_path / "x.dcm", kind, pixels, **elements))
    assert header is not None
    return header


@pytest.mark.parametrize("kind", ["CR", "DX", "DX raw", "MG", "XA", "RF"])
def test_a_radiograph_is_taken_under_its_modality(tmp_path, kind):
    header = header_of(tmp_path, kind, ImageType=["DERIVED", "PRIMARY"])
    assert verdict(header) == ("taken", "")
    assert (modality_of(header), is_picture(header)) == (kind.split()[0], True)


@pytest.mark.parametrize(
    ("elements", "modality"),
    [
        ({"Modality": "MG"}, "MG"),  # mammography on a storage phosphor plate
        ({"Modality": "ZZ"}, "CR"),
        ({"SOPClassUID": "", "Modality": "DX"}, "DX"),
        ({"SOPClassUID": "", "Modality": "NM"}, ""),
    ],
)
def test_class_and_modality_together_say_what_it_is(tmp_path, elements, modality):
    assert modality_of(header_of(tmp_path, "CR", **elements)) == modality


def test_what_medseg_does_not_take_is_named(tmp_path):
    header = header_of(tmp_path, SOPClassUID=STORAGE + "20", Modality="NM")
    assert verdict(header) == (
        "skipped",
        "Nuclear Medicine Image: not an image of a kind that medseg takes",
    )


@pytest.mark.parametrize("kind", ["DX", "MG", "CT"])
def test_text_burned_in_is_refused_unless_it_is_asked_for(tmp_path, kind):
    header = header_of(
        tmp_path, kind, BurnedInAnnotation="YES", PixelSpacing=[1, 1],
        ImageOrientationPatient=[1, 0, 0, 0, 1, 0], ImagePositionPatient=[0, 0, 0],
    )  # fmt: skip
    status, reason = verdict(header)
    assert status == "refused"
    assert "BurnedInAnnotation = YES (cohort.dicom.burned_in=take lets it in)" in reason
    assert verdict(header, CAPTURE)[0] == "refused"
    assert verdict(header, TEXT) == ("taken", "")
    assert any("text in the picture: BurnedInAnnotation = YES" in remark for remark in remarks(header))


@pytest.mark.parametrize(("said", "status"), [("NO", "taken"), ("YES", "refused"), (None, "refused")])
def test_an_ultrasound_must_deny_text(tmp_path, said, status):
    header = header_of(tmp_path, "US", **({"BurnedInAnnotation": said} if said else {}))
    assert verdict(header)[0] == status
    assert verdict(header, TEXT)[0] == "taken"
    assert bool([r for r in remarks(header) if "text in the picture" in r]) == (said != "NO")


@pytest.mark.parametrize(
    ("kind", "elements"),
    [
        ("OT", {}),
        ("OT", {"SOPClassUID": STORAGE + "7.4"}),
        ("OT", {"Modality": "CR"}),
        ("CT", {"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]}),
        ("CT", {"ImageType": ["DERIVED", "SECONDARY", "OTHER", "DOSE_INFO"]}),
        ("DX", {"Modality": "OT"}),
    ],
)
def test_a_capture_is_passed_over_unless_it_is_asked_for(tmp_path, kind, elements):
    header = header_of(tmp_path, kind, **elements)
    status, reason = verdict(header)
    assert status == "skipped"
    assert "a secondary capture (cohort.dicom.secondary=take lets it in)" in reason
    assert verdict(header, TEXT)[0] == "skipped"
    assert "burned_in=take" in verdict(header, CAPTURE)[1], "captures usually have text in them"
    assert verdict(header, BOTH) == ("taken", "")
    assert is_picture(header)
    assert modality_of(header) == ("CR" if elements.get("Modality") == "CR" else "OT")
    assert any("a secondary capture, taken as asked for" in remark for remark in remarks(header))


def test_a_capture_that_denies_text_needs_one_option_only(tmp_path):
    header = header_of(tmp_path, "OT", BurnedInAnnotation="NO")
    assert verdict(header, CAPTURE) == ("taken", "")


@pytest.mark.parametrize(
    ("elements", "words"),
    [
        ({"NumberOfFrames": 3, "PixelData": ROWS.tobytes() * 3}, "a film of 3 frames"),
        ({"Rows": 0}, "no image size"),
        ({"PhotometricInterpretation": "HSV"}, "neither grey nor a colour"),
        ({"SamplesPerPixel": 3}, "neither grey nor a colour"),
        ({"RescaleSlope": 0, "RescaleIntercept": 0}, "RescaleSlope is zero"),
        ({"Rows": 60000, "Columns": 60000}, "claims 60000 x 60000 pixels"),
        ({"Rows": 3000}, "cut off"),
    ],
)
def test_a_picture_that_cannot_be_right_is_refused(tmp_path, elements, words):
    status, reason = verdict(header_of(tmp_path, **elements), BOTH)
    assert status == "refused"
    assert words in reason


def test_half_the_colour_of_422_is_not_missed(tmp_path):
    rows = np.zeros((4, 4, 2), np.uint8)
    header = header_of(
        tmp_path, "US", rows[..., 0], BurnedInAnnotation="NO", SamplesPerPixel=3, PlanarConfiguration=0,
        PhotometricInterpretation="YBR_FULL_422", PixelData=bytes(4 * 4 * 2),
        Rows=400, Columns=4,
    )  # fmt: skip
    assert "3200 bytes claimed" in verdict(header)[1]
    header = header_of(
        tmp_path, "US", rows[..., 0], BurnedInAnnotation="NO", SamplesPerPixel=3, PlanarConfiguration=0,
        PhotometricInterpretation="YBR_FULL_422", PixelData=bytes(400 * 4 * 2), Rows=400,
    )  # fmt: skip
    assert verdict(header) == ("taken", "")


def test_raw_values_of_a_detector_are_named(tmp_path):
    assert any(remark.startswith("for processing") for remark in remarks(header_of(tmp_path, "DX raw")))
    assert not any("for processing" in remark for remark in remarks(header_of(tmp_path, "DX")))


def test_no_reason_holds_text_from_the_file(tmp_path):
    secret = "QUILLFEATHER"
    for elements in (
        {"ImageType": ["DERIVED", secret]},
        {"PhotometricInterpretation": secret},
        {"Modality": secret},
        {"BurnedInAnnotation": secret},
    ):
        header = header_of(tmp_path, "US", **elements)
        for policy in (DEFAULT, BOTH):
            said = " ".join([*verdict(header, policy), modality_of(header), *remarks(header)])
            assert secret.lower() not in said.lower()
    assert pydicom.dcmread(tmp_path / "x.dcm").BurnedInAnnotation == secret
