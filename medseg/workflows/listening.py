"""``medseg pacs listen``: studies come in, are predicted when complete, and the results go back.

Each study is a small machine of states in the spool (`listening_spool`): received -> predicting -> predicted
-> sent -> done, or failed. A pass looks at every study and does the one step that is due. Nothing is kept in
memory that a restart would miss: killed at any point, the next start goes on where the spool says.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medseg.core.errors import CaseError, MedsegError
from medseg.core.lock import lock_folder, release_folder
from medseg.core.registry import look_up
from medseg.imaging.dicom_door import refuse_closed
from medseg.imaging.dicom_net import Peer, silently
from medseg.imaging.dicom_receive import receiving
from medseg.imaging.dicom_store import Answer, outgoing
from medseg.workflows.listening_spool import (
    FAILED,
    INCOMING,
    REFUSED,
    Arrivals,
    State,
    read_state,
    studies,
    write_state,
)
from medseg.workflows.outcome import Outcome
from medseg.workflows.pacs_push import deliver
from medseg.workflows.pacs_settings import Listening, PacsSettings

log = logging.getLogger("medseg")

Predictor = Callable[[Path, Path], Sequence[Path]]
"""``(folder of images, folder for results) -> DICOM files to send``; a refusal is a `CaseError`."""

_HOUR = 3600.0
_HOPELESS = ((0x0122, 0x0122), (0x0124, 0x0124), (0xA900, 0xA9FF), (0xC000, 0xCFFF))
"""Answers that another try does not change."""


def listen(
    settings: PacsSettings,
    model: str | Path,
    spool: str | Path,
    *,
    formats: Collection[str] = ("seg",),
    device: str = "auto",
    stop: threading.Event | None = None,
    ready: Callable[[int], object] = lambda _: None,
) -> Outcome:
    """Serve until stopped (SIGINT, SIGTERM or `stop`).

    Parameters
    ----------
    model : path
        What the predictor is made of; for ``listen.predict: medseg`` a model, fold or run folder.
    spool : path
        Folder for everything that was acknowledged; held by this process.
    ready : function
        Called with the port once associations are answered.

    Returns
    -------
    Outcome
        What became of the studies since the start; exit code 3 when some are set aside.

    Raises
    ------
    MedsegError
        Nobody may send, no model, a port or spool that is taken, or no destination for results.
    """
    spool, chosen, gate = Path(spool), settings.listen, settings.gate()
    refuse_closed(gate)
    job = _Job(chosen, chosen.to or settings.pacs, _predictor(settings, model, formats, device), {})
    if chosen.send != "nowhere" and not (job.to.web.url if chosen.send == "web" else job.to.host):
        raise MedsegError("the settings do not say where results go", mend="add pacs.host=NAME, or listen.to")
    lock_folder(spool)
    try:
        arrivals = Arrivals(
            spool,
            chosen.max_spool_gb * 2**30,
            chosen.min_free_gb * 2**30,
            chosen.max_study_objects,
            max(0.0, chosen.broken_seconds - chosen.quiet_seconds),
        )
        if chosen.retry_failed:
            _take_up(arrivals)
        stop = stop or threading.Event()
        with (
            silently(),
            _signals(stop),
            receiving(gate, spool / INCOMING, arrivals.take, arrivals.ended) as port,
        ):
            log.info("listening on port %d as %s", port, gate.ae_title)
            ready(port)
            _serve(job, arrivals, stop)
    finally:
        release_folder(spool)
    return _outcome(job, spool)


@dataclass(frozen=True)
class _Job:
    """What is the same for every study, and what became of each."""

    settings: Listening
    to: Peer
    predict: Predictor
    became: dict[str, str]


def _serve(job: _Job, arrivals: Arrivals, stop: threading.Event) -> None:
    pause = min(1.0, max(0.05, job.settings.quiet_seconds / 4))
    try:
        while not stop.is_set():
            for study in studies(arrivals.spool):
                _step(job, arrivals, study)
                if stop.is_set():
                    break
            stop.wait(pause)
    except KeyboardInterrupt:
        log.info("stopping: what has come in is safe, the next start goes on")


def _step(job: _Job, arrivals: Arrivals, study: Path) -> None:
    """Do what is due for one study."""
    state, now = read_state(study), arrivals.round(study)
    if state.round != now or state.step in ("receiving", "failed"):
        if arrivals.quiet(study.name, job.settings.quiet_seconds):
            log.info("study %s: complete, %d images", study.name, len(list(study.glob("images/*/*"))))
            write_state(study, State(step="received", round=now, since=time.time()))
        return
    try:
        _STEPS[state.step](job, arrivals, study, state)
    except CaseError as error:
        _fail(job, arrivals, study, state, error.public())
    except MedsegError as error:
        _fail(job, arrivals, study, state, error.public())
    except Exception as error:  # one bad study must not end the others
        _fail(job, arrivals, study, state, f"unexpected {type(error).__name__}")


def _predict(job: _Job, arrivals: Arrivals, study: Path, state: State) -> None:
    """received, or predicting when a process was killed -> predicted."""
    if not state.round:
        _end(job, study, state.but(remarks=("no images: nothing to predict",)))
        return
    lacking = sum(1 for _ in study.glob(f"{REFUSED}/*"))
    if lacking:
        raise CaseError(
            "the study is not whole: there was no room for some objects", evidence=f"{lacking} refused",
            mend="make room (see listen.max_spool_gb, max_study_objects) and send the study again",
        )  # fmt: skip
    if state.attempts >= job.settings.max_attempts:
        raise CaseError(
            "predicting this study ended the program, again and again", evidence=f"{state.attempts} times",
            mend="look for lack of memory; try medseg predict on the images by themselves",
        )  # fmt: skip
    begun = write_state(study, state.but(step="predicting", attempts=state.attempts + 1))
    try:
        files = job.predict(study / "images", study / "results")
    except KeyboardInterrupt:
        write_state(study, state)  # stopped by a person: that is no failed attempt
        raise
    names = tuple(sorted(file.relative_to(study / "results").as_posix() for file in files))
    log.info("study %s: predicted, %d objects to send", study.name, len(names))
    write_state(study, begun.but(step="predicted", results=names, attempts=0, since=time.time()))


def _send(job: _Job, arrivals: Arrivals, study: Path, state: State) -> None:
    """predicted -> sent: what has a receipt is not sent again; a silent archive is asked again later."""
    if time.time() < state.not_before:
        return
    refused: list[Answer] = []
    reason = ""
    if job.settings.send != "nowhere":
        things = [thing for name in state.results if (thing := outgoing(study / "results" / name))]
        if len(things) < len(state.results):
            log.warning("study %s: results are gone from the spool: predicted again", study.name)
            write_state(study, state.but(step="received", attempts=0))
            return
        try:
            answers = deliver(job.to.but(tries=1), job.settings.send, things, study / "receipts.jsonl")
            refused = [answer for answer in answers if not answer.stored]
        except MedsegError as error:
            reason = error.public()
    if not refused and not reason:
        write_state(study, state.but(step="sent"))
        log.info("study %s: sent", study.name)
        return
    reason = reason or f"{len(refused)} of {len(state.results)} results refused: {refused[0].said}"
    _try_later(job, study, state, reason, hopeless=any(_hopeless(answer) for answer in refused))


def _try_later(job: _Job, study: Path, state: State, reason: str, *, hopeless: bool) -> None:
    if hopeless or time.time() - state.since > job.settings.retry_hours * _HOUR:
        raise CaseError("the results cannot be delivered", evidence=reason)
    pause = min(2.0**state.attempts, 300.0)
    log.warning("study %s: not delivered, next try in %.0f s: %s", study.name, pause, reason.splitlines()[0])
    write_state(study, state.but(attempts=state.attempts + 1, not_before=time.time() + pause))


def _hopeless(answer: Answer) -> bool:
    return answer.status is not None and any(low <= answer.status <= high for low, high in _HOPELESS)


def _finish(job: _Job, arrivals: Arrivals, study: Path, state: State) -> None:
    """sent -> done."""
    _end(job, study, state)


def _end(job: _Job, study: Path, state: State) -> None:
    write_state(study, state.but(step="done", since=time.time()))
    job.became[study.name] = "done"
    log.info("study %s: done", study.name)


def _rest(job: _Job, arrivals: Arrivals, study: Path, state: State) -> None:
    """done: removed when it is old enough."""
    hours = job.settings.clean_after_hours
    if hours is not None and time.time() - state.since > hours * _HOUR:
        arrivals.forget(study, state.round)
        log.info("study %s: removed from the spool", study.name)


_STEPS = {
    "received": _predict,
    "predicting": _predict,
    "predicted": _send,
    "sent": _finish,
    "done": _rest,
}


def _fail(job: _Job, arrivals: Arrivals, study: Path, state: State, reason: str) -> None:
    """Set a study aside, with the reason; the others go on."""
    write_state(study, state.but(step="failed", remarks=(reason,), since=time.time()))
    arrivals.set_aside(study, state.round)
    job.became[study.name] = "failed"
    log.error("study %s: failed: %s", study.name, reason)


def _take_up(arrivals: Arrivals) -> None:
    for aside in sorted((arrivals.spool / FAILED).iterdir()):
        arrivals.back(aside.name)


@contextmanager
def _signals(stop: threading.Event) -> Iterator[None]:
    """SIGTERM and SIGINT end the work at hand at once: every step can be done again."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: Any) -> None:
        for name in before:
            signal.signal(name, signal.SIG_IGN)
        stop.set()
        raise KeyboardInterrupt

    before = {name: signal.getsignal(name) for name in (signal.SIGTERM, signal.SIGINT)}
    for name in before:
        signal.signal(name, end)
    try:
        yield
    except KeyboardInterrupt:
        log.info("stopped")
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)


