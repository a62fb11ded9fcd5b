"""Sending to an archive: an answer to every object, and receipts so that nothing is sent twice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from medseg.core.errors import MedsegError
from medseg.core.files import files_below, sha256_of
from medseg.core.progress import meter
from medseg.core.spool import add_receipt, receipts
from medseg.core.words import shown
from medseg.imaging import dicom_net, dicom_store, dicom_web
from medseg.imaging.deidentify import keyed_hash, project_key
from medseg.imaging.dicom_net import Peer, persistently, silently
from medseg.imaging.dicom_store import Answer, Outgoing
from medseg.workflows.outcome import Outcome
from medseg.workflows.pacs_settings import PacsSettings

SENT_BEFORE = "sent before"


def push(
    settings: PacsSettings,
    what: Sequence[str | Path],
    *,
    receipt: str | Path | None = None,
    quiet: bool = False,
) -> Outcome:
    """Send DICOM files, or all those below folders, to the archive; each file's answer is told.

    Parameters
    ----------
    receipt : path, optional
        What the archive has confirmed is written here, and not sent to it again.

    Raises
    ------
    MedsegError
        Nothing to send, or an archive that cannot be reached.
    """
    files = [file for thing in what for file in _files(Path(thing))]
    things = [thing for file in files if (thing := dicom_store.outgoing(file))]
    if not things:
        raise MedsegError("there is no DICOM object to send", evidence=f"{len(files)} file(s) looked at")
    with silently(), meter("push", total=len(things), unit="object", quiet=quiet) as bar:
        answers = deliver(settings.pacs, settings.push.method, things, receipt, lambda _: bar.update())
    return _pushed(answers, len(files) - len(things))


def deliver(
    peer: Peer,
    method: str,
    things: Sequence[Outgoing],
    receipt: str | Path | None,
    told: Callable[[Answer], object] = lambda _: None,
) -> list[Answer]:
    """Send what has no receipt from this archive yet, writing receipts as it goes; an answer for each.

    Raises
    ------
    UnreachableError
        The archive cannot be reached.
    """
    place = keyed_hash(f"{method} {peer.host}:{peer.port} {peer.called_ae} {peer.web.url}", project_key(), 16)
    file = Path(receipt) if receipt else None
    known = receipts(file) if file else {}
    names = {thing.file: f"{sha256_of(thing.file)} {place}" if file else "" for thing in things}
    answers = [Answer(t.file, dicom_net.SUCCESS, SENT_BEFORE) for t in things if names[t.file] in known]
    for answer in answers:
        told(answer)

    def done(answer: Answer) -> None:
        if file and answer.stored:
            add_receipt(file, names[answer.file], status=answer.said)
        answers.append(answer)
        told(answer)

    rest = [thing for thing in things if names[thing.file] not in known]
    if rest:
        _SEND[method](peer, rest, done)
    return answers


def _by_store(peer: Peer, things: Sequence[Outgoing], done: Callable[[Answer], None]) -> None:
    dicom_store.send(peer, things, done)


def _by_stow(peer: Peer, things: Sequence[Outgoing], done: Callable[[Answer], None]) -> None:
    for thing in things:
        done(persistently(lambda thing=thing: dicom_web.stow(peer, thing), peer.tries))


_SEND = {"store": _by_store, "web": _by_stow}


def _files(thing: Path) -> list[Path]:
    if not thing.exists():
        raise MedsegError("there is no such file or folder", file=str(thing))
    return files_below(thing) if thing.is_dir() else [thing]


def _state(answer: Answer) -> str:
    if answer.said == SENT_BEFORE:
        return "kept"
    if not answer.stored:
        return "failed"
    return "sent" if answer.status == dicom_net.SUCCESS else "warning"


def _pushed(answers: Sequence[Answer], others: int) -> Outcome:
    """Counts and answers for machines; the console also names the files that were not taken smoothly."""
    states = [_state(answer) for answer in answers]
    counts = {state: states.count(state) for state in sorted(set(states))}
    said = ", ".join(f"{n} {state}" for state, n in counts.items())
    pairs = list(zip(states, answers, strict=True))
    told = "".join(
        f"\n  {shown(str(a.file))}: {a.said}" for state, a in pairs if state in ("failed", "warning")
    )
    beside = f"; {others} file(s) are no DICOM objects" if others else ""
    rows = [{"status": state, "answer": answer.said} for state, answer in pairs]
    summary = {"objects": rows, "counts": counts, "not_dicom": others}
    return Outcome(summary, f"pacs push: {said}{beside}{told}", 3 if counts.get("failed") else 0)
