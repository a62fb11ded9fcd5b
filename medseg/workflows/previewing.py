"""``medseg ingest --dry-run``: what would be taken, and why not the rest. Nothing is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medseg.data.cohort import Cohort
from medseg.data.discover_dicom import Survey, survey
from medseg.data.discover_open import located
from medseg.data.selection import TAKEN, Looked
from medseg.data.selection_rules import orientation_of
from medseg.imaging.dicom_policy import DEFAULT
from medseg.workflows.outcome import Outcome

Row = dict[str, Any]

WIDEST = 40
"""Characters of a text that the table shows."""


def preview(
    src: str | Path, format: str, options: Mapping[str, Any], *, show_text: bool = False, quiet: bool = False
) -> Outcome:
    """Each series (or case) found, and what each rule did with it.

    Parameters
    ----------
    src, format
        As for `Cohort.open`.
    options : mapping
        Its options; ``select`` and ``policy`` for DICOM.
    show_text : bool
        Show the texts of DICOM headers, or the names of files: what rules are written from, and what may
        name a patient. For a person's eyes; neither stored nor logged.

    Returns
    -------
    Outcome
        A table; in the summary ``rows``, ``counts`` and, for DICOM, ``references``. Exit code 3 when
        something would be refused.
    """
    chosen, place = located(src, format, quiet=quiet)
    if chosen == "dicom":
        seen = survey(place, options.get("select"), options.get("policy", DEFAULT))
        rows = [*_series_rows(seen, show_text), *_study_rows(seen), *_left_out_rows(seen)]
        return _outcome(rows, {"references": len(seen.found.references)})
    cohort = Cohort.open(place, format=chosen, quiet=quiet, need_reference=False, **options)
    return _outcome(list(_case_rows(cohort, show_text)), {})


def _series_rows(seen: Survey, show_text: bool) -> list[Row]:
    cases = {s.uid_hash: (p.id, c) for p in seen.chosen.picked for c, s in p.series.items()}
    unfit = {study.id for study in seen.chosen.unfit}
    return [_series_row(one, cases, unfit, show_text) for one in seen.chosen.looked]


def _series_row(one: Looked, cases: Mapping[str, tuple[str, str]], unfit: set[str], show_text: bool) -> Row:
    series, (case, channel) = one.series, cases.get(one.series.uid_hash, ("", ""))
    why = {name: said for name, said in one.verdicts.items() if said != TAKEN}
    reason = f"study {one.study} is refused" if one.taken and one.study in unfit else _told(why, one.verdicts)
    return {
        "series": series.uid_hash,
        "study": one.study,
        "modality": series.modality,
        "shape": list(series.shape),
        "spacing_mm": [round(mm, 4) for mm in series.spacing_mm],
        "orientation": orientation_of(series) or "unknown",
        "volume": series.contrast,
        **({"text": " / ".join(dict.fromkeys(one.facts.texts))} if show_text else {}),
        "status": "taken" if case else "skipped",
        "case": case,
        "channel": channel,
        "verdicts": dict(one.verdicts),
        "reason": reason,
    }


def _told(why: Mapping[str, str], verdicts: Mapping[str, str]) -> str:
    """In a line: the rule that took it, and of the others why not."""
    took = [f"rule {name}: {TAKEN}" for name, said in verdicts.items() if name and said == TAKEN]
    return "; ".join([*took, *(f"rule {name}: {said}" if name else said for name, said in why.items())])


def _study_rows(seen: Survey) -> list[Row]:
    return [
        {"series": "-", "study": u.id, "status": "refused", "reason": f"{u.reason}; {u.mend}"}
        for u in seen.chosen.unfit
    ]


def _left_out_rows(seen: Survey) -> list[Row]:
    return [
        {
            "series": thing.series,
            "modality": thing.modality,
            "files": thing.count,
            "status": thing.status,
            "reason": f"{thing.reason}; {thing.mend}" if thing.mend else thing.reason,
        }
        for thing in seen.found.left_out
    ]


def _case_rows(cohort: Cohort, show_text: bool) -> list[Row]:
    rows: list[Row] = []
    for case in cohort.cases:
        names = " ".join(dict.fromkeys(Path(f).name for s in case.images.values() for f in s.files))
        text = {"text": names} if show_text else {}
        with_reference = "with reference" if case.reference is not None else "no reference"
        rows.append({"case": case.id, **text, "status": "taken", "reason": with_reference})
    left = ({"case": r.series, "status": r.status, "reason": r.reason} for r in cohort.refused)
    return [*rows, *left]


def _outcome(rows: Sequence[Row], more: Row) -> Outcome:
    states = [row["status"] for row in rows]
    counts = {state: states.count(state) for state in ("taken", "skipped", "refused")}
    said = ", ".join(f"{n} {state}" for state, n in counts.items())
    text = "\n".join([*_table(rows), "", f"dry run: {said}; nothing was written"])
    return Outcome({"rows": list(rows), "counts": counts, **more}, text, 3 if counts["refused"] else 0)


def _table(rows: Sequence[Row]) -> list[str]:
    """Columns that any row fills, as wide as their widest cell; the reason last, as it is."""
    names = ("series", "case", "modality", "shape", "spacing_mm", "orientation", "volume", "text", "status")
    used = [name for name in names if any(row.get(name) for row in rows)]
    if "series" in used and all(row.get("case", "") in ("", row["series"]) for row in rows):
        used.remove("case") if "case" in used else None
    cells = [used, *([_cell(row.get(name)) for name in used] for row in rows)]
    wide = [max(len(line[i]) for line in cells) for i in range(len(used))]
    reasons = ["reason", *(row.get("reason", "") for row in rows)]
    lines = ["  ".join(c.ljust(w) for c, w in zip(line, wide, strict=True)) for line in cells]
    return [f"{line}  {reason}".rstrip() for line, reason in zip(lines, reasons, strict=True)]


def _cell(value: Any) -> str:
    if isinstance(value, list):
        return " x ".join(f"{v:.4g}" for v in value)
    text = str(value or "-")
    return text if len(text) <= WIDEST else text[: WIDEST - 3] + "..."
