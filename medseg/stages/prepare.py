"""Stage ``prepare``: an ingested case -> arrays on the plan's grid that training maps into memory.

Writes ``image.npy`` (float16 ``[C, I, J, K]``), ``reference.npy`` (uint8 class indices, when there is a
reference), ``foreground.npy`` (some voxels of each label) and ``prepared.json``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from medseg.core.errors import CaseError
from medseg.core.files import write_json, written_whole
from medseg.core.stage import Artifact, stage
from medseg.data.classes import classes_of
from medseg.data.ingested import IngestedCase, read_ingested
from medseg.data.plan import Preparation
from medseg.data.prepare import foreground_voxels, prepare_pair
from medseg.data.seen import voxel_digests
from medseg.imaging.image import Image

_LARGEST = float(np.finfo(np.float16).max)


@stage(version=4)
def prepare(ingested: Artifact, *, preparation: Preparation, out: Path) -> None:
    """Normalise and resample one case; the line itself is `medseg.data.prepare.prepare`."""
    case = read_ingested(ingested.path)
    image, mask = prepare_pair(case.image, case.mask, preparation)
    _save(out / "image.npy", np.clip(image.array, -_LARGEST, _LARGEST).astype(np.float16))
    if mask is not None:
        _save(out / "reference.npy", mask.array[0])
        _save(out / "foreground.npy", foreground_voxels(mask.array[0]))
    write_json(out / "prepared.json", _facts(case, image, mask, preparation))


def _facts(case: IngestedCase, image: Image, mask: Image | None, preparation: Preparation) -> dict[str, Any]:
    found = case.source.get("label_class")
    named = classes_of(found)
    places = {name: place for place, name in enumerate(preparation.classes)}
    strange = [name for name in named if name not in places]
    if preparation.classes and strange:
        raise CaseError("the case has a class the plan does not know", evidence=f"'{strange[0]}'")
    counts = (
        [] if mask is None else np.bincount(mask.array.ravel(), minlength=len(preparation.label_values) + 1)
    )
    return {
        "case": case.source["case"],
        "patient": case.source["patient"],
        "voxels_sha256": voxel_digests(case.image),
        "grid": {"shape": list(image.grid.shape), "affine": image.grid.affine.tolist()},
        "source_grid": {"shape": list(case.image.grid.shape), "affine": case.image.grid.affine.tolist()},
        "label_class": found,
        "class_indices": None if found is None else [places[n] for n in named if n in places],
        "voxels": [int(n) for n in counts[: len(preparation.label_values) + 1]],
    }


def _save(file: Path, array: np.ndarray) -> None:
    with written_whole(file) as beside:
        np.save(beside, array, allow_pickle=False)
