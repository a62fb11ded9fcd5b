"""What medseg says when something is wrong: what was seen, where, the evidence, and the mend."""

from __future__ import annotations

from medseg.core.words import SHOW_VARIABLE, may_show, shown


class MedsegError(Exception):
    """A problem explained: `what` is wrong, in which `case`, on what `evidence`, and how to `mend` it.

    Parameters
    ----------
    what : str
        One sentence: what was seen and why it cannot be right. No file path, no patient's name.
    case : str, optional
        Case id (already de-identified) the problem belongs to.
    file : str, optional
        File concerned. Shown to the user on the console, never written to a run, a log or a report.
    evidence : str, optional
        The numbers: shapes, affines, values with voxel counts.
    mend : str, optional
        What to do now, as an instruction.

    Notes
    -----
    `str(error)` is for the person at the keyboard; `error.public()` leaves the file out and is the
    only form that may be stored. Where nobody sits at a terminal, or unless ``MEDSEG_SHOW_PATHS=1``, words
    of the path that may be somebody's name are masked (`medseg.core.words.shown`).
    """

    exit_code = 2

    def __init__(
        self,
        what: str,
        *,
        case: str | None = None,
        file: str | None = None,
        evidence: str | None = None,
        mend: str | None = None,
    ) -> None:
        super().__init__(what)
        self.what, self.case, self.file = what, case, file
        self.evidence, self.mend = evidence, mend

    def __str__(self) -> str:
        return self._say(shown(self.file) if self.file else None)

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle by keywords, so that an error crosses a process boundary whole."""
        fields = {k: getattr(self, k) for k in ("case", "file", "evidence", "mend")}
        return (_rebuild, (type(self), self.what, fields))

    def public(self) -> str:
        """The message without the file: fit for tables, logs and reports."""
        return self._say(None)

    def with_case(self, case: str) -> MedsegError:
        """The same error, naming `case` unless one is named already."""
        if self.case is None:
            self.case = case
        return self

    def _say(self, file: str | None) -> str:
        head = f"case {self.case}: {self.what}" if self.case else self.what
        parts = [head]
        if file:
            parts.append(f"  file: {file}")
        if self.evidence:
            parts.append(f"  seen: {self.evidence}")
        if self.mend:
            parts.append(f"  mend: {self.mend}")
        return "\n".join(parts)


class CaseError(MedsegError):
    """One case is bad: it is quarantined and named, the others finish, the exit code is 3."""

    exit_code = 3


def unexpected(error: BaseException | str) -> str:
    """An error that is not ours, in words for the console: its text may hold a path or a name.

    Without a terminal its kind alone is told (of a text, what stands before the colon).
    """
    text = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
    kind = text.partition(":")[0]
    return text if may_show() else f"{kind} ({SHOW_VARIABLE}=1 shows its text)"


def _rebuild(kind: type[MedsegError], what: str, fields: dict[str, str | None]) -> MedsegError:
    return kind(what, **fields)
