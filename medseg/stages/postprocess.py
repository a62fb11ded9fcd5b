"""Stage ``postprocess``: a predicted mask -> the mask after the mask steps."""

from __future__ import annotations

from pathlib import Path

from medseg.core.stage import Artifact, stage
from medseg.imaging.image import read_mask, write_image
from medseg.imaging.masks import Postprocessing, apply_steps


@stage(version=1)
def postprocess(predicted: Artifact, *, postprocessing: Postprocessing, out: Path) -> None:
    """Write ``mask.nii.gz``: the predicted mask after `postprocessing.steps`, on the same grid."""
    mask = read_mask(predicted / "mask.nii.gz")
    write_image(apply_steps(mask, postprocessing.steps), out / "mask.nii.gz")
