"""Probes from the command line: published encoders, wrong sources, cohorts without classes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from medseg.cli import main
from medseg.core.files import read_json


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ResNet of depth 10 as torchvision keeps its ResNets."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "learning"))
    import layouts

    file = tmp_path_factory.mktemp("weights") / "resnet.pth"
    torch.save(layouts.resnet([1, 1, 1, 1]), file)
    return file


def test_a_published_encoder_is_asked_without_training(
    photographs: Path, tiny_pictures: Path, tmp_path, capsys
):
    run = tmp_path / "run"
    words = ["probe", str(photographs), str(tiny_pictures), "--run", str(run), "kinds=[knn]", "folds=2"]
    assert main([*words, "--device", "cpu", "--quiet"]) == 0
    assert "knn probe, 2 folds" in capsys.readouterr().out
    assert "mean_auroc" in read_json(run / "probe" / "summary.json")["knn"]
    card = json.loads((run / "encoder/pretrained/model/card.json").read_text())
    assert card["start"]["share"] == 1
    assert card["start"]["parts"]["head"]["left"] > 0


def test_what_cannot_be_asked_is_told(
    photographs: Path, tiny_pictures: Path, tiny_msd: Path, tmp_path, capsys
):
    run = ["--run", str(tmp_path / "run"), "--quiet"]
    assert main(["probe", str(photographs), str(tiny_msd), *run]) == 2
    assert "the cohort has masks" in capsys.readouterr().err
    torch.save({"a.b": torch.zeros(1)}, tmp_path / "w.pth")
    assert main(["probe", str(tmp_path / "w.pth"), str(tiny_pictures), *run]) == 2
    assert "do not fit the network" in capsys.readouterr().err


def test_the_folder_of_imported_weights_is_no_model(photographs: Path, tiny_pictures: Path, tmp_path):
    assert main(["import-weights", str(photographs), str(tmp_path / "w")]) == 0
    words = ["probe", str(tmp_path / "w"), str(tiny_pictures), "--run", str(tmp_path / "run"), "--quiet"]
    assert main([*words, "kinds=[knn]", "folds=2", "--device", "cpu"]) == 0
