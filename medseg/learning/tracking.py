"""MLflow watches: one run a workflow, one child run a fold. Disk stays the truth.

Nothing here can stop a training: all calls go through one thread, and when the store does not answer
one warning is given and the rest is left unsaid.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from medseg.core.values import Value, digest
from medseg.learning import disclosure as tell
from medseg.learning import provenance as origin
from medseg.learning.scribe import Scribe
from medseg.learning.system import SystemMeter

_GROUP = "medseg.group"
_FLUSH_SECONDS = 5.0
_FLUSH_VALUES = 400


class Tracking(Value):
    """Where and under which name trainings are tracked. It cannot change a result: no key holds it.

    `uri` None means ``MLFLOW_TRACKING_URI`` when set, else ``mlflow.db`` beside the run folder.
    """

    enabled: bool = True
    uri: str | None = None
    experiment: str = "medseg"
    workflow: str = "training"
    mark: str = ""
    """What a workflow is known by when it goes on, in place of its settings."""
    above: str = ""
    """Mark of the group of workflows (a sweep) whose run this workflow stands under."""
    told: dict[str, str] = {}
    """Parameters of the workflow's own run: what sets it apart from others of its group."""


class Observer(Protocol):
    """What training tells, and when."""

    def on_start(self, info: Mapping[str, Any]) -> None:
        """Before the first epoch: ``plan``, ``training``, ``device``, ``data_digest``, ``history`` so far."""

    def on_epoch(self, epoch: int, values: Mapping[str, float]) -> None:
        """After epoch `epoch` (from 1): losses, metrics, learning rate."""

    def on_end(self, model_folder: Path, figures: Sequence[Path]) -> None:
        """After the last epoch, when the model folder is whole."""


def observer(tracking: Tracking | None, fold: str, run_root: Path) -> Observer:
    """The observer of one fold's training; a silent one when tracking is off."""
    if tracking is None or not tracking.enabled:
        return _Silent()
    return _FoldObserver(tracking, fold, Path(run_root))


def open_workflow(tracking: Tracking | None, run_root: Path) -> None:
    """Open the parent run before its folds are trained in several processes, which would each make one."""
    if tracking is None or not tracking.enabled:
        return
    parent, uri = origin.workflow_tag(run_root, {}, tracking.mark), store_uri(tracking, run_root)
    _scribe(uri).tell(lambda client: _workflow(client, tracking, uri, parent))
    _scribe(uri).wait()


def open_group(tracking: Tracking, run_root: Path, name: str) -> Tracking:
    """Open the run that the workflows of a group stand under; gives the tracking they are to use."""
    if not tracking.enabled:
        return tracking
    mark, uri = origin.workflow_tag(run_root, {}, name), store_uri(tracking, run_root)
    _scribe(uri).tell(lambda client: _group(client, tracking.but(workflow=name), uri, mark))
    return tracking.but(uri=uri, above=mark)


def finish_group(
    tracking: Tracking, run_root: Path, name: str, metrics: Mapping[str, float], told: Mapping[str, str]
) -> None:
    """Say what the group came to, and end its run."""
    if not tracking.enabled or not tracking.above:
        return
    uri = store_uri(tracking, run_root)
    scores = {k: float(v) for k, v in metrics.items()}
    tags = {f"medseg.{k}": tell.tellable(v) for k, v in told.items()}
    _scribe(uri).tell(lambda client: _finish_group(client, tracking.but(workflow=name), uri, scores, tags))
    _scribe(uri).wait()


def finish_workflow(
    tracking: Tracking | None,
    run_root: Path,
    metrics: Mapping[str, float],
    artifacts: Sequence[Path] = (),
    status: str = "FINISHED",
) -> None:
    """Log the final scores and figures to the parent run and end it.

    Nothing happens (MLflow is not even imported) when no fold was ever tracked in `run_root`, or when
    the same scores were logged before. Files that may hold case ids are left out.
    """
    state = origin.read_state(run_root)
    scores = {k: float(v) for k, v in metrics.items()}
    mark = digest([scores, state.get("parent")])
    if tracking is None or not tracking.enabled or "parent" not in state or state.get("finished") == mark:
        return
    uri = store_uri(tracking, run_root)
    scribe = _scribe(uri)
    scribe.tell(lambda client: _finish(client, tracking, uri, state["parent"], scores, artifacts, status))
    scribe.tell(lambda _: scribe.open_runs.pop("parent", None))
    if scribe.wait():
        origin.write_state(run_root, state | {"finished": mark})


def store_uri(tracking: Tracking, run_root: Path) -> str:
    """Where runs are kept: the setting, ``MLFLOW_TRACKING_URI``, or SQLite beside the run folder."""
    beside = Path(run_root).resolve().parent / "mlflow.db"
    return tracking.uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{beside}"


class _Silent:
    def on_start(self, info: Mapping[str, Any]) -> None: ...

    def on_epoch(self, epoch: int, values: Mapping[str, float]) -> None: ...

    def on_end(self, model_folder: Path, figures: Sequence[Path]) -> None: ...


