"""Run: a folder in which stages are carried out once, resumed when cut off, and redone when needed."""

from __future__ import annotations

import logging
import os
import time
import traceback
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import Executor, Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from medseg.core import stage as st
from medseg.core.errors import CaseError, MedsegError, unexpected
from medseg.core.files import replace_folder, write_json, write_text
from medseg.core.lock import lock_folder, release_folder
from medseg.core.progress import meter
from medseg.core.version import __version__

log = logging.getLogger("medseg")


@dataclass(frozen=True)
class Failure:
    """One item that could not be made. `public` may be stored; `message` is for the console."""

    stage: str
    item: str
    public: str
    message: str


@dataclass
class Results(Mapping[str, st.Artifact]):
    """Artifacts by item name, and an account: which were made (and why), kept, failed."""

    artifacts: dict[str, st.Artifact] = field(default_factory=dict)
    made: dict[str, str] = field(default_factory=dict)
    kept: list[str] = field(default_factory=list)
    failed: dict[str, Failure] = field(default_factory=dict)

    def __getitem__(self, name: str) -> st.Artifact:
        return self.artifacts[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.artifacts)

    def __len__(self) -> int:
        return len(self.artifacts)


@dataclass(frozen=True)
class _Task:
    """One call to be made, with everything a worker process needs."""

    function: Callable[..., None]
    name: str
    item: Any
    shared: Mapping[str, Any]
    partial: Path


