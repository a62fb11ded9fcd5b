"""A new MLflow store: killed while it is made, nothing is left that is in the way."""

from __future__ import annotations

from pathlib import Path

import pytest

from medseg.learning import tracking
from medseg.learning.tracking_store import make_whole


def test_a_new_store_is_put_in_its_place_when_all_its_tables_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracking._import_quietly()
    from mlflow.store.db import utils

    place, make = tmp_path / "mlflow.db", utils._initialize_tables

    def killed(engine):
        engine.connect().close()  # the file is there
        assert [file.suffix for file in tmp_path.iterdir()] == [".partial"]
        raise KeyboardInterrupt

    monkeypatch.setattr(utils, "_initialize_tables", killed)
    with pytest.raises(KeyboardInterrupt):
        make_whole(f"sqlite:///{place}")
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(utils, "_initialize_tables", make)
    make_whole(f"sqlite:///{place}")
    before = place.read_bytes()
    monkeypatch.setattr(utils, "_initialize_tables", lambda engine: pytest.fail("it is there"))
    make_whole(f"sqlite:///{place}")
    assert place.read_bytes() == before and list(tmp_path.iterdir()) == [place]
    assert [e.name for e in tracking._client(f"sqlite:///{place}").search_experiments()] == ["Default"]


@pytest.mark.parametrize("uri", ["http://127.0.0.1:1", "sqlite:////nowhere/at/all/mlflow.db"])
def test_other_stores_are_left_alone(uri: str) -> None:
    make_whole(uri)
    assert not Path("/nowhere").exists()
