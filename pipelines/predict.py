"""A trained model on new images: a mask a case, on the case's own grid, and DICOM SEG when asked.

    python pipelines/predict.py model=runs/hippocampus/train/fold0/model src=new_images out=predictions

Reads   a model folder; a NIfTI file, a folder of cases or a DICOM study
Writes  OUT/<case>.nii.gz (and <case>.seg.dcm), OUT/report.json
"""

from __future__ import annotations

import sys

from medseg import workflows as flow
from medseg.cli import launch
from medseg.core.run import Run
from medseg.core.values import Value
from medseg.imaging.masks import Postprocessing
from medseg.learning.settings import Prediction
from medseg.workflows.outcome import Outcome


class Settings(Value):
    """What to predict with which model."""

    name: str = "predict"
    model: str
    src: str
    out: str
    formats: tuple[str, ...] = ("nifti",)
    prediction: Prediction = Prediction()
    postprocessing: Postprocessing | None = None


def main(settings: Settings, run: Run, device: str) -> Outcome:
    """Every case of `src` through the model."""
    given = settings.model_dump(include={"formats"})
    how = {"prediction": settings.prediction, "postprocessing": settings.postprocessing}
    return flow.predict(
        settings.model, settings.src, settings.out, device=device, quiet=run.quiet, **given, **how
    )


if __name__ == "__main__":
    sys.exit(launch(main, Settings))
