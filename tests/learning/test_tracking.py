"""MLflow sees every training, nothing of a patient, and can be absent."""

from __future__ import annotations

import json
import logging
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from medseg.learning import tracking as tr
from medseg.learning.disclosure import parameters, tellable, tellable_file, told_name
from medseg.learning.system import SystemMeter

CANARY = "Muster^Maxine"
INFO = {
    "plan": {
        "patch": (40, 56, 40),
        "network": "unet",
        "labels": [{"value": 1, "name": "anterior"}, {"value": 2, "name": "posterior"}],
        "why": {"patch": f"as {CANARY} said"},
    },
    "training": {"epochs": 3, "rate": 1e-3, "loss": "dice_ce", "cache": f"/data/{CANARY}/x"},
    "device": "cpu",
    "data_digest": "ab" * 32,
    "fold": {"train": [f"{CANARY}_1", f"{CANARY}_2"], "valid": [f"{CANARY}_3"]},
    "note": f"scan of {CANARY}",
    "source": f"/data/{CANARY}/image.nii.gz",
}


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow database: making it takes seconds, copying it does not."""
    folder = tmp_path_factory.mktemp("mlflow")
    _train(folder / "run", "fold0", epochs=1, tracking=tr.Tracking(experiment="warm-up"))
    return folder / "mlflow.db"


@pytest.fixture
def place(empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for runs with a database beside them that holds no run of ours yet."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shutil.copyfile(empty_store, tmp_path / "mlflow.db")
    return tmp_path


def _model(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "weights.safetensors").write_bytes(b"weights")
    (folder / "plan.json").write_text('{"network": "unet"}')
    (folder / "card.json").write_text(json.dumps({"trained_on": f"/data/{CANARY}/"}))
    return folder


def _train(
    run: Path, fold: str, epochs: int = 3, first: int = 1, tracking: tr.Tracking | None = None, **info: Any
) -> None:
    run.mkdir(parents=True, exist_ok=True)
    watch = tr.observer(tracking or tr.Tracking(workflow="phantoms"), fold, run)
    watch.on_start({**INFO, **info})
    for epoch in range(first, epochs + 1):
        watch.on_epoch(epoch, {"loss": 1.0 / epoch, "dice_anterior": 0.1 * epoch, "rate": 1e-3})
    figure = run / f"{CANARY}_01.png"
    figure.write_bytes(b"png")
    watch.on_end(_model(run / fold / "model"), [figure])


def _client(place: Path) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(f"sqlite:///{place / 'mlflow.db'}")


def _runs(place: Path, name: str = "medseg") -> list[Any]:
    client = _client(place)
    found = client.search_runs([client.get_experiment_by_name(name).experiment_id], max_results=100)
    return list(found)


def _named(place: Path, name: str) -> list[Any]:
    return [run for run in _runs(place) if run.info.run_name == name]


def test_a_training_is_a_parent_with_a_child_for_every_fold(place: Path) -> None:
    for fold in ("fold0", "fold1"):
        _train(place / "run", fold)
    tr.finish_workflow(tr.Tracking(workflow="phantoms"), place / "run", {"dice_mean": 0.9})
    (parent,) = _named(place, "phantoms")
    children = _named(place, "fold0") + _named(place, "fold1")
    assert [r.data.tags["mlflow.parentRunId"] for r in children] == [parent.info.run_id] * 2
    assert {r.info.status for r in [parent, *children]} == {"FINISHED"}
    assert parent.data.metrics["dice_mean"] == pytest.approx(0.9)


def test_the_history_of_every_metric_is_complete(place: Path) -> None:
    _train(place / "run", "fold0", epochs=60)
    (run,) = _named(place, "fold0")
    client = _client(place)
    for name in ("loss", "dice_anterior", "rate", "system/cpu_utilization_percentage"):
        steps = [m.step for m in client.get_metric_history(run.info.run_id, name)]
        assert sorted(steps) == list(range(1, 61)), name


def test_settings_versions_commit_and_data_digest_are_logged(place: Path) -> None:
    _train(place / "run", "fold0")
    (run,) = _named(place, "fold0")
    told = run.data.params
    assert told["plan.patch"] == "[40, 56, 40]"
    assert told["plan.labels"] == '["anterior", "posterior"]'
    assert told["training.rate"] == "0.001"
    assert told["data_digest"] == "ab" * 32
    assert told["fold.train"] == "2"
    assert told["versions.torch"]
    assert run.inputs.dataset_inputs[0].dataset.digest == ("ab" * 32)[:36]
    assert len(run.data.tags.get("mlflow.source.git.commit", "0" * 40)) == 40


def test_the_model_folder_is_logged_as_a_model(place: Path) -> None:
    _train(place / "run", "fold0")
    (run,) = _named(place, "fold0")
    client = _client(place)
    model = client.get_logged_model(run.outputs.model_outputs[0].model_id)
    names = {f.path for f in client.list_logged_model_artifacts(model.model_id)}
    assert model.status.value == "READY"
    assert names == {"weights.safetensors", "plan.json"}, "card.json holds a path and stays here"


def test_nothing_of_a_patient_reaches_the_store(place: Path) -> None:
    _train(place / "run", "fold0")
    tr.finish_workflow(tr.Tracking(), place / "run", {"dice": 0.5}, [place / "run" / f"{CANARY}_01.png"])
    files = [f for f in place.rglob("*") if f.is_file() and (place / "run") not in f.parents]
    assert any("figure_01.png" in f.name for f in files)
    for file in files:
        assert CANARY not in file.name
        assert CANARY.encode() not in file.read_bytes(), file


def test_a_resumed_fold_goes_on_in_its_run_without_gap_or_repeat(place: Path) -> None:
    run, cut_off = place / "run", tr.observer(tr.Tracking(workflow="phantoms"), "fold0", place / "run")
    run.mkdir()
    cut_off.on_start(INFO)
    for epoch in (1, 2, 3):
        cut_off.on_epoch(epoch, {"loss": 1.0 / epoch})
    cut_off._flush()  # type: ignore[attr-defined]
    cut_off.on_epoch(4, {"loss": 0.25})  # told, but killed before it was written
    tr._scribe(tr.store_uri(tr.Tracking(), run)).wait()
    history = [{"epoch": e, "loss": 1.0 / e} for e in (1, 2, 3, 4)]
    _train(run, "fold0", epochs=6, first=5, history=history)
    (child,) = _named(place, "fold0")
    assert "history" not in child.data.params
    steps = [m.step for m in _client(place).get_metric_history(child.info.run_id, "loss")]
    assert steps == [1, 2, 3, 4, 5, 6]


def test_other_settings_in_the_same_run_folder_make_another_run(place: Path) -> None:
    _train(place / "run", "fold0")
    _train(place / "run", "fold0", training={"epochs": 5})
    assert len(_named(place, "fold0")) == 2


def test_scores_logged_before_are_not_logged_again(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _train(place / "run", "fold0")
    tr.finish_workflow(tr.Tracking(), place / "run", {"dice": 0.5})
    monkeypatch.setattr(tr, "_scribe", lambda uri: pytest.fail("MLflow was touched"))
    tr.finish_workflow(tr.Tracking(), place / "run", {"dice": 0.5})


@pytest.mark.parametrize("tracking", [None, tr.Tracking(enabled=False)])
def test_tracking_that_is_off_touches_nothing(tracking: tr.Tracking | None, tmp_path: Path) -> None:
    watch = tr.observer(tracking, "fold0", tmp_path / "run")
    watch.on_start(INFO)
    watch.on_epoch(1, {"loss": 1.0})
    watch.on_end(tmp_path, [])
    tr.finish_workflow(tracking, tmp_path / "run", {"dice": 1.0})
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_was_never_tracked_does_not_import_mlflow(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from medseg.learning import tracking as t;"
        f"t.finish_workflow(t.Tracking(), Path({str(tmp_path)!r}), {{'dice': 1.0}});"
        "sys.exit('mlflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("kind", ["nobody answers", "the database is damaged"])
def test_training_goes_on_with_one_warning_when_the_store_is_unusable(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    (tmp_path / "mlflow.db").write_bytes(b"this is no database at all" * 100)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    nobody = f"http://127.0.0.1:{_free_port()}"
    tracking = tr.Tracking(uri=nobody if kind == "nobody answers" else None)
    with caplog.at_level(logging.WARNING, logger="medseg"):
        for fold in ("fold0", "fold1"):
            _train(tmp_path / "run", fold, tracking=tracking)
        tr.finish_workflow(tracking, tmp_path / "run", {"dice": 0.5})
    ours = [r for r in caplog.records if r.name == "medseg"]
    assert len(ours) == 1
    assert "goes on" in ours[0].getMessage()


def test_the_environment_names_the_store_unless_the_settings_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    assert tr.store_uri(tr.Tracking(), tmp_path / "a") == "http://127.0.0.1:5000"
    assert tr.store_uri(tr.Tracking(uri="sqlite:///x.db"), tmp_path / "a") == "sqlite:///x.db"
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert tr.store_uri(tr.Tracking(), tmp_path / "a") == f"sqlite:///{tmp_path / 'mlflow.db'}"


def test_tracking_is_a_value_that_travels(tmp_path: Path) -> None:
    import pickle

    tracking = tr.Tracking(workflow="hippocampus_3d", experiment="lab")
    assert pickle.loads(pickle.dumps(tracking)) == tracking


@pytest.mark.parametrize(
    "text",
    ["/data/x", "~/x", "C:\\data", "file:///x", "1.2.840.113619.2.55.3", "19530412", "2026-01-31", "a.nii.gz",
     "x.dcm", "../shared/data"],
)  # fmt: skip
def test_places_files_uids_and_dates_are_left_out(text: str) -> None:
    assert tellable(text) == "(left out)"
    assert tellable(f"see {text}") == "(left out)"


@pytest.mark.parametrize(
    "text", ["unet", "my_lab.nets:swin", "2.13.0", "cuda:0", "ab" * 32, "dice_ce", "1e-3"]
)
def test_settings_are_told(text: str) -> None:
    assert tellable(text) == text


def test_texts_outside_known_sections_are_not_told_but_numbers_are() -> None:
    assert parameters({"remark": "a man of 53", "cases_train": 12}) == {"cases_train": "12"}


def test_lists_of_cases_are_counted_and_identities_dropped() -> None:
    fold = {"train": ("a", "b"), "valid": ["c"], "patient": 4711, "id": "x"}
    told = parameters({"fold": fold, "training": {"monitor": 0.05, "valid": "Muster"}})
    assert told == {"fold.train": "2", "fold.valid": "1", "training.monitor": "0.05"}


@pytest.mark.parametrize(("ends", "status"), [("watch.on_end(root, [])", "FINISHED"), ("", "KILLED")])
def test_what_was_not_ended_is_marked_when_the_process_ends(place: Path, ends: str, status: str) -> None:
    code = (
        "from pathlib import Path; from medseg.learning import tracking as t\n"
        f"root = Path({str(place / 'run')!r}); root.mkdir()\n"
        "watch = t.observer(t.Tracking(), 'fold0', root)\n"
        "watch.on_start({'plan': {}}); watch.on_epoch(1, {'loss': 1.0})\n" + ends
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert {r.info.status for r in _runs(place)} == {status}
    (fold,) = _named(place, "fold0")
    assert fold.data.metrics["loss"] == 1.0


def test_figures_get_neutral_names_and_files_with_cases_stay(tmp_path: Path) -> None:
    assert told_name(Path("learning_curves.png"), 1) == "learning_curves.png"
    assert told_name(Path("hippocampus_003.png"), 2) == "figure_02.png"
    for name in ("scores.csv", "cohort.json", "summary.json", "image.nii.gz", "index.html"):
        (tmp_path / name).write_text("{}")
        assert not tellable_file(tmp_path / name)


def test_the_meter_reads_processor_and_memory() -> None:
    read = SystemMeter().read()
    assert 0 <= read["system/cpu_utilization_percentage"] <= 100
    assert read["system/process_memory_usage_megabytes"] > 1


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.fixture
def server(tmp_path: Path, empty_store: Path) -> Iterator[str]:
    """A real MLflow server on loopback, with its own store."""
    port = _free_port()
    shutil.copyfile(empty_store, tmp_path / "server.db")
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    store = [
        "--backend-store-uri",
        f"sqlite:///{tmp_path / 'server.db'}",
        "--artifacts-destination",
        str(tmp_path / "art"),
    ]
    env = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (tmp_path / "server.log").open("w") as out:
        process = subprocess.Popen(
            [*command, *store, "--workers", "1"], env=env, stdout=out, stderr=out, start_new_session=True
        )
    try:
        _wait_for(f"http://127.0.0.1:{port}/health", 120)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, 15)
        process.wait(30)


def _wait_for(address: str, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except OSError:
            time.sleep(0.5)
    raise TimeoutError(address)


@pytest.mark.slow
def test_a_server_named_by_the_environment_gets_everything(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    tracking = tr.Tracking(experiment="team")
    _train(tmp_path / "runs" / "a", "fold0", tracking=tracking)
    tr.finish_workflow(tracking, tmp_path / "runs" / "a", {"dice": 0.5})
    client = MlflowClient(server)
    runs = client.search_runs([client.get_experiment_by_name("team").experiment_id])
    assert sorted(r.info.run_name for r in runs) == ["fold0", "training"]
    assert client.list_artifacts(next(r for r in runs if r.info.run_name == "fold0").info.run_id, "figures")
    assert not (tmp_path / "runs" / "mlflow.db").exists()
