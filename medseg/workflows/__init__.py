"""The journeys: data -> preprocessing -> model -> cross-validation, as plain calls.

Names are loaded when first used, so that reading a configuration never pays for torch.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOME = {
    "open_cohort": "medseg.workflows.opening",
    "ingest_all": "medseg.workflows.journey",
    "make_plan": "medseg.workflows.journey",
    "prepare_all": "medseg.workflows.journey",
    "train_folds": "medseg.workflows.training",
    "held_out": "medseg.workflows.training",
    "predict_cases": "medseg.workflows.training",
    "postprocess_all": "medseg.workflows.training",
    "score_all": "medseg.workflows.training",
    "cross_validate": "medseg.workflows.training",
    "report_training": "medseg.workflows.reporting",
    "explain": "medseg.workflows.explaining",
    "explain_cases": "medseg.workflows.explaining",
    "export": "medseg.workflows.exporting",
    "export_objects": "medseg.workflows.exporting",
    "train": "medseg.workflows.training",
    "sweep": "medseg.workflows.sweeping",
    "adapt": "medseg.workflows.adapting",
    "probe": "medseg.workflows.probing",
    "predict": "medseg.workflows.predicting",
    "evaluate": "medseg.workflows.judging",
    "validate": "medseg.workflows.validating",
    "compare": "medseg.workflows.judging",
    "redraw": "medseg.workflows.redrawing",
    "audit_cases": "medseg.workflows.looking",
    "demo": "medseg.workflows.demo",
    "pull": "medseg.workflows.pacs",
    "push": "medseg.workflows.pacs_push",
    "listen": "medseg.workflows.listening",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'medseg.workflows' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(_HOME)
