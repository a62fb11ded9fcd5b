"""Stage ``explain``: an ingested case, its prediction and models -> maps of where the models looked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medseg.core.errors import CaseError
from medseg.core.files import read_json, write_json
from medseg.core.stage import Artifact, stage
from medseg.data.ingested import IngestedCase, read_ingested
from medseg.imaging.image import Image, read_mask, write_image
from medseg.learning.settings import Explaining

NAME = "explain.json"


@stage(version=1, ignore=("device",), in_process=True)
def explain(item: tuple[Artifact, ...], *, explaining: Explaining, device: str = "auto", out: Path) -> None:
    """Write ``<method>_<target>.nii.gz``, float32 0..1 on the image's grid, and ``explain.json``.

    Parameters
    ----------
    item : tuple of Artifact
        The ingested case, its prediction (``mask.nii.gz`` of a segmenter), then the model folders.
    explaining : Explaining
        Method, targets and the check; see `medseg.learning.explain.explain`.

    Raises
    ------
    CaseError
        The case cannot be prepared, or has no reference where its region is asked about.
    """
    from medseg.learning.explain import explain as look
    from medseg.learning.model import open_models

    ingested, predicted, *folders = item
    models = open_models([folder.path for folder in folders], device)
    case = read_ingested(ingested.path)
    region = _region(case, predicted, explaining) if models.task == "segmentation" else None
    found = look(models, case.image, explaining, region=region, mask=case.mask)
    maps = []
    for one in found:
        file = one.file if one.file not in {m["file"] for m in maps} else f"{len(maps)}_{one.file}"
        write_image(one.map, out / file)
        maps.append({**one.facts, "file": file})
    remark = "" if maps else "nothing of what was asked about is in the mask: there is nothing to explain"
    write_json(out / NAME, {"case": case.source["case"], "maps": maps, "remark": remark})


def read_explained(artifact: Artifact) -> dict[str, Any]:
    """What the stage has written of a case: ``case``, ``maps`` (facts of each, with its file), ``remark``."""
    return dict(read_json(artifact / NAME))


def _region(case: IngestedCase, predicted: Artifact, explaining: Explaining) -> Image:
    if explaining.region == "predicted":
        return read_mask(predicted / "mask.nii.gz")
    if case.mask is None:
        raise CaseError(
            "the case has no reference to ask about", mend="take explain.region=predicted, or give one"
        )
    return case.mask
