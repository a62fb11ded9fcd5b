"""The stage ``weights``: kept while the content is the same, wherever it lies; no trace of where."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from medseg.core.run import Run
from medseg.learning.weights import saved_weights
from medseg.learning.weights_fetch import Source
from medseg.stages.weights import weights


@pytest.fixture
def file(tmp_path: Path) -> Path:
    torch.save({"state_dict": {"module.a.b": torch.arange(4.0)}}, tmp_path / "Muster_Hans.pth")
    return tmp_path / "Muster_Hans.pth"


def _made(root: Path, source: Source, **prefix: str):
    run = Run(root, quiet=True)
    made = run.map(weights, {"pretrained": source}, format="auto", prefix=prefix)
    run.close()
    return made


def test_what_was_converted_is_kept_when_the_file_moves_and_made_again_when_it_changes(file, tmp_path):
    root = tmp_path / "run"
    assert _made(root, Source(str(file))).made == {"pretrained": "new"}
    moved = file.rename(tmp_path / "elsewhere.pth")
    assert _made(root, Source(str(moved))).kept == ["pretrained"]
    assert list(_made(root, Source(str(moved)), a="c").made) == ["pretrained"]
    torch.save({"a.b": torch.zeros(4)}, moved)
    assert "item" in _made(root, Source(str(moved)), a="c").made["pretrained"]
    assert list(saved_weights(root / "weights" / "pretrained").tensors) == ["c.b"]


def test_the_folder_says_nothing_of_where_the_file_lay(file, tmp_path):
    _made(tmp_path / "run", Source(str(file)))
    names = {p.name for p in (tmp_path / "run/weights/pretrained").iterdir()}
    assert names == {"weights.safetensors", "origin.json", "record.json"}
    assert not any(b"Muster" in p.read_bytes() for p in (tmp_path / "run").rglob("*.json"))


def test_a_file_that_is_not_the_pinned_one_fails_and_leaves_nothing(file, tmp_path):
    made = _made(tmp_path / "run", Source(str(file), "0" * 64))
    assert "not the file that was pinned" in made.failed["pretrained"].message
    assert "Muster" not in made.failed["pretrained"].public
    assert not (tmp_path / "run/weights/pretrained").exists()
