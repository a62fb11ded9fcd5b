"""Model folders: loaded without executing anything, refused when something is off."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from small_patients import balls, small_plan

from medseg.core.errors import CaseError, MedsegError
from medseg.imaging.labels import Label
from medseg.learning.model import Model, open_models, save_model
from medseg.learning.networks import build_network
from medseg.learning.settings import Prediction


def _save(folder: Path, seed: int = 0, **changes) -> Path:
    torch.manual_seed(seed)
    plan = small_plan(**changes)
    save_model(folder, plan, build_network(plan).state_dict(), {"name": "m", "version": "0"})
    return folder


@pytest.fixture
def folder(tmp_path) -> Path:
    return _save(tmp_path / "model")


def test_a_saved_model_predicts_the_same_after_loading(folder):
    a, b = Model.load(folder, "cpu"), Model.load(str(folder), "cpu")
    image, _ = balls(0)
    np.testing.assert_array_equal(a.segment(image).array, b.segment(image).array)
    assert a.plan == small_plan()
    assert [label.name for label in a.labels] == ["large", "small"]


def test_equal_content_gives_equal_bytes(folder, tmp_path):
    other = _save(tmp_path / "other")
    for file in folder.iterdir():
        assert file.read_bytes() == (other / file.name).read_bytes()


def test_changed_weights_are_refused(folder):
    file = folder / "weights.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(bytes(data))
    with pytest.raises(MedsegError, match="not the ones the model card was written for"):
        Model.load(folder)


def test_a_pickled_checkpoint_is_not_opened(folder):
    (folder / "weights.safetensors").unlink()
    torch.save({"a": torch.zeros(1)}, folder / "weights.pt")
    with pytest.raises(MedsegError, match=r"pickled files are not opened: weights\.pt"):
        Model.load(folder)


def test_a_pickle_in_safetensors_clothing_is_refused(folder):
    import hashlib

    file = folder / "weights.safetensors"
    torch.save({"a": torch.zeros(1)}, file)
    card = json.loads((folder / "card.json").read_text())
    card["weights_sha256"] = hashlib.sha256(file.read_bytes()).hexdigest()
    (folder / "card.json").write_text(json.dumps(card))
    with pytest.raises(MedsegError, match="not safetensors"):
        Model.load(folder)


@pytest.mark.parametrize("name", ["plan.json", "card.json"])
def test_a_missing_or_broken_file_is_named(folder, name):
    (folder / name).write_text("{")
    with pytest.raises(MedsegError, match=name):
        Model.load(folder)
    (folder / name).unlink()
    with pytest.raises(MedsegError, match=name):
        Model.load(folder)


def test_weights_of_another_network_are_refused(folder, tmp_path):
    plan = small_plan()
    wider = plan.but(network_arguments={**plan.network_arguments, "widths": [8, 16]})
    save_model(tmp_path / "x", wider, Model.load(folder, "cpu").network.state_dict(), {})
    with pytest.raises(MedsegError, match="do not fit"):
        Model.load(tmp_path / "x", "cpu")


def test_models_are_found_in_model_fold_and_run_folders(folder, tmp_path):
    for fold in ("fold0", "fold1"):
        shutil.copytree(folder, tmp_path / "run" / "train" / fold / "model")
    assert len(open_models(folder, "cpu").members) == 1
    assert len(open_models(tmp_path / "run" / "train" / "fold0", "cpu").members) == 1
    both = open_models(tmp_path / "run", "cpu")
    assert len(both.members) == 2
    assert both.task == "segmentation"
    assert both.channels == ("MR",)
    with pytest.raises(MedsegError, match="no model in this folder"):
        open_models(tmp_path / "run" / "train" / "fold0" / "nothing", "cpu")


def test_an_ensemble_is_the_mean_of_probabilities(tmp_path):
    a, b = _save(tmp_path / "a", 1), _save(tmp_path / "b", 2)
    image, _ = balls(0)
    pa, grid = Model.load(a, "cpu").probabilities(image)
    pb, _ = Model.load(b, "cpu").probabilities(image)
    both = open_models([a, b], "cpu")
    [(mean, same)] = both.parts(image)
    np.testing.assert_allclose(mean, (pa + pb) / 2, atol=1e-6)
    assert same.matches(grid)
    assert both.digest != open_models(a, "cpu").digest
    assert both.segment(image, Prediction(mirror=(0,))).array.shape == image.array.shape


def test_models_of_different_spacing_are_averaged_on_the_grid_of_the_image(tmp_path):
    a, b = _save(tmp_path / "a", 1), _save(tmp_path / "b", 2, spacing_mm=(3.0, 3.0, 3.0))
    image, _ = balls(0)
    both = open_models([a, b], "cpu")
    first, second = both.parts(image)
    assert first[1].shape != second[1].shape
    np.testing.assert_array_equal(first[0], Model.load(a, "cpu").probabilities(image)[0])
    assert both.segment(image).grid.matches(image.grid)


def test_models_of_other_labels_are_no_ensemble(tmp_path):
    a, b = _save(tmp_path / "a"), _save(tmp_path / "b", labels=(Label(value=3, name="other"),))
    with pytest.raises(MedsegError, match="same labels"):
        open_models([a, b], "cpu")


def test_an_image_with_other_channels_is_refused(folder):
    image, _ = balls(0)
    with pytest.raises(CaseError, match="channels"):
        Model.load(folder, "cpu").segment(image.but(np.concatenate([image.array] * 2)))


def test_a_device_that_is_not_there_is_refused_with_a_mend(folder):
    with pytest.raises(MedsegError, match="--device cpu"):
        Model.load(folder, "cuda:7")
    with pytest.raises(MedsegError, match="is no device"):
        Model.load(folder, "toaster")
