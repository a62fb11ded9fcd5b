"""A report made again from its table: `medseg report`."""

from __future__ import annotations

from pathlib import Path

from medseg.core.errors import MedsegError
from medseg.core.files import holds, sha256_of, write_text
from medseg.core.lock import lock_folder
from medseg.workflows.judging import summary_lines
from medseg.workflows.outcome import Outcome

TABLE, PAGE = "scores.csv", "index.html"


def redraw(folder: str | Path) -> Outcome:
    """``medseg report FOLDER``: the page of an evaluation, validation, training or comparison again.

    No image and no mask is read: the numbers come from the table of scores, everything else from what the
    report keeps beside it. The same table gives the same bytes, on any machine.

    Parameters
    ----------
    folder : path
        With ``scores.csv`` and ``report/``; or what ``medseg compare`` wrote.

    Raises
    ------
    MedsegError
        Nothing of the kind lies there, or the table is not the one that the report was made from.
    """
    from medseg.evaluation.compare import COMPARED, compare_again

    folder = Path(folder)
    if (folder / COMPARED).is_file():
        done = compare_again(folder)
        return Outcome(done.summary, f"{done.text}\nreport: {done.page}")
    return _redrawn(folder)


def _redrawn(folder: Path) -> Outcome:
    from medseg.evaluation.report.kept import context_of, read_kept
    from medseg.evaluation.report.page import render_page
    from medseg.evaluation.scoring import read_rows

    kept = read_kept(_kept_in(folder))
    table = folder / TABLE
    rows, known = read_rows(table), kept["summary"].get("digests", {}).get(TABLE)
    if known != sha256_of(table):
        raise MedsegError(
            "the table of scores is not the one the report was made from",
            file=str(table),
            evidence=f"sha256 {sha256_of(table)[:16]}, the report's {str(known)[:16]}",
            mend="measure again (medseg evaluate or validate), or put the table back",
        )
    lock_folder(folder)
    text, page = render_page(context_of(kept, rows)), folder / "report" / PAGE
    if not holds(page, text):
        write_text(page, text)
    return Outcome({"report": str(page)}, "\n".join([*summary_lines(kept["summary"]), f"report: {page}"]))


def _kept_in(folder: Path) -> Path:
    """Where the page is kept: of an evaluation beside it, of a run in the stage that drew it."""
    from medseg.evaluation.report.kept import KEPT

    places = [folder / "report" / KEPT, folder / "report" / "page" / KEPT]
    found = next((place for place in places if place.is_file()), None)
    if found is None or not (folder / TABLE).is_file():
        raise MedsegError(
            "there is no report here that could be drawn again",
            file=str(folder),
            mend="give a folder of medseg evaluate, validate, train or compare; of an older one run its "
            "command again",
        )
    return found
