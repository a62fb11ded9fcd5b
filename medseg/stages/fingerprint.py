"""Stage ``fingerprint``: an ingested case -> ``fingerprint/<case>/fingerprint.json``."""

from __future__ import annotations

from pathlib import Path

from medseg.core.files import read_json, write_json
from medseg.core.stage import Artifact, stage
from medseg.core.values import validated
from medseg.data.fingerprint import CaseFingerprint
from medseg.data.fingerprint import fingerprint as look_at
from medseg.data.ingested import read_ingested

NAME = "fingerprint.json"


@stage(version=3)
def fingerprint(ingested: Artifact, *, label_values: tuple[int, ...], out: Path) -> None:
    """Measure one case: shape, spacing, intensities, foreground."""
    case = read_ingested(ingested.path)
    found = look_at(
        case.image,
        case.mask,
        channels=case.channels,
        label_values=label_values,
        case=case.source["case"],
        modality=case.source.get("modality"),
        label_class=case.source.get("label_class"),
    )
    write_json(out / NAME, found.model_dump(mode="json"))


def read_fingerprint(artifact: Artifact) -> CaseFingerprint:
    """What the stage has written."""
    return validated(CaseFingerprint, read_json(artifact / NAME))
