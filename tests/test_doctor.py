"""The doctor names what is missing and the line that mends it."""

from __future__ import annotations

from importlib import metadata

import pytest

from medseg import doctor


def test_an_environment_that_runs_the_tests_lacks_nothing() -> None:
    outcome = doctor.examine()
    assert outcome.exit_code == 0, outcome.text
    assert outcome.text.endswith("nothing is missing")
    for word in ("python", "torch", "monai", "mlflow", "memory", "DICOM codecs", "JPEG 2000"):
        assert word in outcome.text


def test_a_missing_package_is_named_with_the_line_that_mends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    found = metadata.version

    def without_nibabel(name: str) -> str:
        if name == "nibabel":
            raise metadata.PackageNotFoundError(name)
        return "0.1" if name == "highdicom" else found(name)

    monkeypatch.setattr(metadata, "version", without_nibabel)
    outcome = doctor.examine()
    assert outcome.exit_code == 1
    assert sorted(outcome.summary["missing"]) == ["highdicom", "nibabel"]
    assert "pip install 'nibabel" in outcome.text
    assert "0.1, highdicom" in outcome.text


def test_a_package_of_an_extra_is_worth_a_note_and_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    needs = ["numpy>=2.0", "pynetdicom<3.1,>=3.0.4; extra == 'pacs'", "medseg[pacs]; extra == 'test'"]
    found = metadata.version

    def without_pynetdicom(name: str) -> str:
        if name == "pynetdicom":
            raise metadata.PackageNotFoundError(name)
        return found(name)

    monkeypatch.setattr(metadata, "requires", lambda _: needs)
    monkeypatch.setattr(metadata, "version", without_pynetdicom)
    checks = {check.what: check for check in doctor._packages()}
    assert set(checks) == {"numpy", "pynetdicom"}
    assert checks["pynetdicom"].state == "note"
    assert checks["pynetdicom"].mend == "pip install 'pynetdicom<3.1,>=3.0.4'"


def test_a_missing_codec_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medseg.imaging.dicom_codecs.codecs", lambda: {"RLE": True, "JPEG-LS": False})
    outcome = doctor.examine()
    assert outcome.summary["missing"] == ["DICOM codecs"]
    assert "no decoder for JPEG-LS" in outcome.text


def test_a_gpu_that_torch_cannot_use_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_nvidia_gpus", lambda: "1 NVIDIA GPU")
    assert "without CUDA" in doctor._no_cuda(None).seen
    assert "SYSTEM_TORCH=1" in doctor._no_cuda(None).mend
    assert "does not start" in doctor._no_cuda("12.8").seen


def test_nothing_of_this_place_is_told() -> None:
    from pathlib import Path

    assert str(Path.home()) not in doctor.examine().text