class Run:
    """A root folder, an executor, and ``map``: the one object with a life.

    Parameters
    ----------
    root : path
        Where results go. Made when missing; locked for this process at the first write.
    workers : int, str or None
        None or 1: a plain loop one can debug. n: a process pool. ``dask:ADDRESS`` or
        ``dask:SCHEDULER_FILE``: a Dask cluster (extra ``medseg[cluster]``).
    quiet : bool
        No progress bars.
    spread : bool
        Stages that hold the device (training, prediction) are sent to the workers too, each with its share
        of the cores.

    Examples
    --------
    >>> run = Run("runs/x")                           # doctest: +SKIP
    >>> raw = run.map(ingest, {"case1": case})        # doctest: +SKIP
    """

    def __init__(
        self,
        root: str | Path,
        workers: int | str | None = None,
        quiet: bool = False,
        spread: bool = False,
    ) -> None:
        self.root = Path(root)
        self.workers = workers
        self.quiet = quiet
        self.spread = spread
        self.failures: list[Failure] = []

    def at(self, folder: str, *, spread: bool | None = None) -> Run:
        """A run in a folder of this one (``""``: this one), with its workers and its list of failures."""
        inner = Run(self.root / folder, self.workers, self.quiet, self.spread if spread is None else spread)
        inner.failures = self.failures
        return inner

    def map(self, function: Callable[..., None], items: Mapping[str, Any], **shared: Any) -> Results:
        """Carry out a stage for every item; what is already there, whole and up to date, is kept.

        Parameters
        ----------
        function : stage
            Declared with ``@stage``.
        items : mapping of str to item
            An item is an Artifact, a Value, a plain scalar, or a tuple/dict of these.
        **shared
            Handed to every call by keyword, and part of the key unless the stage ignores the name.

        Returns
        -------
        Results
            Artifacts of the items made or kept. Items that failed are in `failed` and in
            `run.failures`; the others are finished all the same.
        """
        info, results = st.info_of(function), Results()
        todo = self._pending(info, function, items, shared, results)
        if todo:
            self._carry_out(info, todo, results)
        self.failures.extend(results.failed.values())
        self._tell(info, results)
        results.artifacts = {n: results.artifacts[n] for n in items if n in results.artifacts}
        return results

    def lock(self) -> None:
        """Hold the run folder for this process; raises when another process holds it."""
        lock_folder(self.root)

    def close(self) -> None:
        """Let go of the run folder."""
        release_folder(self.root)

    def _pending(
        self,
        info: st.StageInfo,
        function: Callable[..., None],
        items: Mapping[str, Any],
        shared: Mapping[str, Any],
        results: Results,
    ) -> list[tuple[_Task, dict[str, Any]]]:
        todo = []
        for name, item in items.items():
            _check_name(name)
            parts = st.key_parts(info, item, shared)
            folder = self.root / info.name / name
            record = st.read_record(folder)
            reason = _why_not_kept(folder, record, st.key_of(info, parts), parts)
            if reason is None and record is not None:
                results.kept.append(name)
                results.artifacts[name] = st.Artifact(folder, record["outputs"])
                continue
            results.made[name] = reason or "new"
            todo.append((_Task(function, name, item, shared, folder.with_name(f".{name}.partial")), parts))
        return todo

    def _carry_out(
        self, info: st.StageInfo, todo: list[tuple[_Task, dict[str, Any]]], results: Results
    ) -> None:
        self.lock()
        parts_of = {task.name: parts for task, parts in todo}
        for task, parts in todo:
            st.open_partial(task.partial, st.key_of(info, parts))
            (task.partial / st.BEGUN).unlink(missing_ok=True)
        with meter(info.name, total=len(todo), quiet=self.quiet) as bar:
            for task, seconds, error in self._calls(info, [task for task, _ in todo]):
                if error is None:
                    results.artifacts[task.name] = self._finish(info, task, parts_of[task.name], seconds)
                else:
                    results.made.pop(task.name)
                    results.failed[task.name] = _failure(info.name, task, error)
                bar.update()

    def _calls(
        self, info: st.StageInfo, tasks: list[_Task]
    ) -> Iterator[tuple[_Task, float, Exception | None]]:
        alone = info.in_process and not self.spread
        if alone or self.workers in (None, 0, 1) or len(tasks) == 1:
            for task in tasks:
                yield (task, *_call(task))
        else:
            yield from self._spread(tasks)

    def _spread(self, tasks: list[_Task]) -> Iterator[tuple[_Task, float, Exception | None]]:
        """Send tasks to the executor; when a worker is killed, find out which task killed it.

        A pool dies with its worker. The few tasks that had begun are tried alone, each in a worker of
        its own; the others go to a new pool.
        """
        while tasks:
            lost = yield from self._spread_once(tasks)
            begun = [task for task in lost if (task.partial / st.BEGUN).exists()] or lost
            for task in begun:
                yield (task, *_call_alone(task))
            tasks = [task for task in lost if task not in begun]

    def _spread_once(
        self, tasks: list[_Task]
    ) -> Generator[tuple[_Task, float, Exception | None], None, list[_Task]]:
        """Yield what comes back from one executor; return the tasks that never did."""
        lost: list[_Task] = []
        waiting: dict[Future[tuple[float, Exception | None]], _Task] = {}
        executor = self._executor()
        try:
            for task in tasks:
                try:
                    waiting[executor.submit(_call, task)] = task
                except BrokenProcessPool:
                    lost.append(task)
            for future in as_completed(waiting):
                try:
                    outcome = future.result()
                except Exception as error:  # a dead worker, whatever the executor calls it
                    log.debug("worker lost: %s", type(error).__name__)
                    lost.append(waiting[future])
                else:
                    yield (waiting[future], *outcome)
        finally:
            executor.shutdown(wait=True, cancel_futures=True)  # Ctrl-C does not wait for the whole batch
        return lost

    def _executor(self) -> Executor:
        workers = str(self.workers)
        if workers.startswith("dask:"):
            from medseg.core.cluster import dask_executor

            return dask_executor(workers.removeprefix("dask:"))
        return _pool(int(workers), _share(int(workers)) if self.spread else 1)

    def _finish(
        self, info: st.StageInfo, task: _Task, parts: Mapping[str, Any], seconds: float
    ) -> st.Artifact:
        for note in ("error.txt", st.KEY, st.BEGUN):
            (task.partial / note).unlink(missing_ok=True)
        files = st.artifact_of(task.partial).files
        record = {
            "stage": info.name,
            "version": info.version,
            "key": st.key_of(info, parts),
            "inputs": dict(parts),
            "outputs": dict(files),
            "seconds": round(seconds, 3),
            "medseg": __version__,
        }
        write_json(task.partial / st.RECORD, record)
        folder = self.root / info.name / task.name
        replace_folder(task.partial, folder)
        return st.Artifact(folder, files)

    def _tell(self, info: st.StageInfo, results: Results) -> None:
        failed = f", {len(results.failed)} failed ({_few(results.failed)})" if results.failed else ""
        log.info("%-12s %d made, %d kept%s", info.name, len(results.made), len(results.kept), failed)
        again = {n: why for n, why in results.made.items() if why != "new"}
        for reason in sorted(set(again.values())):
            names = [n for n, why in again.items() if why == reason]
            log.info("%-12s   again: %s (%s)", "", _few(names), reason)
        for failure in results.failed.values():
            if not info.essential:
                log.error("%s", failure.message)


