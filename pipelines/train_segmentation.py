"""Train a segmentation model and judge it on patients it has not seen: the whole road, a call a step.

    python pipelines/train_segmentation.py configs/segmentation/hippocampus_3d.yaml --run runs/hippocampus

Reads   images and references of the cohort the recipe names
Writes  RUN/{ingest,prepare,train,predict,postprocess,score,report}, plan.yaml, scores.csv, summary.json
"""

from __future__ import annotations

import sys

from medseg import workflows as flow
from medseg.cli import launch
from medseg.core.run import Run
from medseg.workflows.outcome import Outcome
from medseg.workflows.settings import TrainSettings


def main(settings: TrainSettings, run: Run, device: str) -> Outcome:
    """Ingest -> plan -> prepare -> train -> predict -> postprocess -> score -> report."""
    cohort = flow.open_cohort(settings.cohort, settings.task, run.quiet)
    split = cohort.split(settings.split.test, settings.split.folds, settings.split.seed)

    raw = flow.ingest_all(run, cohort, settings.ingest)
    flow.audit_cases(run, raw)
    seen = raw.outside(split.test)  # the test part stays locked away from every choice
    plan = flow.make_plan(run, seen, **settings.choices(device))
    prepared = flow.prepare_all(run, seen, plan)

    models = flow.train_folds(
        run, prepared, split, plan, settings.training, device=device, tracking=settings.watch()
    )
    judges = flow.held_out(split, models, settings.split.judges_test())
    predicted = flow.predict_cases(run, raw, judges, settings.prediction, device)
    masks = flow.postprocess_all(run, raw, predicted, settings.postprocessing)
    scores = flow.score_all(run, raw, masks, judges, settings.scoring)
    return flow.report_training(run, raw, split, plan, settings, masks, scores)


if __name__ == "__main__":
    sys.exit(launch(main, TrainSettings))
