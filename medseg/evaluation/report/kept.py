"""What a page was made of, kept beside it: with the table of scores it gives the same page again."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from medseg.core.errors import MedsegError
from medseg.core.files import written_whole
from medseg.core.values import Value
from medseg.evaluation.pairs import Row
from medseg.evaluation.report.context import ReportContext
from medseg.evaluation.report.looked import Looked
from medseg.evaluation.report.overlays import Overlay
from medseg.evaluation.report.tags import Tag
from medseg.imaging.labels import Label

KEPT = "page.json.gz"
"""Everything a page shows but the rows of its table: words, summary, cohort, drawn pictures."""
_VERSION = 1


def kept_of(context: ReportContext) -> dict[str, Any]:
    """The context without its rows, as plain values that JSON holds exactly."""
    found = {f.name: getattr(context, f.name) for f in fields(context) if f.name != "rows"}
    found["overlays"] = [asdict(one) for one in context.overlays]
    found["looked"] = [asdict(one) for one in context.looked]
    found["histories"] = {name: _history(source) for name, source in context.histories.items()}
    return json.loads(json.dumps(found, default=_plain))


def context_of(kept: Mapping[str, Any], rows: Sequence[Row]) -> ReportContext:
    """The context again, from what `kept_of` gave and the rows of the table."""
    told = dict(kept)
    told["labels"] = tuple(Label(**one) for one in told["labels"])
    told["overlays"] = tuple(_overlay(one) for one in told["overlays"])
    told["looked"] = tuple(Looked(**one | {"words": tuple(one["words"])}) for one in told["looked"])
    return ReportContext(**told, rows=rows)


def write_kept(kept: Mapping[str, Any], folder: Path) -> None:
    """Write `KEPT` into a folder; the same bytes for the same content."""
    text = json.dumps({"format": "medseg-page", "version": _VERSION, "page": kept}, separators=(",", ":"))
    with written_whole(folder / KEPT) as beside:
        beside.write_bytes(gzip.compress(text.encode(), 6, mtime=0))


def read_kept(file: Path) -> dict[str, Any]:
    """What `write_kept` wrote.

    Raises
    ------
    MedsegError
        No such file, another version, or a damaged one.
    """
    again = "evaluate, validate or train again: the report is then kept with what it is made of"
    try:
        told = json.loads(gzip.decompress(file.read_bytes()))
    except (OSError, EOFError, ValueError) as error:
        raise MedsegError("what the report was made of cannot be read", file=str(file), mend=again) from error
    if not isinstance(told, dict) or (told.get("format"), told.get("version")) != ("medseg-page", _VERSION):
        raise MedsegError("this page was kept by another version of medseg", file=str(file), mend=again)
    return told["page"]


def _overlay(told: Mapping[str, Any]) -> Overlay:
    values = tuple((name, colour, words) for name, colour, words in told["values"])
    return Overlay(**{**told, "values": values, "tags": tuple(Tag(**tag) for tag in told["tags"])})


def _history(source: Any) -> Any:
    """A training history as text or rows: the file it may lie in need not be there the next time."""
    if not isinstance(source, Path):
        return source
    return source.read_text(encoding="utf-8") if source.is_file() else ""


def _plain(value: Any) -> Any:
    """A value of ours, or a number of numpy's."""
    if isinstance(value, Value):
        return value.model_dump(mode="json")
    return value.item()
