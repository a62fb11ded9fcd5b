"""Stage ``voxels``: an ingested case -> digests of its values: proof that nobody trained on it."""

from __future__ import annotations

from pathlib import Path

from medseg.core.files import read_json, write_json
from medseg.core.stage import Artifact, stage
from medseg.data.ingested import read_ingested
from medseg.data.seen import voxel_digests

NAME = "voxels.json"


@stage(version=1)
def voxels(ingested: Artifact, *, out: Path) -> None:
    """Write ``voxels.json``: a digest of each channel."""
    write_json(out / NAME, voxel_digests(read_ingested(ingested.path, with_mask=False).image))


def read_voxels(artifact: Artifact) -> list[str]:
    """What the stage has written."""
    return list(read_json(artifact / NAME))