class _FoldObserver:
    """Buffers epochs and hands them to the scribe, a batch at a time."""

    def __init__(self, tracking: Tracking, fold: str, run_root: Path) -> None:
        self._tracking, self._fold, self._root = tracking, fold, run_root
        self._uri = store_uri(tracking, run_root)
        self._scribe: Scribe | None = None
        self._child: dict[str, Any] = {}
        self._rows: list[tuple[int, int, dict[str, float]]] = []
        self._flushed = time.monotonic()

    def on_start(self, info: Mapping[str, Any]) -> None:
        self._scribe = _scribe(self._uri)
        atexit.register(self._flush)
        self._meter = SystemMeter()
        parent = origin.workflow_tag(self._root, info, self._tracking.mark)
        child = digest([parent, self._fold, str(info.get("data_digest"))])[:32]
        settings = {k: v for k, v in info.items() if k != "history"}
        told = {**tell.parameters(settings), **origin.versions()}
        dataset = str(info.get("data_digest") or "")[:36]
        self._scribe.tell(lambda client: self._open(client, parent, child, told, dataset))
        for row in info.get("history") or ():
            self._add(int(row["epoch"]), {k: v for k, v in row.items() if k != "epoch"})

    def on_epoch(self, epoch: int, values: Mapping[str, float]) -> None:
        self._add(epoch, {**values, **self._meter.read()})
        size = sum(len(row[2]) for row in self._rows)
        if size >= _FLUSH_VALUES or time.monotonic() - self._flushed > _FLUSH_SECONDS:
            self._flush()

    def on_end(self, model_folder: Path, figures: Sequence[Path]) -> None:
        self._flush()
        atexit.unregister(self._flush)
        scribe = self._require_scribe()
        scribe.tell(lambda client: _log_figures(client, self._child["run"], figures))
        scribe.tell(lambda client: _log_model(client, self._child, self._fold, model_folder))
        scribe.tell(lambda client: client.set_terminated(self._child["run"], "FINISHED"))
        scribe.tell(lambda _: scribe.open_runs.pop(id(self), None))
        scribe.wait()

    def _open(self, client: Any, parent: str, child: str, told: dict[str, str], dataset: str) -> None:
        scribe = self._require_scribe()
        experiment, above = _workflow(client, self._tracking, self._uri, parent)
        tags = {"mlflow.parentRunId": above.info.run_id, "medseg.fold": self._fold}
        run = _found_or_made(client, experiment, "medseg.training", child, self._fold, tags)
        scribe.open_runs["parent"], scribe.open_runs[id(self)] = above.info.run_id, run.info.run_id
        last = int(run.data.metrics.get("epoch", 0))
        self._child.update(run=run.info.run_id, experiment=experiment, last=last)
        _log_settings(client, run.info.run_id, told, dataset)

    def _add(self, epoch: int, values: Mapping[str, Any]) -> None:
        numbers = {k: float(v) for k, v in values.items() if isinstance(v, int | float)}
        self._rows.append((epoch, int(time.time() * 1000), {"epoch": float(epoch), **numbers}))

    def _flush(self) -> None:
        rows, self._rows = self._rows, []
        self._flushed = time.monotonic()
        if rows:
            self._require_scribe().tell(lambda client: _log_rows(client, self._child, rows))

    def _require_scribe(self) -> Scribe:
        if self._scribe is None:
            raise RuntimeError("on_start must be called first")
        return self._scribe


_scribes: dict[str, Scribe] = {}
"""By store: all folds of a process write through one thread, and a dead store is tried once."""


def _scribe(uri: str) -> Scribe:
    if uri not in _scribes:
        _import_quietly()  # in the caller's thread: two threads importing one library can trip
        _scribes[uri] = Scribe(lambda: _client(uri), "MLflow", _mark_ended)
    return _scribes[uri]


