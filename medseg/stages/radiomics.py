"""Stage ``radiomics``: an ingested case -> ``radiomics/<case>/features.json``."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from medseg.core.files import write_json
from medseg.core.stage import Artifact, stage
from medseg.data.ingested import read_ingested
from medseg.data.prepare import above_lowest, region_of
from medseg.data.radiomics import radiomics as measure


@stage(version=1)
def radiomics(ingested: Artifact, *, region: str, margin_mm: float, out: Path) -> None:
    """Measure shape and grey values of what the plan looks at, on the image's own grid."""
    case = read_ingested(ingested.path)
    looked_at = region, margin_mm, case.channels
    image, mask = region_of(case.image, case.mask, *looked_at), case.mask
    if region in case.channels:
        mask = image.but(above_lowest(image.array[[case.channels.index(region)]]).astype(np.uint8))
    elif mask is not None:
        mask = region_of(mask, mask, *looked_at)
    write_json(
        out / "features.json",
        {
            "case": case.source["case"],
            "patient": case.source["patient"],
            "label_class": case.source.get("label_class"),
            "features": measure(image, mask, case.channels),
        },
    )
