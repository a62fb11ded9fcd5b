"""Fetching from an archive: resumed, and counted against what it says it has."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medseg.core.errors import CaseError, MedsegError
from medseg.core.lock import lock_folder, release_folder
from medseg.core.progress import meter
from medseg.core.spool import settle
from medseg.imaging import dicom_fetch, dicom_net, dicom_query, dicom_store, dicom_web
from medseg.imaging.deidentify import keyed_hash, project_key
from medseg.imaging.dicom_net import Peer, persistently, silently
from medseg.imaging.dicom_query import SeriesFound
from medseg.imaging.dicom_receive import NO_ROOM, NOT_WANTED, Arrival
from medseg.workflows.outcome import Outcome
from medseg.workflows.pacs_settings import PacsSettings

log = logging.getLogger("medseg")

INBOX = ".incoming"
_GB = 2**30


def echo(settings: PacsSettings) -> Outcome:
    """Ask the archive whether it is there: C-ECHO, and the DICOMweb service where one is named.

    Raises
    ------
    UnreachableError
        It does not answer, or not to us.
    """
    peer = settings.pacs
    asked: dict[str, Callable[[Peer], float]] = {}
    if peer.host or not peer.web.url:
        asked["C-ECHO"] = dicom_net.echo
    if peer.web.url:
        asked["DICOMweb"] = dicom_web.echo_web
    with silently():
        seconds = {name: round(ask(peer), 3) for name, ask in asked.items()}
    said = ", ".join(f"{name} answered in {s:.2f} s" for name, s in seconds.items())
    return Outcome({"seconds": seconds}, f"pacs echo: {said}")


def pull(
    settings: PacsSettings,
    query: Mapping[str, str],
    out: str | Path,
    *,
    dry_run: bool = False,
    quiet: bool = False,
) -> Outcome:
    """Fetch the series that match: ``OUT/<study>/<series>/<object>.dcm``, all three of them keyed hashes.

    What lies there whole is not asked for again. Each series is counted against what the archive says it
    has; one that stays short is named and the others go on.

    Parameters
    ----------
    query : mapping
        DICOM keywords (`dicom_query.KEYS`) to values with DICOM's wildcards, lists and ranges.
    dry_run : bool
        Only tell what would be fetched.

    Raises
    ------
    MedsegError
        A query that cannot be asked, an archive that cannot be reached or does not answer this way.
    """
    peer, out = settings.pacs, Path(out)
    find = dicom_web.asking_web(peer) if settings.pull.method == "web" else dicom_query.asking(peer)
    with silently():
        found = persistently(lambda: dicom_query.find_series(find, query), peer.tries)
        if dry_run or not found:
            return _listed(found)
        lock_folder(out)
        try:
            return _pulled(_Pull(settings, find, out), found, quiet)
        finally:
            shutil.rmtree(out / INBOX, ignore_errors=True)
            release_folder(out)


@dataclass
class _Pull:
    """One call of `pull`: where things go, and how many bytes have come."""

    settings: PacsSettings
    find: dicom_query.Find
    out: Path
    key: bytes = field(default_factory=project_key, repr=False)
    brought: int = 0

    def folder(self, series: SeriesFound) -> Path:
        """Where the objects of a series lie."""
        return (
            self.out
            / keyed_hash(series.study_uid, self.key, 16)
            / keyed_hash(series.series_uid, self.key, 16)
        )

    def file(self, series: SeriesFound, sop_uid: str) -> Path:
        """Where one object lies."""
        return self.folder(series) / f"{keyed_hash(sop_uid, self.key, 32)}.dcm"

    def keep(self, series: SeriesFound, arrived: Arrival) -> int:
        """Give an object its place; what was not asked for is refused."""
        if (arrived.study_uid, arrived.series_uid) != (series.study_uid, series.series_uid):
            return NOT_WANTED
        self.brought += arrived.file.stat().st_size
        if self.full:
            return NO_ROOM
        settle(arrived.file, self.file(series, arrived.sop_uid))
        return dicom_net.SUCCESS

    @property
    def full(self) -> bool:
        """Whether this call has brought as much as it may."""
        return self.brought > self.settings.pull.max_pull_gb * _GB


def _pulled(job: _Pull, found: Sequence[SeriesFound], quiet: bool) -> Outcome:
    rows = []
    total = sum(series.instances or 0 for series in found)
    with meter("pull", total=total or None, unit="object", quiet=quiet) as bar:
        for series in found:
            rows.append(_pull_series(job, series, bar.update))
            if job.full:
                raise MedsegError(
                    "the pull was stopped: it brought as much as it may",
                    evidence=f"{job.brought / _GB:.3g} GiB of at most {job.settings.pull.max_pull_gb:g}",
                    mend="raise pull.max_pull_gb and give the same command again: it goes on",
                )
    return _outcome(rows, job.out)


def _pull_series(job: _Pull, series: SeriesFound, step: Callable[[int], object]) -> dict[str, Any]:
    """Fetch what is missing of one series; the row for the summary."""
    folder = job.folder(series)
    row = {"study": folder.parent.name, "series": folder.name, "modality": series.modality}
    had = _count(folder)
    step(had)
    try:
        if series.instances and had >= series.instances:
            return {**row, "status": "kept", "objects": had, "expected": series.instances}
        expected = _fetch(job, series, step)
    except CaseError as error:
        log.error("%s", error.with_case(folder.name))
        return {**row, "status": "failed", "objects": _count(folder), "reason": error.public()}
    return {**row, "status": "pulled", "objects": _count(folder), "expected": expected}


def _fetch(job: _Pull, series: SeriesFound, step: Callable[[int], object]) -> int:
    """Ask for what is not there, again after a broken connection; the number of objects there must be.

    Raises
    ------
    CaseError
        The archive counts more objects than came.
    """
    peer = job.settings.pacs
    listed = persistently(lambda: dicom_query.objects_of(job.find, series), peer.tries)

    def ask() -> None:
        before = _count(job.folder(series))
        missing = [uid for uid in sorted(listed) if not job.file(series, uid).is_file()]
        try:
            if missing or not listed:
                _FETCH[job.settings.pull.method](job, series, listed, missing)
        finally:
            step(_count(job.folder(series)) - before)

    persistently(ask, peer.tries)
    came = sum(job.file(series, uid).is_file() for uid in listed) if listed else _count(job.folder(series))
    expected = max(series.instances or 0, len(listed))
    if came < expected and not job.full:
        raise CaseError(
            "fewer objects came than the archive counts", evidence=f"{came} of {expected}",
            mend="give the same command again; if it stays so, try another pull.method",
        )  # fmt: skip
    return expected


def _by_get(job: _Pull, series: SeriesFound, listed: Mapping[str, str], missing: Sequence[str]) -> None:
    whole = len(missing) == len(listed)
    classes = sorted({name for name in listed.values() if name})
    dicom_fetch.get_objects(
        job.settings.pacs, series, classes, () if whole else missing, lambda got, _: job.keep(series, got),
        inbox=job.out / INBOX, max_object_mb=job.settings.pull.max_object_mb,
    )  # fmt: skip


def _by_move(job: _Pull, series: SeriesFound, listed: Mapping[str, str], missing: Sequence[str]) -> None:
    whole = len(missing) == len(listed)
    dicom_fetch.move_objects(
        job.settings.pacs, series, () if whole else missing, lambda got, _: job.keep(series, got),
        inbox=job.out / INBOX, gate=job.settings.moving_gate(),
    )  # fmt: skip


def _by_web(job: _Pull, series: SeriesFound, listed: Mapping[str, str], missing: Sequence[str]) -> None:
    session = dicom_web.open_session(job.settings.pacs)
    inbox = job.out / INBOX
    inbox.mkdir(parents=True, exist_ok=True)
    for uid in missing:
        file = inbox / "object"
        dicom_web.fetch_object(
            job.settings.pacs, series, uid, file, job.settings.pull.max_object_mb, session=session
        )
        came = dicom_store.outgoing(file)
        if came is None or came.sop_uid != uid:
            raise CaseError("the archive sent another object than it was asked for")
        job.keep(series, Arrival(file, series.study_uid, series.series_uid, uid, is_image=True))
        if job.full:
            return


_FETCH: dict[str, Callable[..., None]] = {"get": _by_get, "move": _by_move, "web": _by_web}


def _count(folder: Path) -> int:
    return sum(1 for _ in folder.glob("*.dcm"))


def _listed(found: Sequence[SeriesFound]) -> Outcome:
    """What would be fetched, without a word that identifies."""
    key = project_key()
    rows = [
        {
            "study": keyed_hash(s.study_uid, key, 16),
            "series": keyed_hash(s.series_uid, key, 16),
            "modality": s.modality,
            "expected": s.instances,
        }
        for s in found
    ]
    lines = [f"  {r['study']}  {r['series']}  {r['modality']:<4}{r['expected'] or '?':>6}" for r in rows]
    studies = len({r["study"] for r in rows})
    head = f"pacs pull: {len(rows)} series of {studies} studies match"
    return Outcome({"series": rows}, "\n".join([head, *lines]))


def _outcome(rows: list[dict[str, Any]], out: Path) -> Outcome:
    states = [row["status"] for row in rows]
    counts = {state: states.count(state) for state in sorted(set(states))}
    said = ", ".join(f"{n} series {state}" for state, n in counts.items())
    bad = [row for row in rows if row["status"] == "failed"]
    named = "".join(f"\n  {row['series']}: {row['reason']}" for row in bad)
    return Outcome({"series": rows, "counts": counts}, f"pacs pull: {said}; in {out}{named}", 3 if bad else 0)
