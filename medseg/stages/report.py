"""Stage ``report``: scores, facts and images -> one page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medseg.core.files import read_json
from medseg.core.stage import Artifact, stage
from medseg.data.ingested import read_ingested
from medseg.evaluation.report.context import ReportContext
from medseg.evaluation.report.gallery import overlay_of
from medseg.evaluation.report.looked import Looked, looked_of
from medseg.evaluation.report.overlays import Overlay
from medseg.evaluation.report.page import render_report
from medseg.imaging.image import read_image, read_mask
from medseg.imaging.labels import Labels

INGESTED, MASK, LOOKED, SOURCE = "ingest/", "mask/", "looked/", "source/"
EXPLAINED = "explain.json"
"""What the stage ``explain`` says of the maps in its folder."""


@stage(version=3)
def report(item: Mapping[str, Artifact], *, content: Mapping[str, Any], labels: Labels, out: Path) -> None:
    """Write ``index.html``, and beside it what it was made of (for ``medseg report``).

    Parameters
    ----------
    item : mapping
        The cases with pictures: ``ingest/<case>`` -> ingested artifact, and ``mask/<case>`` ->
        artifact with ``mask.nii.gz`` (absent when there is no prediction). Cases that were explained:
        ``looked/<case>`` -> artifact of the stage ``explain``, ``source/<case>`` -> ingested artifact.
    content : mapping
        Fields of `ReportContext` (rows, summary, facts, cohort, ...) as plain values; histories as CSV text.
    labels : Labels
    """
    by_case: dict[str, list[Any]] = {}
    for row in content["rows"]:
        by_case.setdefault(row["case"], []).append(row)
    cases = [name.removeprefix(INGESTED) for name in item if name.startswith(INGESTED)]
    ignore = content["summary"].get("scoring", {}).get("ignore")
    overlays = tuple(_overlay(case, item, by_case.get(case, []), labels, ignore) for case in cases)
    explained = [name.removeprefix(LOOKED) for name in item if name.startswith(LOOKED)]
    looked = tuple(
        one for case in explained for one in looked_at(item[LOOKED + case], item[SOURCE + case], labels)
    )
    render_report(ReportContext(**content, labels=labels, overlays=overlays, looked=looked), out)


def looked_at(explained: Artifact, ingested: Artifact, labels: Labels) -> list[Looked]:
    """The maps of one case as the report shows them."""
    raw, told = read_ingested(ingested.path), read_json(explained / EXPLAINED)
    return [
        looked_of(told["case"], raw.image, read_image(explained / one["file"]), one, raw.mask, labels)
        for one in told["maps"]
    ]


def _overlay(
    case: str, item: Mapping[str, Artifact], rows: list[Any], labels: Labels, ignore: int | None
) -> Overlay:
    raw, masked = read_ingested(item[INGESTED + case].path), item.get(MASK + case)
    mask = None if masked is None else read_mask(masked / "mask.nii.gz")
    return overlay_of(case, raw.image, raw.mask, mask, rows, labels, ignore)