def _import_quietly() -> None:
    """Import MLflow without its telemetry, its chatter, and its minutes of retries."""
    quiet = {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        "MLFLOW_LOGGING_LEVEL": "WARNING",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "GIT_PYTHON_REFRESH": "quiet",
    }
    for name, value in quiet.items():
        os.environ.setdefault(name, value)
    with contextlib.suppress(Exception):  # a broken installation is told of by the scribe, once
        importlib.import_module("mlflow")
    for name in ("alembic", "mlflow.store.db.utils"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _client(uri: str) -> Any:
    from mlflow import MlflowClient

    from medseg.learning.tracking_store import make_whole

    make_whole(uri)
    return MlflowClient(tracking_uri=uri)


def _mark_ended(client: Any, open_runs: Mapping[Hashable, str]) -> None:
    """Folds that did not end were killed, and their parent with them; else the parent is done."""
    state = "FINISHED" if set(open_runs) == {"parent"} else "KILLED"
    for run in open_runs.values():
        client.set_terminated(run, state)


def _experiment(client: Any, name: str, uri: str) -> str:
    name = tell.tellable(name)
    found = client.get_experiment_by_name(name)
    if found is not None:
        return found.experiment_id
    beside = Path(uri.removeprefix("sqlite:///")).with_name("mlartifacts")
    place = beside.as_uri() if uri.startswith("sqlite:///") else None
    kind = {"mlflow.experimentKind": "custom_model_development"}  # the view for trainings, not for chats
    return client.create_experiment(name, artifact_location=place, tags=kind)


def _workflow(client: Any, tracking: Tracking, uri: str, parent: str) -> tuple[str, Any]:
    """The experiment, and the run of a workflow in it: under the run of its group, where it has one."""
    experiment = _experiment(client, tracking.experiment, uri)
    under = {}
    if tracking.above:
        found = client.search_runs([experiment], f"tags.`{_GROUP}` = '{tracking.above}'", max_results=1)
        under = {"mlflow.parentRunId": found[0].info.run_id} if found else {}
    run = _found_or_made(client, experiment, "medseg.workflow", parent, tracking.workflow, under)
    if tracking.told:
        told = {tell.metric_name(k): tell.tellable(v) for k, v in tracking.told.items()}
        _log_settings(client, run.info.run_id, told, "")
    return experiment, run


def _group(client: Any, tracking: Tracking, uri: str, mark: str) -> Any:
    experiment = _experiment(client, tracking.experiment, uri)
    return _found_or_made(client, experiment, _GROUP, mark, tracking.workflow, {})


def _finish_group(
    client: Any, tracking: Tracking, uri: str, scores: Mapping[str, float], tags: Mapping[str, str]
) -> None:
    run = _group(client, tracking, uri, tracking.above).info.run_id
    _log_rows(client, {"run": run, "last": 0}, [(1, int(time.time() * 1000), scores)])
    for key, value in tags.items():
        client.set_tag(run, key, value)
    client.set_terminated(run, "FINISHED")


def _found_or_made(
    client: Any, experiment: str, tag: str, value: str, name: str, tags: Mapping[str, str]
) -> Any:
    """The run that carries the tag, going on; or a new one."""
    found = client.search_runs([experiment], f"tags.`{tag}` = '{value}'", max_results=1)
    if found:
        client.update_run(found[0].info.run_id, status="RUNNING")
        return found[0]
    source = {"mlflow.source.name": "medseg", "mlflow.source.type": "LOCAL", **origin.git_commit_tag()}
    return client.create_run(experiment, tags={**source, **tags, tag: value}, run_name=tell.tellable(name))


def _log_settings(client: Any, run: str, told: Mapping[str, str], dataset: str) -> None:
    from mlflow.entities import Dataset, DatasetInput, Param

    known = client.get_run(run).data.params
    new = [Param(k, v) for k, v in told.items() if k not in known]
    for start in range(0, len(new), 100):
        client.log_batch(run, params=new[start : start + 100])
    if dataset and not known:
        data = Dataset(name="cohort", digest=dataset, source_type="medseg", source="{}")
        client.log_inputs(run, [DatasetInput(data)])


def _log_rows(
    client: Any, child: Mapping[str, Any], rows: Sequence[tuple[int, int, Mapping[str, float]]]
) -> None:
    """Epochs as one batch a thousand values; those logged before the training was cut off are left."""
    from mlflow.entities import Metric

    new = [row for row in rows if row[0] > child["last"]]
    values = [Metric(tell.metric_name(k), v, at, epoch) for epoch, at, row in new for k, v in row.items()]
    for start in range(0, len(values), 1000):
        client.log_batch(child["run"], metrics=values[start : start + 1000])


def _log_figures(client: Any, run: str, figures: Sequence[Path]) -> None:
    """Copies under a neutral name: a figure's own name is kept only when it is plain words."""
    for number, file in enumerate(figures, 1):
        if tell.tellable_file(file):
            with tempfile.TemporaryDirectory() as folder:
                copy = shutil.copyfile(file, Path(folder) / tell.told_name(file, number))
                client.log_artifact(run, str(copy), "figures")


def _log_model(client: Any, child: Mapping[str, Any], name: str, folder: Path) -> None:
    from mlflow.entities import LoggedModelOutput

    model = client.create_logged_model(
        child["experiment"], name=name, source_run_id=child["run"], model_type="medseg"
    )
    for file in sorted(folder.iterdir()):
        if file.is_file() and tell.tellable_file(file):
            client.log_model_artifact(model.model_id, str(file))
    client.finalize_logged_model(model.model_id, "READY")
    client.log_outputs(child["run"], [LoggedModelOutput(model.model_id, step=0)])


def _finish(
    client: Any,
    tracking: Tracking,
    uri: str,
    parent: str,
    scores: Mapping[str, float],
    artifacts: Sequence[Path],
    status: str,
) -> None:
    run = _workflow(client, tracking, uri, parent)[1].info.run_id
    now = [(1, int(time.time() * 1000), scores)]
    _log_rows(client, {"run": run, "last": 0}, now)
    _log_figures(client, run, artifacts)
    client.set_terminated(run, status)
