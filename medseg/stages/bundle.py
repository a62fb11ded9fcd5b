"""Stage ``bundle``: an ingested case and a MONAI bundle -> ``mask.nii.gz``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medseg.core.stage import Artifact, stage
from medseg.data.ingested import read_ingested
from medseg.data.reading import image_file
from medseg.imaging.image import write_image

_open: dict[tuple[str, str, bool], Any] = {}
"""The bundle last used: one entry, so that a run loads it once."""


@stage(version=1, ignore=("device",), in_process=True)
def bundle(item: tuple[Artifact, Artifact], *, device: str = "auto", trust: bool = False, out: Path) -> None:
    """Predict one case by the bundle's own configuration.

    Parameters
    ----------
    item : (ingested, bundle)
    trust : bool
        Whether code in the configuration may run.
    """
    from medseg.learning.bundle_use import open_bundle

    ingested, folder = item
    key = (folder.digest, device, trust)
    if key not in _open:
        _open.clear()
        _open[key] = open_bundle(folder.path, device, trust=trust)
    case = read_ingested(ingested.path, with_mask=False)
    files = [image_file(ingested.path, name, case.channels) for name in case.channels]
    write_image(_open[key].segment(files, case.image), out / "mask.nii.gz")
