"""Train a classifier on whole images or volumes and judge it on patients it has not seen.

    python pipelines/train_classifier.py configs/classification/volumes_3d.yaml cohort.root=manifest.csv

Reads   images and classes of the cohort the recipe names
Writes  RUN/{ingest,prepare,train,predict,score,report}, plan.yaml, scores.csv, summary.json
"""

from __future__ import annotations

import sys

from medseg import workflows as flow
from medseg.cli import launch
from medseg.core.run import Run
from medseg.workflows.outcome import Outcome
from medseg.workflows.settings import TrainSettings


def main(settings: TrainSettings, run: Run, device: str) -> Outcome:
    """The road of segmentation with another task: the plan picks network, loss and metric."""
    return flow.train(settings.but(task="classification"), run, device)


if __name__ == "__main__":
    sys.exit(launch(main, TrainSettings))
