"""One thread that writes elsewhere in order, so that nobody waits for a slow or absent store."""

from __future__ import annotations

import atexit
import logging
import queue
import threading
from collections.abc import Callable, Hashable
from typing import Any

log = logging.getLogger("medseg")

Job = Callable[[Any], object]
Runs = dict[Hashable, str]


class Scribe:
    """Does what it is told, one job after the other; at the first fault it warns once and is mute.

    Parameters
    ----------
    connect : function
        Makes the client that is handed to every job. Called in the thread, at the first job.
    what : str
        Name of the store, for the warning.
    at_exit : function
        ``(client, open_runs) -> None``: called when the process ends with something in `open_runs`.
    """

    def __init__(self, connect: Callable[[], Any], what: str, at_exit: Callable[[Any, Runs], None]) -> None:
        self._connect, self._what, self._close = connect, what, at_exit
        self._jobs: queue.Queue[tuple[Job | None, threading.Event | None]] = queue.Queue()
        self._mute = False
        self._telling = threading.Lock()
        self.open_runs: Runs = {}
        threading.Thread(target=self._work, name=f"medseg-{what}", daemon=True).start()
        atexit.register(self._at_exit)

    def tell(self, job: Job) -> None:
        """Queue one call and return at once."""
        if not self._mute:
            self._jobs.put((job, None))

    def wait(self, seconds: float = 60.0) -> bool:
        """Wait until all that was told is written; False when the store does not answer."""
        if self._mute:
            return False
        done = threading.Event()
        self._jobs.put((None, done))
        if not done.wait(seconds):
            self._fall_silent(TimeoutError(f"no answer in {seconds:.0f} s"))
        return not self._mute

    def _work(self) -> None:
        client: Any = None
        while True:
            job, done = self._jobs.get()
            try:
                if job is not None and not self._mute:
                    client = client or self._connect()
                    job(client)
            except Exception as error:  # whatever the store does, the work it watches goes on
                self._fall_silent(error)
            if done is not None:
                done.set()

    def _fall_silent(self, error: Exception) -> None:
        with self._telling:  # the caller and the thread may find out at the same moment
            if self._mute:
                return
            kind = type(error).__name__
            log.warning("%s does not answer (%s): the work goes on, kept on disk alone", self._what, kind)
            log.debug("%s: %s", self._what, error)
            self._mute = True

    def _at_exit(self) -> None:
        self.wait(10)
        if self.open_runs:
            self.tell(lambda client: self._close(client, dict(self.open_runs)))
            self.wait(10)
