"""The run a model comes from: which images lay open to its training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medseg.core.files import read_json
from medseg.data.ingested import read_ingested
from medseg.data.seen import seen_record, voxel_digests


def seen_in_run(place: Path, folders: Sequence[Path]) -> dict[str, Any]:
    """Digests of all cases that were prepared for training in a run; empty where there is no such run.

    Parameters
    ----------
    place : path
        Run folder, or a folder in one.
    folders : sequence of path
        Model folders, for finding their run.

    Notes
    -----
    The test part of a run is never prepared, so a case found here may have been trained on or served to
    choose the model: either way it is no test case.
    """
    for start in (place, *folders):
        for root in (start, *list(start.resolve().parents)[:4]):
            if (root / "cohort.json").is_file() and (root / "prepare").is_dir():
                return seen_record(_prepared(root), f"run {root.name}")
    return {}


def _prepared(root: Path) -> list[dict[str, Any]]:
    """``patient`` and ``voxels_sha256`` of every prepared case."""
    found = []
    for folder in sorted((root / "prepare").iterdir()):
        if not (folder / "prepared.json").is_file():
            continue
        facts = read_json(folder / "prepared.json")
        digests = facts.get("voxels_sha256")
        if not digests:
            ingested = root / "ingest" / folder.name
            there = (ingested / "source.json").is_file()
            digests = voxel_digests(read_ingested(ingested, with_mask=False).image) if there else []
        found.append({"patient": facts["patient"], "voxels_sha256": digests})
    return found
