"""Results in the forms other systems read: DICOM SEG of masks, bundles of models."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from medseg.core.run import Run
from medseg.core.stage import Artifact
from medseg.workflows.journey import Ingested


def export_seg(
    run: Run, raw: Ingested, masks: Mapping[str, Artifact], cases: Collection[str] | None = None
) -> Mapping[str, Artifact]:
    """DICOM SEG of each mask, on the series it was made from: ``export/<case>/<case>.seg.dcm``.

    Identity is read from the original headers here, and only here.
    """
    from medseg.stages.export import export

    chosen = [c for c in masks if cases is None or c in set(cases)]
    items = {c: (masks[c], raw.cohort[c]) for c in chosen}
    return run.map(export, items, labels=raw.cohort.labels)