def _outcome(job: _Job, spool: Path) -> Outcome:
    states = list(job.became.values())
    counts = {state: states.count(state) for state in sorted(set(states))}
    said = ", ".join(f"{n} studies {state}" for state, n in counts.items()) or "no study was finished"
    bad = sorted(name for name, state in job.became.items() if state == "failed")
    named = "".join(f"\n  {name}: {' '.join(read_state(spool / FAILED / name).remarks)}" for name in bad)
    return Outcome({"studies": job.became, "counts": counts}, f"pacs listen: {said}{named}", 3 if bad else 0)


def _predictor(settings: PacsSettings, model: str | Path, formats: Collection[str], device: str) -> Predictor:
    make = look_up(PREDICTORS, settings.listen.predict, "predictor")
    return make(model, formats=tuple(formats), device=device, settings=settings)


def medseg_predictor(
    model: str | Path, *, formats: Collection[str], device: str, settings: PacsSettings
) -> Predictor:
    """medseg's own: the models are loaded once; a series it refuses does not stop the others of its study.

    Raises
    ------
    MedsegError
        There is no model there, or it gives nothing that can be sent.
    """
    from medseg.imaging.dicom_out import OBJECTS
    from medseg.learning.model import open_models
    from medseg.workflows.predicting import predict

    models = open_models(model, device)
    if models.task == "classification" or not set(formats) & set(OBJECTS):
        raise MedsegError(
            "there would be no DICOM object to send back", evidence=f"{models.task}, {', '.join(formats)}",
            mend=f"take a segmentation model and --format {','.join(OBJECTS)}",
        )  # fmt: skip
    chosen = dict(settings.predicting)

    def work(images: Path, results: Path) -> list[Path]:
        done = predict(models, images, results, formats=formats, device=device, quiet=True, **chosen)
        rows = done.summary["cases"]
        names = [name for row in rows for name in row.get("files", {}) if name.endswith(".dcm")]
        if not names:
            reasons = sorted({row["reason"].splitlines()[0] for row in rows if "reason" in row})
            raise CaseError("no series of the study gave a result", evidence="; ".join(reasons[:5]))
        return [results / name for name in names]

    return work


PREDICTORS: dict[str, Callable[..., Predictor]] = {"medseg": medseg_predictor}
"""``(model, *, formats, device, settings) -> Predictor``; others by a dotted name."""
