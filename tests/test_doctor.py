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