def _check_name(name: str) -> None:
    """An item's name becomes a folder: it may not lead elsewhere, nor hide."""
    if not name or name.startswith(".") or any(c in name for c in "/\\\0\n"):
        raise MedsegError(
            "an item's name must be fit for a folder's name",
            evidence=repr(name),
            mend="use letters, digits, '.', '-' and '_', not beginning with '.'",
        )


def _why_not_kept(
    folder: Path, record: Mapping[str, Any] | None, key: str, parts: Mapping[str, Any]
) -> str | None:
    if record is None or record.get("key") != key:
        return st.why_again(record, parts)
    damaged = st.damage(folder, record)
    return f"damaged: {damaged}" if damaged else None


def _call(task: _Task) -> tuple[float, Exception | None]:
    """Run one stage function in its partial folder; the error, if any, is returned and kept."""
    start = time.perf_counter()
    (task.partial / st.BEGUN).touch()
    try:
        task.function(task.item, **task.shared, out=task.partial)
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:  # not only Exception: codecs in Rust panic past it
        write_text(task.partial / "error.txt", _trace_without_values(error))
        return time.perf_counter() - start, _portable(error)
    return time.perf_counter() - start, None


def _call_alone(task: _Task) -> tuple[float, Exception | None]:
    """Run a task in a worker of its own, so that its death names it and nobody else."""
    with _pool(1) as executor:
        try:
            return executor.submit(_call, task).result()
        except BrokenProcessPool:
            return 0.0, CaseError(
                "the worker process was killed while it worked on this item",
                evidence="killed by the system, most often for want of memory",
                mend="use fewer workers (--workers 1), or leave this case out",
            )


def _pool(workers: int, threads: int = 1) -> ProcessPoolExecutor:
    start = {"initializer": _prepare_worker, "initargs": (threads,)}
    return ProcessPoolExecutor(workers, mp_context=get_context("spawn"), **start)


def _share(workers: int) -> int:
    """Cores of this machine for each of several workers."""
    return max(1, (os.cpu_count() or 1) // max(1, workers))


def _prepare_worker(threads: int) -> None:
    """A worker is one of several: it uses one thread, or its share of the cores."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(threads)


def _portable(error: BaseException) -> Exception:
    """Errors of ours travel as they are; others as their type and text (they may not pickle)."""
    if isinstance(error, MedsegError):
        return error
    return RuntimeError(f"{type(error).__name__}: {error}")


def _failure(stage: str, task: _Task, error: Exception) -> Failure:
    if not isinstance(error, MedsegError):
        kind = str(error).partition(":")[0]
        public = f"case {task.name}: unexpected {kind} in {stage}"
        return Failure(stage, task.name, public, f"{public}\n  seen: {unexpected(str(error))}")
    error.with_case(task.name)
    return Failure(stage, task.name, error.public(), str(error))


def _trace_without_values(error: BaseException) -> str:
    """Where it happened, without messages or arguments: they may hold a path or a name."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [f"{Path(f.filename).name}:{f.lineno} in {f.name}" for f in frames]
    said = error.public() if isinstance(error, MedsegError) else type(error).__name__
    return "\n".join([*lines, said, ""])


def _few(names: Any, limit: int = 5) -> str:
    names = list(names)
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
