"""medseg: from the hospital's DICOM to a validated model and back, in one tool.

>>> import medseg as ms
>>> [label.name for label in ms.labels(kidney=1)]
['kidney']

Names are loaded when they are first used: ``import medseg`` costs milliseconds and needs no torch.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

from medseg.core.version import __version__ as __version__

# Set before anything of MONAI or MLflow is imported: both report home otherwise.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "true")

_HOME = {
    "Cohort": "medseg.data.cohort",
    "Image": "medseg.imaging.image",
    "Grid": "medseg.imaging.grid",
    "Label": "medseg.imaging.labels",
    "Model": "medseg.learning.model",
    "Plan": "medseg.data.plan",
    "Run": "medseg.core.run",
    "Scores": "medseg.evaluation.scoring",
    "Scoring": "medseg.evaluation.policy",
    "Training": "medseg.learning.settings",
    "MedsegError": "medseg.core.errors",
    "adapt": "medseg.workflows",
    "cross_validate": "medseg.workflows",
    "evaluate": "medseg.workflows",
    "ingest_all": "medseg.workflows",
    "labels": "medseg.imaging.labels",
    "make_plan": "medseg.workflows",
    "predict": "medseg.workflows",
    "probe": "medseg.workflows",
    "read_image": "medseg.imaging.image",
    "read_mask": "medseg.imaging.image",
    "sweep": "medseg.workflows",
    "train": "medseg.workflows",
    "write_image": "medseg.imaging.image",
}

__all__ = sorted([*_HOME, "__version__"])  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'medseg' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*_HOME, "__version__"])


if TYPE_CHECKING:
    from medseg.core.errors import MedsegError as MedsegError
    from medseg.core.run import Run as Run
    from medseg.data.cohort import Cohort as Cohort
    from medseg.data.plan import Plan as Plan
    from medseg.imaging.grid import Grid as Grid
    from medseg.imaging.image import Image as Image
    from medseg.imaging.image import read_image as read_image
    from medseg.imaging.image import read_mask as read_mask
    from medseg.imaging.image import write_image as write_image
    from medseg.imaging.labels import Label as Label
    from medseg.imaging.labels import labels as labels
